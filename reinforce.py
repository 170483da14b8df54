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
slide's snippet takes the mean over t. A time limit ends an episode, too, but s_T is not terminal
then: the rewards after it are missing. Only a baseline can stand for them; without one v_t leaves
them out.

Beyond the slide (--literal, see LITERAL below, turns off all that has a flag and adapts constants)

    Baseline (off: --no-baseline). The weight is v_t minus a learned V(s_t). If all returns are
        positive, v_t makes every action taken more likely; v_t - V(s_t) only those that did better
        than V expected. The expected gradient stays the same, its variance is usually lower. After
        a time limit V of the last state stands for the missing rewards. V learns by its mean
        squared error over the episode.
    Scaled rewards (off: --no-scale-rewards). Rewards are multiplied by 1 - gamma, at least 0.001.
        v_t then is at most as large as the largest reward (gamma up to 0.999), small enough for a
        new V to learn quickly.
    Adam (off: --no-adam) instead of the plain gradient step. It divides each weight's gradient by
        its usual size, so one alpha fits returns of 1 and of 500.
    Small last weights of the policy, so it begins almost the same in every state; a Gaussian begins
        with standard deviation 1/sqrt(n) for n components. State components bounded within (-1, 1)
        are divided by their bound, and Box actions are rescaled to [-1, 1] and clipped (by
        common.envs.make, not here).

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

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 100_000,  # episodes at most
    steps: int = 300_000,  # environment steps at most; training stops at whichever comes first
    gamma: float = 0.99,  # discount of the return
    alpha: float = 5e-3,  # step size of the policy
    beta: float = 5e-3,  # step size of the baseline V
    baseline: bool = True,  # weight log pi with v_t - V(s_t) instead of v_t
    scale_rewards: bool = True,  # multiply rewards by 1 - gamma
    adam: bool = True,  # Adam instead of the plain gradient step
    hidden: int = 64,  # units of the hidden layer
    trunk=None,  # for images: a function that makes the first layers (common/pixels.py)
    on_episode=None,  # called with (episode_return, length, step); may return True to stop
) -> tuple["Policy", list[float]]:
    """Train on Discrete or Box actions; returns the policy and the list of episode returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # a second thread only costs time in small networks
    space = env.observation_space
    assert trunk or space.dtype == np.float32, "use wrappers FlattenObservation, DtypeObservation"

    # [1] Initialise theta arbitrarily
    # theta: the parameters of `policy`.
    policy = Policy(space.shape, env.action_space, hidden, trunk)
    V = Value(space.shape, hidden, trunk)  # beyond the slide: the baseline
    groups = [dict(params=policy.parameters(), lr=alpha), dict(params=V.parameters(), lr=beta)]
    Optimizer = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = Optimizer(groups, fused=True)

    reward_scale = max(1 - gamma, 1e-3) if scale_rewards else 1.0  # beyond the slide
    returns = []
    step = 0
    # [2] for each episode {s_1, a_1, r_2, ..., s_{T-1}, a_{T-1}, r_T} ~ pi_theta do
    # It is played to its end first, since v_t needs all rewards after step t.
    for episode in range(1, episodes + 1):
        state, _ = env.reset(seed=seed if episode == 1 else None)  # seeded once, at the start
        states = [state]
        actions = []
        rewards = []
        episode_return = 0.0
        done = False
        while not done and step < steps:
            step += 1
            with torch.inference_mode():  # log pi is computed again at [4], with its gradient
                action = policy(torch.as_tensor(state)).sample().cpu().numpy()
            state, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            episode_return += reward
            states.append(state)
            actions.append(action)
            rewards.append(reward_scale * reward)
        if not done:  # step limit reached mid-episode; not counted
            break

        s = torch.as_tensor(np.stack(states))  # (T, n_features), from s_1 to s_T
        a = torch.as_tensor(np.stack(actions))  # (T-1,); Box actions: (T-1, action_size)
        b = V(s) if baseline else torch.zeros(len(s))  # beyond the slide: the baseline, (T,)
        # [3] for t = 1 to T-1 do
        # Backwards: v_t = r_{t+1} + gamma v_{t+1}. Python counts from 0, so rewards[0] is r_2.
        # v[-1] is what follows s_T: 0 if s_T is terminal, V(s_T) after a time limit (0 without V).
        v = np.zeros(len(states))  # (T,)
        v[-1] = 0.0 if terminated else b[-1].item()
        for t in reversed(range(len(rewards))):
            v[t] = rewards[t] + gamma * v[t + 1]
        # [4] theta <- theta + alpha grad_theta log pi_theta(s_t, a_t) v_t (vectorised over t)
        # Minus: the optimiser descends, the box climbs. One step, with the sum over t.
        log_pi = policy(s[:-1]).log_prob(a)  # (T-1,)
        weight = torch.as_tensor(v[:-1]).float() - b[:-1]  # the slide's v_t, since b is 0 there
        policy_loss = -(weight.detach() * log_pi).sum()  # detach: the weight is a constant
        V_loss = weight.square().mean()  # beyond the slide: V learns v_t (without V a constant)
        loss = policy_loss + V_loss  # no common parameters: one step moves both networks
        if not loss.isfinite():
            raise FloatingPointError(f"loss {loss:g} at step {step}: lower alpha or beta")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        returns.append(episode_return)
        if on_episode and on_episode(episode_return, len(rewards), step):
            break
    # [5] return theta
    return policy, returns


# The slide. A plain step grows with the returns and the length of the episode, so alpha is small.
LITERAL = dict(alpha=3e-5, baseline=False, scale_rewards=False, adam=False)


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
    """The command line: `python reinforce.py --help`. Returns the exit status."""
    from common import runs

    act = lambda policy, state: policy(state).mode  # the greedy action
    return runs.main(train, argv, env="CartPole-v1", act=act)


if __name__ == "__main__":
    raise SystemExit(main())
