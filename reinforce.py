"""REINFORCE, the policy gradient by whole episodes. Lecture part 4, "Policy Gradient".

The idea: a value function can be far more complicated than a good policy, and a max over continuous actions is not possible. So
learn the policy itself: play an episode with pi_theta, then make each action it took more likely in proportion to the return v_t
that followed. The likelihood-ratio trick, grad J = E[r(tau) grad log p(tau; theta)], says that this climbs the expected return,
and the unknown dynamics of the environment drop out of the gradient.

Pseudocode (Williams, 1992)

    [1] Initialise theta arbitrarily
    [2] for each episode {s_1, a_1, r_2, ..., s_{T-1}, a_{T-1}, r_T} ~ pi_theta do
    [3]     for t = 1 to T-1 do
    [4]         theta <- theta + alpha grad_theta log pi_theta(s_t, a_t) v_t
    [5] return theta

Where the slide is loose: the derivation weighs every action with r(tau), the return of the whole trajectory, the box with v_t,
the return from step t on. Both have the same expectation, since an action cannot change rewards before it; r(tau) has the higher
variance. `--weight trajectory` shows the difference.

Beyond the slide (all off under --literal)

    --no-scale           off: each input divided by its bounds where it has any, so that a small one is not drowned by the others.
    --baseline none      off: v_t less what was to be expected, a learned V(s_t). If all returns are positive, all actions become
                         more likely, the better ones only a little more; less a baseline, the worse ones become less likely.
                         The expectation of the gradient stays, its variance falls. `mean`: the mean of the episode instead.
    --no-normalize       off: the weights divided by their spread over the last episodes, so that a step of theta is of the same
                         size whether rewards are large or small.
    --no-mean            off: the mean over the episode in place of the sum of the box, as in the slide's snippet. With the sum, a
                         long episode makes a step as many times larger as it has steps.
    --no-rescale         off: values learned in units of the largest return seen so far. A network learns numbers around 1 much
                         faster than numbers around 100.
    --no-adam            off: Adam in place of the plain gradient step; each weight gets a step size that fits its gradients. The
                         plain step wants a smaller alpha.

Try

    python reinforce.py --env CartPole-v1
    python reinforce.py --env CartPole-v1 --weight trajectory
    python reinforce.py --env Acrobot-v1 --record acrobot.gif
    python reinforce.py --env CartPole-v1 --literal --alpha 1e-3

References

    Williams, Simple statistical gradient-following algorithms for connectionist reinforcement learning, 1992.
    Karpathy, Deep Reinforcement Learning: Pong from Pixels, 2016 (standardised returns).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Discrete, flatdim, flatten, flatten_space
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from common import runs


class Policy(nn.Module):
    """pi(a|s; theta). Discrete actions: a softmax over them. Box actions: a Gaussian, in units in which the bounds are -1 and 1.

    Args:
        observation_space: what the environment shows.
        action_space: Discrete or Box.
        hidden: units of the hidden layer.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, hidden: int):
        super().__init__()
        # A Discrete state becomes one-hot; a vector is divided by its bounds where it has any, so that no input is drowned.
        self.observation_space = observation_space
        flat = flatten_space(observation_space)
        bound = np.maximum(np.abs(flat.low), np.abs(flat.high))
        scale = np.where((bound > 0) & (bound < 1e3), bound, 1.0).astype(np.float32)
        self.register_buffer("scale", torch.from_numpy(scale))
        self.discrete = isinstance(action_space, Discrete)
        self.n_outputs = flatdim(action_space)  # Discrete: one logit for each action; Box: one mean for each dimension
        self.layers = nn.Sequential(nn.Linear(flat.shape[0], hidden), nn.Tanh(), nn.Linear(hidden, self.n_outputs))
        self.register_buffer("unit", torch.ones(()))  # V is learned in units of it; it grows with the returns that are seen
        self.value = nn.Sequential(nn.Linear(flat.shape[0], hidden), nn.Tanh(), nn.Linear(hidden, 1))  # the baseline V
        if not self.discrete:
            self.log_std = nn.Parameter(torch.zeros(self.n_outputs))  # one spread for all states: log, so that it stays positive
            self.shape, self.dtype = action_space.shape, action_space.dtype
            bounded = np.isfinite(action_space.low) & np.isfinite(action_space.high)
            self.low, self.high = np.where(bounded, action_space.low, -1), np.where(bounded, action_space.high, 1)
            self.limit, self.bounded = np.where(bounded, 1.0, np.inf), torch.from_numpy(bounded.flatten())

    def vector(self, observation) -> np.ndarray:
        """One observation as a vector. Shape: (features,), float32."""
        return flatten(self.observation_space, observation).astype(np.float32) / self.scale.numpy()

    def outputs(self, states: torch.Tensor) -> torch.Tensor:
        """The logits of Discrete actions, or the means of Box actions. Shape: (batch, outputs).

        A mean stays within its bounds: outside of them all actions would be clipped to the same one, and none be better.
        """
        outputs = self.layers(states)
        return outputs if self.discrete else torch.where(self.bounded, outputs.tanh(), outputs)

    def pi(self, states: torch.Tensor) -> Distribution:
        """pi(.|s) for states of shape (batch, features); its log_prob and entropy have shape (batch,)."""
        outputs = self.outputs(states)
        if self.discrete:
            return Categorical(logits=outputs)
        return Independent(Normal(outputs, self.std()), 1)

    def std(self) -> torch.Tensor:
        """Spread of the Gaussian, at least 0.05: without any spread, log pi and its gradient have no bounds."""
        return self.log_std.clamp(min=-3).exp()

    def V(self, states: torch.Tensor) -> torch.Tensor:
        """The baseline V(s) for states of shape (batch, features). Shape: (batch,)."""
        return self.unit * self.value(states).squeeze(-1)

    @torch.inference_mode()  # acting needs no gradient: [4] computes log pi once more, for the whole episode at once
    def sample(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a ~ pi(.|s) in one state of shape (features,). In numpy: for a single draw torch's distributions are slow."""
        outputs = self.outputs(torch.from_numpy(state)).numpy()
        if self.discrete:  # the Gumbel-max trick: the argmax of logits + Gumbel noise is a draw from their softmax
            return np.argmax(outputs + rng.gumbel(size=self.n_outputs))
        return (outputs + self.std().numpy() * rng.standard_normal(self.n_outputs)).astype(np.float32)

    def to_env(self, action: np.ndarray):
        """An action as the environment takes it; a Gaussian one is clipped to the bounds only here, its log_prob is not."""
        if self.discrete:
            return int(action)
        inside = np.clip(action.reshape(self.shape), -self.limit, self.limit)
        return (self.low + (inside + 1) / 2 * (self.high - self.low)).astype(self.dtype)  # -1 is the lower bound, 1 the upper

    @torch.inference_mode()
    def greedy(self, observation):
        """The most likely action in one state, as the environment takes it."""
        outputs = self.outputs(torch.from_numpy(self.vector(observation))).numpy()
        return self.to_env(outputs.argmax() if self.discrete else outputs)


@runs.checked(observations="vector", actions={"Discrete", "Box"})
def train(
    env: gym.Env,
    *,
    seed: int = 0,
    episodes: int = 10_000,
    steps: int = 300_000,
    gamma: float = 0.99,
    alpha: float = 5e-3,
    weight: Literal["return", "trajectory"] = "return",
    baseline: Literal["value", "mean", "none"] = "value",
    normalize: bool = True,
    mean: bool = True,
    adam: bool = True,
    rescale: bool = True,
    scale: bool = True,
    hidden: int = 64,
    literal: bool = False,
    on_episode: Callable[[float, int, int], bool] | None = None,
) -> tuple[Policy, list[float]]:
    """REINFORCE.

    Args:
        env: an environment with Discrete or Box actions; its observations are flattened (Discrete ones: one-hot).
        seed: one seed, one result; in [0, inf).
        episodes: the budget in episodes; in [1, inf).
        steps: the budget in environment steps; the first of the two that is used up ends the training; in [1, inf).
        gamma: discount of the return; in [0, 1].
        alpha: step size; in (0, inf).
        weight: of each step's gradient: v_t, the return from step t on, or r(tau), the return of the whole trajectory.
        baseline: what is taken off v_t: a learned V(s_t), the mean over the episode, or nothing.
        normalize: divide the weights by their spread over the last episodes.
        mean: one step along the mean over the episode, in place of the sum.
        adam: Adam, in place of the plain gradient step.
        rescale: learn values in units of the largest return seen so far.
        scale: divide each input by its bounds, where it has any.
        hidden: units of the hidden layer; in [1, inf).
        literal: the slide to the letter: everything under "Beyond the slide" is off.
        on_episode: called after each episode with its return, its length and the steps so far; True ends the training.

    Returns:
        The policy, and the undiscounted return of every finished episode.

    Raises:
        ValueError: a number outside its interval, or spaces that do not fit.
        FloatingPointError: the loss is no longer a finite number.
    """
    if literal:
        baseline, normalize, mean, rescale, adam, scale = "none", False, False, False, False, False
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # networks this small lose more by handing work to a second thread than they gain
    rng = np.random.default_rng(seed)
    returns, step, spread = [], 0, 0.0

    # [1] Initialise theta arbitrarily
    policy = Policy(env.observation_space, env.action_space, hidden)
    if not scale:
        policy.scale.fill_(1)
    optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(policy.parameters(), lr=alpha, fused=True)

    # [2] for each episode {s_1, a_1, r_2, ..., s_{T-1}, a_{T-1}, r_T} ~ pi_theta do
    for episode in range(1, episodes + 1):
        # The episode is played to its end before anything is learned from it. The environment is seeded once; later resets go
        # on from there.
        state = policy.vector(env.reset(seed=seed if episode == 1 else None)[0])
        states, actions, rewards, done = [], [], [], False
        while not done and step < steps:
            step += 1
            action = policy.sample(state, rng)
            observation, reward, terminated, truncated, _ = env.step(policy.to_env(action))
            states.append(state)
            actions.append(action)
            rewards.append(float(reward))
            state, done = policy.vector(observation), terminated or truncated
        if not done:  # the budget of steps ended inside this episode: it has no return yet
            break

        s = torch.from_numpy(np.stack([*states, state]))  # (T, features), the last state as well
        V = policy.V(s)  # (T,)
        # v_t = r_{t+1} + gamma r_{t+2} + ..., summed from the last step backwards. Nothing follows a terminal state. A time limit
        # (truncated) only stops our watching: what would have followed is V of the last state, if there is a V.
        v = np.zeros(len(rewards), np.float32)
        following = 0.0 if terminated or baseline != "value" else V[-1].item()
        for t in reversed(range(len(rewards))):
            v[t] = following = rewards[t] + gamma * following
        v = torch.from_numpy(v)

        w = v[0].expand_as(v) if weight == "trajectory" else v  # r(tau) is v_t of the first step
        if baseline == "value":
            w = w - V[:-1].detach()  # detached: theta of the policy follows from w, not w from theta
        elif baseline == "mean":
            w = w - w.mean()
        if normalize:  # the mean square of the weights, mostly of the last ten episodes
            spread = 0.9 * spread + 0.1 * w.square().mean().item() if returns else w.square().mean().item()
            w = w / (spread**0.5 + 1e-8)

        # All terms of the sum are taken at the same theta, the one that played the episode: one gradient step for all t.
        # [3] for t = 1 to T-1 do (vectorised over t)
        log_pi = policy.pi(s[:-1]).log_prob(torch.from_numpy(np.stack(actions)))  # (T-1,)
        # [4] theta <- theta + alpha grad_theta log pi_theta(s_t, a_t) v_t (vectorised over t)
        objective = (log_pi * w).mean() if mean else (log_pi * w).sum()
        loss = -objective  # the optimiser descends, the box climbs: hence the minus
        if baseline == "value":
            loss = loss + ((v - V[:-1]) / policy.unit).square().mean()  # V is fitted to the returns; it shares no weight with pi
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}; a smaller alpha may help")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        if rescale:  # the largest return seen so far
            policy.unit.clamp_(min=v.abs().max())
        returns.append(sum(rewards))
        if on_episode and on_episode(returns[-1], len(rewards), step):
            break
    # [5] return theta
    return policy, returns


def main(argv: list[str] | None = None) -> int:
    """The command line: `python reinforce.py --help`. Returns the exit status."""
    with runs.Run(train, argv, env="CartPole-v1") as run:
        env = run.open_env()
        if run.load:
            policy = run.loaded(Policy(env.observation_space, env.action_space, run.hyperparameters["hidden"]))
        else:
            with run.training():
                policy, _ = train(env, **run.hyperparameters, on_episode=run.on_episode)
        learned_V = run.hyperparameters["baseline"] == "value" and not run.hyperparameters["literal"]
        value = (lambda observation: policy.V(torch.from_numpy(policy.vector(observation))).item()) if learned_V else None
        run.finish(policy, act=policy.greedy, value=value)
    return run.status


if __name__ == "__main__":
    sys.exit(main())
