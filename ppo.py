"""Proximal policy optimisation (PPO). Lecture part 5, "PPO".

The idea: the policy gradient is only right near the policy that collected the data. PPO collects a batch with pi_theta_old, takes
many small steps on it, and pays for moving away: the objective weighs each action by how much more likely it has become,
pi_theta / pi_theta_old, times its advantage A_t, less a penalty on the distance KL[pi_theta_old, pi_theta]. So each batch serves
many times over, and the policy still moves safely.

Pseudocode ([1] is the slide's objective; [a] to [f] are the loop around it; Schulman et al., 2017, Algorithm 1)

    [1] maximize over theta:
        E_t[ pi_theta(a_t|s_t) / pi_theta_old(a_t|s_t) * A_t - beta KL[pi_theta_old(.|s_t), pi_theta(.|s_t)] ]

    [a] for iteration = 1, 2, ... do
    [b]     for actor = 1, 2, ..., N do
    [c]         Run policy pi_theta_old in environment for T timesteps
    [d]         Compute advantage estimates A_1, ..., A_T (GAE, lambda)
    [e]     Optimize surrogate L wrt theta, with K epochs and minibatch size M <= NT
    [f]     theta_old <- theta

As in the paper, beta adapts to the distance d = E_t[KL] that an iteration went: d < d_targ / 1.5 halves it, d > 1.5 d_targ
doubles it. The paper's other surrogate, min(r_t A_t, clip(r_t, 1 - eps, 1 + eps) A_t) with the ratio r_t, is --objective clip.
Here both learn equally well, and the slide's is the default: on seeds 0 to 9 of CartPole-v1 each solves it ten times out of ten,
after 65,000 steps (KL) and 64,000 steps (clip) in the median, `python ppo.py --seed N` and `... --objective clip --seed N`.

Beyond the slide (all off under --literal)

    --no-scale           off: each input divided by its bounds where it has any, so that a small one is not drowned by the others.
    --no-normalize       off: the advantages of a minibatch brought to mean 0 and spread 1. A step of theta is of the same size
                         whether rewards are large or small, and as many actions gain as lose.
    --no-rescale         off: values learned in units of the largest return seen so far. A network learns numbers around 1 much
                         faster than numbers around 100.

Try

    python ppo.py --env CartPole-v1
    python ppo.py --env Pendulum-v1
    python ppo.py --env Acrobot-v1 --objective clip
    python ppo.py --env CartPole-v1 --literal

References

    Schulman et al., Proximal Policy Optimization Algorithms, 2017.
    Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, 2016 (GAE).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Discrete, flatdim, flatten, flatten_space
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence

from common import runs


class Model(nn.Module):
    """pi(a|s; theta) and V(s; theta_v).

    Discrete actions: a softmax over them. Box actions: a Gaussian, in units in which the bounds are -1 and 1.

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
        self.value = nn.Sequential(nn.Linear(flat.shape[0], hidden), nn.Tanh(), nn.Linear(hidden, 1))
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
        """V(s) for states of shape (batch, features). Shape: (batch,)."""
        return self.unit * self.value(states).squeeze(-1)

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
    make_env: Callable[[], gym.Env],
    *,
    seed: int = 0,
    steps: int = 300_000,
    n_envs: int = 8,
    horizon: int = 128,
    epochs: int = 10,
    batch: int = 256,
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
    alpha: float = 3e-3,
    objective: Literal["kl", "clip"] = "kl",
    beta: float = 1.0,
    d_targ: float = 0.01,
    clip: float = 0.2,
    normalize: bool = True,
    rescale: bool = True,
    scale: bool = True,
    hidden: int = 64,
    literal: bool = False,
    on_episode: Callable[[float, int, int], bool] | None = None,
) -> tuple[Model, list[float]]:
    """Proximal policy optimisation.

    Args:
        make_env: a function that makes one environment, with Discrete or Box actions.
        seed: one seed, one result; in [0, inf).
        steps: the budget in environment steps, of all actors together, rounded up to whole iterations; in [1, inf).
        n_envs: N, the actors, each with an environment of its own; in [1, inf).
        horizon: T, the timesteps that each actor runs in an iteration; in [1, inf).
        epochs: K, how often each batch is gone through; in [1, inf).
        batch: M, the size of a minibatch; NT at most is used; in [1, inf).
        gamma: discount of the return; in [0, 1].
        gae_lambda: lambda of the advantage estimate, between one step (0) and the whole return (1); in [0, 1].
        alpha: step size of Adam; in (0, inf).
        objective: the surrogate: the slide's with the KL penalty, or the clipped one.
        beta: the KL penalty to begin with; it adapts; in [0, inf).
        d_targ: the distance E_t[KL] that an iteration should go; in (0, inf).
        clip: eps of the clipped surrogate; in (0, 1).
        normalize: bring the advantages of a minibatch to mean 0 and spread 1.
        rescale: learn values in units of the largest return seen so far.
        scale: divide each input by its bounds, where it has any.
        hidden: units of each hidden layer; in [1, inf).
        literal: the slide to the letter: everything under "Beyond the slide" is off.
        on_episode: called after each episode with its return, its length and the steps so far; True ends the training.

    Returns:
        The model, policy and value, and the undiscounted return of every finished episode.

    Raises:
        ValueError: a number outside its interval, or spaces that do not fit.
        FloatingPointError: the loss is no longer a finite number.
    """
    if literal:
        objective, normalize, rescale, scale = "kl", False, False, False
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # networks this small lose more by handing work to a second thread than they gain
    rng = np.random.default_rng(seed)
    returns, step = [], 0

    # N environments, stepped together. SAME_STEP: an environment that ends is reset within the same call. So every transition
    # lies within one episode, and its true last observation comes in info["final_obs"].
    envs = SyncVectorEnv([make_env] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    model = Model(envs.single_observation_space, envs.single_action_space, hidden)  # theta
    if not scale:
        model.scale.fill_(1)
    old = copy.deepcopy(model)  # theta_old
    optimizer = torch.optim.Adam(model.parameters(), lr=alpha, fused=True)

    def vectors(observations) -> np.ndarray:
        return np.stack([model.vector(observation) for observation in iterate(envs.observation_space, observations)])

    state = vectors(envs.reset(seed=seed)[0])  # (N, features); each environment has a seed of its own
    episode_return, episode_length = np.zeros(n_envs), np.zeros(n_envs, int)

    # [a] for iteration = 1, 2, ... do
    while step < steps:
        # The actors are columns of arrays: one call moves all N of them. Shapes: (T, N), states (T, N, features).
        # [b] for actor = 1, 2, ..., N do (vectorised over actors)
        rewards, terminated, done = np.zeros((3, horizon, n_envs), np.float32)
        states, next_states = np.zeros((2, horizon, *state.shape), np.float32)
        actions = []
        # [c] Run policy pi_theta_old in environment for T timesteps (vectorised over actors)
        for t in range(horizon):
            with torch.inference_mode():
                actions.append(old.pi(torch.from_numpy(state)).sample())
            moves = np.stack([old.to_env(action) for action in actions[t].numpy()])
            observations, reward, terminated[t], truncated, info = envs.step(moves)
            states[t], rewards[t], state = state, reward, vectors(observations)
            next_states[t], done[t] = state, np.logical_or(terminated[t], truncated)
            step += n_envs
            episode_return, episode_length = episode_return + reward, episode_length + 1
            for i in np.flatnonzero(done[t]):
                next_states[t, i] = model.vector(info["final_obs"][i])  # not the first state of the next episode
                returns.append(float(episode_return[i]))
                if on_episode and on_episode(returns[-1], int(episode_length[i]), step):
                    envs.close()
                    return model, returns
                episode_return[i] = episode_length[i] = 0

        if rescale:  # the largest sum of rewards that an iteration brought: about as large as values get
            for network in (model, old):
                network.unit.clamp_(min=float(np.abs(rewards.sum(axis=0)).max()))
        s, a = torch.from_numpy(states), torch.stack(actions)
        with torch.no_grad():
            values, next_values = old.V(s).numpy(), old.V(torch.from_numpy(next_states)).numpy()  # (T, N)
        # The error of one step, delta_t = r_t + gamma V(s_{t+1}) - V(s_t). Only a terminal state has no future; a time limit
        # (truncated) cuts the sum over later errors, which belong to another episode, but not the bootstrap.
        delta = rewards + gamma * (1 - terminated) * next_values - values
        # [d] Compute advantage estimates A_1, ..., A_T (GAE, lambda) (vectorised over actors)
        advantages = np.zeros_like(delta)
        later = np.zeros(n_envs, np.float32)
        for t in reversed(range(horizon)):  # A_t = delta_t + gamma lambda A_{t+1}
            advantages[t] = later = delta[t] + gamma * gae_lambda * (1 - done[t]) * later

        # From here on time and actor do not matter any more: NT samples in a row.
        s, a = s.flatten(0, 1), a.flatten(0, 1)
        A, target = torch.from_numpy(advantages).flatten(), torch.from_numpy(advantages + values).flatten()
        # [e] Optimize surrogate L wrt theta, with K epochs and minibatch size M <= NT
        for _ in range(epochs):
            for j in np.array_split(rng.permutation(len(s)), max(1, len(s) // batch)):
                pi = model.pi(s[j])
                with torch.no_grad():
                    pi_old = old.pi(s[j])
                ratio = (pi.log_prob(a[j]) - pi_old.log_prob(a[j])).exp()  # pi_theta(a_t|s_t) / pi_theta_old(a_t|s_t), (M,)
                A_j = (A[j] - A[j].mean()) / (A[j].std(correction=0) + 1e-8) if normalize else A[j]
                # [1] maximize over theta:
                #     E_t[ pi_theta(a_t|s_t) / pi_theta_old(a_t|s_t) * A_t - beta KL[pi_theta_old(.|s_t), pi_theta(.|s_t)] ]
                if objective == "kl":
                    surrogate = (ratio * A_j - beta * kl_divergence(pi_old, pi)).mean()
                else:  # beyond the interval 1 +- eps there is nothing more to gain, so that theta stays near theta_old
                    surrogate = torch.minimum(ratio * A_j, ratio.clamp(1 - clip, 1 + clip) * A_j).mean()
                # V is fitted beside the policy, with which it shares no weight.
                value_loss = ((target[j] - model.V(s[j])) / model.unit).square().mean()
                loss = value_loss - surrogate  # minus: the optimiser descends, the slide maximizes
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss.item()} at step {step}; a smaller alpha may help")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        with torch.no_grad():
            d = kl_divergence(old.pi(s), model.pi(s)).mean().item()  # how far this iteration went
        if d < d_targ / 1.5:
            beta /= 2
        elif d > d_targ * 1.5:
            beta *= 2
        # [f] theta_old <- theta
        old.load_state_dict(model.state_dict())
    envs.close()
    return model, returns


def main(argv: list[str] | None = None) -> int:
    """The command line: `python ppo.py --help`. Returns the exit status."""
    with runs.Run(train, argv, env="CartPole-v1") as run:
        env = run.open_env()
        if run.load:
            model = run.loaded(Model(env.observation_space, env.action_space, run.hyperparameters["hidden"]))
        else:
            with run.training():
                model, _ = train(run.make_env, **run.hyperparameters, on_episode=run.on_episode)
        run.finish(model, act=model.greedy, value=lambda observation: model.V(torch.from_numpy(model.vector(observation))).item())
    return run.status


if __name__ == "__main__":
    sys.exit(main())
