"""Proximal policy optimisation (PPO). Lecture part 5, "PPO".

Samples of a policy estimate the policy gradient of that policy only: after one step they are out of
date. PPO collects a batch with pi_theta_old and takes many small steps on it, but pays for moving
away. The objective weights each advantage A_t by how much more likely the action has become,
pi_theta / pi_theta_old, and subtracts a penalty for the divergence KL[pi_theta_old, pi_theta]. So
each batch serves many times, and the policy stays near the one that collected it.

Pseudocode ([1] is the slide's objective; [a] to [g] are the loop around it; Schulman et al., 2017)

    [1] maximize over theta: E_t[ pi_theta(a_t|s_t) / pi_theta_old(a_t|s_t) * A_t
        - beta KL[pi_theta_old(.|s_t), pi_theta(.|s_t)] ]

    [a] for iteration = 1, 2, ... do
    [b]     for actor = 1, 2, ..., N do
    [c]         Run policy pi_theta_old in environment for T timesteps
    [d]         Compute advantage estimates A_1, ..., A_T (GAE, lambda)
    [e]     Optimize surrogate L wrt theta, with K epochs and minibatch size M <= NT
    [f]     d = E_t[KL]; d < d_targ/1.5: beta <- beta/2; d > 1.5 d_targ: beta <- 2 beta
    [g]     theta_old <- theta

Where the slide is loose: it gives the objective only. V, which GAE needs, learns by the squared
error in the same loop, and the step size falls to 0, as in the paper's runs on Atari. The spread of
the Gaussian over Box actions is learned, too; it begins with --std. The paper's other surrogate is
--clip 0.2: min(r_t A_t, clip(r_t, 1-eps, 1+eps) A_t) with the ratio r_t and eps = 0.2. The paper
found clipping better than the penalty on its benchmarks.

Beyond the slide (the flag turns it off, and so does --literal)

    --no-scale-rewards  Rewards are divided by the spread of their discounted sums so far. V then
                        learns numbers of a similar size in all environments. The returns that are
                        reported stay as they are.

Try

    python ppo.py --env CartPole-v1
    python ppo.py --env Pendulum-v1 --gae-lambda 0.9
    python ppo.py --env LunarLander-v3
    python ppo.py --env HalfCheetah-v5 --gae-lambda 0.9 --std 0.4
    python ppo.py --env CartPole-v1 --clip 0.2

References

    Schulman et al., Proximal Policy Optimization Algorithms, 2017.
    Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation,
    2016.
"""

from __future__ import annotations

import functools

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence


def train(
    make_env,  # a function that makes an environment, or an environment (its spec makes more)
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    steps: int = 1_000_000,  # the budget in environment steps of all actors together
    n_envs: int = 8,  # N, the actors, each with an environment of its own
    horizon: int = 256,  # T, the timesteps that each actor runs in an iteration
    epochs: int = 10,  # K, how often an iteration goes through its batch
    batch: int = 256,  # M, the size of a minibatch
    gamma: float = 0.99,  # discount of the return
    gae_lambda: float = 0.98,  # lambda of the advantage: 0 looks one step ahead, 1 to the end
    alpha: float = 2e-3,  # step size of Adam to begin with; it falls to 0 over the budget, steps
    beta: float = 1.0,  # weight of the KL penalty to begin with
    d_targ: float = 0.01,  # how far an iteration should move the policy, as E_t[KL]
    clip: float = 0.0,  # eps of the paper's clipped surrogate; 0: the slide's KL penalty
    scale_rewards: bool = True,  # divide rewards by the spread of their discounted sums
    hidden: int = 64,  # units of each hidden layer
    std: float = 1.0,  # spread of the Gaussian to begin with (Box actions only)
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode=lambda episode_return, length, step: False,  # called after each; True ends training
) -> tuple[Policy, Value, list[float]]:
    """Train on an environment with Discrete or Box actions; returns policy, V and all returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for small networks a second thread costs more than it gains
    envs = vectorised(make_env, n_envs, gamma if scale_rewards else None)
    sizes = envs.single_observation_space.shape, envs.single_action_space, hidden, std
    policy, old, V = Policy(*sizes), Policy(*sizes).requires_grad_(False), Value(sizes[0], hidden)
    old.load_state_dict(policy.state_dict())  # theta_old = theta
    optimizer = torch.optim.Adam([*policy.parameters(), *V.parameters()], lr=alpha, fused=True)
    state, returns, step = envs.reset(seed=seed)[0], [], 0  # (N, *shape); N different seeds

    # An iteration collects NT samples, learns from them K times, and throws them away.
    # [a] for iteration = 1, 2, ... do
    while step < steps:
        # Large steps at first; small ones at the end, so that a good policy is not shaken any more.
        optimizer.param_groups[0]["lr"] = alpha * (1 - step / steps)
        # The second axis is the actor: one call of envs.step moves all N. Shapes: (T, N); states
        # and next_states: (T, N, *shape).
        # [b] for actor = 1, 2, ..., N do (vectorised over actors)
        rewards, terminated, done = np.zeros((3, horizon, n_envs), np.float32)
        states, next_states = np.zeros((2, horizon, *state.shape), state.dtype)
        actions = []
        # old, not policy: theta_old stays fixed while the batch is collected and used.
        # [c] Run policy pi_theta_old in environment for T timesteps (vectorised over actors)
        for t in range(horizon):
            with torch.inference_mode():  # acting needs no gradient
                actions.append(old(torch.as_tensor(state)).sample())
            states[t] = state
            state, rewards[t], terminated[t], truncated, info = envs.step(actions[t].cpu().numpy())
            next_states[t], done[t] = state, np.maximum(terminated[t], truncated)
            step += n_envs
            for i in np.flatnonzero(done[t]):  # this actor has begun another episode
                # The last state of the old one; envs.step() returned the first of the new.
                next_states[t, i] = info["final_obs"][i]
                episode = info["final_info"]["episode"]
                returns.append(float(episode["r"][i]))
                if on_episode(returns[-1], int(episode["l"][i]), step):
                    envs.close()
                    return policy, V, returns

        # One axis in place of actors and timesteps, as the networks need it: (NT, *shape).
        s, s_next = (torch.as_tensor(x).flatten(0, 1) for x in (states, next_states))
        with torch.no_grad():  # (T, N): the advantages are constants for [1]
            values, next_values = (V(x).cpu().numpy().reshape(done.shape) for x in (s, s_next))
        # delta is the error of V in one step. Only a terminal state has no future: a time limit
        # (truncated) keeps the bootstrap. Both cut the sum over later errors, which are another
        # episode's. gae_lambda = 0 keeps delta alone: little variance, V's bias. 1 sums all later
        # errors: more variance, less bias.
        # [d] Compute advantage estimates A_1, ..., A_T (GAE, lambda) (vectorised over actors)
        delta = rewards + gamma * (1 - terminated) * next_values - values
        A, later = np.zeros_like(delta), 0.0
        for t in reversed(range(horizon)):  # A_t = delta_t + gamma lambda A_{t+1}
            A[t] = later = delta[t] + gamma * gae_lambda * (1 - done[t]) * later

        # The same for the rest: from here on actors and timesteps do not matter.
        a, A = torch.cat(actions), torch.as_tensor(A).flatten()
        target = A + torch.as_tensor(values).flatten()  # the target of V, (NT,)
        log_pi_old = old(s).log_prob(a)  # (NT,), without gradient: theta_old is a constant
        # Each epoch takes the samples in another random order: neighbours in time are alike.
        # [e] Optimize surrogate L wrt theta, with K epochs and minibatch size M <= NT
        for _ in range(epochs):
            for j in torch.randperm(len(s)).split(batch):
                pi = policy(s[j])
                # At the first gradient step of an iteration theta = theta_old: the ratio is 1, KL
                # has gradient 0, and the gradient of [1] is the policy gradient.
                # [1] maximize over theta: E_t[ pi_theta(a_t|s_t) / pi_theta_old(a_t|s_t) * A_t
                #     - beta KL[pi_theta_old(.|s_t), pi_theta(.|s_t)] ]
                ratio = (pi.log_prob(a[j]) - log_pi_old[j]).exp()  # (M,)
                L = (ratio * A[j] - beta * kl_divergence(old(s[j]), pi)).mean()
                if clip:  # the other surrogate: beyond 1 +- eps an action gains nothing more
                    L = torch.minimum(ratio * A[j], ratio.clamp(1 - clip, 1 + clip) * A[j]).mean()
                # V learns beside the policy and shares no weight with it. Minus: Adam descends.
                loss = (target[j] - V(s[j])).square().mean() - L
                if not loss.isfinite():
                    raise FloatingPointError(f"loss {loss:g} at step {step}: try a smaller alpha")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        # d large: the policy has moved too far from the one that collected the batch, so beta
        # doubles. d small: the penalty is stricter than necessary, so beta halves.
        # [f] d = E_t[KL]; d < d_targ/1.5: beta <- beta/2; d > 1.5 d_targ: beta <- 2 beta
        with torch.no_grad():
            d = kl_divergence(old(s), policy(s)).mean().item()
        if d < d_targ / 1.5:
            beta /= 2
        elif d > 1.5 * d_targ:
            beta *= 2
        # The next batch is collected with the new policy; its ratios begin at 1 again.
        # [g] theta_old <- theta
        old.load_state_dict(policy.state_dict())
    envs.close()
    return policy, V, returns


class Policy(nn.Module):
    """pi(a|s; theta): a softmax over Discrete actions, a Gaussian over Box actions."""

    def __init__(self, shape: tuple[int, ...], action_space: gym.Space, hidden: int, std: float):
        super().__init__()
        n = gym.spaces.flatdim(action_space)  # one logit for each action, or one mean
        self.layers = nn.Sequential(Trunk(shape, hidden), nn.Linear(hidden, n))
        # Small last weights: before any reward the policy is almost the same in every state.
        self.layers[-1].weight.data.mul_(0.01)
        # Box actions: one spread (standard deviation) for all states. Its logarithm is learned, so
        # that it stays positive. std = 1, the way from the middle to a bound (see prepare()), finds
        # a goal that is far away; a robot that runs may learn more with less (see Try).
        box = isinstance(action_space, gym.spaces.Box)
        self.log_std = nn.Parameter(torch.full((n,), std).log()) if box else None

    def forward(self, states: torch.Tensor) -> Distribution:
        """States (batch, *shape) -> distribution whose log_prob is (batch,)."""
        outputs = self.layers(states)  # logits, or means
        if self.log_std is None:
            return Categorical(logits=outputs, validate_args=False)
        return Independent(Normal(outputs, self.log_std.exp(), validate_args=False), 1)


class Value(nn.Sequential):
    """V(s): states (batch, *shape) -> values (batch,)."""

    def __init__(self, shape: tuple[int, ...], hidden: int):
        flat = nn.Flatten(-2)  # (batch, 1) -> (batch,)
        super().__init__(Trunk(shape, hidden), nn.Linear(hidden, 1), flat)


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


def vectorised(make_env, n_envs: int, gamma: float | None) -> gym.vector.VectorEnv:
    """N environments that move together; with a gamma, rewards are scaled (beyond the slide).

    SameStep: an environment whose episode ends is reset in the same call, so that each row is one
    transition.
    """
    make_env = make_env.spec.make if isinstance(make_env, gym.Env) else make_env
    makers = [lambda: prepare(make_env)] * n_envs
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode="SameStep")
    return envs if gamma is None else gym.wrappers.vector.NormalizeReward(envs, gamma)


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
    """The command line: `python ppo.py --help`. Returns the exit status."""
    from common import runs

    act = lambda policy, V, state: policy(state).mode  # the greedy action
    value = lambda policy, V, state: V(state[None])
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value, several=True)


if __name__ == "__main__":
    raise SystemExit(main())
