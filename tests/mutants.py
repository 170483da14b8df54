"""Plant bugs, one at a time, and count how many of them the tests catch.

    python tests/mutants.py                       all bugs of the list below
    python tests/mutants.py dqn.py common/runs.py those in these files
    python tests/mutants.py --tool 150 --seed 1   150 changes drawn from all that cosmic-ray knows
                                                  (pip install cosmic-ray)
    python tests/mutants.py --only "decay"        those whose description holds this

A bug is a piece of a file and what stands there instead. The tests of that file run on a copy of
the tree with the bug in it, up to the first that fails. Learning tests stay out: what only they
catch counts as missed, and so does the page's and the pseudocode's comparison of texts. Each run is
a fork of this process, which has the libraries loaded already; so this runs on Linux and macOS.
The result is written down in tests/README.md.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AROUND = ["runs", "what_is_drawn", "envs", "pictures", "command_line"]
FORMULAS = ["defaults", "gradients", "runs", "against_exact_values", "randomness", "episode_ends"]
FORMULAS += ["faults", "envs"]
ONE = "not (dqn or reinforce or actor_critic or ddpg or a3c or ppo)"  # one script is enough there
# file -> the tests that look at it, the fast ones first, and pytest's -k
TESTS = {
    "qlearning_table.py": (FORMULAS, "qlearning"),
    "dqn.py": (FORMULAS, "dqn or unit"),
    "reinforce.py": (FORMULAS, "reinforce or unit"),
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
# there instead. In each list first those that were written without looking at the tests (150 in all),
# then what applies still of an older list.
# fmt: off
BUGS = {
    "qlearning_table.py": [
        ("the decay counts from 1, so that the first episode is not fully random", "1 - (episode - 1) / episodes", "1 - episode / episodes"),
        ("the decay counts steps in place of episodes", "1 - (episode - 1) / episodes", "1 - step / steps"),
        ("--literal leaves the decay on", "LITERAL = dict(epsilon_decay=False)", "LITERAL = dict(epsilon_decay=True)"),
        ("one step beyond the budget", "while step < steps", "while step <= steps"),
        ("all episodes begin alike", "seed=seed if episode == 1 else None", "seed=seed"),
        ("what the user gives loses against --literal", "slide | given if", "given | slide if"),
        ("ties to the last action", "best[rng.integers(len(best))]", "best[-1]"),
        ("on_episode gets the episode in place of the step", "info[\"episode\"][\"l\"], step)", "info[\"episode\"][\"l\"], episode)"),
        ("evaluation takes the worst action", "Q[S].argmax()", "Q[S].argmin()"),
        ("actions that do not count from 0", "int(a + actions.start)", "int(a)"),
        # of the older list
        ("min for max", "Q[S_next].max()", "Q[S_next].min()"),
        ("gamma forgotten", "R + gamma * Q", "R + Q"),
        ("bootstrap through a terminal state", "* (not terminated)", "* 1"),
        ("no bootstrap at a time limit", "* (not terminated)", "* (not terminated and not truncated)"),
        ("S is never advanced", "            S = S_next\n", "            S = S\n"),
        ("argmin for argmax", "values == values.max()", "values == values.min()"),
        ("ties always to the first", "best[rng.integers(len(best))]", "best[0]"),
        ("the value of S in place of S'", "gamma * Q[S_next]", "gamma * Q[S]"),
    ],
    "dqn.py": [
        ("gamma^n also where fewer rewards were summed", "self.gamma ** len(self.recent)", "self.gamma ** self.recent.maxlen"),
        ("n-step rewards are not discounted", "self.gamma**k * r", "r"),
        ("n-step sums run across a time limit", "(done and self.recent)", "(terminated and self.recent)"),
        ("epsilon decays by episodes", "1 - step / epsilon_decay", "1 - episode / epsilon_decay"),
        ("epsilon's fall ends at 0 after its floor is reached early", "epsilon + (1 - epsilon) * decay", "max(epsilon, decay)"),
        ("Huber in place of the square", "(y - q).square().mean()", "nn.functional.smooth_l1_loss(q, y)"),
        ("values without their unit", "self.unit * self.layers(states)", "self.layers(states)"),
        ("learning starts a transition late", "D.stored < batch", "D.stored <= batch"),
        ("tau the wrong way round", "torch._foreach_lerp_(theta_target, theta, tau)", "torch._foreach_lerp_(theta_target, theta, 1 - tau)"),
        ("a full memory overwrites its last place only", "self.stored % self.capacity", "min(self.stored, self.capacity - 1)"),
        ("only recent transitions are sampled", "rng.integers(min(self.stored, self.capacity), size=batch)", "rng.integers(min(self.stored, self.capacity) // 2, min(self.stored, self.capacity), size=batch)"),
        ("D keeps done in place of terminated", "self.next_states[i], self.terminated[i] = next_state, terminated", "self.next_states[i], self.terminated[i] = next_state, done"),
        ("--literal trains at every fourth step only", "batch=32, train_every=1, n_steps=1", "batch=32, n_steps=1"),
        ("the target network starts with other weights", "copy.deepcopy(q_network)", "QNetwork(features, actions, hidden, unit)"),
        # of the older list
        ("terminal and non-terminal exchanged", "(1 - terminated_j)", "terminated_j"),
        ("bootstrap through a terminal state", "* (1 - terminated_j)", "* 1"),
        ("soft update the wrong way round", "(theta_target, theta, tau)", "(theta, theta_target, tau)"),
        ("the target network never moves", "torch._foreach_lerp_(theta_target, theta, tau)", "pass"),
        ("gradients pile up", "optimizer.zero_grad()", "pass  # gradients pile up"),
        ("ring overwrites one place", "i = self.stored % self.capacity", "i = 0"),
    ],
    "reinforce.py": [
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
    ],
    "actor_critic.py": [
        ("real values run across a time limit", "if not done_t[t]", "if not terminated_t[t]"),
        ("no bootstrap at a time limit", "gamma * ~terminated_t * best", "gamma * ~done_t * best"),
        ("the mean of Q over actions, not under pi", "(log_pi.exp() * Q).sum(dim=1).detach()", "Q.mean(dim=1).detach()"),
        ("the advantage's mean carries a gradient", "(log_pi.exp() * Q).sum(dim=1).detach()", "(log_pi.exp() * Q).sum(dim=1)"),
        ("the advantage of Q in place of the real value", "weight = y - ", "weight = Q_t.detach() - "),
        ("the next step's max in place of its real value", "r[t] + gamma * y[t + 1]", "r[t] + gamma * best[t + 1]"),
        ("the actor's loss is a sum", "log_pi.gather(1, a).squeeze(1)).mean()", "log_pi.gather(1, a).squeeze(1)).sum()"),
        ("--literal updates after two steps", "beta=1e-3, batch=1", "beta=1e-3, batch=2"),
        ("the value of pi is the max", "(actor(state).softmax(-1) * critic(state)).sum()", "critic(state).max()"),
        ("steps of an update are kept for the next", "transitions.clear()", "del transitions[:-1]"),
        # of the older list
        ("min for max", "amax(dim=1)", "amin(dim=1)"),
        ("log forgotten", "log_pi = actor(s).log_softmax(dim=1)", "log_pi = actor(s).softmax(dim=1)"),
        ("mean of Q without pi", "(log_pi.exp() * Q).sum(dim=1)", "Q.sum(dim=1)"),
    ],
    "ddpg.py": [
        ("the noise is not restarted", "N = OrnsteinUhlenbeck(actions, sigma, rng)", "N = N if episode > 1 else OrnsteinUhlenbeck(actions, sigma, rng)"),
        ("all dimensions get the same noise", "standard_normal(len(self.value))", "standard_normal()"),
        ("the noise forgets at once", "self.value += -0.15 * self.value", "self.value += -1.0 * self.value"),
        ("the noise does not drift back", "-0.15 * self.value", "-0.0 * self.value"),
        ("R holds an action beyond the bounds", "action.clip(-1, 1).astype", "action.astype"),
        ("a full memory overwrites its last place only", "self.stored % self.capacity", "min(self.stored, self.capacity - 1)"),
        ("samples beyond what is stored", "min(self.stored, self.capacity), size", "self.capacity, size"),
        ("warm-up explores positive actions only", "rng.uniform(-1, 1, actions)", "rng.uniform(0, 1, actions)"),
        ("warm-up acts alike in all dimensions", "rng.uniform(-1, 1, actions)", "rng.uniform(-1, 1, 1).repeat(actions)"),
        ("R keeps done in place of terminated", "next_state, terminated)\n            state, done", "next_state, terminated or truncated)\n            state, done"),
        ("a lower bound that is not -1", "np.where(np.isinf(box.low), box.low, -1)", "np.where(np.isinf(box.low), box.low, box.low)"),
        ("the next state stored is the state", "self.terminated[i] = next_state, terminated", "self.terminated[i] = state, terminated"),
        ("learning begins one step early", "if step <= warmup:  # beyond the slide: no learning yet", "if step < warmup:"),
        ("the learning actor in the target", "target_actor(next_state_i)", "actor(next_state_i)"),
        # of the older list
        ("the actor descends Q", "(-J).backward(", "J.backward("),
        ("gamma forgotten", "reward_i + gamma * (1", "reward_i + (1"),
        ("bootstrap through a terminal state", "gamma * (1 - terminated_i) * next_value", "gamma * next_value"),
        ("soft update the wrong way round", "(theta_target, theta, tau)", "(theta, theta_target, tau)"),
        ("the targets never move", "torch._foreach_lerp_(theta_target, theta, tau)", "pass"),
        ("no target critic", "target_critic(next_state_i, target", "critic(next_state_i, target"),
        ("only the critic's target moves", "theta_target = [*target_critic.parameters(), *target_actor.parameters()]", "theta_target = [*target_critic.parameters(), *copy.deepcopy(target_actor).parameters()]"),
        ("the actor learns from old actions", "J = critic(state_i, actor(state_i)).mean()", "J = critic(state_i, action_i + 0 * actor(state_i)).mean()"),
        ("critic's gradients pile up", "critic_optimizer.zero_grad()", "pass"),
        ("the actor's sum", "actor(state_i)).mean()", "actor(state_i)).sum()"),
        ("OU drifts away", "-0.15 * self.value", "0.15 * self.value"),
    ],
    "a3c.py": [
        ("all workers draw the same actions", "torch.manual_seed(seed + 1000 * rank)", "torch.manual_seed(seed)"),
        ("all workers see the same states", "env.reset(seed=seed + 1000 * rank)", "env.reset(seed=seed)"),
        ("workers count in one place", "shared.steps[rank] += 1", "shared.steps[0] += 1"),
        ("Adam counts this worker's updates only", "self.updates.sum().item()", "self.updates[rank].item()"),
        ("T is one worker's count", "self.steps.sum().item()", "self.steps.max().item()"),
        ("theta is not shared", "theta.clone().share_memory_()", "theta.clone()"),
        ("train() returns the weights it began with", "vector_to_parameters(shared.theta, model.parameters())", "vector_to_parameters(parameters_to_vector(model.parameters()), model.parameters())"),
        ("gamma does not reach the workers", "gamma=gamma, alpha=alpha)", "gamma=0.99, alpha=alpha)"),
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
    ],
    "ppo.py": [
        ("an epoch too few", "for _ in range(epochs):", "for _ in range(epochs - 1):"),
        ("the last minibatch is dropped", "torch.randperm(len(s)).split(batch)", "torch.randperm(len(s)).split(batch)[:-1]"),
        ("minibatches are not shuffled", "torch.randperm(len(s)).split(batch)", "torch.arange(len(s)).split(batch)"),
        ("all environments begin alike", "envs.reset(seed=seed)", "envs.reset(seed=[seed] * n_envs)"),
        ("later errors cross a time limit", "(1 - done[t]) * later", "(1 - terminated[t]) * later"),
        ("the next episode's first state is bootstrapped", "next_states[t, i] = info[\"final_obs\"][i]", "pass"),
        ("no bootstrap at a time limit", "(1 - terminated) * next_values", "(1 - done) * next_values"),
        ("advantages are not divided by their spread", "(A_j.std() + 1e-8)", "1"),
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
        ("KL rewarded", "ratio * A_j - beta", "ratio * A_j + beta"),
        ("gradients pile up", "optimizer.zero_grad()", "pass  # gradients pile up"),
        ("one epoch", "for _ in range(epochs):", "for _ in range(1):"),
        ("loss of sum", "kl_divergence(old(s[j]), pi)).mean()", "kl_divergence(old(s[j]), pi)).sum()"),
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
        ("--load leaves the networks untrained", "torch.nn.ModuleList(learned).load_state_dict(torch.load(path, weights_only=True))", "torch.load(path, weights_only=True)"),
        ("a time limit does not end a greedy episode", "length + 1, terminated or truncated", "length + 1, terminated"),
        ("the handler of Ctrl-C stays", "signal.signal(signal.SIGINT, before)", "before"),
        ("the summary's speed counts episodes", "steps / self.seconds:.0f", "len(returns) / self.seconds:.0f"),
        ("steps of an unfinished episode are lost", "steps = max(steps, self.budget[\"steps\"])", "steps = steps"),
        ("run.json: solved under wrong names", "zip(COLUMNS, progress.solved, strict=True)", "zip(COLUMNS[::-1], progress.solved, strict=True)"),
        ("--literal: the first of several flags counts", "[-1:] == [\"--literal\"]", "[:1] == [\"--literal\"]"),
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
        ("half of the memory is counted", "memory * 2 * 4", "memory * 4"),
        ("Taxi's threshold", "reward_threshold=8", "reward_threshold=7"),
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
        ("the band is half as wide", "middle - band, middle + band", "middle - band / 2, middle + band / 2"),
        ("the band is that of all points", "np.std(values, axis=0)", "np.std(values)"),
        ("a value that the run had not reached yet", "side=\"right\") - 1", "side=\"left\")"),
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


def by_hand(files: list[str], only: str) -> list[tuple]:
    """The bugs of the list: (file, what, the file's text with the bug in it)."""
    found = []
    for file in files:
        text = (ROOT / file).read_text()
        for what, old, new in BUGS[file]:
            if text.count(old) != 1:
                raise SystemExit(f"{file} holds {old!r} {text.count(old)} times: mend that entry")
            if only in what:
                found.append((file, what, text.replace(old, new)))
    return found


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
    parser.add_argument("--tool", type=int, default=0, help="how many changes cosmic-ray makes")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    given = parser.parse_args()
    files = given.files or list(BUGS)
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
