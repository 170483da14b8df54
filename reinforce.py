"""REINFORCE, the policy gradient by whole episodes. Lecture part 4, "Policy Gradient".

A value function can be far more complicated than a good policy, and a max over continuous actions
is not possible. So learn the policy itself: play an episode with pi_theta, then raise the log
probability of each of its actions in proportion to the return v_t that followed (lower it where
v_t is negative). The likelihood-ratio trick, grad J = E[r(tau) grad log p(tau; theta)], shows that
this is, on average, a step up the expected return. The unknown dynamics of the environment drop
out of the gradient.

Pseudocode (Williams, 1992)

    [1] Initialise theta arbitrarily
    [2] for each episode {s_1, a_1, r_2, ..., s_{T-1}, a_{T-1}, r_T} ~ pi_theta do
    [3]     for t = 1 to T-1 do
    [4]         theta <- theta + alpha grad_theta log pi_theta(s_t, a_t) v_t
    [5] return theta

Where the slide is loose: the derivation weights every action with r(tau), the return of the whole
episode, the box with v_t, the return from step t on. An action cannot change the rewards before
it, so v_t leaves them out and usually has the lower variance. For gamma < 1 the exact weight is
gamma^(t-1) v_t (Sutton & Barto, section 13.3, where t begins at 0). The box drops that factor, as
nearly all code does, and so does this code. The box changes theta at every t, yet the derivation
needs the theta that played the episode: this code takes one gradient step with the sum over t. The
slide's snippet takes the mean over t.

Beyond the slide (the flag turns it off; --literal turns all of them off)

    --no-baseline      The weight is v_t minus a learned V(s_t). If all returns are positive, v_t
                       pushes up every action taken; v_t - V(s_t) only those that did better than
                       V expected. The expected gradient stays the same, its variance is usually
                       lower. At a time limit V also estimates the missing rewards, with its errors.
    --no-scale-rewards Rewards are multiplied by 1 - gamma, so that v_t is a weighted mean of the
                       rewards that follow. V learns numbers of a similar size everywhere.
    --no-adam          Adam in place of the plain gradient step. It averages the gradients of the
                       last steps and divides each weight's gradient by its usual size (the root of
                       its mean square), so that one alpha fits returns of 1 and of 500.

Try

    python reinforce.py --env CartPole-v1
    python reinforce.py --env CartPole-v1 --literal
    python reinforce.py --env CartPole-v1 --literal --baseline
    python reinforce.py --env MiniPong-v0 --gamma 0.95 --alpha 3e-4 --record pong.gif

References

    Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
    learning, 1992.
    Karpathy, Deep Reinforcement Learning: Pong from Pixels, 2016.
"""

from __future__ import annotations

import functools

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 100_000,  # the budget in episodes
    steps: int = 300_000,  # environment steps at most; the first budget used up ends training
    gamma: float = 0.99,  # discount of the return
    alpha: float = 5e-3,  # step size of the policy
    beta: float = 5e-3,  # step size of the baseline V
    baseline: bool = True,  # weight log pi with v_t - V(s_t) in place of v_t
    scale_rewards: bool = True,  # multiply rewards by 1 - gamma
    adam: bool = True,  # Adam in place of the plain gradient step
    hidden: int = 64,  # units of each hidden layer
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode=lambda episode_return, length, step: False,  # called after each; True ends training
) -> tuple[Policy, list[float]]:
    """Train on an environment with Discrete or Box actions; returns the policy and all returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for small networks a second thread costs more than it gains
    env, returns, step = prepare(env), [], 0
    if scale_rewards:  # beyond the slide; the returns that train() reports stay as they are
        env = gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))

    # Random weights: at first all actions are about equally likely.
    # [1] Initialise theta arbitrarily
    policy = Policy(env.observation_space.shape, env.action_space, hidden)
    V = Value(env.observation_space.shape, hidden)  # beyond the slide
    groups = [dict(params=policy.parameters(), lr=alpha), dict(params=V.parameters(), lr=beta)]
    optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(groups, fused=True)

    # The episode is played to its end first: v_t needs all the rewards after step t.
    # [2] for each episode {s_1, a_1, r_2, ..., s_{T-1}, a_{T-1}, r_T} ~ pi_theta do
    for episode in range(1, episodes + 1):
        # Only the first reset gets the seed. If each did, all episodes would start in the same way.
        state, _ = env.reset(seed=seed if episode == 1 else None)
        states, actions, rewards, done = [state], [], [], False
        while not done and step < steps:
            step += 1
            # No gradient: [4] computes log pi again. cpu(): the policy may be on a GPU.
            with torch.inference_mode():
                action = policy(torch.as_tensor(state)).sample().cpu().numpy()
            state, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            states.append(state)
            actions.append(action)
            rewards.append(float(reward))
        if not done:  # the budget ended inside this episode: it has no return
            break

        s, a = torch.as_tensor(np.stack(states)), torch.as_tensor(np.stack(actions))
        values = V(s)  # (T,): V of the last state as well
        # v_t = r_{t+1} + gamma v_{t+1}, from the last step backwards. Python counts from 0:
        # rewards[0] is r_2, v[0] is v_1. Nothing follows a terminal state. After a time limit
        # (truncated) V of the last state stands for the rewards that the task would still have
        # given; without a baseline they count as 0.
        v = np.zeros(len(rewards), np.float32)
        later = values[-1].item() if baseline and not terminated else 0.0
        for t in reversed(range(len(rewards))):
            v[t] = later = rewards[t] + gamma * later
        v = torch.as_tensor(v)  # (T-1,)
        # The weight is a constant. Without detach the policy's loss would also change V.
        weight = v - values[:-1].detach() if baseline else v  # beyond the slide: minus V(s_t)

        # All t at once: one distribution for each state, one log probability for each action.
        # [3] for t = 1 to T-1 do (vectorised over t)
        log_pi = policy(s[:-1]).log_prob(a)  # (T-1,)
        # Autograd gives the sum of the gradients of all terms. Minus: the optimiser descends, the
        # box climbs. grad log pi = grad pi / pi: the division makes up for likely actions being
        # drawn more often.
        # [4] theta <- theta + alpha grad_theta log pi_theta(s_t, a_t) v_t (vectorised over t)
        loss = -(log_pi * weight).sum()
        if baseline:  # V learns to predict v_t; it shares no weight with the policy
            # The mean over t: the step that V takes does not grow with the episode's length.
            loss = loss + (v - values[:-1]).square().mean()
        if not loss.isfinite():
            raise FloatingPointError(f"loss {loss:g} at step {step}: lower alpha or beta")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    # policy holds theta. V was needed for training only.
    # [5] return theta
    return policy, returns


class Policy(nn.Module):
    """pi(a|s; theta): a softmax over Discrete actions, a Gaussian over Box actions."""

    def __init__(self, shape: tuple[int, ...], action_space: gym.Space, hidden: int):
        super().__init__()
        n = gym.spaces.flatdim(action_space)  # one logit for each action, or one mean
        self.layers = nn.Sequential(Trunk(shape, hidden), nn.Linear(hidden, n))
        # Small last weights: before any reward the policy is almost the same in every state.
        self.layers[-1].weight.data.mul_(0.01)
        # Box actions: one spread (standard deviation) for all states. Its logarithm is learned, so
        # that it stays positive.
        box = isinstance(action_space, gym.spaces.Box)
        self.log_std = nn.Parameter(torch.zeros(n)) if box else None

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


# The slide and nothing else. A plain step grows with the returns and with the length of the
# episode, hence the small alpha.
LITERAL = dict(alpha=3e-5, baseline=False, scale_rewards=False, adam=False)


def literally(env, *, literal: bool = False, **given):
    """train(), with LITERAL in place of its defaults if literal=True. What is given wins."""
    return literally.__wrapped__(env, **((LITERAL if literal else {}) | given))


train = functools.wraps(train)(literally)  # with the signature and the docstring of train() above


def main(argv: list[str] | None = None) -> int:
    """The command line: `python reinforce.py --help`. Returns the exit status."""
    from common import runs

    act = lambda policy, state: policy(state).mode  # the greedy action
    return runs.main(train, argv, env="CartPole-v1", act=act)


if __name__ == "__main__":
    raise SystemExit(main())
