"""Deep deterministic policy gradient (DDPG). Lecture part 5, "DDPG".

The idea: DQN takes a max over actions, and "how to take max on continuous actions?" So a second network, the actor mu(s), learns
to output the best action. Being deterministic it removes the expectation over actions, Q(s,a) = E[r + gamma Q(s', mu(s'))], and
DQN is the case mu(s) = argmax_a Q(s,a). The critic Q is fitted as in DQN; the actor climbs the critic: grad_a Q says in which
direction the action should move, the chain rule carries that on to the actor's weights. Target networks Q' and mu' follow slowly.

Pseudocode (Lillicrap et al., 2015, Algorithm 1)

    [1] Randomly initialize critic network Q(s,a|theta^Q) and actor mu(s|theta^mu) with weights theta^Q and theta^mu
    [2] Initialize target network Q' and mu' with weights theta^Q' <- theta^Q, theta^mu' <- theta^mu
    [3] Initialize replay buffer R
    [4] for episode = 1, M do
    [5]     Initialize a random process N for action exploration
    [6]     Receive initial observation state s_1
    [7]     for t = 1, T do
    [8]         Select action a_t = mu(s_t|theta^mu) + N_t according to the current policy and exploration noise
    [9]         Execute action a_t and observe reward r_t and observe new state s_{t+1}
    [10]        Store transition (s_t, a_t, r_t, s_{t+1}) in R
    [11]        Sample a random minibatch of N transitions (s_i, a_i, r_i, s_{i+1}) from R
    [12]        Set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1}|theta^mu')|theta^Q')
    [13]        Update critic by minimizing the loss: L = 1/N sum_i (y_i - Q(s_i,a_i|theta^Q))^2
    [14]        Update the actor policy using the sampled policy gradient:
                grad_theta^mu J ~ 1/N sum_i grad_a Q(s,a|theta^Q)|s=s_i,a=mu(s_i) grad_theta^mu mu(s|theta^mu)|s_i
    [15]        Update the target networks: theta^Q' <- tau theta^Q + (1-tau) theta^Q'
                theta^mu' <- tau theta^mu + (1-tau) theta^mu'

Where the slide is loose: [12] has no terminal case. Where the task is over, no reward follows, and y_i = r_i, as in DQN.

Beyond the slide (all off under --literal)

    --no-scale           off: each input divided by its bounds where it has any, so that a small one is not drowned by the others.
    --no-adam            off: Adam in place of the plain gradient step; each weight gets a step size that fits its gradients. The
                         plain step wants a smaller alpha.
    --warmup 1           off: random actions at first, and no learning before R holds enough different ones to learn from.
    --noise-decay 0      off: the noise fading over the first steps, as in the slide's code; later it only spoils the returns.

Try

    python ddpg.py --env Pendulum-v1
    python ddpg.py --env Pendulum-v1 --noise gaussian
    python ddpg.py --env MountainCarContinuous-v0
    python ddpg.py --env Pendulum-v1 --literal --alpha-critic 1e-4 --alpha-actor 1e-4

References

    Lillicrap et al., Continuous control with deep reinforcement learning, 2015.
    Silver et al., Deterministic Policy Gradient Algorithms, 2014.
    Uhlenbeck, Ornstein, On the Theory of the Brownian Motion, 1930 (the noise).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import flatdim, flatten, flatten_space
from torch import nn

from common import runs


class Actor(nn.Module):
    """mu(s; theta^mu), in units in which the bounds of the actions are -1 and 1.

    Args:
        observation_space: what the environment shows.
        action_space: a Box.
        hidden: units of each of the two hidden layers.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.spaces.Box, hidden: int):
        super().__init__()
        # A Discrete state becomes one-hot; a vector is divided by its bounds where it has any, so that no input is drowned.
        self.observation_space = observation_space
        flat = flatten_space(observation_space)
        bound = np.maximum(np.abs(flat.low), np.abs(flat.high))
        scale = np.where((bound > 0) & (bound < 1e3), bound, 1.0).astype(np.float32)
        self.register_buffer("scale", torch.from_numpy(scale))
        self.shape, self.dtype = action_space.shape, action_space.dtype
        bounded = np.isfinite(action_space.low) & np.isfinite(action_space.high)
        self.low, self.high = np.where(bounded, action_space.low, -1), np.where(bounded, action_space.high, 1)
        self.layers = nn.Sequential(
            nn.Linear(flat.shape[0], hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, flatdim(action_space)),
            nn.Tanh(),  # within the bounds, whatever the weights
        )

    def vector(self, observation) -> np.ndarray:
        """One observation as a vector. Shape: (features,), float32."""
        return flatten(self.observation_space, observation).astype(np.float32) / self.scale.numpy()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """mu(s) for states of shape (batch, features). Shape: (batch, action dimensions), within -1 and 1."""
        return self.layers(states)

    def to_env(self, action: np.ndarray) -> np.ndarray:
        """An action as the environment takes it: -1 is its lower bound, 1 its upper."""
        return (self.low + (action.reshape(self.shape) + 1) / 2 * (self.high - self.low)).astype(self.dtype)

    @torch.inference_mode()  # acting needs no gradient, and not recording one makes it faster
    def mu(self, state: np.ndarray) -> np.ndarray:
        """mu(s) for one state of shape (features,). Shape: (action dimensions,)."""
        return self(torch.from_numpy(state)).numpy()


class Critic(nn.Module):
    """Q(s,a; theta^Q): state and action go in side by side, one value comes out.

    Args:
        features: length of a state.
        actions: dimensions of an action.
        hidden: units of each of the two hidden layers.
    """

    def __init__(self, features: int, actions: int, hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features + actions, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Q(s,a) for states (batch, features) and actions (batch, dimensions). Shape: (batch,)."""
        return self.layers(torch.cat([states, actions], dim=-1)).squeeze(-1)


class ReplayMemory:
    """R: the last `capacity` transitions, in arrays that are allocated once.

    Args:
        capacity: in transitions.
        features: length of a state.
        actions: dimensions of an action.
    """

    def __init__(self, capacity: int, features: int, actions: int):
        self.states = np.empty((capacity, features), np.float32)
        self.actions = np.empty((capacity, actions), np.float32)
        self.rewards = np.empty(capacity, np.float32)
        self.next_states = np.empty((capacity, features), np.float32)
        self.terminated = np.empty(capacity, np.float32)
        self.capacity, self.stored = capacity, 0

    def store(self, state, action, reward, next_state, terminated) -> None:
        """Put one transition in; when full, the oldest gives way (a ring)."""
        i = self.stored % self.capacity
        self.states[i], self.actions[i], self.rewards[i] = state, action, reward
        self.next_states[i], self.terminated[i] = next_state, terminated
        self.stored += 1

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """`batch` transitions, each drawn uniformly, with replacement.

        Returns:
            s_i (batch, features), a_i (batch, dimensions), r_i (batch,), s_{i+1} (batch, features), terminated (batch,).
        """
        i = rng.integers(min(self.stored, self.capacity), size=batch)
        columns = (self.states, self.actions, self.rewards, self.next_states, self.terminated)
        return tuple(torch.from_numpy(column[i]) for column in columns)


class OrnsteinUhlenbeck:
    """Noise that drifts back to 0: N_t = N_{t-1} - theta N_{t-1} + sigma xi_t, with xi_t standard normal.

    Neighbouring values are alike, so that the agent pushes one way for a while; independent noise would cancel itself out in a
    system with inertia. theta = 0.15 as in the paper.
    """

    def __init__(self, dimensions: int, sigma: float, rng: np.random.Generator):
        self.value, self.sigma, self.rng = np.zeros(dimensions), sigma, rng

    def __call__(self) -> np.ndarray:
        self.value += -0.15 * self.value + self.sigma * self.rng.standard_normal(self.value.shape)
        return self.value


class Gaussian:
    """Noise without memory: N_t = sigma xi_t, with xi_t standard normal, as in the slide's demo."""

    def __init__(self, dimensions: int, sigma: float, rng: np.random.Generator):
        self.dimensions, self.sigma, self.rng = dimensions, sigma, rng

    def __call__(self) -> np.ndarray:
        return self.sigma * self.rng.standard_normal(self.dimensions)


@runs.checked(observations="vector", actions={"Box"})
def train(
    env: gym.Env,
    *,
    seed: int = 0,
    episodes: int = 10_000,
    steps: int = 20_000,
    gamma: float = 0.99,
    alpha_critic: float = 1e-3,
    alpha_actor: float = 1e-3,
    tau: float = 0.01,
    memory: int = 100_000,
    batch: int = 128,
    warmup: int = 200,
    noise: Literal["ou", "gaussian"] = "ou",
    sigma: float = 0.2,
    noise_decay: int = 5_000,
    adam: bool = True,
    scale: bool = True,
    hidden: int = 128,
    literal: bool = False,
    on_episode: Callable[[float, int, int], bool] | None = None,
) -> tuple[Actor, Critic, list[float]]:
    """Deep deterministic policy gradient.

    Args:
        env: an environment with Box actions; its observations are flattened (Discrete ones: one-hot).
        seed: one seed, one result; in [0, inf).
        episodes: M, the budget in episodes; in [1, inf).
        steps: the budget in environment steps; the first of the two that is used up ends the training; in [1, inf).
        gamma: discount of the return; in [0, 1].
        alpha_critic: step size of the critic; in (0, inf).
        alpha_actor: step size of the actor; in (0, inf).
        tau: how far the target networks follow at each step; in (0, 1].
        memory: the capacity of the replay buffer R, in transitions; in [1, inf).
        batch: N, transitions in a minibatch; in [1, memory].
        warmup: steps with random actions, before the first gradient step; in [1, inf).
        noise: the random process N: Ornstein-Uhlenbeck as on the slide, or Gaussian as in its demo.
        sigma: spread of the noise, where the bounds of the actions are -1 and 1; in [0, inf).
        noise_decay: steps over which the noise fades to nothing, 0 for never; in [0, inf).
        adam: Adam, in place of the plain gradient step.
        scale: divide each input by its bounds, where it has any.
        hidden: units of each hidden layer; in [1, inf).
        literal: the slide to the letter: everything under "Beyond the slide" is off.
        on_episode: called after each episode with its return, its length and the steps so far; True ends the training.

    Returns:
        The actor, the critic, and the undiscounted return of every finished episode.

    Raises:
        ValueError: a number outside its interval, or spaces that do not fit.
        FloatingPointError: the loss is no longer a finite number.
    """
    if literal:
        adam, warmup, noise_decay, scale = False, 1, 0, False
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # networks this small lose more by handing work to a second thread than they gain
    rng = np.random.default_rng(seed)
    returns, step = [], 0
    features, dimensions = flatdim(env.observation_space), flatdim(env.action_space)

    # [1] Randomly initialize critic network Q(s,a|theta^Q) and actor mu(s|theta^mu) with weights theta^Q and theta^mu
    critic, actor = Critic(features, dimensions, hidden), Actor(env.observation_space, env.action_space, hidden)
    if not scale:
        actor.scale.fill_(1)
    # [2] Initialize target network Q' and mu' with weights theta^Q' <- theta^Q, theta^mu' <- theta^mu
    target_critic, target_actor = copy.deepcopy(critic), copy.deepcopy(actor)
    # [3] Initialize replay buffer R
    R = ReplayMemory(memory, features, dimensions)
    theta_mu = list(actor.parameters())
    theta = [*critic.parameters(), *theta_mu]
    theta_target = [*target_critic.parameters(), *target_actor.parameters()]
    Optimizer = torch.optim.Adam if adam else torch.optim.SGD
    critic_optimizer = Optimizer(critic.parameters(), lr=alpha_critic, fused=True)  # fused: one call for all weights
    actor_optimizer = Optimizer(actor.parameters(), lr=alpha_actor, fused=True)

    # [4] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # [5] Initialize a random process N for action exploration
        N = (OrnsteinUhlenbeck if noise == "ou" else Gaussian)(dimensions, sigma, rng)
        # The environment is seeded once; later resets go on from there.
        # [6] Receive initial observation state s_1
        state = actor.vector(env.reset(seed=seed if episode == 1 else None)[0])
        episode_return, t, done = 0.0, 0, False

        # T is not known beforehand: the environment says when the episode is over.
        # [7] for t = 1, T do
        while not done and step < steps:
            t, step = t + 1, step + 1
            fading = max(0.0, 1 - step / noise_decay) if noise_decay else 1.0
            # [8] Select action a_t = mu(s_t|theta^mu) + N_t according to the current policy and exploration noise
            action = actor.mu(state) + fading * N() if step >= warmup else rng.uniform(-1, 1, dimensions)
            action = action.clip(-1, 1).astype(np.float32)  # the noise must not leave the bounds
            # [9] Execute action a_t and observe reward r_t and observe new state s_{t+1}
            observation, reward, terminated, truncated, _ = env.step(actor.to_env(action))
            next_state = actor.vector(observation)
            # Terminal means that the task is over and no reward can follow. A time limit (truncated) only stops our watching:
            # the state after it is worth as much as ever. So R keeps `terminated`, and [12] bootstraps through time limits.
            # [10] Store transition (s_t, a_t, r_t, s_{t+1}) in R
            R.store(state, action, reward, next_state, terminated)
            state, episode_return, done = next_state, episode_return + float(reward), terminated or truncated

            if step < warmup:
                continue
            # [11] Sample a random minibatch of N transitions (s_i, a_i, r_i, s_{i+1}) from R
            state_i, action_i, reward_i, next_state_i, terminated_i = R.sample(batch, rng)
            # [12] Set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1}|theta^mu')|theta^Q')
            with torch.no_grad():  # the target is a constant: no gradient through it
                next_value = target_critic(next_state_i, target_actor(next_state_i))  # (batch,)
                # The terminal case that the slide leaves out: 1 - terminated is 0 there, and only r_i is left.
                y = reward_i + gamma * (1 - terminated_i) * next_value  # (batch,)
            # [13] Update critic by minimizing the loss: L = 1/N sum_i (y_i - Q(s_i,a_i|theta^Q))^2
            loss = F.mse_loss(critic(state_i, action_i), y)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}; a smaller alpha_critic may help")
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
            # Autograd is the chain rule: from Q through the action a = mu(s_i) into theta^mu. The critic only passes the gradient
            # on: its own weights must not move to please the actor (inputs=theta_mu). Minus, as the optimiser descends.
            # [14] Update the actor policy using the sampled policy gradient:
            #      grad_theta^mu J ~ 1/N sum_i grad_a Q(s,a|theta^Q)|s=s_i,a=mu(s_i) grad_theta^mu mu(s|theta^mu)|s_i
            J = critic(state_i, actor(state_i)).mean()
            actor_optimizer.zero_grad()
            (-J).backward(inputs=theta_mu)
            actor_optimizer.step()
            # [15] Update the target networks: theta^Q' <- tau theta^Q + (1-tau) theta^Q'
            #      theta^mu' <- tau theta^mu + (1-tau) theta^mu'
            with torch.no_grad():  # theta' + tau (theta - theta'), the same in one call for all weights of both
                torch._foreach_lerp_(theta_target, theta, tau)

        if not done:  # the budget of steps ended inside this episode: it has no return yet
            break
        returns.append(episode_return)
        if on_episode and on_episode(episode_return, t, step):
            break
    return actor, critic, returns


def main(argv: list[str] | None = None) -> int:
    """The command line: `python ddpg.py --help`. Returns the exit status."""
    with runs.Run(train, argv, env="Pendulum-v1") as run:
        env = run.open_env()
        if run.load:
            actor = Actor(env.observation_space, env.action_space, run.hyperparameters["hidden"])
            critic = Critic(flatdim(env.observation_space), flatdim(env.action_space), run.hyperparameters["hidden"])
            actor, critic = run.loaded(nn.ModuleList([actor, critic]))
        else:
            with run.training():
                actor, critic, _ = train(env, **run.hyperparameters, on_episode=run.on_episode)

        def value(observation) -> float:  # Q(s, mu(s))
            s = torch.from_numpy(actor.vector(observation))
            return critic(s, actor(s)).item()

        def act(observation) -> np.ndarray:
            return actor.to_env(actor.mu(actor.vector(observation)))

        run.finish(nn.ModuleList([actor, critic]), act, value)
    return run.status


if __name__ == "__main__":
    sys.exit(main())
