"""Deep Q-learning with experience replay (DQN). Lecture part 3, "Deep Q Network", Algorithm 1.

A Q-table does not scale, so a network Q(s,a;theta) estimates the return of every action from the
state. As in Q-learning, its estimate Q(s_t,a_t;theta) moves towards the "real value"
r + gamma max_a' Q(s_{t+1},a';theta). Two things make this unstable: consecutive samples are highly
correlated, and the current parameters choose the next samples. The answer is experience replay:
the transitions go into a memory, and every gradient step learns from a random minibatch of old
ones.

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
On the epsilon-greedy slide epsilon is the probability of the best action; in this box, in the field
and here it is the probability of a random one. A time limit ends an episode, too, but its last
state is not terminal: the task would have gone on, so y_j includes the value of that state.

Beyond the slide (--literal, see LITERAL below, turns off all that has a flag and adapts constants)

    n steps (off: --n-steps 1). The target sums n discounted rewards before the bootstrap. A reward
        reaches earlier states in fewer updates. The price is a bias: the later actions come from an
        older, exploring policy.
    Fewer updates (off: --train-every 1). One gradient step for four steps of the environment saves
        most of the computing time.
    Scaled rewards (off: --no-scale-rewards). Rewards are multiplied by 1 - gamma, at least 0.001. Q
        then is at most as large as the largest reward (gamma up to 0.999), small enough for a new
        network to learn quickly. The Q that is returned is in these units.
    Adam instead of the plain gradient step; no gradient step until D holds one minibatch, which is
        drawn with replacement; state components bounded within (-1, 1) are divided by their bound
        (by common.envs.make, not here).

Try

    python dqn.py --env CartPole-v1
    python dqn.py --env Maze-v0 --gamma 0.9 --render
    python dqn.py --env LunarLander-v3 --train-every 1
    python dqn.py --env MinAtar/Breakout-v1

The box has no target network; part 5 adds one, see ddpg.py. As in the paper of 2015 (import copy):

    target_network = copy.deepcopy(q_network)                       # below [2]
    next_value = target_network(next_state_j).amax(dim=1)           # replaces next_value at [12]
    if step % 1000 == 0: target_network = copy.deepcopy(q_network)  # below [13]

References

    Mnih et al., Playing Atari with Deep Reinforcement Learning, 2013 (the algorithm box).
    Mnih et al., Human-level control through deep reinforcement learning, 2015 (target network).
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd ed., 2018, chapter 7 (n steps).
"""

from collections import deque

import gymnasium as gym
import numpy as np
import torch
from torch import nn


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 100_000,  # M, episodes at most
    steps: int = 300_000,  # environment steps at most; training stops at whichever comes first
    gamma: float = 0.99,  # discount of the return
    alpha: float = 5e-4,  # step size of the gradient descent
    memory: int = 100_000,  # N, capacity of the replay memory D, in transitions
    batch: int = 128,  # transitions in a minibatch
    epsilon: float = 0.02,  # probability of a random action
    train_every: int = 4,  # environment steps for each gradient step
    n_steps: int = 5,  # rewards that are summed before the bootstrap
    scale_rewards: bool = True,  # multiply rewards by 1 - gamma
    hidden: int = 128,  # units of each hidden layer
    trunk=None,  # for images: a function that makes the first layers (common/pixels.py)
    on_episode=None,  # called with (episode_return, length, step); may return True to stop
) -> tuple["QNetwork", list[float]]:
    """Train on Discrete actions; returns the Q-network and the list of episode returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # a second thread only costs time in small networks
    rng = np.random.default_rng(seed)
    space = env.observation_space
    assert trunk or space.dtype == np.float32, "use wrappers FlattenObservation, DtypeObservation"
    n_actions = env.action_space.n
    # [1] Initialize replay memory D to capacity N
    # It keeps the last N transitions. NStepMemory (below) with n_steps = 1 is the slide's D.
    D = NStepMemory(memory, n_steps, gamma)
    # [2] Initialize action-value function Q with random weights
    # One pass through the network gives the values of all actions.
    q_network = QNetwork(space.shape, n_actions, hidden, trunk)
    optimizer = torch.optim.Adam(q_network.parameters(), lr=alpha, fused=True)  # beyond the slide

    reward_scale = max(1 - gamma, 1e-3) if scale_rewards else 1.0  # beyond the slide
    returns = []
    step = 0
    # [3] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # [4] Initialise sequence s_1 = {x_1} and preprocessed sequence phi_1 = phi(s_1)
        # phi_t is `state`. The wrappers of env have preprocessed x already: see phi() below.
        x, _ = env.reset(seed=seed if episode == 1 else None)  # seeded once, at the start
        state = phi(x)
        episode_return = 0.0
        length = 0
        done = False
        # [5] for t = 1, T do
        # T is not known beforehand: the environment says when the episode is done.
        while not done and step < steps:
            step += 1
            # [6] With probability epsilon select a random action a_t
            # Without random actions, one that Q underrates may never be tried again.
            if rng.random() < epsilon:
                action = int(rng.integers(n_actions))
            # [7] otherwise select a_t = max_a Q*(phi(s_t), a; theta) (an argmax)
            # Q* is unknown; q_network estimates it: (n_features,) -> (n_actions,).
            else:
                with torch.inference_mode():
                    action = q_network(torch.as_tensor(state)).argmax().item()
            # [8] Execute action a_t in emulator and observe reward r_t and image x_{t+1}
            # terminated: x_{t+1} is terminal. truncated: a time limit ended the episode.
            x, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            episode_return += reward
            length += 1
            # [9] Set s_{t+1} = s_t, a_t, x_{t+1} and preprocess phi_{t+1} = phi(s_{t+1})
            # x (for Atari the last 4 images) is all that phi needs of s_{t+1}.
            next_state = phi(x)
            # [10] Store transition (phi_t, a_t, r_t, phi_{t+1}) in D
            # `terminated` is kept for [12]: a time limit is not terminal. `done` tells NStepMemory
            # where the episode ends.
            D.store(state, action, reward_scale * reward, next_state, terminated, done)
            state = next_state
            if step % train_every != 0 or D.stored < batch:  # beyond the slide
                continue

            # [11] Sample random minibatch of transitions (phi_j, a_j, r_j, phi_{j+1}) from D
            # Consecutive transitions are alike; a minibatch mixes many episodes and policies.
            # States: (batch, n_features); others: (batch,).
            state_j, action_j, reward_j, next_state_j, terminated_j, gamma_j = D.sample(batch, rng)
            # [12] Set y_j = r_j for terminal phi_{j+1}; r_j + gamma max_a' Q(phi_{j+1}, a'; theta)
            #   for non-terminal phi_{j+1}
            # 1 - terminated_j is 0 for a terminal phi_{j+1}. gamma_j is gamma to the number of
            # rewards in reward_j.
            with torch.no_grad():  # y is a constant, (batch,)
                next_value = q_network(next_state_j).amax(dim=1)
                y = reward_j + gamma_j * (1 - terminated_j) * next_value
            # [13] Perform a gradient descent step on (y_j - Q(phi_j, a_j; theta))^2
            # gather picks Q(phi_j, a_j): (batch, n_actions) -> (batch, 1). It wants integers, hence
            # long(): sample() returns floats. The mean is over the minibatch.
            q = q_network(state_j).gather(1, action_j[:, None].long()).squeeze(1)
            loss = (y - q).square().mean()
            if not loss.isfinite():
                raise FloatingPointError(f"loss {loss:g} at step {step}: lower alpha")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        if not done:  # step limit reached mid-episode; not counted
            break
        returns.append(episode_return)
        if on_episode and on_episode(episode_return, length, step):
            break
    return q_network, returns


# The slide, with a step size to suit and the paper's minibatch of 32.
LITERAL = dict(alpha=1e-3, batch=32, train_every=1, n_steps=1, scale_rewards=False)


def phi(x: np.ndarray) -> np.ndarray:
    """phi of the sequence that ends in x: x itself, which env's wrappers have preprocessed.

    A vector, (n_features,), usually describes the state fully. One image of a game does not show
    where the ball is going, so for Atari x holds the last 4 grey images: (4, 84, 84).
    """
    return np.array(x)  # a copy: an environment may reuse its array


class QNetwork(nn.Sequential):
    """Q(s, .; theta): states (batch, *shape) -> a value for each action, (batch, n_actions)."""

    def __init__(self, shape: tuple[int, ...], n_actions: int, hidden: int, trunk=None):
        first = [trunk(shape, hidden)] if trunk else [nn.Linear(shape[0], hidden), nn.ReLU()]
        super().__init__(*first, nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_actions))


class ReplayMemory:
    """The last `capacity` transitions; each is a tuple of numbers and arrays."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.transitions = {}  # place -> transition; after the last place comes the first again
        self.stored = 0  # how many were stored so far

    def store(self, *transition) -> None:
        """Put one transition in; in a full memory it replaces the oldest."""
        self.transitions[self.stored % self.capacity] = transition
        self.stored += 1

    def sample(self, batch: int, rng: np.random.Generator) -> list[torch.Tensor]:
        """`batch` of them, drawn uniformly and with replacement: (batch, ...) for each part."""
        minibatch = [self.transitions[i] for i in rng.integers(len(self.transitions), size=batch)]
        columns = zip(*minibatch, strict=True)  # rows to columns: all states, all actions, ...
        return [torch.as_tensor(np.array(column)).float() for column in columns]


class NStepMemory(ReplayMemory):
    """Beyond the slide: transitions that span up to n steps of one episode.

    r_j + gamma r_{j+1} + ... + gamma^{n-1} r_{j+n-1} instead of r_j, phi_{j+n} instead of
    phi_{j+1}, and gamma^n as a last part; at the end of an episode fewer than n. n = 1: the slide.
    """

    def __init__(self, capacity: int, n_steps: int, gamma: float):
        super().__init__(capacity)
        self.gamma = gamma
        self.recent = deque(maxlen=n_steps)  # the last steps, which still wait for rewards

    def store(self, state, action, reward, next_state, terminated, done) -> None:
        """Take one step. A transition goes in with its n-th reward, or when the episode is done."""
        self.recent.append((state, action, reward))
        while len(self.recent) == self.recent.maxlen or (done and self.recent):
            total = sum(self.gamma**k * r for k, (_, _, r) in enumerate(self.recent))
            gamma_n = self.gamma ** len(self.recent)
            first_state, first_action, _ = self.recent.popleft()
            super().store(first_state, first_action, total, next_state, terminated, gamma_n)


def main(argv: list[str] | None = None) -> int:
    """The command line: `python dqn.py --help`. Returns the exit status."""
    from common import runs

    act = lambda q_network, state: q_network(state).argmax()  # the greedy action
    value = lambda q_network, state: q_network(state).max()
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
