"""Deep deterministic policy gradient (DDPG). Lecture part 5, "DDPG".

DQN takes a max over actions, but "how to take max on continuous actions?", asks the lecture. Here a
second network, the actor mu(s), learns to output the best action. It is deterministic, which
removes the expectation over actions: Q(s,a) = E[r + gamma Q(s', mu(s'))]; DQN is the case
mu(s) = argmax_a Q(s,a). The critic Q is trained as in DQN. The actor climbs the critic: grad_a Q
says in which direction the action should move, and the chain rule carries that on to the actor's
weights.

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
y_i = r_i there, as in DQN. N is the noise in [5] and the size of the minibatch in [11]. The box
leaves the noise open: this code takes the paper's Ornstein-Uhlenbeck process, the slide's demo
independent Gaussian noise with a falling spread (and reward / 10).

Beyond the slide (the flag turns it off, and so does --literal)

    --warmup 0         At first the actions are random, and nothing is learned. So R holds actions
                       from all over the space before the actor settles on some of them.

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

import gymnasium as gym
import numpy as np
import torch
from torch import nn


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 100_000,  # M, the budget in episodes
    steps: int = 20_000,  # environment steps at most; the first budget used up ends training
    gamma: float = 0.99,  # discount of the return
    alpha: float = 1e-3,  # step size of the actor
    beta: float = 1e-3,  # step size of the critic
    memory: int = 100_000,  # capacity of the replay buffer R, in transitions
    batch: int = 128,  # N, transitions in a minibatch
    tau: float = 0.01,  # theta' <- tau theta + (1 - tau) theta' at each step
    warmup: int = 1_000,  # first steps, with random actions and without learning
    sigma: float = 0.1,  # spread of the noise's random increments; actions lie in [-1, 1]
    hidden: int = 128,  # units of each hidden layer
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode=lambda episode_return, length, step: False,  # called after each; True ends training
) -> tuple[Actor, Critic, list[float]]:
    """Train on an environment with Box actions; returns actor, critic and all returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for networks this small a second thread costs more than it gains
    rng, env, returns, step = np.random.default_rng(seed), prepare(env), [], 0
    n_features, n_actions = env.observation_space.shape[0], env.action_space.shape[0]

    # In DQN each action has an output; continuous actions cannot, so Q takes the action as input.
    # [1] Randomly initialize critic network Q(s,a|theta^Q) and actor mu(s|theta^mu)
    #     with weights theta^Q and theta^mu
    critic, actor = Critic(n_features, n_actions, hidden), Actor(n_features, n_actions, hidden)
    # The targets begin as exact copies; [15] lets them follow slowly.
    # [2] Initialize target network Q' and mu' with weights theta^Q' <- theta^Q,
    #     theta^mu' <- theta^mu
    target_critic, target_actor = copy.deepcopy(critic), copy.deepcopy(actor)
    # The last transitions. When R is full, a new one replaces the oldest.
    # [3] Initialize replay buffer R
    R = ReplayMemory(memory, n_features, n_actions)
    theta = [*critic.parameters(), *actor.parameters()]
    theta_target = [*target_critic.parameters(), *target_actor.parameters()]
    # fused: one call for all weights
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=beta, fused=True)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=alpha, fused=True)

    # M is `episodes`; `steps` is a second budget.
    # [4] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # N begins at 0 in each episode and then wanders, so that the agent pushes one way for a
        # while. Independent noise would largely average out in a system with inertia.
        # [5] Initialize a random process N for action exploration
        N = OrnsteinUhlenbeck(n_actions, sigma, rng)
        # Only the first reset gets the seed. If each did, all episodes would start in the same way.
        # [6] Receive initial observation state s_1
        state, _ = env.reset(seed=seed if episode == 1 else None)
        done = False

        # T is not known beforehand: the environment says when the episode is over.
        # [7] for t = 1, T do
        while not done and step < steps:
            step += 1
            # Without N_t, R holds only the actor's own actions, and Q cannot tell which others are
            # better. The action is clipped before [10] stores it: R holds what was carried out. An
            # action space without bounds is used from -1 to 1 only.
            # [8] Select action a_t = mu(s_t|theta^mu) + N_t according to the current policy
            #     and exploration noise
            with torch.inference_mode():  # acting needs no gradient
                action = actor(torch.from_numpy(state)).numpy() + N.sample()
            if step <= warmup:  # beyond the slide: random actions at first
                action = rng.uniform(-1, 1, n_actions)
            action = action.clip(-1, 1).astype(np.float32)
            # prepare() rescales the action to the environment's own bounds. terminated: s_{t+1} is
            # terminal. truncated: a time limit cut the episode off.
            # [9] Execute action a_t and observe reward r_t and observe new state s_{t+1}
            next_state, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            # R keeps `terminated`, for [12]. A time limit is not terminal: the task would have gone
            # on, so y_i needs the value after it.
            # [10] Store transition (s_t, a_t, r_t, s_{t+1}) in R
            R.store(state, action, reward, next_state, terminated)
            state = next_state
            if step <= warmup:  # beyond the slide: nothing is learned in the warm-up
                continue

            # Consecutive transitions are correlated; a random minibatch mixes many episodes and
            # policies. state_i, next_state_i: (batch, n_features); action_i: (batch, n_actions);
            # all others: (batch, 1).
            # [11] Sample a random minibatch of N transitions (s_i, a_i, r_i, s_{i+1}) from R
            state_i, action_i, reward_i, next_state_i, terminated_i = R.sample(batch, rng)
            # The target actor stands where DQN has the max. 1 - terminated_i is 0 for a terminal
            # s_{i+1}, the case that the slide leaves out. no_grad: y is a constant, (batch, 1).
            # [12] Set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1}|theta^mu')|theta^Q')
            with torch.no_grad():
                next_value = target_critic(next_state_i, target_actor(next_state_i))
                y = reward_i + gamma * (1 - terminated_i) * next_value
            # Both terms are (batch, 1). The gradient flows through Q(s_i,a_i|theta^Q) only.
            # [13] Update critic by minimizing the loss: L = 1/N sum_i (y_i - Q(s_i,a_i|theta^Q))^2
            L = (y - critic(state_i, action_i)).square().mean()
            if not L.isfinite():
                raise FloatingPointError(f"loss {L:g} at step {step}: try a smaller beta")
            critic_optimizer.zero_grad()
            L.backward()
            critic_optimizer.step()
            # Autograd is the chain rule: from Q through the action a = mu(s_i) into theta^mu.
            # inputs=...: the gradient passes through the critic, but is kept for theta^mu only.
            # Minus: the optimiser descends, but J has to grow.
            # [14] Update the actor policy using the sampled policy gradient: grad_theta^mu J ~
            #      1/N sum_i grad_a Q(s,a|theta^Q)|s=s_i,a=mu(s_i) grad_theta^mu mu(s|theta^mu)|s_i
            J = critic(state_i, actor(state_i)).mean()
            actor_optimizer.zero_grad()
            (-J).backward(inputs=list(actor.parameters()))
            actor_optimizer.step()
            # lerp_ is the slide's formula, here for all weights of both networks. Slow targets
            # change little between two steps; with tau = 1 they follow at once, and Q may diverge.
            # [15] Update the target networks: theta^Q' <- tau theta^Q + (1-tau) theta^Q'
            #      theta^mu' <- tau theta^mu + (1-tau) theta^mu'
            with torch.no_grad():
                for p_target, p in zip(theta_target, theta, strict=True):
                    p_target.lerp_(p, tau)

        if not done:  # the budget ended inside this episode: it has no return
            break
        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    return actor, critic, returns


class Actor(nn.Sequential):
    """mu(s; theta^mu): states (batch, n_features) -> actions (batch, n_actions) in [-1, 1]."""

    def __init__(self, n_features: int, n_actions: int, hidden: int):
        first, second = nn.Linear(n_features, hidden), nn.Linear(hidden, hidden)
        last = nn.Linear(hidden, n_actions)  # and a tanh: within the bounds, whatever the weights
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), last, nn.Tanh())


class Critic(nn.Sequential):
    """Q(s,a; theta^Q): states (batch, n_features), actions (batch, n_actions) -> (batch, 1)."""

    def __init__(self, n_features: int, n_actions: int, hidden: int):
        first, second = nn.Linear(n_features + n_actions, hidden), nn.Linear(hidden, hidden)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cat([states, actions], dim=-1))


class ReplayMemory:
    """R: the last `capacity` transitions, in arrays that are allocated once."""

    def __init__(self, capacity: int, n_features: int, n_actions: int):
        # state, action, reward, next_state, terminated
        widths = n_features, n_actions, 1, n_features, 1
        self.columns = [np.empty((capacity, width), np.float32) for width in widths]
        self.stored = 0

    def store(self, *transition) -> None:
        """Put one transition in."""
        for column, part in zip(self.columns, transition, strict=True):
            column[self.stored % len(column)] = part  # overwrites the oldest in a full memory
        self.stored += 1

    def sample(self, batch: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """`batch` transitions, drawn uniformly and with replacement: (batch, width) each."""
        i = rng.integers(min(self.stored, len(self.columns[0])), size=batch)
        return tuple(torch.from_numpy(column[i]) for column in self.columns)


class OrnsteinUhlenbeck:
    """N_t = N_{t-1} - 0.15 N_{t-1} + sigma xi_t, with xi_t standard normal and a time step of 1.

    It drifts back to 0. sigma is the spread (standard deviation) of the random part; in the long
    run N has 1.9 times that.
    """

    def __init__(self, n_actions: int, sigma: float, rng: np.random.Generator):
        self.value, self.sigma, self.rng = np.zeros(n_actions), sigma, rng

    def sample(self) -> np.ndarray:
        """The next value, (n_actions,)."""
        self.value += -0.15 * self.value + self.sigma * self.rng.standard_normal(len(self.value))
        return self.value.copy()


def prepare(env) -> gym.Env:
    """Wrap an environment, or what makes one. States become float32 vectors, Discrete ones one-hot.

    What a network learns belongs to the states that are shown here, small ones stretched.
    Box actions become vectors; a bound is -1 or 1 if it is finite. At the end of an episode,
    info["episode"] holds its return "r" and its length "l".
    """
    env = gym.wrappers.RecordEpisodeStatistics(env() if callable(env) else env)
    env = gym.wrappers.FlattenObservation(env)
    low, high = np.float32((env.observation_space.low, env.observation_space.high))
    # A network overlooks small inputs: numbers that stay within (-1, 1) are stretched to it.
    unit = np.maximum(-low, high).clip(1e-3, 1)
    space = gym.spaces.Box(low / unit, high / unit)
    env = gym.wrappers.TransformObservation(env, lambda s: np.float32(s / unit), space)
    space = env.action_space
    box = gym.spaces.flatten_space(space)
    # clip: after rescaling, rounding could put an action just outside of the space.
    inside = lambda a: a.clip(box.low, box.high).astype(box.dtype).reshape(space.shape)
    low = np.where(np.isinf(box.low), box.low, -1)  # an infinite bound stays as it is
    high = np.where(np.isinf(box.high), box.high, 1)
    return gym.wrappers.RescaleAction(gym.wrappers.TransformAction(env, inside, box), low, high)


LITERAL = dict(warmup=0)  # the slide and nothing else


def literally(env, *, literal: bool = False, **given):
    """train(), with LITERAL in place of its defaults if literal=True. What is given wins."""
    return literally.__wrapped__(env, **((LITERAL if literal else {}) | given))


train = functools.wraps(train)(literally)  # with the signature and the docstring of train() above


def main(argv: list[str] | None = None) -> int:
    """The command line: `python ddpg.py --help`. Returns the exit status."""
    from common import runs

    act = lambda actor, critic, state: actor(state)  # the greedy action
    value = lambda actor, critic, state: critic(state, actor(state))
    return runs.main(train, argv, env="Pendulum-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
