"""Deep Q-learning with experience replay (DQN). Lecture part 3, "Deep Q Network", Algorithm 1.

A Q-table does not scale, so a network Q(s,a;theta) estimates the return of every action from the
state. Its estimate Q(s_t,a_t;theta) is moved towards the target r + gamma max_a'
Q(s_{t+1},a';theta), as in Q-learning. Two things make this unstable: consecutive samples are
highly correlated, and the current parameters choose the next samples. The answer is experience
replay: the transitions go into a memory, and every gradient step learns from a random minibatch of
old ones.

Pseudocode (Mnih et al., 2013, Algorithm 1)

    [1] Initialize replay memory D to capacity N
    [2] Initialize action-value function Q with random weights
    [3] for episode = 1, M do
    [4]     Initialise sequence s_1 = {x_1} and preprocessed sequence phi_1 = phi(s_1)
    [5]     for t = 1, T do
    [6]         With probability epsilon select a random action a_t
    [7]         otherwise select a_t = max_a Q*(phi(s_t), a; theta) (an argmax)
    [8]         Execute action a_t in emulator and observe reward r_t and image x_{t+1}
    [9]         Set s_{t+1} = s_t, a_t, x_{t+1} and preprocess phi_{t+1} = phi(s_{t+1})
    [10]        Store transition (phi_t, a_t, r_t, phi_{t+1}) in D
    [11]        Sample random minibatch of transitions (phi_j, a_j, r_j, phi_{j+1}) from D
    [12]        Set y_j = r_j for terminal phi_{j+1}; r_j + gamma max_a' Q(phi_{j+1}, a'; theta)
                for non-terminal phi_{j+1}
    [13]        Perform a gradient descent step on (y_j - Q(phi_j, a_j; theta))^2

Where the slide is loose: it writes the gradient of L_t as E[R + gamma max Q - Q]. The loss is the
square of that difference, and its gradient flows through Q(s_t,a_t;theta) only (a semi-gradient).
The network is left open: here its outputs count in units of 1/(1-gamma), the return of a reward of
1 at every step. The box has no target network; the lecture adds one in part 5. With --tau 0.01, y_j
comes from a slowly updated copy of Q.

Beyond the slide (--literal turns all of it off)

    --n-steps 1        off: r_j is the sum of n rewards before the bootstrap. A reward reaches the
                       states before it n times sooner.
    --epsilon-decay 0  off: epsilon falls from 1 to its final value. Early on Q knows nothing, and
                       random actions show more of the environment.
    --train-every 1    off: a gradient step only at every fourth step of the environment. The memory
                       changes more between two gradient steps, and most of the time goes into them.

Try

    python dqn.py --env CartPole-v1
    python dqn.py --env Maze-v0 --gamma 0.9 --render
    python dqn.py --env LunarLander-v3
    python dqn.py --env CartPole-v1 --literal --tau 0.01

References

    Mnih et al., Playing Atari with Deep Reinforcement Learning, 2013 (the algorithm box).
    Mnih et al., Human-level control through deep reinforcement learning, 2015 (target network).
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd ed., 2018, chapter 7 (n steps).
"""

from __future__ import annotations

import copy
import functools
from collections import deque
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
    steps: int = 300_000,  # the budget in environment steps; the first budget used up ends it
    gamma: float = 0.99,  # discount of the return
    alpha: float = 5e-4,  # step size of the gradient descent
    epsilon: float = 0.02,  # probability of a random action
    epsilon_decay: int = 10_000,  # steps over which epsilon falls from 1; 0: it is constant
    memory: int = 100_000,  # N, the capacity of the replay memory D in transitions
    batch: int = 128,  # transitions in a minibatch
    train_every: int = 4,  # environment steps for each gradient step
    n_steps: int = 5,  # rewards that are summed before the bootstrap
    tau: float = 1.0,  # theta' <- tau theta + (1 - tau) theta'; 1, the slide: theta' = theta
    hidden: int = 128,  # units of each hidden layer
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode: Callable[[float, int, int], bool] = lambda *_: False,  # True ends the training
) -> tuple[QNetwork, list[float]]:
    """Train on an environment with Discrete actions; returns the Q-network and all returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for networks this small a second thread costs more than it gains
    rng, env, returns, step = np.random.default_rng(seed), prepare(env), [], 0
    features, actions = env.observation_space.shape[0], env.action_space.n

    # [1] Initialize replay memory D to capacity N
    D = ReplayMemory(memory, features, n_steps, gamma)
    # [2] Initialize action-value function Q with random weights
    unit = 1 / max(1 - gamma, 1e-3)  # the return of a reward of 1 at every step, forever
    q_network = QNetwork(features, actions, hidden, unit)
    target_network = copy.deepcopy(q_network)  # Q with theta'; on the slide theta' is theta
    theta, theta_target = list(q_network.parameters()), list(target_network.parameters())
    optimizer = torch.optim.Adam(theta, lr=alpha, fused=True)  # fused: one call for all weights

    # [3] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # The slide's s_t holds all images so far. phi takes the last observation alone; that is
        # enough where the environment is Markov.
        # Only the first reset gets the seed: given to each, it would start all episodes alike.
        # [4] Initialise sequence s_1 = {x_1} and preprocessed sequence phi_1 = phi(s_1)
        state = phi(env.reset(seed=seed if episode == 1 else None)[0])
        done = False

        # T is not known beforehand: the environment says when the episode is over.
        # [5] for t = 1, T do
        while not done and step < steps:
            step += 1
            decay = max(0, 1 - step / epsilon_decay) if epsilon_decay else 0  # beyond the slide
            # On the epsilon-greedy slide epsilon is the probability of the best action; in this
            # box, and in the field, of a random one. Without random actions an action that Q
            # underrates is never tried again.
            # [6] With probability epsilon select a random action a_t
            if rng.random() < epsilon + (1 - epsilon) * decay:
                action = int(rng.integers(actions))
            # Q* is unknown: its estimate q_network gives one value for each action, (actions,).
            # [7] otherwise select a_t = max_a Q*(phi(s_t), a; theta) (an argmax)
            else:
                with torch.inference_mode():  # acting needs no gradient
                    action = q_network(state).argmax().item()
            # [8] Execute action a_t in emulator and observe reward r_t and image x_{t+1}
            x, reward, terminated, truncated, info = env.step(action)
            # [9] Set s_{t+1} = s_t, a_t, x_{t+1} and preprocess phi_{t+1} = phi(s_{t+1})
            next_state = phi(x)
            done = terminated or truncated
            # D keeps `terminated`, for [12]. A time limit (truncated) is not terminal: the task
            # would have gone on, so that y_j needs the value after it.
            # [10] Store transition (phi_t, a_t, r_t, phi_{t+1}) in D
            D.store(state, action, reward, next_state, terminated, done)
            state = next_state
            if step % train_every or D.stored < batch:  # train_every: beyond the slide
                continue

            # Neighbours in time are alike; a random minibatch mixes many episodes and policies.
            # state_j: (batch, features), action_j: (batch, 1), the others: (batch,).
            # [11] Sample random minibatch of transitions (phi_j, a_j, r_j, phi_{j+1}) from D
            state_j, action_j, reward_j, next_state_j, terminated_j, gamma_j = D.sample(batch, rng)
            # Both cases in one line: 1 - terminated is 0 at a terminal state, where y_j = r_j.
            # gamma_j is gamma, or gamma^n where r_j sums n rewards. target_network has theta', for
            # tau = 1 the same as theta. y is a constant, (batch,): [13] changes Q(phi_j, a_j) only.
            # [12] Set y_j = r_j for terminal phi_{j+1}; r_j + gamma max_a' Q(phi_{j+1}, a'; theta)
            #      for non-terminal phi_{j+1}
            with torch.no_grad():
                next_value = target_network(next_state_j).amax(dim=1)
                y = reward_j + gamma_j * (1 - terminated_j) * next_value
            # q_network gives one row for each state, gather picks Q(phi_j, a_j) from it.
            # [13] Perform a gradient descent step on (y_j - Q(phi_j, a_j; theta))^2
            q = q_network(state_j).gather(1, action_j).squeeze(1)  # (batch,)
            loss = (y - q).square().mean()
            if not loss.isfinite():
                raise FloatingPointError(f"loss {loss.item()} at step {step}: try a smaller alpha")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():  # theta' <- theta' + tau (theta - theta')
                torch._foreach_lerp_(theta_target, theta, tau)

        if not done:  # the budget ended inside this episode: it has no return
            break
        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    return q_network, returns


def phi(observation: np.ndarray) -> torch.Tensor:
    """Preprocess one observation. prepare() has made it a vector; the network takes a tensor."""
    return torch.from_numpy(observation)


class QNetwork(nn.Module):
    """Q(s, .; theta): states (batch, features) -> one value for each action, (batch, actions)."""

    def __init__(self, features: int, actions: int, hidden: int, unit: float):
        super().__init__()
        first, second = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        last = nn.Linear(hidden, actions)  # no activation after it: a return can be any number
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
        self.unit = unit  # the layers themselves give small numbers for large returns, too

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.unit * self.layers(states)


class ReplayMemory:
    """D: the last `capacity` transitions, in arrays that are allocated once.

    Each spans up to n steps of one episode: r_j + gamma r_{j+1} + ... + gamma^{n-1} r_{j+n-1} in
    place of r_j, phi_{j+n} in place of phi_{j+1}, gamma^n in place of gamma. n = 1: the slide.
    """

    def __init__(self, capacity: int, features: int, n_steps: int, gamma: float):
        self.states, self.next_states = np.empty((2, capacity, features), np.float32)
        self.actions = np.empty((capacity, 1), np.int64)
        self.rewards, self.terminated, self.gammas = np.empty((3, capacity), np.float32)
        self.capacity, self.stored, self.gamma = capacity, 0, gamma
        self.recent = deque(maxlen=n_steps)  # the last steps, which still wait for rewards

    def store(self, state, action, reward, next_state, terminated, done) -> None:
        """Take one step. A transition goes in with its n-th reward, or when the episode is done."""
        self.recent.append((state, action, reward))
        while len(self.recent) == self.recent.maxlen or (done and self.recent):
            i = self.stored % self.capacity  # a ring: when it is full, the oldest gives way
            self.states[i], self.actions[i], _ = self.recent[0]
            self.rewards[i] = sum(self.gamma**k * r for k, (_, _, r) in enumerate(self.recent))
            self.next_states[i], self.terminated[i] = next_state, terminated
            self.gammas[i] = self.gamma ** len(self.recent)
            self.stored += 1
            self.recent.popleft()

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """`batch` transitions, drawn uniformly and with replacement: (batch, ...) each."""
        j = rng.integers(min(self.stored, self.capacity), size=batch)
        columns = (self.states, self.actions, self.rewards)
        columns += (self.next_states, self.terminated, self.gammas)
        return tuple(torch.from_numpy(column[j]) for column in columns)


def prepare(env: gym.Env | Callable[[], gym.Env]) -> gym.Env:
    """Preprocessing at the door. States: float32 vectors, Discrete ones one-hot."""
    env = gym.wrappers.RecordEpisodeStatistics(env() if callable(env) else env)
    env = gym.wrappers.DtypeObservation(gym.wrappers.FlattenObservation(env), np.float32)
    start, n = int(env.action_space.start), env.action_space.n  # actions are counted from 0 here
    return gym.wrappers.TransformAction(env, lambda a: int(a) + start, gym.spaces.Discrete(n))


# The slide and nothing else. A target that moves with every step wants smaller steps.
LITERAL = dict(alpha=1e-4, epsilon_decay=0, batch=32, train_every=1, n_steps=1)


def literally(train: Callable, slide: dict) -> Callable:
    """train(), where literal=True takes `slide` in place of the defaults; what is given wins."""

    def either(env, *, literal: bool = False, **given):
        return train(env, **(slide | given if literal else given))

    return functools.wraps(train)(either)


train = literally(train, LITERAL)


def main(argv: list[str] | None = None) -> int:
    """The command line: `python dqn.py --help`. Returns the exit status."""
    from common import runs

    act = lambda q_network, state: q_network(state).argmax()  # the greedy action
    value = lambda q_network, state: q_network(state).max()
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
