"""Deep deterministic policy gradient (DDPG). Lecture part 5, "DDPG".

DQN takes a max over actions, and "how to take max on continuous actions?" So a second network, the
actor mu(s), learns to output the best action. It is deterministic, which removes the expectation
over actions: Q(s,a) = E[r + gamma Q(s', mu(s'))]; DQN is the case mu(s) = argmax_a Q(s,a). The
critic Q is trained as in DQN. The actor climbs the critic: grad_a Q says in which direction the
action should move, and the chain rule carries that on to the actor's weights.

Pseudocode (Lillicrap et al., 2015, Algorithm 1)

    [1] Randomly initialize critic network Q(s,a|theta^Q) and actor mu(s|theta^mu)
        with weights theta^Q and theta^mu
    [2] Initialize target network Q' and mu' with weights theta^Q' <- theta^Q, theta^mu' <- theta^mu
    [3] Initialize replay buffer R
    [4] for episode = 1, M do
    [5]     Initialize a random process N for action exploration
    [6]     Receive initial observation state s_1
    [7]     for t = 1, T do
    [8]         Select action a_t = mu(s_t|theta^mu) + N_t according to the current policy
                and exploration noise
    [9]         Execute action a_t and observe reward r_t and observe new state s_{t+1}
    [10]        Store transition (s_t, a_t, r_t, s_{t+1}) in R
    [11]        Sample a random minibatch of N transitions (s_i, a_i, r_i, s_{i+1}) from R
    [12]        Set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1}|theta^mu')|theta^Q')
    [13]        Update critic by minimizing the loss: L = 1/N sum_i (y_i - Q(s_i,a_i|theta^Q))^2
    [14]        Update the actor policy using the sampled policy gradient: grad_theta^mu J ~
                1/N sum_i grad_a Q(s,a|theta^Q)|s=s_i,a=mu(s_i) grad_theta^mu mu(s|theta^mu)|s_i
    [15]        Update the target networks: theta^Q' <- tau theta^Q + (1-tau) theta^Q'
                theta^mu' <- tau theta^mu + (1-tau) theta^mu'

Where the slide is loose: [12] has no terminal case. No reward follows a terminal state, so that
y_i = r_i there, as in DQN.

Beyond the slide (--literal turns all of it off)

    --warmup 0         off: random actions and no learning at first. R holds actions from all over
                       the space before the actor settles on some of them.

Try

    python ddpg.py --env Pendulum-v1
    python ddpg.py --env InvertedPendulum-v5
    python ddpg.py --env HalfCheetah-v5 --steps 40000

References

    Lillicrap et al., Continuous control with deep reinforcement learning, 2015.
    Silver et al., Deterministic Policy Gradient Algorithms, 2014.
    Uhlenbeck, Ornstein, On the Theory of the Brownian Motion, 1930 (the noise).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from torch import nn


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # one seed, one result
    episodes: int = 100_000,  # M, the budget in episodes
    steps: int = 20_000,  # the budget in environment steps; the first budget used up ends it
    gamma: float = 0.99,  # discount of the return
    alpha_critic: float = 1e-3,  # step size of the critic
    alpha_actor: float = 1e-3,  # step size of the actor
    tau: float = 0.01,  # theta' <- tau theta + (1 - tau) theta' at each step
    memory: int = 100_000,  # capacity of the replay buffer R, in transitions
    batch: int = 128,  # N, transitions in a minibatch
    warmup: int = 1_000,  # first steps, with random actions and without learning
    sigma: float = 0.1,  # spread of each increment of the noise; actions lie in [-1, 1]
    hidden: int = 128,  # units of each hidden layer
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode: Callable[[float, int, int], bool] = lambda *_: False,  # True ends the training
) -> tuple[Actor, Critic, list[float]]:
    """Train on an environment with Box actions; returns actor, critic and all returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for networks this small a second thread costs more than it gains
    rng, env, returns, step = np.random.default_rng(seed), prepare(env), [], 0
    features, actions = env.observation_space.shape[0], env.action_space.shape[0]

    # [1] Randomly initialize critic network Q(s,a|theta^Q) and actor mu(s|theta^mu)
    #     with weights theta^Q and theta^mu
    critic, actor = Critic(features, actions, hidden), Actor(features, actions, hidden)
    # [2] Initialize target network Q' and mu' with weights theta^Q' <- theta^Q,
    #     theta^mu' <- theta^mu
    target_critic, target_actor = copy.deepcopy(critic), copy.deepcopy(actor)
    # [3] Initialize replay buffer R
    R = ReplayMemory(memory, features, actions)
    theta_mu = list(actor.parameters())
    theta = [*critic.parameters(), *theta_mu]
    theta_target = [*target_critic.parameters(), *target_actor.parameters()]
    # fused: one call for all weights
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=alpha_critic, fused=True)
    actor_optimizer = torch.optim.Adam(theta_mu, lr=alpha_actor, fused=True)

    # [4] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # N begins at 0 in each episode and then wanders, so that the agent pushes one way for a
        # while. Independent noise would largely average out in a system with inertia.
        # [5] Initialize a random process N for action exploration
        N = OrnsteinUhlenbeck(actions, sigma, rng)
        # Only the first reset gets the seed: given to each, it would start all episodes alike.
        # [6] Receive initial observation state s_1
        state, _ = env.reset(seed=seed if episode == 1 else None)
        done = False

        # T is not known beforehand: the environment says when the episode is over.
        # [7] for t = 1, T do
        while not done and step < steps:
            step += 1
            # Without N_t, R holds only the actor's own actions, and Q cannot tell which others are
            # better. Clipped before it is stored: R must hold the action that was carried out.
            # [8] Select action a_t = mu(s_t|theta^mu) + N_t according to the current policy
            #     and exploration noise
            with torch.inference_mode():  # acting needs no gradient
                action = actor(torch.from_numpy(state)).numpy() + N.sample()
            if step <= warmup:  # beyond the slide
                action = rng.uniform(-1, 1, actions)
            action = action.clip(-1, 1).astype(np.float32)
            # [9] Execute action a_t and observe reward r_t and observe new state s_{t+1}
            next_state, reward, terminated, truncated, info = env.step(action)
            # R keeps `terminated`, for [12]. A time limit (truncated) is not terminal: the task
            # would have gone on, so that y_i needs the value after it.
            # [10] Store transition (s_t, a_t, r_t, s_{t+1}) in R
            R.store(state, action, reward, next_state, terminated)
            state, done = next_state, terminated or truncated
            if step <= warmup:  # beyond the slide: no learning yet
                continue

            # Neighbours in time are alike; a random minibatch mixes many episodes and policies.
            # [11] Sample a random minibatch of N transitions (s_i, a_i, r_i, s_{i+1}) from R
            state_i, action_i, reward_i, next_state_i, terminated_i = R.sample(batch, rng)
            # The target actor stands where DQN has the max. 1 - terminated is 0 at a terminal
            # state, the case that the slide leaves out. y is a constant for [13], (batch,).
            # [12] Set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1}|theta^mu')|theta^Q')
            with torch.no_grad():
                next_value = target_critic(next_state_i, target_actor(next_state_i))
                y = reward_i + gamma * (1 - terminated_i) * next_value
            # [13] Update critic by minimizing the loss: L = 1/N sum_i (y_i - Q(s_i,a_i|theta^Q))^2
            L = (y - critic(state_i, action_i)).square().mean()
            if not L.isfinite():
                raise FloatingPointError(f"loss {L.item()} at step {step}: try a smaller alpha")
            critic_optimizer.zero_grad()
            L.backward()
            critic_optimizer.step()
            # Autograd is the chain rule: from Q through the action a = mu(s_i) into theta^mu.
            # inputs=theta_mu: the critic passes the gradient on and keeps none for its own weights;
            # only the actor moves. Minus: the optimiser descends, J is to grow.
            # [14] Update the actor policy using the sampled policy gradient: grad_theta^mu J ~
            #      1/N sum_i grad_a Q(s,a|theta^Q)|s=s_i,a=mu(s_i) grad_theta^mu mu(s|theta^mu)|s_i
            J = critic(state_i, actor(state_i)).mean()
            actor_optimizer.zero_grad()
            (-J).backward(inputs=theta_mu)
            actor_optimizer.step()
            # theta' + tau (theta - theta'), the same, for all weights of both networks in one call.
            # Slow targets change little between two steps; with tau = 1 Q may diverge.
            # [15] Update the target networks: theta^Q' <- tau theta^Q + (1-tau) theta^Q'
            #      theta^mu' <- tau theta^mu + (1-tau) theta^mu'
            with torch.no_grad():
                torch._foreach_lerp_(theta_target, theta, tau)

        if not done:  # the budget ended inside this episode: it has no return
            break
        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    return actor, critic, returns


class Actor(nn.Module):
    """mu(s; theta^mu): states (batch, features) -> actions (batch, actions) in [-1, 1]."""

    def __init__(self, features: int, actions: int, hidden: int):
        super().__init__()
        first, second = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        last = nn.Linear(hidden, actions)  # and a tanh: within the bounds, whatever the weights
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last, nn.Tanh())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.layers(states)


class Critic(nn.Module):
    """Q(s,a; theta^Q): states (batch, features), actions (batch, actions) -> values (batch,)."""

    def __init__(self, features: int, actions: int, hidden: int):
        super().__init__()
        first, second = nn.Linear(features + actions, hidden), nn.Linear(hidden, hidden)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([states, actions], dim=-1)).squeeze(-1)


class ReplayMemory:
    """R: the last `capacity` transitions, in arrays that are allocated once."""

    def __init__(self, capacity: int, features: int, actions: int):
        self.states, self.next_states = np.empty((2, capacity, features), np.float32)
        self.actions = np.empty((capacity, actions), np.float32)
        self.rewards, self.terminated = np.empty((2, capacity), np.float32)
        self.capacity, self.stored = capacity, 0

    def store(self, state, action, reward, next_state, terminated) -> None:
        """Put one transition in. Once the memory is full, it takes the place of the oldest."""
        i = self.stored % self.capacity
        self.states[i], self.actions[i], self.rewards[i] = state, action, reward
        self.next_states[i], self.terminated[i] = next_state, terminated
        self.stored += 1

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """`batch` transitions, drawn uniformly and with replacement: (batch, ...) each."""
        i = rng.integers(min(self.stored, self.capacity), size=batch)
        columns = self.states, self.actions, self.rewards, self.next_states, self.terminated
        return tuple(torch.from_numpy(column[i]) for column in columns)


class OrnsteinUhlenbeck:
    """N_t = N_{t-1} - 0.15 N_{t-1} + sigma xi_t, with xi_t standard normal and a time step of 1.

    It drifts back to 0. sigma is the spread of an increment: N itself has 1.9 times that spread.
    """

    def __init__(self, dimensions: int, sigma: float, rng: np.random.Generator):
        self.value, self.sigma, self.rng = np.zeros(dimensions), sigma, rng

    def sample(self) -> np.ndarray:
        """The next value. Shape: (dimensions,)."""
        self.value += -0.15 * self.value + self.sigma * self.rng.standard_normal(len(self.value))
        return self.value


def prepare(env: gym.Env | Callable[[], gym.Env]) -> gym.Env:
    """Preprocessing at the door. States: a float32 vector. Actions: a vector, bounds -1 and 1."""
    env = gym.wrappers.RecordEpisodeStatistics(env() if callable(env) else env)
    env = gym.wrappers.DtypeObservation(gym.wrappers.FlattenObservation(env), np.float32)
    space = env.action_space
    box = gym.spaces.flatten_space(space)
    # Rounding must not lead out of the space either.
    inside = lambda a: gym.spaces.unflatten(space, a.clip(box.low, box.high).astype(box.dtype))
    low = np.where(np.isinf(box.low), box.low, -1).astype(box.dtype)  # no bound, none to rescale
    high = np.where(np.isinf(box.high), box.high, 1).astype(box.dtype)
    return gym.wrappers.RescaleAction(gym.wrappers.TransformAction(env, inside, box), low, high)


LITERAL = dict(warmup=0)  # the slide and nothing else


def literally(train: Callable, slide: dict) -> Callable:
    """train(), where literal=True takes `slide` in place of the defaults; what is given wins."""

    def either(env, *, literal: bool = False, **given):
        return train(env, **(slide | given if literal else given))

    return functools.wraps(train)(either)


train = literally(train, LITERAL)


def main(argv: list[str] | None = None) -> int:
    """The command line: `python ddpg.py --help`. Returns the exit status."""
    from common import runs

    act = lambda actor, critic, state: actor(state)  # the greedy action
    value = lambda actor, critic, state: critic(state, actor(state))
    return runs.main(train, argv, env="Pendulum-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
