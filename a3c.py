"""Asynchronous advantage actor-critic (A3C). Lecture part 5, "A3C".

"Actors in parallel": several workers, each with its own copy of the environment, learn at the same
time. Each plays a few steps, compares the return R that followed with the value V(s) that it
expected, and makes actions that did better than expected more likely, and the others less likely.
Then it updates the shared parameters, without waiting for the others. The workers see different
states, so that their data are less correlated: this replaces the experience replay of DQN.

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

The box assumes shared theta and theta_v and a shared counter T = 0; theta' and theta'_v belong to
one worker, which only measures gradients with them. Where the slide is loose: theta climbs [16],
theta_v descends [17], and in [16] the advantage R - V is a constant. [18] leaves the optimiser
open: here it is Adam with means that all workers share (in the paper RMSProp); the step size falls
to 0 over T_max steps, as in the paper. With n workers T passes T_max by up to n t_max, since each
worker looks at T once an update.

The paper also adds a bonus for the entropy of the policy: the environments below do without it.

Beyond the slide (the flag turns it off, and so does --literal)

    --no-scale-rewards Rewards are multiplied by 1 - gamma, so that R is a weighted mean of the
                       rewards that follow. V soon learns numbers of that size. Until it has, every
                       action seems better (or worse) than expected, which misleads the policy.

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

from __future__ import annotations

import functools
import os
import signal

import gymnasium as gym
import numpy as np
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def worker(
    rank, make_env, shared, report, *, seed, steps, t_max, gamma, alpha, scale_rewards, hidden
):
    """One actor-learner. `rank` is its number; `report` takes the return and the length of each
    finished episode. The other arguments are those of train(); T_max is `steps`.
    """
    torch.set_num_threads(1)  # one core for each worker
    torch.manual_seed(seed + 1000 * rank)  # each worker draws other actions and sees other states
    env = prepare(make_env)
    if scale_rewards:  # beyond the slide; the returns that train() reports stay as they are
        env = gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))
    model = Model(env.observation_space.shape, env.action_space, hidden)
    parameters = list(model.parameters())
    # Only the first reset gets the seed. If each did, all episodes would start in the same way.
    state, _ = env.reset(seed=seed + 1000 * rank)

    # t counts this worker's steps, T (shared.T) those of all workers.
    # [1] Initialize thread step counter t <- 1
    t = 1
    # Each turn plays up to t_max steps and makes one update of theta and theta_v.
    # [2] repeat
    while True:
        # backward() adds to .grad: without the reset, old gradients would be applied again.
        # [3] Reset gradients: d theta <- 0 and d theta_v <- 0
        model.zero_grad()
        # theta' is a copy: the others go on changing theta while this worker plays with theta'.
        # Without clone() the parameters would be theta itself.
        # [4] Synchronize thread-specific parameters theta' = theta and theta'_v = theta_v
        vector_to_parameters(shared.theta.clone(), parameters)
        # The steps t_start, ..., t - 1 make up one update.
        # [5] t_start = t
        t_start = t
        # `state` is left from the last step or reset. The lists begin with it.
        # [6] Get state s_t
        states, actions, rewards = [state], [], []
        # These steps only collect states, actions and rewards; gradients come at [16] and [17].
        # [7] repeat
        while True:
            # A sample, not the most likely action: the randomness of pi is the exploration.
            # [8] Perform a_t according to policy pi(a_t|s_t; theta')
            with torch.inference_mode():  # acting needs no gradient; [16] computes log pi again
                action = model.pi(torch.from_numpy(state)).sample().numpy()
            # From here on `state` is s_{t+1}.
            # [9] Receive reward r_t and new state s_{t+1}
            state, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            states.append(state)
            actions.append(action)
            rewards.append(float(reward))
            # Now s_t is the new state again, as in [12] and [13].
            # [10] t <- t + 1
            t += 1
            # Each worker counts in a place of its own, so that no two write the same number.
            # [11] T <- T + 1
            shared.steps[rank] += 1
            # A time limit (truncated) also ends the sequence: the next state is another episode's.
            # [12] until terminal s_t or t - t_start == t_max
            if done or t - t_start == t_max:
                break

        s, a = torch.from_numpy(np.stack(states)), torch.from_numpy(np.stack(actions))
        values = model.V(s)  # (t - t_start + 1,): the last state as well
        # Nothing follows a terminal state. After a time limit the task would have gone on: V
        # estimates the return from there. R = 0 would teach V that nothing follows.
        # [13] R = 0 for terminal s_t; V(s_t, theta'_v) for non-terminal s_t
        #      (bootstrap from last state)
        R = 0.0 if terminated else values[-1].item()
        targets = np.zeros(t - t_start, np.float32)
        # Backwards, so that each R is the one behind it, discounted, plus r_i.
        # [14] for i in {t-1, ..., t_start} do
        for i in reversed(range(t - t_start)):
            # R is now the return from step i on; [16] and [17] compare it with V(s_i).
            # [15] R <- r_i + gamma R
            R = rewards[i] + gamma * R
            targets[i] = R
        error = torch.from_numpy(targets) - values[:-1]  # R - V(s_i; theta'_v), (t - t_start,)
        # Minus: theta climbs this line, the update below descends. detach: the advantage is a
        # constant here, or the policy gradient would also change V.
        # [16] Accumulate gradients wrt theta':
        #      d theta <- d theta + grad_theta' log pi(a_i|s_i; theta') (R - V(s_i; theta'_v))
        #      (vectorised over i)
        policy_loss = -(model.pi(s[:-1]).log_prob(a) * error.detach()).sum()
        # No detach here: V moves towards R. error.square() is (t - t_start,).
        # [17] Accumulate gradients wrt theta'_v:
        #      d theta_v <- d theta_v + d(R - V(s_i; theta'_v))^2 / d theta'_v (vectorised over i)
        value_loss = error.square().sum()
        loss = policy_loss + value_loss  # pi and V share no weight: neither loss disturbs the other
        if not loss.isfinite():
            raise FloatingPointError(f"loss {loss:g} at step {shared.T}: try a smaller alpha")
        # Adds to d theta and d theta_v. d theta is minus the box's, since [18] descends.
        loss.backward()
        # Large steps at first; small ones at the end, so that a good policy is not shaken any more.
        # No lock: two workers may write the same number at once, and one change may be lost. The
        # A3C paper updates without locks, too, and learns well.
        # [18] Perform asynchronous update of theta using d theta and of theta_v using d theta_v
        d_theta = parameters_to_vector([p.grad for p in parameters])
        shared.adam(d_theta, np.interp(shared.T, [0, steps], [alpha, 0]), rank)

        if done:
            report(float(info["episode"]["r"]), info["episode"]["l"])
            state, _ = env.reset()
        # T is looked at once an update; the others may still add to it.
        # [19] until T > T_max
        if shared.T > steps or shared.stop:
            break
    env.close()


def train(
    make_env,  # a function that makes an environment, or an environment (its spec makes more)
    *,
    seed: int = 0,  # the same seed gives the same run with one worker, not with several
    steps: int = 1_000_000,  # T_max, the budget in environment steps of all workers together
    workers: int = min(4, os.cpu_count() or 1),  # actor-learners, each in a process of its own
    t_max: int = 20,  # steps between two updates
    gamma: float = 0.99,  # discount of the return
    alpha: float = 2e-3,  # step size of Adam to begin with; it falls to 0 over the budget, steps
    scale_rewards: bool = True,  # multiply rewards by 1 - gamma
    hidden: int = 64,  # units of each hidden layer
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode=lambda episode_return, length, step: False,  # called after each; True ends training
) -> tuple[Model, list[float]]:
    """Train on an environment with Discrete or Box actions; returns the model and all returns.

    Where processes are spawned (macOS, Windows), they have to be able to import make_env.
    """
    torch.manual_seed(seed)
    make_env = make_env.spec.make if isinstance(make_env, gym.Env) else make_env
    env = prepare(make_env)
    model = Model(env.observation_space.shape, env.action_space, hidden)
    env.close()
    shared, returns = Shared(parameters_to_vector(model.parameters()).detach(), workers), []

    def report(episode_return: float, length: int) -> None:
        if not shared.stop:  # the workers' last episodes come after the end
            returns.append(episode_return)
            shared.stop[0] = bool(on_episode(episode_return, length, shared.T))

    settings = dict(seed=seed, steps=steps, t_max=t_max, gamma=gamma, alpha=alpha)
    settings |= dict(scale_rewards=scale_rewards, hidden=hidden)
    if workers == 1:  # in this process, so that one seed gives one result
        worker(0, make_env, shared, report, **settings)
    else:
        in_processes(workers, make_env, shared, report, settings)
    vector_to_parameters(shared.theta, model.parameters())
    return model, returns


class Model(nn.Module):
    """pi(a|s; theta), a softmax over Discrete or a Gaussian over Box actions, and V(s; theta_v)."""

    def __init__(self, shape: tuple[int, ...], action_space: gym.Space, hidden: int):
        super().__init__()
        n = gym.spaces.flatdim(action_space)  # one logit for each action, or one mean
        self.actor = nn.Sequential(Trunk(shape, hidden), nn.Linear(hidden, n))
        # Small last weights: before any reward the policy is almost the same in every state.
        self.actor[-1].weight.data.mul_(0.01)
        self.critic = nn.Sequential(Trunk(shape, hidden), nn.Linear(hidden, 1))
        # Box actions: one spread (standard deviation) for all states. Its logarithm is learned, so
        # that it stays positive.
        box = isinstance(action_space, gym.spaces.Box)
        self.log_std = nn.Parameter(torch.zeros(n)) if box else None

    def pi(self, states: torch.Tensor) -> Distribution:
        """States (batch, *shape) -> distribution whose log_prob is (batch,)."""
        outputs = self.actor(states)  # logits, or means
        if self.log_std is None:
            return Categorical(logits=outputs, validate_args=False)
        return Independent(Normal(outputs, self.log_std.exp(), validate_args=False), 1)

    def V(self, states: torch.Tensor) -> torch.Tensor:
        """States (batch, *shape) -> values (batch,)."""
        return self.critic(states).squeeze(-1)


class Trunk(nn.Sequential):
    """The first hidden layer. Images (channels, height, width) pass two convolutions before it.

    At 84x84 these are those of Mnih et al., 2013: 8x8 pixels in steps of 4, then 4x4 in steps of 2.
    Below 40x40, where every pixel counts, both are 3x3 in steps of 1.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int):
        if len(shape) == 1:  # a vector
            super().__init__(nn.Linear(shape[0], hidden), nn.Tanh())
            return
        n = min(shape[1:]) // 20  # 4 at 84x84, 2 at 42x42
        size, step, size_2, step_2 = (2 * n, n, 4, 2) if n > 1 else (3, 1, 3, 1)
        first, second = nn.Conv2d(shape[0], 16, size, step), nn.Conv2d(16, 32, size_2, step_2)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(-3))
        # Not tanh: its argument, a sum of many features, soon grows so large that tanh is flat.
        self.extend([nn.Linear(self(torch.zeros(shape)).numel(), hidden), nn.ReLU()])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States (batch, *shape) -> (batch, hidden). Pixels are bytes: 0 to 255 becomes 0 to 1."""
        return super().forward(states / 255 if states.dtype == torch.uint8 else states)


class Shared:
    """What all workers see, in shared memory: theta (with theta_v), Adam's means, the counters."""

    def __init__(self, theta: torch.Tensor, workers: int):
        self.theta = theta.clone().share_memory_()
        self.m, self.v = torch.zeros(2, len(theta)).share_memory_()
        self.steps, self.updates = torch.zeros(2, workers, dtype=torch.int64).share_memory_()
        self.stop = torch.zeros(1, dtype=torch.bool).share_memory_()  # True: end before T_max

    @property
    def T(self) -> int:
        """The global step counter: the sum of the workers' steps."""
        return self.steps.sum().item()

    def adam(self, d_theta: torch.Tensor, alpha: float, rank: int) -> None:
        """One step of Adam, its means shared by all workers (Kingma & Ba, 2015, Algorithm 1)."""
        self.updates[rank] += 1
        n = self.updates.sum().item()
        self.m.lerp_(d_theta, 0.1)  # m <- 0.9 m + 0.1 d_theta: the mean of the gradients
        self.v.lerp_(d_theta.square(), 0.001)  # v <- 0.999 v + 0.001 d_theta^2: of their squares
        spread = (self.v / (1 - 0.999**n)).sqrt_().add_(1e-8)
        self.theta.addcdiv_(self.m, spread, value=-alpha / (1 - 0.9**n))


def in_processes(workers: int, make_env, shared: Shared, report, settings: dict) -> None:
    """Run the workers in processes and pass their episodes on. If one fails, all end."""
    method = mp.get_start_method()
    episodes = mp.get_context(method).SimpleQueue()
    arguments = make_env, shared, episodes, settings
    processes = mp.start_processes(
        start_worker, arguments, workers, join=False, daemon=True, start_method=method
    )
    running = True
    while running:
        try:
            running = not processes.join(timeout=0.05)
        except mp.ProcessRaisedException as error:
            if "\nFloatingPointError: " in str(error):  # diverged: not an error of the program
                raise FloatingPointError(
                    str(error).split("FloatingPointError: ")[-1].strip()
                ) from None
            raise
        while not episodes.empty():
            report(*episodes.get())


def start_worker(rank: int, make_env, shared: Shared, episodes, settings: dict) -> None:
    """worker(), in a process of its own: its episodes go through a queue to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the main process decides
    worker(rank, make_env, shared, lambda *episode: episodes.put(episode), **settings)


def prepare(env) -> gym.Env:
    """Wrap an environment, or what makes one. States become float32 vectors, Discrete ones one-hot.

    What a network learns belongs to the states that are shown here, small ones stretched.
    Images, uint8 (channels, height, width) of at least 5x5 pixels, stay as they are.
    Box actions become vectors; a bound is -1 or 1 if it is finite. At the end of an episode,
    info["episode"] holds its return "r" and its length "l".
    """
    env = gym.wrappers.RecordEpisodeStatistics(env() if callable(env) else env)
    seen = env.observation_space
    if seen.dtype != np.uint8 or len(seen.shape) != 3 or min(seen.shape[1:]) < 5:
        env = gym.wrappers.FlattenObservation(env)
        low, high = np.float32((env.observation_space.low, env.observation_space.high))
        # A network overlooks small inputs: numbers that stay within (-1, 1) are stretched to it.
        unit = np.maximum(-low, high).clip(1e-3, 1)
        space = gym.spaces.Box(low / unit, high / unit)
        env = gym.wrappers.TransformObservation(env, lambda s: np.float32(s / unit), space)
    space = env.action_space
    if isinstance(space, gym.spaces.Discrete):  # counted from 0, as the logits are
        start, counted = int(space.start), gym.spaces.Discrete(space.n)
        return gym.wrappers.TransformAction(env, lambda a: int(a) + start, counted)
    box = gym.spaces.flatten_space(space)
    # A Gaussian goes beyond any bound: the environment gets the nearest action in its space.
    inside = lambda a: a.clip(box.low, box.high).astype(box.dtype).reshape(space.shape)
    low = np.where(np.isinf(box.low), box.low, -1)  # an infinite bound stays as it is
    high = np.where(np.isinf(box.high), box.high, 1)
    return gym.wrappers.RescaleAction(gym.wrappers.TransformAction(env, inside, box), low, high)


LITERAL = dict(scale_rewards=False)  # the slide and nothing else


def literally(env, *, literal: bool = False, **given):
    """train(), with LITERAL in place of its defaults if literal=True. What is given wins."""
    return literally.__wrapped__(env, **((LITERAL if literal else {}) | given))


train = functools.wraps(train)(literally)  # with the signature and the docstring of train() above


def main(argv: list[str] | None = None) -> int:
    """The command line: `python a3c.py --help`. Returns the exit status."""
    from common import runs

    act = lambda model, state: model.pi(state).mode  # the greedy action
    value = lambda model, state: model.V(state)
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value, several=True)


if __name__ == "__main__":
    raise SystemExit(main())
