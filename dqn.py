"""Deep Q-learning with experience replay (DQN). Lecture part 3, "Deep Q Network", Algorithm 1.

The idea: a Q-table does not scale, so a network Q(s,a;theta) estimates the return of every action from the state. It is fitted
as in Q-learning, the "estimated value" Q(s_t,a_t;theta) moved towards the "real value" r + gamma max_a' Q(s_{t+1},a';theta).
Two things break that: consecutive samples are highly correlated, and the current parameters choose the next samples. The answer
is experience replay: keep the transitions in a memory, and learn from a random handful of old ones at every step.

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
    [12]        Set y_j = r_j for terminal phi_{j+1}; r_j + gamma max_a' Q(phi_{j+1}, a'; theta) for non-terminal phi_{j+1}
    [13]        Perform a gradient descent step on (y_j - Q(phi_j, a_j; theta))^2

Where the slide is loose: it writes the gradient of L_t as E[R + gamma max Q - Q]. The loss is the square of that difference, and
the gradient flows through Q(s_t,a_t;theta) only: the "real value" is held constant (a semi-gradient).

Beyond the slide (all off under --literal)

    --tau 1              off: the target network. y_j comes from a slow copy of Q, which the lecture brings in part 5; without it
                         every step on theta moves its own target, and Q chases itself, often to infinity.
    --no-double          off: double Q-learning. Q picks the next action, the target network values it; the max of noisy
                         estimates is too high on average, and bootstrapping adds that error up.
    --n-steps 1          off: r_j summed over n steps before the bootstrap. News of an end travels n steps at once, and less rests
                         on guesses. It helps most of all; its price is a bias, as the actions of older policies are in the sum.
    --no-huber           off: the Huber loss, in place of the square: one surprising return cannot throw theta far away.
    --no-anneal          off: the step size falling in a line to 0 over the budget. Late in training large steps only shake what
                         has been learned, and the policy that happens to be the last may be a bad one.
    --no-rescale         off: values learned in units of the largest return seen so far. A network learns numbers around 1 much
                         faster than numbers around 100.
    --no-adam            off: Adam in place of the plain gradient step; each weight gets a step size that fits its gradients. The
                         plain step wants a smaller alpha.
    --epsilon-decay 0    off: epsilon falling from 1 to its small value. At first Q knows nothing, later randomness only harms.
    --warmup 1           off: waiting until D holds enough different transitions to be worth learning from.
    --train-every 1      off: learning at every fourth step only, from a larger minibatch; as much learning in less time.

Try

    python dqn.py --env CartPole-v1
    python dqn.py --env Maze-v0 --render
    python dqn.py --env Acrobot-v1 --record acrobot.gif
    python dqn.py --env CartPole-v1 --literal --alpha 1e-4

References

    Mnih et al., Playing Atari with Deep Reinforcement Learning, 2013 (the algorithm box).
    Mnih et al., Human-level control through deep reinforcement learning, 2015 (the target network).
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd edition, 2018, chapter 7 (n-step returns).
    van Hasselt, Guez, Silver, Deep Reinforcement Learning with Double Q-learning, 2016.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import flatdim, flatten, flatten_space
from torch import nn

from common import runs


class QNetwork(nn.Module):
    """Q(s, .; theta): from the preprocessed state phi(s) to one value for each action.

    Args:
        observation_space: what the environment shows; phi and the layers follow from it.
        n_actions: number of actions, A.
        hidden: units of each of the two hidden layers.

    Shapes:
        forward: (batch, features) or (features,) -> (batch, A) or (A,), float32.
    """

    def __init__(self, observation_space: gym.Space, n_actions: int, hidden: int):
        super().__init__()
        # phi and the network are chosen here and nowhere else. A Discrete state becomes one-hot; a vector is divided by its
        # bounds where it has any: the pole's angle stays within 0.4, so small an input would hardly be heard beside the others.
        # For pixels, the paper's phi (grey, 84x84, the last 4 frames) and convolutions belong here.
        self.observation_space = observation_space
        flat = flatten_space(observation_space)
        bound = np.maximum(np.abs(flat.low), np.abs(flat.high))
        self.scale = np.where((bound > 0) & (bound < 1e3), bound, 1.0).astype(np.float32)
        self.register_buffer("unit", torch.ones(()))  # Q is learned in units of it; it grows with the returns that are seen
        self.layers = nn.Sequential(
            nn.Linear(flat.shape[0], hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, n_actions),  # no activation: a return can be any number
        )

    def phi(self, observation) -> np.ndarray:
        """Preprocess one observation. Shape: (features,), float32."""
        return flatten(self.observation_space, observation).astype(np.float32) / self.scale

    def forward(self, phi: torch.Tensor) -> torch.Tensor:
        """All actions' values in one pass, so that the max over actions costs nothing extra."""
        return self.unit * self.layers(phi)

    @torch.inference_mode()  # choosing an action needs no gradient, and not recording one makes it faster
    def greedy(self, phi: np.ndarray) -> int:
        """The action of highest value in one state phi, shape (features,)."""
        return self(torch.from_numpy(phi)).argmax().item()


class ReplayMemory:
    """D: the last `capacity` transitions, in arrays that are allocated once.

    Args:
        capacity: N, in transitions.
        features: length of phi.
    """

    def __init__(self, capacity: int, features: int):
        self.states = np.empty((capacity, features), np.float32)
        self.actions = np.empty(capacity, np.int64)
        self.rewards = np.empty(capacity, np.float32)
        self.next_states = np.empty((capacity, features), np.float32)
        self.terminated = np.empty(capacity, np.float32)
        self.done = np.empty(capacity, bool)
        self.capacity, self.stored = capacity, 0

    def store(self, state, action, reward, next_state, terminated, done) -> None:
        """Put one transition in; when full, the oldest gives way (a ring). `done`: the episode ended, for whatever reason."""
        i = self.stored % self.capacity
        self.states[i], self.actions[i], self.rewards[i] = state, action, reward
        self.next_states[i], self.terminated[i], self.done[i] = next_state, terminated, done
        self.stored += 1

    def sample(self, batch: int, n_steps: int, gamma: float, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """`batch` transitions, each drawn uniformly, with replacement.

        With n_steps = 1 a transition is what was stored. With more it spans up to n steps of the same episode:
        r_j + gamma r_{j+1} + ... + gamma^{n-1} r_{j+n-1} in place of r_j, phi_{j+n} in place of phi_{j+1}, discount gamma^n.

        Returns:
            phi_j (batch, features), a_j, r_j (batch,), phi_{j+n} (batch, features), terminated, discount (batch,).
        """
        first = rng.integers(max(0, self.stored - self.capacity), self.stored, size=batch)  # counted since the beginning
        last = first.copy()  # the step up to which the rewards are summed
        rewards = self.rewards[first % self.capacity]
        discount = np.full(batch, gamma, np.float32)
        for _ in range(n_steps - 1):
            goes_on = ~self.done[last % self.capacity] & (last + 1 < self.stored)  # stop at the episode's end, or at the newest
            last += goes_on
            rewards += goes_on * discount * self.rewards[last % self.capacity]
            discount[goes_on] *= gamma
        first, last = first % self.capacity, last % self.capacity
        columns = (self.states[first], self.actions[first], rewards, self.next_states[last], self.terminated[last], discount)
        return tuple(torch.from_numpy(column) for column in columns)


@runs.checked(
    observations="vector", actions={"Discrete"}, hint=' ("max over continuous actions is not possible": lecture part 3)'
)
def train(
    env: gym.Env,
    *,
    seed: int = 0,
    episodes: int = 10_000,
    steps: int = 150_000,
    gamma: float = 0.99,
    alpha: float = 1e-3,
    epsilon: float = 0.01,
    epsilon_decay: int = 5_000,
    memory: int = 100_000,
    batch: int = 128,
    warmup: int = 1_000,
    train_every: int = 4,
    tau: float = 0.01,
    n_steps: int = 5,
    double: bool = True,
    huber: bool = True,
    adam: bool = True,
    anneal: bool = True,
    rescale: bool = True,
    hidden: int = 128,
    literal: bool = False,
    on_episode: Callable[[float, int, int], bool] | None = None,
) -> tuple[QNetwork, list[float]]:
    """Deep Q-learning with experience replay.

    Args:
        env: an environment with Discrete actions; its observations are flattened (Discrete ones: one-hot).
        seed: one seed, one result; in [0, inf).
        episodes: M, the budget in episodes; in [1, inf).
        steps: the budget in environment steps; the first of the two that is used up ends the training; in [1, inf).
        gamma: discount of the return; in [0, 1].
        alpha: step size of the gradient descent; in (0, inf).
        epsilon: probability of a random action; in [0, 1].
        epsilon_decay: steps over which that probability falls from 1 to epsilon; in [0, inf).
        memory: N, the capacity of the replay memory D, in transitions; in [1, inf).
        batch: transitions in a minibatch; in [1, memory].
        warmup: steps before the first gradient step; in [1, inf).
        train_every: environment steps for each gradient step; in [1, inf).
        tau: how far the target network follows at each gradient step, theta' = tau theta + (1 - tau) theta'; in (0, 1].
        n_steps: n, the steps whose rewards are summed before the bootstrap; in [1, inf).
        double: choose the next action with Q, value it with the target network.
        huber: Huber loss, in place of the square.
        adam: Adam, in place of the plain gradient step.
        anneal: let alpha fall in a line to 0 over the budget.
        rescale: learn values in units of the largest return seen so far.
        hidden: units of each hidden layer; in [1, inf).
        literal: the slide to the letter: everything under "Beyond the slide" is off.
        on_episode: called after each episode with its return, its length and the steps so far; True ends the training.

    Returns:
        The Q-network, and the undiscounted return of every finished episode.

    Raises:
        ValueError: a number outside its interval, or spaces that do not fit.
        FloatingPointError: the loss is no longer a finite number.
    """
    if literal:
        tau, n_steps, double, huber, anneal, rescale, adam, warmup, train_every = 1.0, 1, False, False, False, False, False, 1, 1
        epsilon, epsilon_decay = 0.1, 0  # constant, "small": the paper's last value
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # networks this small lose more by handing work to a second thread than they gain
    rng = np.random.default_rng(seed)
    returns, step = [], 0

    # [1] Initialize replay memory D to capacity N
    D = ReplayMemory(capacity=memory, features=flatdim(env.observation_space))
    # [2] Initialize action-value function Q with random weights
    q_network = QNetwork(env.observation_space, env.action_space.n, hidden)
    target_network = copy.deepcopy(q_network)  # Q with theta', which follows theta slowly; with tau = 1 they stay the same
    target_network.unit = q_network.unit  # one number for both
    theta, theta_target = list(q_network.parameters()), list(target_network.parameters())
    optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(theta, lr=alpha, fused=True)  # fused: one call for all weights

    # [3] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # The slide's sequence s_t holds all images and actions so far. Here one observation is the whole state (Markov), so
        # phi looks at the last one only. The environment is seeded once; later resets go on from there.
        # [4] Initialise sequence s_1 = {x_1} and preprocessed sequence phi_1 = phi(s_1)
        state = q_network.phi(env.reset(seed=seed if episode == 1 else None)[0])
        episode_return, discounted, t, done = 0.0, 0.0, 0, False

        # T is not known beforehand: the environment says when the episode is over.
        # [5] for t = 1, T do
        while not done and step < steps:
            t, step = t + 1, step + 1
            random_share = max(epsilon, 1 - (1 - epsilon) * step / epsilon_decay) if epsilon_decay else epsilon

            # On the epsilon-greedy slide epsilon is the probability of the best action; here, as in the box, of a random one.
            # [6] With probability epsilon select a random action a_t
            if rng.random() < random_share:
                action = rng.integers(env.action_space.n).item()
            # [7] otherwise select a_t = max_a Q*(phi(s_t), a; theta) (an argmax)
            else:
                action = q_network.greedy(state)
            # [8] Execute action a_t in emulator and observe reward r_t and image x_{t+1}
            observation, reward, terminated, truncated, _ = env.step(action)
            # [9] Set s_{t+1} = s_t, a_t, x_{t+1} and preprocess phi_{t+1} = phi(s_{t+1})
            next_state = q_network.phi(observation)
            # Terminal means that the task is over and no reward can follow. A time limit (truncated) only stops our watching:
            # the state after it is worth as much as ever. So D keeps `terminated`, and [12] bootstraps through time limits;
            # with `done` in its place, states would look worthless just because the clock ran out.
            # [10] Store transition (phi_t, a_t, r_t, phi_{t+1}) in D
            D.store(state, action, reward, next_state, terminated, done=terminated or truncated)
            state, episode_return, done = next_state, episode_return + float(reward), terminated or truncated
            discounted += gamma ** (t - 1) * float(reward)  # G_1, the return of the whole episode

            if step < warmup or step % train_every:
                continue
            # [11] Sample random minibatch of transitions (phi_j, a_j, r_j, phi_{j+1}) from D
            state_j, action_j, reward_j, next_state_j, terminated_j, discount_j = D.sample(batch, n_steps, gamma, rng)
            # [12] Set y_j = r_j for terminal phi_{j+1}; r_j + gamma max_a' Q(phi_{j+1}, a'; theta) for non-terminal phi_{j+1}
            with torch.no_grad():  # the "real value" is a constant: no gradient through it
                values = target_network(next_state_j)  # (batch, actions)
                # Double Q-learning: a* = argmax_a Q(phi_{j+1}, a; theta), valued by theta'. Off: both by theta', the plain max.
                best = (q_network(next_state_j) if double else values).argmax(dim=1, keepdim=True)  # (batch, 1)
                next_value = values.gather(1, best).squeeze(1)  # (batch,)
                # Both cases in one expression: 1 - terminated is 0 exactly at terminal phi_{j+1}, where only r_j is left. The
                # discount is gamma, or gamma^n where r_j is a sum over n steps.
                y = reward_j + discount_j * (1 - terminated_j) * next_value  # (batch,)
            # [13] Perform a gradient descent step on (y_j - Q(phi_j, a_j; theta))^2
            q = q_network(state_j).gather(1, action_j.unsqueeze(1)).squeeze(1)  # Q of the actions taken, (batch,)
            loss = (F.smooth_l1_loss if huber else F.mse_loss)(q / q_network.unit, y / q_network.unit)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step}; a smaller alpha may help")
            if anneal:
                optimizer.param_groups[0]["lr"] = alpha * (1 - max(step / steps, episode / (episodes + 1)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():  # theta' <- theta' + tau (theta - theta'), one call for all weights
                torch._foreach_lerp_(theta_target, theta, tau)

        if not done:  # the budget of steps ended inside this episode: it has no return yet
            break
        returns.append(episode_return)
        if rescale:  # the largest return seen so far
            q_network.unit.clamp_(min=abs(discounted))
        if on_episode and on_episode(episode_return, t, step):
            break
    return q_network, returns


def main(argv: list[str] | None = None) -> int:
    """The command line: `python dqn.py --help`. Returns the exit status."""
    with runs.Run(train, argv, env="CartPole-v1") as run:
        env = run.open_env()
        if run.load:
            h = run.hyperparameters
            q_network = run.loaded(QNetwork(env.observation_space, env.action_space.n, h["hidden"]))
        else:
            with run.training():
                q_network, _ = train(env, **run.hyperparameters, on_episode=run.on_episode)
        phi = q_network.phi
        run.finish(
            q_network,
            act=lambda observation: q_network.greedy(phi(observation)),
            value=lambda observation: q_network(torch.from_numpy(phi(observation))).max().item(),
        )
    return run.status


if __name__ == "__main__":
    sys.exit(main())
