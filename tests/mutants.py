"""Plant bugs, one at a time, and count how many of them the tests catch.

    python tests/mutants.py                       all bugs of the list below
    python tests/mutants.py dqn.py common/runs.py those in these files
    python tests/mutants.py --tool 150 --seed 1   150 changes drawn from all that cosmic-ray knows
                                                  (pip install cosmic-ray)
    python tests/mutants.py --only "decay"        those whose description holds this
    python tests/mutants.py --check               plants nothing: does each entry still fit its file?

A bug is a piece of a file and what stands there instead. The tests of that file run on a copy of
the tree with the bug in it, up to the first that fails. Learning tests stay out: what only they
catch counts as missed, and so does the page's and the pseudocode's comparison of texts. Each run is
a fork of this process, which has the libraries loaded already; so this runs on Linux and macOS.
The result is written down in tests/README.md.
"""

from __future__ import annotations

import argparse
import builtins
import collections
import dis
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AROUND = ["runs", "what_is_drawn", "envs", "pictures", "command_line"]
FORMULAS = ["defaults", "gradients", "runs", "against_exact_values", "randomness", "episode_ends"]
FORMULAS += ["faults", "envs"]
ONE = "not (dqn or reinforce or actor_critic or ddpg or a3c or ppo)"  # one script is enough there
# file -> the tests that look at it, the fast ones first, and pytest's -k
TESTS = {
    "qlearning_table.py": (FORMULAS, "qlearning"),
    "dqn.py": (FORMULAS, "dqn"),
    "reinforce.py": (FORMULAS, "reinforce or baseline"),
    "actor_critic.py": (FORMULAS, "actor_critic"),
    "ddpg.py": (FORMULAS, "ddpg or noise"),
    "a3c.py": (FORMULAS, "a3c"),
    "ppo.py": (FORMULAS, "ppo"),
    "common/runs.py": (AROUND, ONE),
    "common/envs.py": (["envs", *AROUND], ONE),
    "common/plotting.py": (["what_is_drawn", "pictures", "runs"], ONE),
    "docs/plane.py": (["what_is_drawn", "pictures"], ONE),
    "docs/compare.py": (["what_is_drawn", "pictures"], ONE),
}
LIMIT = 240  # seconds for one run: a bug after which the tests never end is caught, too

# file -> bugs, each: what is wrong, a piece of the file (which it must hold exactly once), what stands
# there instead. In each list first those that were written without looking at the tests, then what
# applies still of an older list; then bugs in what is new since, by who wrote the tests, too; last
# those of a third list, written without looking at the tests, as far as no other list has them.
# fmt: off
BUGS = {
    "qlearning_table.py": [
        ("the decay counts from 1, so that the first episode is not fully random", "1 - (episode - 1) / episodes", "1 - episode / episodes"),
        ("the decay counts steps in place of episodes", "1 - (episode - 1) / episodes", "1 - step / steps"),
        ("--literal leaves the decay on", "epsilon=0.1, epsilon_decay=False)", "epsilon=0.1, epsilon_decay=True)"),
        ("one step beyond the budget", "while step < steps", "while step <= steps"),
        ("all episodes begin alike", "seed=seed if episode == 1 else None", "seed=seed"),
        ("what the user gives loses against --literal", "(LITERAL if literal else {}) | given", "given | (LITERAL if literal else {})"),
        ("ties to the last action", "best[rng.integers(len(best))]", "best[-1]"),
        ("on_episode gets the episode in place of the step", "info[\"episode\"][\"l\"], step)", "info[\"episode\"][\"l\"], episode)"),
        ("evaluation takes the worst action", "Q[S].argmax()", "Q[S].argmin()"),
        ("actions that do not count from 0", "int(a + actions.start)", "int(a)"),
        ("parts of a state that do not count from 0", "(s - starts, sizes)", "(np.array(s), sizes)"),
        ("the first part of a state counts fastest", "(s - starts, sizes)", "(s - starts, sizes, order=\"F\")"),
        # of the older list
        ("min for max", "Q[S_next].max()", "Q[S_next].min()"),
        ("gamma forgotten", "R + gamma * Q", "R + Q"),
        ("bootstrap through a terminal state", "* (not terminated)", "* 1"),
        ("no bootstrap at a time limit", "* (not terminated)", "* (not terminated and not truncated)"),
        ("S is never advanced", "            S = S_next\n", "            S = S\n"),
        ("argmin for argmax", "values == values.max()", "values == values.min()"),
        ("ties always to the first", "best[rng.integers(len(best))]", "best[0]"),
        ("the value of S in place of S'", "gamma * Q[S_next]", "gamma * Q[S]"),
        # of a third list, written without looking at the tests
        ("a random action is never the last one", "A = rng.integers(n_actions) if", "A = rng.integers(n_actions - 1) if"),
    ],
    "dqn.py": [
        ("gamma^n also where fewer rewards were summed", "self.gamma ** len(self.recent)", "self.gamma ** self.recent.maxlen"),
        ("n-step rewards are not discounted", "self.gamma**k * r", "r"),
        ("n-step sums run across a time limit", "(done and self.recent)", "(terminated and self.recent)"),
        ("Huber in place of the square", "(y - q).square().mean()", "nn.functional.smooth_l1_loss(q, y)"),
        ("learning starts a transition late", "D.stored < batch", "D.stored <= batch"),
        ("tau the wrong way round", "p_target.lerp_(p, tau)", "p_target.lerp_(p, 1 - tau)"),
        ("a full memory overwrites its last place only", "self.stored % len(self.numbers)", "min(self.stored, len(self.numbers) - 1)"),
        ("only recent transitions are sampled", "rng.integers(min(self.stored, len(self.numbers)), size=batch)", "rng.integers(min(self.stored, len(self.numbers)) // 2, min(self.stored, len(self.numbers)), size=batch)"),
        ("D keeps done in place of terminated", "D.store(state, action, reward, next_state, terminated, done)", "D.store(state, action, reward, next_state, done, done)"),
        ("--literal trains at every fourth step only", "batch=32, train_every=1, n_steps=1", "batch=32, n_steps=1"),
        ("the target network starts with other weights", "copy.deepcopy(q_network)", "QNetwork(shape, n_actions, hidden)"),
        # of the older list
        ("terminal and non-terminal exchanged", "(1 - terminated_j)", "terminated_j"),
        ("bootstrap through a terminal state", "* (1 - terminated_j)", "* 1"),
        ("soft update the wrong way round", "zip(theta_target, theta, strict=True)", "zip(theta, theta_target, strict=True)"),
        ("the target network never moves", "p_target.lerp_(p, tau)", "pass"),
        ("gradients pile up", "optimizer.zero_grad()", "pass  # gradients pile up"),
        ("ring overwrites one place", "j = self.stored % len(self.numbers)", "j = 0"),
        # for what is new since
        ("rewards are scaled under --literal, too", "n_steps=1, scale_rewards=False)", "n_steps=1)"),
        ("rewards are scaled twice", "max(1 - gamma, 1e-3) * float(r)", "max(1 - gamma, 1e-3) ** 2 * float(r)"),
        ("scaled returns are reported", "gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))", "prepare(gym.wrappers.TransformReward(env.unwrapped, lambda r: max(1 - gamma, 1e-3) * float(r)))"),
        ("with gamma = 1 all rewards are 0", "max(1 - gamma, 1e-3) * float(r)", "(1 - gamma) * float(r)"),
        ("the columns of state and next state are exchanged", "self.states[j], self.next_states[j] = state, next_state", "self.states[j], self.next_states[j] = next_state, state"),
        ("terminated and gamma^n are exchanged", "terminated_j, gamma_j = D.sample", "gamma_j, terminated_j = D.sample"),
        ("keepdim is missing: y - q is (batch, batch)", "amax(dim=1, keepdim=True)", "amax(dim=1)"),
        ("the newest step is taken out in place of the oldest", "self.recent.popleft()", "self.recent.pop()"),
        # of a third list, written without looking at the tests
        ("ring one short: its last place is never written, but sampled once the memory is full", "self.stored % len(self.numbers)", "self.stored % max(1, len(self.numbers) - 1)"),
        ("the target network is the same object as Q: tau has no effect", "copy.deepcopy(q_network)", "q_network"),
        ("a target network by default and under --literal", "tau: float = 1.0,", "tau: float = 0.01,"),
        # of images
        ("D does not keep the image, but what the environment later writes into it", "return torch.tensor(observation)", "return torch.from_numpy(observation)"),
        ("a second copy of each state stands in D", "= state, next_state\n", "= state, next_state.clone()\n"),
        ("pixels are not divided by 255", "states / 255 if", "states / 1 if"),
        ("tanh after the convolutions: soon flat", "hidden), nn.ReLU()])", "hidden), nn.Tanh()])"),
        ("images are flattened at the door", "if seen.dtype != np.uint8 or len(seen.shape) != 3 or min(seen.shape[1:]) < 5:", "if True:"),
    ],
    "reinforce.py": [
        ("the policy begins with preferences", "self.layers[-1].weight.data.mul_(0.01)", "pass"),
        ("pixels are not divided by 255", "states / 255 if", "states / 1 if"),
        ("tanh after the convolutions: soon flat", "hidden), nn.ReLU()])", "hidden), nn.Tanh()])"),
        ("log pi of the clipped action", "actions.append(action)", "actions.append(action if action.dtype == np.int64 else action.clip(-1, 1))"),
        ("the state before the last is bootstrapped", "values[-1].item()", "values[-2].item()"),
        ("bootstrap without a baseline", "if baseline and not terminated", "if not terminated"),
        ("no bootstrap at a time limit", "values[-1].item() if", "0.0 if"),
        ("the baseline of the next state", "v - values[:-1].detach()", "v - values[1:].detach()"),
        ("the weight carries a gradient into V", "v - values[:-1].detach()", "v - values[:-1]"),
        ("V's loss is a sum", "(v - values[:-1]).square().mean()", "(v - values[:-1]).square().sum()"),
        ("the weights are normalised", "loss = -(log_pi * weight).sum()", "loss = -(log_pi * (weight - weight.mean())).sum()"),
        ("alpha and beta exchanged", "lr=alpha), dict(params=V.parameters(), lr=beta)", "lr=beta), dict(params=V.parameters(), lr=alpha)"),
        ("evaluation samples", "policy(state).mode", "policy(state).sample()"),
        ("actions are not rescaled to an upper bound", "np.where(np.isinf(box.high), box.high, 1)", "np.where(np.isinf(box.high), box.high, box.high)"),
        ("the actions of a Box share one density", "self.log_std.exp(), validate_args=False), 1)", "self.log_std.mean().exp(), validate_args=False), 1)"),
        # of the older list
        ("gamma forgotten", "rewards[t] + gamma * later", "rewards[t] + later"),
        ("returns summed forwards", "for t in reversed(range(len(rewards))):", "for t in range(len(rewards)):"),
        ("gradients pile up", "optimizer.zero_grad()", "pass  # gradients pile up"),
        ("last step dropped", "for t in reversed(range(len(rewards))):", "for t in reversed(range(len(rewards) - 1)):"),
        # for what is new since
        ("rewards are scaled under --literal, too", "scale_rewards=False, ", ""),
        ("rewards are scaled always", "if scale_rewards:", "if True:"),
        ("scaled returns are reported", "gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))", "prepare(gym.wrappers.TransformReward(env.unwrapped, lambda r: max(1 - gamma, 1e-3) * float(r)))"),
        ("with gamma = 1 all rewards are 0", "max(1 - gamma, 1e-3) * float(r)", "(1 - gamma) * float(r)"),
        ("V keeps its last axis: v - V is (T-1, T-1)", "nn.Linear(hidden, 1), flat)", "nn.Linear(hidden, 1))"),
        # of a third list, written without looking at the tests
        ("--beta has no effect", "dict(params=V.parameters(), lr=beta)", "dict(params=V.parameters(), lr=alpha)"),
        ("off by one: V of the next state is fitted to v_t", "(v - values[:-1]).square().mean()", "(v - values[1:]).square().mean()"),
        ("log_prob of a Box action is not summed over its dimensions", "return Independent(Normal(outputs, self.log_std.exp(), validate_args=False), 1)", "return Normal(outputs, self.log_std.exp(), validate_args=False)"),
    ],
    "actor_critic.py": [
        ("pixels are not divided by 255", "states / 255 if", "states / 1 if"),
        ("tanh after the convolutions: soon flat", "hidden), nn.ReLU()])", "hidden), nn.Tanh()])"),
        ("real values run across a time limit", "if not done_t[t]", "if not terminated_t[t]"),
        ("no bootstrap at a time limit", "gamma * (1 - terminated_t) * best", "gamma * (1 - done_t) * best"),
        ("the mean of Q over actions, not under pi", "(log_pi.exp() * Q).sum(dim=1).detach()", "Q.mean(dim=1).detach()"),
        ("the advantage's mean carries a gradient", "(log_pi.exp() * Q).sum(dim=1).detach()", "(log_pi.exp() * Q).sum(dim=1)"),
        ("the advantage of Q in place of the real value", "weight = y - ", "weight = Q_t.detach() - "),
        ("the next step's max in place of its real value", "r[t] + gamma * y[t + 1]", "r[t] + gamma * best[t + 1]"),
        ("the actor's loss is a sum", "log_pi.gather(1, a).squeeze(1)).mean()", "log_pi.gather(1, a).squeeze(1)).sum()"),
        ("--literal updates after two steps", "beta=1e-2, batch=1", "beta=1e-2, batch=2"),
        ("the value of pi is the max", "(actor(state).softmax(-1) * critic(state)).sum()", "critic(state).max()"),
        ("steps of an update are kept for the next", "transitions.clear()", "del transitions[:-1]"),
        ("rewards are scaled under --literal, too", "adam=False, scale_rewards=False", "adam=False"),
        ("rewards are scaled always", "if scale_rewards:", "if True:"),
        ("with gamma = 1 all rewards are 0", "max(1 - gamma, 1e-3) * float(r)", "(1 - gamma) * float(r)"),
        ("scaled returns are reported", "gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))", "prepare(gym.wrappers.TransformReward(env.unwrapped, lambda r: max(1 - gamma, 1e-3) * float(r)))"),
        # of the older list
        ("min for max", "amax(dim=1)", "amin(dim=1)"),
        ("log forgotten", "log_pi = actor(s).log_softmax(dim=1)", "log_pi = actor(s).softmax(dim=1)"),
        ("mean of Q without pi", "(log_pi.exp() * Q).sum(dim=1)", "Q.sum(dim=1)"),
        # for what is new since
        ("small observations are not stretched", "np.maximum(-low, high).clip(1e-3, 1)", "np.maximum(-low, high).clip(1, 1)"),
        ("large observations are shrunk, too", "np.maximum(-low, high).clip(1e-3, 1)", "np.maximum(-low, high).clip(1e-3)"),
        # of a third list, written without looking at the tests
        ("--no-advantage (and --literal) weights log pi with the real value", "weight = Q_t.detach()", "weight = y"),
        ("all episodes begin alike", "seed=seed if episode == 1 else None", "seed=seed"),
        ("what the user gives loses against --literal", "(LITERAL if literal else {}) | given", "given | (LITERAL if literal else {})"),
        ("softmax over the batch in place of the actions", "log_pi = actor(s).log_softmax(dim=1)", "log_pi = actor(s).log_softmax(dim=0)"),
        ("the value of a state weights Q with logits", "(actor(state).softmax(-1) * critic(state)).sum()", "(actor(state) * critic(state)).sum()"),
        ("torch gets seed 0 whatever --seed says", "torch.manual_seed(seed)", "torch.manual_seed(0)"),
    ],
    "ddpg.py": [
        ("the noise is not restarted", "N = OrnsteinUhlenbeck(n_actions, sigma, rng)", "N = N if episode > 1 else OrnsteinUhlenbeck(n_actions, sigma, rng)"),
        ("all dimensions get the same noise", "standard_normal(len(self.value))", "standard_normal()"),
        ("the noise forgets at once", "self.value += -0.15 * self.value", "self.value += -1.0 * self.value"),
        ("the noise does not drift back", "-0.15 * self.value", "-0.0 * self.value"),
        ("R holds an action beyond the bounds", "action.clip(-1, 1).astype", "action.astype"),
        ("a full memory overwrites its last place only", "self.stored % len(column)", "min(self.stored, len(column) - 1)"),
        ("samples beyond what is stored", "min(self.stored, len(self.columns[0])), size", "len(self.columns[0]), size"),
        ("warm-up explores positive actions only", "rng.uniform(-1, 1, n_actions)", "rng.uniform(0, 1, n_actions)"),
        ("warm-up acts alike in all dimensions", "rng.uniform(-1, 1, n_actions)", "rng.uniform(-1, 1, 1).repeat(n_actions)"),
        ("R keeps done in place of terminated", "R.store(state, action, reward, next_state, terminated)", "R.store(state, action, reward, next_state, done)"),
        ("a lower bound that is not -1", "np.where(np.isinf(box.low), box.low, -1)", "np.where(np.isinf(box.low), box.low, box.low)"),
        ("the next state stored is the state", "R.store(state, action, reward, next_state, terminated)", "R.store(state, action, reward, state, terminated)"),
        ("learning begins one step early", "if step <= warmup:  # beyond the slide: nothing is learned", "if step < warmup:  # nothing is learned"),
        ("the learning actor in the target", "target_actor(next_state_i)", "actor(next_state_i)"),
        # of the older list
        ("the actor descends Q", "(-J).backward(", "J.backward("),
        ("gamma forgotten", "reward_i + gamma * (1", "reward_i + (1"),
        ("bootstrap through a terminal state", "gamma * (1 - terminated_i) * next_value", "gamma * next_value"),
        ("soft update the wrong way round", "zip(theta_target, theta, strict=True)", "zip(theta, theta_target, strict=True)"),
        ("the targets never move", "p_target.lerp_(p, tau)", "pass"),
        ("no target critic", "target_critic(next_state_i, target", "critic(next_state_i, target"),
        ("only the critic's target moves", "theta_target = [*target_critic.parameters(), *target_actor.parameters()]", "theta_target = [*target_critic.parameters(), *copy.deepcopy(target_actor).parameters()]"),
        ("the actor learns from old actions", "J = critic(state_i, actor(state_i)).mean()", "J = critic(state_i, action_i + 0 * actor(state_i)).mean()"),
        ("critic's gradients pile up", "critic_optimizer.zero_grad()", "pass"),
        ("the actor's sum", "actor(state_i)).mean()", "actor(state_i)).sum()"),
        ("OU drifts away", "-0.15 * self.value", "0.15 * self.value"),
        # for what is new since
        ("state and next state of a minibatch are exchanged", "state_i, action_i, reward_i, next_state_i, terminated_i =", "next_state_i, action_i, reward_i, state_i, terminated_i ="),
        ("actor and critic get each other's step size", "torch.optim.Adam(critic.parameters(), lr=beta", "torch.optim.Adam(critic.parameters(), lr=alpha"),
        ("y_i is (batch, batch)", "y = reward_i + gamma", "y = reward_i.squeeze(1) + gamma"),
        # of a third list, written without looking at the tests
        ("stored is capped at the capacity: a full memory overwrites its first place", "self.stored += 1", "self.stored = min(self.stored + 1, len(self.columns[0]))"),
    ],
    "a3c.py": [
        ("the policy begins with preferences", "self.actor[-1].weight.data.mul_(0.01)", "pass"),
        ("pixels are not divided by 255", "states / 255 if", "states / 1 if"),
        ("tanh after the convolutions: soon flat", "hidden), nn.ReLU()])", "hidden), nn.Tanh()])"),
        ("all workers draw the same actions", "torch.manual_seed(seed + 1000 * rank)", "torch.manual_seed(seed)"),
        ("all workers see the same states", "env.reset(seed=seed + 1000 * rank)", "env.reset(seed=seed)"),
        ("workers count in one place", "shared.steps[rank] += 1", "shared.steps[0] += 1"),
        ("Adam counts this worker's updates only", "self.updates.sum().item()", "self.updates[rank].item()"),
        ("T is one worker's count", "self.steps.sum().item()", "self.steps.max().item()"),
        ("theta is not shared", "theta.clone().share_memory_()", "theta.clone()"),
        ("train() returns the weights it began with", "vector_to_parameters(shared.theta, model.parameters())", "vector_to_parameters(parameters_to_vector(model.parameters()), model.parameters())"),
        ("gamma does not reach the workers", "t_max=t_max, gamma=gamma", "t_max=t_max, gamma=0.99"),
        ("each worker has a budget of its own", "shared.T > steps or", "shared.steps[rank] > steps or"),
        ("a worker goes on after the end", "shared.T > steps or shared.stop:", "shared.T > steps:"),
        ("Adam's second mean without correction", "self.v / (1 - 0.999**n)", "self.v / 1"),
        ("Adam's first mean is too short", "self.m.lerp_(d_theta, 0.1)", "self.m.lerp_(d_theta, 0.2)"),
        ("theta' is theta", "shared.theta.clone(), parameters)", "shared.theta, parameters)"),
        ("episodes after the end are counted", "if not shared.stop:", "if True:"),
        ("on_episode gets one worker's steps", "length, shared.T))", "length, shared.steps[0].item()))"),
        ("no bootstrap at a time limit", "0.0 if terminated else", "0.0 if terminated or truncated else"),
        ("only one worker of two", "if workers == 1:", "if workers <= 2:"),
        ("T passes T_max when it equals it", "shared.T > steps or", "shared.T >= steps or"),
        # of the older list
        ("Adam climbs", "value=-alpha / (1 - 0.9**n)", "value=alpha / (1 - 0.9**n)"),
        ("advantage not a constant", "error.detach()", "error"),
        ("gamma forgotten", "R = rewards[i] + gamma * R", "R = rewards[i] + R"),
        ("bootstrap at a terminal state", "R = 0.0 if terminated else values[-1].item()", "R = values[-1].item()"),
        ("no bootstrap at all", "R = 0.0 if terminated else values[-1].item()", "R = 0.0"),
        ("returns summed forwards", "for i in reversed(range(t - t_start)):", "for i in range(t - t_start):"),
        ("bootstrap from the last but one state", "else values[-1].item()", "else values[-2].item()"),
        ("t_max off by one", "t - t_start == t_max:", "t - t_start == t_max - 1:"),
        ("T counts double", "shared.steps[rank] += 1", "shared.steps[rank] += 2"),
        ("value loss forgotten", "loss = policy_loss + value_loss", "loss = policy_loss"),
        # for what is new since
        ("the step size stays", "[alpha, 0]), rank)", "[alpha, alpha]), rank)"),
        ("the step size falls by this worker's steps", "np.interp(shared.T,", "np.interp(shared.steps[rank].item(),"),
        ("shared.stop lies in one process only", "torch.zeros(1, dtype=torch.bool).share_memory_()", "torch.zeros(1, dtype=torch.bool)"),
        ("another shared.stop than the workers look at", "shared.stop[0] = bool(", "shared.stop = bool("),
        ("rewards are scaled under --literal, too", "LITERAL = dict(scale_rewards=False)", "LITERAL = dict()"),
        ("rewards are scaled always", "if scale_rewards:", "if True:"),
        ("scaled returns are reported", "gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))", "prepare(gym.wrappers.TransformReward(env.unwrapped, lambda r: max(1 - gamma, 1e-3) * float(r)))"),
        ("with gamma = 1 all rewards are 0", "max(1 - gamma, 1e-3) * float(r)", "(1 - gamma) * float(r)"),
        ("--no-scale-rewards does not reach the workers", "dict(scale_rewards=scale_rewards, ", "dict(scale_rewards=True, "),
        ("what the user gives loses against --literal", "(LITERAL if literal else {}) | given", "given | (LITERAL if literal else {})"),
        # of a third list, written without looking at the tests
        ("Adam's means lie in one process only", "torch.zeros(2, len(theta)).share_memory_()", "torch.zeros(2, len(theta))"),
        ("the length of the last stretch in place of the episode's", "info[\"episode\"][\"l\"])\n            state", "t - t_start)\n            state"),
        ("off by one: a sequence has t_max + 1 steps", "t - t_start == t_max:", "t - t_start > t_max:"),
        ("Ctrl-C on the terminal kills the workers", "signal.signal(signal.SIGINT, signal.SIG_IGN)", "signal.signal(signal.SIGINT, signal.SIG_DFL)"),
        ("Box actions are clipped as if bounds were symmetric", "a.clip(box.low, box.high)", "a.clip(-box.high, box.high)"),
    ],
    "ppo.py": [
        ("the policy begins with preferences", "self.layers[-1].weight.data.mul_(0.01)", "pass"),
        ("pixels are not divided by 255", "states / 255 if", "states / 1 if"),
        ("tanh after the convolutions: soon flat", "hidden), nn.ReLU()])", "hidden), nn.Tanh()])"),
        ("an epoch too few", "for _ in range(epochs):", "for _ in range(epochs - 1):"),
        ("the last minibatch is dropped", "torch.randperm(len(s)).split(batch)", "torch.randperm(len(s)).split(batch)[:-1]"),
        ("minibatches are not shuffled", "torch.randperm(len(s)).split(batch)", "torch.arange(len(s)).split(batch)"),
        ("all environments begin alike", "envs.reset(seed=seed)", "envs.reset(seed=[seed] * n_envs)"),
        ("later errors cross a time limit", "(1 - done[t]) * later", "(1 - terminated[t]) * later"),
        ("the next episode's first state is bootstrapped", "next_states[t, i] = info[\"final_obs\"][i]", "pass"),
        ("no bootstrap at a time limit", "(1 - terminated) * next_values", "(1 - done) * next_values"),
        ("the step size stays", "alpha * (1 - step / steps)", "alpha"),
        ("--std has no effect", "torch.full((n,), std).log()", "torch.zeros(n)"),
        ("the spread in place of its logarithm", "torch.full((n,), std).log()", "torch.full((n,), float(std))"),
        ("the rewards are not scaled", "gamma if scale_rewards else None", "None"),
        ("V's target forgets V", "target = A + torch", "target = A + 0 * torch"),
        ("beta falls when the step was right", "d < d_targ / 1.5", "d < d_targ * 1.2"),
        ("the actors' steps count once", "step += n_envs", "step += 1"),
        ("rewards are scaled with another gamma", "NormalizeReward(envs, gamma)", "NormalizeReward(envs)"),
        ("theta_old stays behind", "# [g] theta_old <- theta\n        old.load_state_dict", "# [g] theta_old <- theta\n        old.state_dict(); (lambda _: 0)"),
        ("the divergence the other way round", "kl_divergence(old(s[j]), pi)", "kl_divergence(pi, old(s[j]))"),
        ("the length of another actor's episode", "int(episode[\"l\"][i])", "int(episode[\"l\"][0])"),
        # of the older list
        ("gamma forgotten", "rewards + gamma * (1 - terminated)", "rewards + (1 - terminated)"),
        ("bootstrap through a terminal state", "gamma * (1 - terminated) * next_values", "gamma * next_values"),
        ("GAE runs on into the next episode", "gae_lambda * (1 - done[t]) * later", "gae_lambda * later"),
        ("lambda forgotten", "gamma * gae_lambda * (1", "gamma * (1"),
        ("GAE forwards", "for t in reversed(range(horizon)):", "for t in range(horizon):"),
        ("KL rewarded", "ratio * A[j] - beta", "ratio * A[j] + beta"),
        ("gradients pile up", "optimizer.zero_grad()", "pass  # gradients pile up"),
        ("one epoch", "for _ in range(epochs):", "for _ in range(1):"),
        ("loss of sum", "kl_divergence(old(s[j]), pi)).mean()", "kl_divergence(old(s[j]), pi)).sum()"),
        # for what is new since
        ("beta doubles wherever it does not halve", "elif d > 1.5 * d_targ:", "else:"),
        # of a third list, written without looking at the tests
        ("theta_old is replaced before d is measured", "        with torch.no_grad():\n            d = kl_divergence(", "        old.load_state_dict(policy.state_dict())\n        with torch.no_grad():\n            d = kl_divergence("),
        ("minibatches hold the first T of the NT samples only", "torch.randperm(len(s)).split(batch)", "torch.randperm(horizon).split(batch)"),
        ("--clip: the clipped term alone", "L = torch.minimum(ratio * A[j], ratio.clamp(1 - clip, 1 + clip) * A[j]).mean()", "L = (ratio.clamp(1 - clip, 1 + clip) * A[j]).mean()"),
    ],
    "common/runs.py": [
        ("solved before the window is full", "len(recent) == self.window and mean", "mean"),
        ("solved only above the threshold", "mean >= self.goal:", "mean > self.goal:"),
        ("the window is 100 everywhere", "self.rows[-self.window :]]\n        mean", "self.rows[-100:]]\n        mean"),
        ("solved moves on", "self.solved or self.rows[-1]", "self.rows[-1]"),
        ("length in the column of steps", "+ 1, step, seconds, float", "+ 1, length, seconds, float"),
        ("stops though it was told to go on", "bool(self.solved and self.until_solved)", "bool(self.solved)"),
        ("the summary averages the first episodes", "last = returns[-self.window :]", "last = returns[: self.window]"),
        ("the summary averages all episodes", "np.mean(last)", "np.mean(returns)"),
        ("evaluation begins with the training's episodes", "+ 1_000_000", "+ 0"),
        ("evaluation plays one episode twenty times", "seed=None if played else seed", "seed=seed"),
        ("Ctrl-C ends with status 0", "130 if not flags.load and self.progress.stop.value else 0", "0"),
        ("variance as standard deviation", "np.std(ended)", "np.var(ended)"),
        ("--load forgets the saved hyperparameters", "hp |= saved[\"hyperparameters\"] | {\"seed\": hp[\"seed\"]}", "pass"),
        ("the episode that Ctrl-C cut counts", "if self.stop.value:  # Ctrl-C", "if False:  # Ctrl-C"),
        ("ten greedy episodes", "EPISODES, STEPS = 20", "EPISODES, STEPS = 10"),
        ("returns.csv: length and return exchanged", "f\"{t:.3f}\", r, n)", "f\"{t:.3f}\", n, r)"),
        ("--load leaves the table empty", "learned[0][:] = np.load", "_ = np.load"),
        ("--load leaves the networks untrained", "torch.nn.ModuleList(learned).load_state_dict(weights)", "pass"),
        ("a time limit does not end a greedy episode", "length + 1, terminated or truncated", "length + 1, terminated"),
        ("the handler of Ctrl-C stays", "signal.signal(signal.SIGINT, before)", "before"),
        ("the summary's speed counts episodes", "steps / self.seconds:.0f", "len(returns) / self.seconds:.0f"),
        ("steps of an unfinished episode are lost", "steps = max(steps, self.budget[\"steps\"])", "steps = steps"),
        ("run.json: solved under wrong names", "zip(COLUMNS, progress.solved, strict=True)", "zip(COLUMNS[::-1], progress.solved, strict=True)"),
        ("--literal: the first of several flags counts", "[-1:] == [\"--literal\"]", "[:1] == [\"--literal\"]"),
        # of a third list, written without looking at the tests
        ("--load forgets the saved --env-kwargs", "flags.env, flags.env_kwargs = saved[\"env\"], saved[\"env_kwargs\"]", "flags.env = saved[\"env\"]"),
        ("loading weights may execute code", "weights_only=True", "weights_only=False"),
        ("returns.csv's header: return and length exchanged", "\"seconds\", \"return\", \"length\")", "\"seconds\", \"length\", \"return\")"),
    ],
    "common/envs.py": [
        ("Pendulum's window is 100", "(-200.0, 20)", "(-200.0, 100)"),
        ("Pendulum's goal is -150", "(-200.0, 20)", "(-150.0, 20)"),
        ("Ctrl-C ends as terminated", "return observation, reward, terminated, truncated, info\n\n\ndef name_of", "return observation, reward, terminated or truncated, False, info\n\n\ndef name_of"),
        ("Ctrl-C does not end an episode", "truncated or bool(self.stop and self.stop.value)", "truncated"),
        ("GridWorld: up is called down", "(\"right\", \"left\", \"up\", \"down\")", "(\"right\", \"left\", \"down\", \"up\")"),
        ("Maze: left is called up", "(\"up\", \"down\", \"left\", \"right\")", "(\"left\", \"right\", \"up\", \"down\")"),
        ("the grid always starts in one cell", "self.np_random.integers(len(self.starts))", "0"),
        ("images are transposed", "image[s // columns * n :, s % columns * n :]", "image[s % columns * n :, s // columns * n :]"),
        ("half of the memory is counted", "else 2 * 4)", "else 4)"),
        ("a table takes a Tuple with a Box in it", "finite = all(", "finite = any("),
        ("a table may have any size", "for part in parts) > 2**31", "for part in parts) > 2**99"),
        ("Taxi's threshold", "reward_threshold=8", "reward_threshold=7"),
        # of a third list, written without looking at the tests
        ("Maze: a hell is in the wrong place for any size but 4", "ends = {paradise - size: -1.0,", "ends = {paradise - 4: -1.0,"),
        ("GridWorld: up moves down, and down moves up", "((0, 1), (0, -1), (-1, 0), (1, 0))", "((0, 1), (0, -1), (1, 0), (-1, 0))"),
        ("GridWorld: an episode may start in a terminal corner", "list(range(1, 15))", "list(range(1, 16))"),
        ("contrast to the mean, which no pixel may have", "np.median(image)", "np.mean(image)"),
        ("a great contrast begins at 0 again", "np.minimum(3 * abs(image - np.median(image)), 255)", "(3 * abs(image - np.median(image)) % 256)"),
    ],
    "common/plotting.py": [
        ("arrows point up for down", "ax.quiver(x, y, right, down,", "ax.quiver(x, y, right, -down,"),
        ("arrows stand in the transposed cell", "y, x = np.array([divmod", "x, y = np.array([divmod"),
        ("values stand in the transposed cell", "V[divmod(s, columns)] =", "V[divmod(s, columns)[::-1]] ="),
        ("the first row is at the bottom", "cmap=\"YlGn\", alpha=0.6)", "cmap=\"YlGn\", alpha=0.6, origin=\"lower\")"),
        ("the curve over episodes", "axes.plot(steps, mean,", "axes.plot(range(len(mean)), mean,"),
        ("the mean at the start is too small", "np.mean(returns[max(0, end - window) : end])", "np.sum(returns[max(0, end - window) : end]) / window"),
        ("the window is one too long", "max(0, end - window)", "max(0, end - window - 1)"),
        ("the star stands at the episode", "axes.plot(solved[1], threshold", "axes.plot(solved[0], threshold"),
        ("the threshold's line at 0", "axes.axhline(threshold,", "axes.axhline(0,"),
        ("the clip holds its first image at the end", "*frames[-1:] *", "*frames[:1] *"),
        ("clips run at half speed", "duration=1000 / fps", "duration=2000 / fps"),
        ("the random policy's arrows under the greedy title", "panels = {\"random policy\": every} | panels", "panels |= {\"random policy\": every}"),
        ("values of the greedy policy are printed wrongly", "f\"{value:.2f}\"", "f\"{-value:.2f}\""),
    ],
    "docs/plane.py": [
        ("the plane is transposed", "np.reshape(numbers, (points, points))", "np.reshape(numbers, (points, points)).T"),
        ("left is called right", "[\"left\", \"right\"]", "[\"right\", \"left\"]"),
        ("degrees taken for radians", "[0, 0, np.radians(x), y]", "[0, 0, x, y]"),
        ("the picture's states skip the preparation", "for layer in reversed(layers):", "for layer in layers[:0]:"),
    ],
    "docs/compare.py": [
        ("the band is half as wide", "low, high, color", "centre, high, color"),
        ("the median in place of the interquartile mean", "mean(values, axis=0)", "np.median(values, axis=0)"),
        ("a value that the run had not reached yet", "side=\"right\") - 1", "side=\"left\")"),
        ("a comparison begins where its first run has a return", "start, end = max(steps[0] for steps, _ in pairs),", "start, end = min(steps[0] for steps, _ in pairs),"),
        ("comparisons draw lengths", "running_mean(rows[:, 3], window)", "running_mean(rows[:, 4], window)"),
        ("comparisons run over episodes", "np.maximum.accumulate(rows[:, 1])", "np.maximum.accumulate(rows[:, 0])"),
    ],
}
# fmt: on


def run_tests(tree: Path, file: str, bug: bool) -> str:
    """Which test fails on the tree, in a process of its own; "" if none does.

    With a bug no bytecode is written: of a file that changes twice in a second it would be stale.
    """
    names, word = TESTS[file]
    log = tree / "log"
    child = os.fork()
    if child == 0:
        os.setsid()  # with all that the tests start
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(tree)
        sys.path[:1] = [str(tree), str(tree / "tests")]  # where the original's tests/ stood
        import pytest

        sys.dont_write_bytecode = bug
        options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", f"--rootdir={tree}"]
        options += ["-k", word] if word else []
        for name in dict.fromkeys(names):  # one after the other: most bugs need the first only
            status = pytest.main([*options, f"tests/test_{name}.py"])
            if status not in (0, 5):  # 5: it has no test for this file
                os._exit(status)
        os._exit(0)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "(never ends)"
    if status == 0:
        return ""
    lines = log.read_text(errors="replace").splitlines()
    failed = (line.split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR ")))
    return next(failed, f"(ended with status {os.waitstatus_to_exitcode(status)})")


def names(code: types.CodeType) -> set[str]:
    """The names that some compiled code takes from its module, or from Python itself."""
    found = {
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    return found.union(*(names(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def check(files: list[str]) -> list[str]:
    """What is wrong with the list: a piece that its file does not hold exactly once, a bug that is
    no Python or that any run would find since it uses a name that is gone, one that is there twice.
    """
    wrong, seen = [], set()
    for file in files:
        text = (ROOT / file).read_text()
        known = names(compile(text, file, "exec")) | set(dir(builtins))
        for what, old, new in BUGS[file]:
            changed = text.replace(old, new)
            if text.count(old) != 1:
                wrong.append(f"{file} holds {old!r} {text.count(old)} times: {what}")
            elif changed in seen:
                wrong.append(f"{file}: twice in the list: {what}")
            elif unknown := names(compile(changed, file, "exec")) - known:
                wrong.append(f"{file} does not know {', '.join(unknown)}: {what}")
            seen.add(changed)
    return wrong


def by_hand(files: list[str], only: str) -> list[tuple]:
    """The bugs of the list: (file, what, the file's text with the bug in it)."""
    if wrong := check(files):
        raise SystemExit("mend these entries:\n" + "\n".join(wrong))
    texts = {file: (ROOT / file).read_text() for file in files}
    bugs = ((file, *bug) for file in files for bug in BUGS[file])
    return [(f, what, texts[f].replace(old, new)) for f, what, old, new in bugs if only in what]


def by_tool(files: list[str], number: int, seed: int) -> list[tuple]:
    """`number` of all the changes that cosmic-ray knows for these files, drawn by a seed.

    Left out are changes inside of annotations, which are never evaluated here.
    """
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    all_of_them = []
    for file in files:
        text = (ROOT / file).read_text()
        tree = get_ast(text)
        for name in sorted(operator_names()):
            kind = get_operator(name)
            if kind.arguments():
                continue
            positions = [
                (node, start)
                for node in ast_nodes(tree)
                for start, _ in kind().mutation_positions(node)
            ]
            for n, (node, start) in enumerate(positions):
                if not annotation(node):
                    all_of_them.append((file, name, n, start[0]))
    print(f"cosmic-ray knows {len(all_of_them)} changes, {number} are drawn with seed {seed}")
    found = []
    for file, name, n, line in sorted(random.Random(seed).sample(all_of_them, number)):
        text = (ROOT / file).read_text()
        changed = mutate_code(text, get_operator(name)(), n)
        before, after = text.splitlines(), changed.splitlines()
        pairs = zip(before, after, strict=False)
        what = next((f"{a.strip()}  ->  {b.strip()}" for a, b in pairs if a != b), "lines moved")
        found.append((file, f"{line}: {what}", changed))
    return found


def annotation(node) -> bool:
    """Whether a node stands in an annotation of a parameter, a variable or a result."""
    while node.parent is not None:
        parent = node.parent
        if parent.type in ("tfpdef", "annassign") and parent.children[0] is not node:
            return parent.type == "tfpdef" or parent.children[1] is node
        if parent.type == "funcdef" and parent.annotation is node:
            return True
        node = parent
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", help=" ".join(BUGS))
    parser.add_argument("--only", default="", help="only bugs whose description holds this")
    parser.add_argument("--check", action="store_true", help="only look whether each entry fits")
    parser.add_argument("--tool", type=int, default=0, help="how many changes cosmic-ray makes")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    given = parser.parse_args()
    files = given.files or list(BUGS)
    if given.check:
        wrong = check(files)
        print("\n".join(wrong) or f"{sum(len(BUGS[file]) for file in files)} bugs, all fit")
        return bool(wrong)
    bugs = by_tool(files, given.tool, given.seed) if given.tool else by_hand(files, given.only)

    import gymnasium, imageio.v3, matplotlib.figure, PIL.Image, pytest, torch, tqdm, tyro  # noqa

    results = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "copy")
        pictures = "html", "*.png", "*.gif"  # of docs/
        left_out = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", *pictures)
        shutil.copytree(ROOT, tree, ignore=left_out)
        for file, what, text in bugs:
            began = time.monotonic()
            if file not in results and (failed := run_tests(tree, file, bug=False)):
                raise SystemExit(f"the tests of {file} fail without any bug: {failed}")
            if file not in results:
                print(f"{file}: {time.monotonic() - began:.0f} s without a bug", flush=True)
            original = (tree / file).read_text()
            (tree / file).write_text(text)
            began = time.monotonic()
            failed = run_tests(tree, file, bug=True)
            (tree / file).write_text(original)
            results[file].append(failed)
            seconds = f"{time.monotonic() - began:5.1f} s"
            test = failed.removeprefix("FAILED ").removeprefix("tests/")
            print(
                f"{'caught' if failed else 'MISSED'} {seconds} {file}: {what}  {test}", flush=True
            )
    for file, found in results.items():
        print(f"{file}: {sum(map(bool, found))} of {len(found)}")
    total = sum(results.values(), [])
    print(f"all: {sum(map(bool, total))} of {len(total)}")
    return 0 if all(total) else 1


if __name__ == "__main__":
    sys.exit(main())
