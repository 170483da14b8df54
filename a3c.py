"""Asynchronous advantage actor-critic (A3C). Lecture part 5, "A3C".

"Actors in parallel": several workers, each with its own copy of the environment, learn at the same
time. Each plays a few steps and compares the return R that followed with the value V(s) that it
expected: actions that did better become more likely, the others less likely. Then it updates the
shared parameters, without waiting for the others. The workers see different states, so their data
are less correlated: this replaces the experience replay of DQN.

Pseudocode (Mnih et al., 2016, Algorithm S3, for each actor-learner thread; here each is a process)

    [1] Initialize thread step counter t <- 1
    [2] repeat
    [3]     Reset gradients: d theta <- 0 and d theta_v <- 0
    [4]     Synchronize thread-specific parameters theta' = theta and theta'_v = theta_v
    [5]     t_start = t
    [6]     Get state s_t
    [7]     repeat
    [8]         Perform a_t according to policy pi(a_t|s_t; theta')
    [9]         Receive reward r_t and new state s_{t+1}
    [10]        t <- t + 1
    [11]        T <- T + 1
    [12]    until terminal s_t or t - t_start == t_max
    [13]    R = 0 for terminal s_t; V(s_t, theta'_v) for non-terminal s_t
            (bootstrap from last state)
    [14]    for i in {t-1, ..., t_start} do
    [15]        R <- r_i + gamma R
    [16]        Accumulate gradients wrt theta':
                d theta <- d theta + grad_theta' log pi(a_i|s_i; theta') (R - V(s_i; theta'_v))
    [17]        Accumulate gradients wrt theta'_v:
                d theta_v <- d theta_v + d(R - V(s_i; theta'_v))^2 / d theta'_v
    [18]    Perform asynchronous update of theta using d theta and of theta_v using d theta_v
    [19] until T > T_max

Where the slide is loose: theta, theta_v and the counter T, which begins at 0, are shared by all
workers; theta' and theta'_v belong to one worker, which acts and computes gradients with them, but
never updates them. theta climbs [16], theta_v descends [17], and in [16] the advantage R - V is a
constant. With n workers T passes T_max by up to n t_max, since each looks at T once an update. A
time limit ends an episode, too, but its last state is not terminal: [13] takes V there.

Beyond the slide (--literal, see LITERAL below, turns off all that has a flag)

    Scaled rewards (off: --no-scale-rewards). Rewards are multiplied by 1 - gamma, at least 0.001. R
        then is at most as large as the largest reward (gamma up to 0.999), small enough for a new V
        to learn quickly. The V that is returned is in these units.
    [18] is a step of Adam, with means that all workers share (in the paper RMSProp); its size falls
        to 0 over T_max steps, as in the paper: late updates do not destroy a good policy.
    Small last weights of the policy, so it begins almost the same in every state; a Gaussian begins
        with standard deviation 1/sqrt(n) for n components. State components bounded within (-1, 1)
        are divided by their bound, and Box actions are rescaled to [-1, 1] and clipped (by
        common.envs.make, not here).

The paper also adds a bonus for the entropy of the policy; the environments under Try do without it.

Try

    python a3c.py --env CartPole-v1
    python a3c.py --env CartPole-v1 --workers 1
    python a3c.py --env MountainCarContinuous-v0 --steps 100000 --t-max 200 --workers 1
    python a3c.py --env Pendulum-v1

References

    Mnih et al., Asynchronous Methods for Deep Reinforcement Learning, 2016 (box in the supplement).
    Niu, Recht, Re, Wright, Hogwild!, 2011 (updates without locks; its theorem is for sparse
    gradients, these are dense).
"""

import functools
import os
import sys

import gymnasium as gym
import numpy as np
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def worker(
    rank, report, make_env, shared, seed, steps, t_max, gamma, alpha, scale_rewards, hidden, trunk
) -> None:
    """One actor-learner, with the number `rank`; the keywords are train()'s.

    report takes (episode_return, length) of each episode; shared is what all workers see.
    """
    torch.set_num_threads(1)  # one core for each worker
    torch.manual_seed(seed + 1000 * rank)  # each worker draws other actions and sees other states
    env = make_env()
    # [1] Initialize thread step counter t <- 1
    # t counts this worker's steps, T (shared.T) those of all.
    t = 1

    # This worker's networks; their weights are theta' and theta'_v, which [4] sets.
    policy = Policy(env.observation_space.shape, env.action_space, hidden, trunk)
    V = Value(env.observation_space.shape, hidden, trunk)
    parameters = [*policy.parameters(), *V.parameters()]
    reward_scale = max(1 - gamma, 1e-3) if scale_rewards else 1.0  # beyond the slide
    done = True  # so [6] begins an episode
    # [2] repeat
    while True:
        # [3] Reset gradients: d theta <- 0 and d theta_v <- 0
        # backward() adds to the gradients: old ones would be applied again. None counts as 0.
        for p in parameters:
            p.grad = None
        # [4] Synchronize thread-specific parameters theta' = theta and theta'_v = theta_v
        # shared.theta holds both, one after the other. Without clone theta' would be
        # theta itself, which others change.
        vector_to_parameters(shared.theta.clone(), parameters)
        # [5] t_start = t
        t_start = t
        # [6] Get state s_t
        # It is the new state of the last step, or the first of another episode.
        if done:
            state, _ = env.reset(seed=seed + 1000 * rank if t == 1 else None)  # seeded once
            episode_return = 0.0
            length = 0
        states = [state]
        actions = []
        rewards = []
        # [7] repeat
        # Only states, actions and rewards are collected here; gradients come at [16] and [17].
        while True:
            # [8] Perform a_t according to policy pi(a_t|s_t; theta')
            # A sample, not the most likely action: the randomness of pi is the exploration.
            with torch.inference_mode():
                action = policy(torch.as_tensor(state)).sample().numpy()
            # [9] Receive reward r_t and new state s_{t+1}
            # terminated: s_{t+1} is terminal. truncated: a time limit ended the episode.
            state, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            episode_return += reward
            length += 1
            states.append(state)
            actions.append(action)
            rewards.append(reward_scale * reward)
            # [10] t <- t + 1
            t += 1
            # [11] T <- T + 1
            # Each worker counts in a place of its own, so that no two write the same number.
            shared.counts[rank] += 1
            # [12] until terminal s_t or t - t_start == t_max
            # s_t is the new state now. A time limit ends this loop, too.
            if done or t - t_start == t_max:
                break

        # [13] R = 0 for terminal s_t; V(s_t, theta'_v) for non-terminal s_t
        #   (bootstrap from last state)
        # One call gives V of all states; that of the last one is needed here.
        s = torch.as_tensor(np.stack(states))  # (t - t_start + 1, n_features), with the last state
        values = V(s)
        R = 0.0 if terminated else values[-1].item()
        target = np.zeros(len(rewards), np.float32)  # the R of each step i, filled at [15]
        # [14] for i in {t-1, ..., t_start} do
        # Backwards, so that R is the return from step i on. Python counts from 0, not t_start.
        for i in reversed(range(t - t_start)):
            # [15] R <- r_i + gamma R
            R = rewards[i] + gamma * R
            target[i] = R
        # [16] Accumulate gradients wrt theta':
        #   d theta <- d theta + grad_theta' log pi(a_i|s_i; theta') (R - V(s_i; theta'_v))
        #   (vectorised over i)
        # Minus: [18] descends, [16] climbs. detach: the advantage is a constant.
        a = torch.as_tensor(np.stack(actions))
        advantage = torch.as_tensor(target) - values[:-1]  # R - V(s_i; theta'_v), (t - t_start,)
        policy_loss = -(policy(s[:-1]).log_prob(a) * advantage.detach()).sum()
        # [17] Accumulate gradients wrt theta'_v:
        #   d theta_v <- d theta_v + d(R - V(s_i; theta'_v))^2 / d theta'_v (vectorised over i)
        # R is a constant; V moves towards it.
        V_loss = advantage.square().sum()
        loss = policy_loss + V_loss  # no common parameters: one backward() does both
        if not loss.isfinite():
            raise FloatingPointError(f"loss {loss:g} at step {shared.T}: lower alpha")
        loss.backward()
        # [18] Perform asynchronous update of theta using d theta and of theta_v using d theta_v
        # No lock: if two workers write the same number at once, one change is lost. The step size
        # falls from alpha at T = 0 to 0 at T = T_max, and stays 0.
        d_theta = parameters_to_vector([p.grad for p in parameters])
        shared.adam(d_theta, np.interp(shared.T, [0, steps], [alpha, 0]), rank)
        if done:
            report((episode_return, length))
        # [19] until T > T_max
        # `steps` is T_max.
        if shared.T > steps:
            break


def train(
    make_env,  # a function that makes an environment; every worker calls it
    *,
    seed: int = 0,  # the same seed gives the same run with one worker, not with several
    steps: int = 1_000_000,  # T_max, environment steps of all workers together
    workers: int = min(4, os.cpu_count() or 1),  # actor-learners, each in a process of its own
    t_max: int = 20,  # steps between two updates
    gamma: float = 0.99,  # discount of the return
    alpha: float = 2e-3,  # step size to begin with; it falls to 0 over the budget
    scale_rewards: bool = True,  # multiply rewards by 1 - gamma
    hidden: int = 64,  # units of the hidden layer
    trunk=None,  # for images: a function that makes the first layers (common/pixels.py)
    on_episode=None,  # called with (episode_return, length, step); may return True to stop
) -> tuple["Policy", "Value", list[float]]:
    """Train on Discrete or Box actions; returns policy, V and the list of episode returns."""
    torch.manual_seed(seed)
    env = make_env()
    space = env.observation_space
    assert trunk or space.dtype == np.float32, "use wrappers FlattenObservation, DtypeObservation"
    policy = Policy(space.shape, env.action_space, hidden, trunk)
    V = Value(space.shape, hidden, trunk)
    parameters = [*policy.parameters(), *V.parameters()]
    shared = Shared(parameters_to_vector(parameters).detach(), workers)
    returns = []

    def report(episode: tuple[float, int]) -> None:
        if not shared.counts[-1]:  # once on_episode has said True, later reports do not count
            returns.append(episode[0])
            if on_episode and on_episode(*episode, shared.T):
                shared.counts[-1] = steps + 1  # now T > T_max

    settings = dict(make_env=make_env, shared=shared, seed=seed, steps=steps, t_max=t_max)
    settings |= dict(gamma=gamma, alpha=alpha, scale_rewards=scale_rewards)
    settings |= dict(hidden=hidden, trunk=trunk)
    if workers == 1:  # in this process, so that one seed gives one result
        worker(0, report=report, **settings)
    else:
        in_processes(workers, report, settings)
    vector_to_parameters(shared.theta, parameters)
    return policy, V, returns


LITERAL = dict(scale_rewards=False)  # the slide


class Shared:
    """What all workers see, in shared memory: theta (with theta_v), Adam's means, the counters."""

    def __init__(self, theta: torch.Tensor, workers: int):
        self.theta = theta.clone().share_memory_()
        self.m, self.v = torch.zeros(2, len(theta)).share_memory_()  # Adam's running means
        # A place for each worker, and a last one: with that of counts train() ends all workers.
        self.counts, self.updates = torch.zeros(2, workers + 1, dtype=torch.int64).share_memory_()

    @property
    def T(self) -> int:
        """The global step counter."""
        return self.counts.sum().item()

    def adam(self, d_theta: torch.Tensor, alpha: float, rank: int) -> None:
        """One step of Adam (Kingma & Ba, 2015, Algorithm 1); all workers share its means."""
        self.updates[rank] += 1
        n = self.updates.sum().item()  # updates so far, of all workers
        self.m.lerp_(d_theta, 0.1)  # m <- 0.9 m + 0.1 d_theta: running mean of the gradients
        self.v.lerp_(d_theta.square(), 0.001)  # v <- 0.999 v + 0.001 d_theta^2: of their squares
        # theta <- theta - alpha m / (1 - 0.9^n) / size; the powers correct that m and v began at 0
        size = (self.v / (1 - 0.999**n)).sqrt_().add_(1e-8)
        self.theta.addcdiv_(self.m, size, value=-alpha / (1 - 0.9**n))


def in_processes(workers: int, report, settings: dict) -> None:
    """worker() in several processes; their episodes come through a queue. If one fails, all end."""
    method = mp.get_start_method()
    # Only forked processes know what a notebook defines; others import worker() from a file.
    if method != "fork" and not hasattr(sys.modules[worker.__module__], "__file__"):
        raise RuntimeError("save this script as a3c.py and import it, or take workers=1")
    episodes = mp.get_context(method).SimpleQueue()
    start = functools.partial(worker, report=episodes.put, **settings)  # start(rank)
    processes = mp.start_processes(start, (), workers, join=False, daemon=True, start_method=method)
    running = True
    while running:
        running = not processes.join(timeout=0.05)
        while not episodes.empty():
            report(episodes.get())


class Policy(nn.Module):
    """pi(a|s; theta): a softmax over Discrete actions, a Gaussian over Box actions."""

    def __init__(self, shape: tuple[int, ...], actions: gym.Space, hidden: int, trunk=None):
        super().__init__()
        first = [trunk(shape, hidden)] if trunk else [nn.Linear(shape[0], hidden), nn.Tanh()]
        n = gym.spaces.flatdim(actions)  # a logit for each action, or a mean for each component
        self.layers = nn.Sequential(*first, nn.Linear(hidden, n))
        self.layers[-1].weight.data.mul_(0.01)  # small: at first the same policy in every state
        # Only Box actions have a shape. log_std: of each component, the same in all states.
        self.log_std = nn.Parameter(torch.full((n,), n**-0.5).log()) if actions.shape else None

    def forward(self, states: torch.Tensor) -> Distribution:
        """States (batch, *shape) -> distribution whose log_prob is (batch,)."""
        outputs = self.layers(states)  # logits, or means
        if self.log_std is None:
            return Categorical(logits=outputs, validate_args=False)
        # Independent: log_prob adds up the components of an action.
        return Independent(Normal(outputs, self.log_std.exp(), validate_args=False), 1)


class Value(nn.Sequential):
    """V(s): states (batch, *shape) -> values (batch,)."""

    def __init__(self, shape: tuple[int, ...], hidden: int, trunk=None):
        first = [trunk(shape, hidden)] if trunk else [nn.Linear(shape[0], hidden), nn.Tanh()]
        super().__init__(*first, nn.Linear(hidden, 1), nn.Flatten(-2))  # (batch, 1) -> (batch,)


def main(argv: list[str] | None = None) -> int:
    """The command line: `python a3c.py --help`. Returns the exit status."""
    from common import runs

    act = lambda policy, V, state: policy(state).mode  # the greedy action
    value = lambda policy, V, state: V(state[None])
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
