"""Deep Q-learning with experience replay (DQN). Lecture part 3, "Deep Q Network", Algorithm 1.

A Q-table does not scale, so a network Q(s,a;theta) estimates the return of every action from the
state. As in Q-learning, its estimate Q(s_t,a_t;theta) moves towards the target
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
The box has no target network; the lecture adds one in part 5. With --tau 0.01, y_j comes from a
slowly updated copy of Q.

Beyond the slide (the flag turns it off; --literal turns all of them off)

    --n-steps 1        The target sums n discounted rewards before the bootstrap, in place of r_j
                       alone. A reward reaches earlier states in fewer updates. The price is a bias:
                       the actions after the first are those of an older, exploring policy.
    --train-every 1    A gradient step only at every fourth step of the environment. That saves most
                       of the computing time, and the memory changes more from one gradient step to
                       the next.
    --no-scale-rewards Rewards are multiplied by 1 - gamma, so that Q is a weighted mean of the
                       rewards to come. Its targets are of a similar size everywhere, small enough
                       for the small weights that a network begins with.

Try

    python dqn.py --env CartPole-v1
    python dqn.py --env Maze-v0 --gamma 0.9 --render
    python dqn.py --env LunarLander-v3 --train-every 1
    python dqn.py --env MinAtar/Breakout-v1

On Atari in a notebook, phi is two of Gymnasium's wrappers:

    import ale_py  # registers the games
    env = gym.make("ALE/Breakout-v5", frameskip=1)
    env = gym.wrappers.AtariPreprocessing(env)  # grey, 84x84, each action for 4 frames
    q_network, returns = train(gym.wrappers.FrameStackObservation(env, 4))

References

    Mnih et al., Playing Atari with Deep Reinforcement Learning, 2013 (the algorithm box).
    Mnih et al., Human-level control through deep reinforcement learning, 2015 (target network).
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd ed., 2018, chapter 7 (n steps).
"""

from __future__ import annotations

import copy
import functools
from collections import deque

import gymnasium as gym
import numpy as np
import torch
from torch import nn


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 100_000,  # M, the budget in episodes
    steps: int = 300_000,  # environment steps at most; the first budget used up ends training
    gamma: float = 0.99,  # discount of the return
    alpha: float = 5e-4,  # step size of the gradient descent
    memory: int = 100_000,  # N, capacity of the replay memory D, in transitions
    batch: int = 128,  # transitions in a minibatch
    tau: float = 1.0,  # theta' <- tau theta + (1 - tau) theta'; 1, the slide: theta' = theta
    epsilon: float = 0.02,  # probability of a random action
    train_every: int = 4,  # environment steps for each gradient step
    n_steps: int = 5,  # rewards that are summed before the bootstrap
    scale_rewards: bool = True,  # multiply rewards by 1 - gamma
    hidden: int = 128,  # units of each hidden layer
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode=lambda episode_return, length, step: False,  # called after each; True ends training
) -> tuple[QNetwork, list[float]]:
    """Train on an environment with Discrete actions; returns the Q-network and all returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for small networks a second thread costs more than it gains
    rng, env, returns, step = np.random.default_rng(seed), prepare(env), [], 0
    if scale_rewards:  # beyond the slide; the returns that train() reports stay as they are
        env = gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))
    shape, n_actions = env.observation_space.shape, env.action_space.n

    # The last N transitions. When D is full, a new one replaces the oldest.
    # [1] Initialize replay memory D to capacity N
    D = ReplayMemory(memory, n_steps, gamma)
    # One output for each action: a single pass through the network gives all Q(s, .).
    # [2] Initialize action-value function Q with random weights
    q_network = QNetwork(shape, n_actions, hidden)
    target_network = copy.deepcopy(q_network)  # Q with theta'; beyond the slide for tau < 1
    theta, theta_target = list(q_network.parameters()), list(target_network.parameters())
    optimizer = torch.optim.Adam(theta, lr=alpha, fused=True)  # fused: one call for all weights

    # M is `episodes`; `steps` is a second budget.
    # [3] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # The slide's s_t holds all images so far. phi keeps the part that predicts the future: the
        # last observation where the environment is Markov, the last 4 images of a game, since one
        # does not show where the ball is going. `state` is phi_t: (n_features,), or (4, 84, 84).
        # Only the first reset gets the seed. If each did, all episodes would start in the same way.
        # [4] Initialise sequence s_1 = {x_1} and preprocessed sequence phi_1 = phi(s_1)
        state = phi(env.reset(seed=seed if episode == 1 else None)[0])
        done = False

        # T is not known beforehand: the environment says when the episode is over.
        # [5] for t = 1, T do
        while not done and step < steps:
            step += 1
            # On the epsilon-greedy slide epsilon is the probability of the best action; in this
            # box, and in the field, of a random one. Without random actions an action that Q
            # underrates may never be tried again.
            # [6] With probability epsilon select a random action a_t
            if rng.random() < epsilon:
                action = int(rng.integers(n_actions))
            # Q* is unknown; q_network, its estimate, gives one value for each action: (n_actions,).
            # [7] otherwise select a_t = max_a Q*(phi(s_t), a; theta) (an argmax)
            else:
                with torch.inference_mode():  # acting needs no gradient
                    action = q_network(state).argmax().item()
            # env is the emulator. terminated: x_{t+1} is terminal. truncated: a time limit cut the
            # episode off.
            # [8] Execute action a_t in emulator and observe reward r_t and image x_{t+1}
            x, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            # As at [4]: a vector, or the last 4 images, which the wrappers have stacked.
            # [9] Set s_{t+1} = s_t, a_t, x_{t+1} and preprocess phi_{t+1} = phi(s_{t+1})
            next_state = phi(x)
            # D keeps `terminated`, for [12]. A time limit is not terminal: the task would have gone
            # on, so y_j needs the value after it. No sum of n rewards goes beyond `done`.
            # [10] Store transition (phi_t, a_t, r_t, phi_{t+1}) in D
            D.store(state, action, reward, next_state, terminated, done)
            state = next_state
            # beyond the slide: train_every, and the wait for a first minibatch
            if step % train_every or D.stored < batch:
                continue

            # Consecutive transitions are correlated; a random minibatch mixes many episodes and
            # policies. state_j, next_state_j: (batch, *shape); all others: (batch, 1).
            # [11] Sample random minibatch of transitions (phi_j, a_j, r_j, phi_{j+1}) from D
            state_j, action_j, reward_j, next_state_j, terminated_j, gamma_j = D.sample(batch, rng)
            # 1 - terminated_j is 0 for a terminal phi_{j+1}: there y_j = r_j. gamma_j is gamma^n if
            # reward_j sums n rewards. target_network has theta', which is theta for tau = 1.
            # no_grad: y is a constant, (batch, 1).
            # [12] Set y_j = r_j for terminal phi_{j+1}; r_j + gamma max_a' Q(phi_{j+1}, a'; theta)
            #      for non-terminal phi_{j+1}
            with torch.no_grad():
                next_value = target_network(next_state_j).amax(dim=1, keepdim=True)
                y = reward_j + gamma_j * (1 - terminated_j) * next_value
            # q_network gives one row for each state; gather picks Q(phi_j, a_j) from it. y and q
            # need the same shape: (batch,) minus (batch, 1) would silently be (batch, batch). The
            # gradient flows through q only.
            # [13] Perform a gradient descent step on (y_j - Q(phi_j, a_j; theta))^2
            q = q_network(state_j).gather(1, action_j.long())  # (batch, 1)
            loss = (y - q).square().mean()
            if not loss.isfinite():
                raise FloatingPointError(f"loss {loss:g} at step {step}: try a smaller alpha")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # theta' <- tau theta + (1 - tau) theta'; beyond the slide for tau < 1
            with torch.no_grad():
                for p_target, p in zip(theta_target, theta, strict=True):
                    p_target.lerp_(p, tau)

        if not done:  # the budget ended inside this episode: it has no return
            break
        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    return q_network, returns


def phi(observation: np.ndarray) -> torch.Tensor:
    """Preprocess one observation. The wrappers have done most of it; this copies it to a tensor."""
    return torch.tensor(observation)


class QNetwork(nn.Sequential):
    """Q(s, .; theta): states (batch, *shape) -> a value for each action, (batch, n_actions)."""

    def __init__(self, shape: tuple[int, ...], n_actions: int, hidden: int):
        first, second = Trunk(shape, hidden), nn.Linear(hidden, hidden)
        last = nn.Linear(hidden, n_actions)  # no activation after it: a return can be any number
        super().__init__(first, second, nn.ReLU(), last)


class Trunk(nn.Sequential):
    """The first hidden layer. Images (channels, height, width) pass two convolutions before it.

    At 84x84 these are those of Mnih et al., 2013: 8x8 pixels in steps of 4, then 4x4 in steps of 2.
    Below 40x40, where every pixel counts, both are 3x3 in steps of 1.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int):
        if len(shape) == 1:  # a vector
            super().__init__(nn.Linear(shape[0], hidden), nn.ReLU())
            return
        n = min(shape[1:]) // 20  # 4 at 84x84, 2 at 42x42
        size, step, size_2, step_2 = (2 * n, n, 4, 2) if n > 1 else (3, 1, 3, 1)
        first, second = nn.Conv2d(shape[0], 16, size, step), nn.Conv2d(16, 32, size_2, step_2)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(-3))
        self.extend([nn.Linear(self(torch.zeros(shape)).numel(), hidden), nn.ReLU()])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States (batch, *shape) -> (batch, hidden). Pixels are bytes: 0 to 255 becomes 0 to 1."""
        return super().forward(states / 255 if states.dtype == torch.uint8 else states)


class ReplayMemory:
    """D: the last `capacity` transitions. phi_{j+1} and the phi_j of the next transition are the
    same tensor, stored as two references: each state is in memory once, images as bytes.

    Each transition spans up to n steps of one episode: r_j + gamma r_{j+1} + ... +
    gamma^{n-1} r_{j+n-1} in place of r_j, phi_{j+n} in place of phi_{j+1}, gamma^n in place of
    gamma. n = 1: the slide.
    """

    def __init__(self, capacity: int, n_steps: int, gamma: float):
        self.states, self.next_states = np.empty((2, capacity), object)
        self.numbers = np.empty((capacity, 4), np.float32)  # action, reward, terminated, gamma_n
        self.stored, self.gamma = 0, gamma
        self.recent = deque(maxlen=n_steps)  # the last steps, which still wait for rewards

    def store(self, state, action, reward, next_state, terminated, done) -> None:
        """Take one step. A transition goes in with its n-th reward, or when the episode is done."""
        self.recent.append((state, action, reward))
        while len(self.recent) == self.recent.maxlen or (done and self.recent):
            total = sum(self.gamma**k * r for k, (_, _, r) in enumerate(self.recent))
            gamma_n, (state, action, _) = self.gamma ** len(self.recent), self.recent.popleft()
            j = self.stored % len(self.numbers)  # overwrites the oldest in a full memory
            self.states[j], self.next_states[j] = state, next_state
            self.numbers[j] = action, total, terminated, gamma_n
            self.stored += 1

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """`batch` transitions, drawn uniformly and with replacement, one in each row."""
        i = rng.integers(min(self.stored, len(self.numbers)), size=batch)
        states, next_states = (torch.stack(x[i].tolist()) for x in (self.states, self.next_states))
        action, reward, terminated, gamma_n = torch.as_tensor(self.numbers[i]).split(1, dim=1)
        return states, action, reward, next_states, terminated, gamma_n


def prepare(env) -> gym.Env:
    """Wrap an environment, or what makes one. States become float32 vectors, Discrete ones one-hot.

    What a network learns belongs to the states that are shown here, small ones stretched.
    Images, uint8 (channels, height, width) of at least 5x5 pixels, stay as they are.

    At the end of an episode, info["episode"] holds its return "r" and its length "l".
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
    start, n = int(env.action_space.start), env.action_space.n  # actions are numbered from 0 here
    return gym.wrappers.TransformAction(env, lambda a: int(a) + start, gym.spaces.Discrete(n))


# The slide and nothing else, with a step size that suits it and the paper's minibatch of 32.
LITERAL = dict(alpha=1e-3, batch=32, train_every=1, n_steps=1, scale_rewards=False)


def literally(env, *, literal: bool = False, **given):
    """train(), with LITERAL in place of its defaults if literal=True. What is given wins."""
    return literally.__wrapped__(env, **((LITERAL if literal else {}) | given))


train = functools.wraps(train)(literally)  # with the signature and the docstring of train() above


def main(argv: list[str] | None = None) -> int:
    """The command line: `python dqn.py --help`. Returns the exit status."""
    from common import runs

    act = lambda q_network, state: q_network(state).argmax()  # the greedy action
    value = lambda q_network, state: q_network(state).max()
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
