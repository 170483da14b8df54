"""Deep deterministic policy gradient (DDPG). Lecture part 5, "DDPG".

DQN takes a max over actions, but "how to take max on continuous actions?", asks the lecture. Here a
second network, the actor mu(s), learns to output the best action. It is deterministic, which
removes the expectation over actions: Q(s_t,a_t) = E[r_t + gamma Q(s_{t+1}, mu(s_{t+1}))]. DQN is
the case mu(s) = argmax_a Q(s,a). The critic Q is trained as in DQN, but its targets come from slow
copies of both networks, Q' and mu': a target that moves with Q itself makes learning unstable. The
actor climbs the critic: grad_a Q says in which direction the action should move, and the chain rule
carries that on to the actor's weights.

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

Where the slide is loose: [12] has no terminal case. No reward follows a terminal state, so there
y_i = r_i, as in DQN. A time limit ends an episode, too, but its last state is not terminal: the
task would have gone on, so y_i includes its value. mu(s_t) + N_t may lie outside of the action
space: it is clipped, as in the slide's demo. N is the noise in [5] and the size of the minibatch in
[11]. The box leaves the noise open: here it is the paper's Ornstein-Uhlenbeck process (its theta =
0.15, but sigma = 0.1 instead of 0.2); the slide's demo takes independent Gaussian noise with a
falling standard deviation (and divides the reward by 10).

Beyond the slide (--literal, see LITERAL below, turns off all that has a flag)

    Warm-up (off: --warmup 0). At first the actions are random, and nothing is learned, so R holds
        actions from all over the space before the actor settles on some of them.
    Adam instead of the plain gradient step; a minibatch is drawn with replacement; state components
        bounded within (-1, 1) are divided by their bound, and actions are rescaled to [-1, 1] (by
        common.envs.make, not here).

Try

    python ddpg.py --env Pendulum-v1
    python ddpg.py --env InvertedPendulum-v5
    python ddpg.py --env HalfCheetah-v5 --steps 40000

References

    Lillicrap et al., Continuous control with deep reinforcement learning, 2015.
    Silver et al., Deterministic Policy Gradient Algorithms, 2014.
    Uhlenbeck, Ornstein, On the Theory of the Brownian Motion, 1930 (the noise).
"""

import copy

import gymnasium as gym
import numpy as np
import torch
from torch import nn


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 100_000,  # M, episodes at most
    steps: int = 20_000,  # environment steps at most; training stops at whichever comes first
    gamma: float = 0.99,  # discount of the return
    alpha: float = 1e-3,  # step size of the actor
    beta: float = 1e-3,  # step size of the critic
    memory: int = 100_000,  # capacity of the replay buffer R, in transitions
    batch: int = 128,  # the N of [11], transitions in a minibatch
    tau: float = 0.01,  # theta' <- tau theta + (1 - tau) theta' at each step
    warmup: int = 1_000,  # first steps, with random actions and without learning
    sigma: float = 0.1,  # standard deviation of the noise's increments; actions lie in [-1, 1]
    hidden: int = 128,  # units of each hidden layer
    on_episode=None,  # called with (episode_return, length, step); may return True to stop
) -> tuple["Actor", "Critic", list[float]]:
    """Train on Box actions in [-1, 1]; returns actor, critic and the list of episode returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # a second thread only costs time in small networks
    rng = np.random.default_rng(seed)
    space = env.observation_space
    assert space.dtype == np.float32, "use wrappers FlattenObservation, DtypeObservation"
    n_features = space.shape[0]
    action_size = env.action_space.shape[0]
    # [1] Randomly initialize critic network Q(s,a|theta^Q) and actor mu(s|theta^mu)
    #   with weights theta^Q and theta^mu
    # DQN has one output for each action; here the action is an input of Q.
    critic = Critic(n_features, action_size, hidden)
    actor = Actor(n_features, action_size, hidden)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=beta, fused=True)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=alpha, fused=True)
    # [2] Initialize target network Q' and mu' with weights theta^Q' <- theta^Q,
    #   theta^mu' <- theta^mu
    # They begin as exact copies; [15] lets them follow slowly.
    target_critic = copy.deepcopy(critic)
    target_actor = copy.deepcopy(actor)
    theta = [*critic.parameters(), *actor.parameters()]  # theta^Q and theta^mu, for [15]
    theta_target = [*target_critic.parameters(), *target_actor.parameters()]
    # [3] Initialize replay buffer R
    # It keeps the last `memory` transitions: in a full memory a new one replaces the oldest.
    R = ReplayMemory(memory)

    returns = []
    step = 0
    # [4] for episode = 1, M do
    for episode in range(1, episodes + 1):
        # [5] Initialize a random process N for action exploration
        # It begins at 0 in each episode and keeps its direction for a while.
        N = OrnsteinUhlenbeck(action_size, sigma, rng)
        # [6] Receive initial observation state s_1
        state, _ = env.reset(seed=seed if episode == 1 else None)  # seeded once, at the start
        episode_return = 0.0
        length = 0
        done = False
        # [7] for t = 1, T do
        # T is not known beforehand: the environment says when the episode is done.
        while not done and step < steps:
            step += 1
            # [8] Select action a_t = mu(s_t|theta^mu) + N_t according to the current policy
            #   and exploration noise
            # Without N_t, R would hold the actor's own actions only, and Q could not tell which
            # others are better. Clipped: R holds the action that is carried out.
            noise = N.sample()  # N_t; in the warm-up it is drawn, but not used
            if step > warmup:
                with torch.inference_mode():
                    action = actor(torch.as_tensor(state)).numpy() + noise
            else:  # beyond the slide
                action = rng.uniform(-1, 1, action_size)
            action = action.clip(-1, 1).astype(np.float32)
            # [9] Execute action a_t and observe reward r_t and observe new state s_{t+1}
            # terminated: s_{t+1} is terminal. truncated: a time limit ended the episode.
            next_state, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            episode_return += reward
            length += 1
            # [10] Store transition (s_t, a_t, r_t, s_{t+1}) in R
            # `terminated` is kept for [12]: a time limit is not terminal.
            R.store(state, action, reward, next_state, terminated)
            state = next_state
            if step <= warmup:  # beyond the slide
                continue

            # [11] Sample a random minibatch of N transitions (s_i, a_i, r_i, s_{i+1}) from R
            # Consecutive transitions are alike; a minibatch mixes many episodes and policies.
            # States: (batch, n_features); action_i: (batch, action_size); others: (batch,).
            state_i, action_i, reward_i, next_state_i, terminated_i = R.sample(batch, rng)
            # [12] Set y_i = r_i + gamma Q'(s_{i+1}, mu'(s_{i+1}|theta^mu')|theta^Q')
            # mu' stands where DQN has the max. 1 - terminated_i is 0 for a terminal s_{i+1}.
            with torch.no_grad():  # y is a constant, (batch,)
                next_value = target_critic(next_state_i, target_actor(next_state_i))
                y = reward_i + gamma * (1 - terminated_i) * next_value
            # [13] Update critic by minimizing the loss: L = 1/N sum_i (y_i - Q(s_i,a_i|theta^Q))^2
            # The gradient flows through Q(s_i,a_i|theta^Q) only.
            L = (y - critic(state_i, action_i)).square().mean()
            if not L.isfinite():
                raise FloatingPointError(f"loss {L:g} at step {step}: lower beta")
            critic_optimizer.zero_grad()
            L.backward()
            critic_optimizer.step()
            # [14] Update the actor policy using the sampled policy gradient: grad_theta^mu J ~
            #   1/N sum_i grad_a Q(s,a|theta^Q)|s=s_i,a=mu(s_i) grad_theta^mu mu(s|theta^mu)|s_i
            # Autograd applies the chain rule from Q through a = mu(s_i) to theta^mu. `inputs`: the
            # actor's weights alone get a gradient. Minus: the optimiser descends, [14] climbs.
            J = critic(state_i, actor(state_i)).mean()
            actor_optimizer.zero_grad()
            (-J).backward(inputs=list(actor.parameters()))
            actor_optimizer.step()
            # [15] Update the target networks: theta^Q' <- tau theta^Q + (1-tau) theta^Q'
            #   theta^mu' <- tau theta^mu + (1-tau) theta^mu'
            # lerp_ computes tau p + (1-tau) p_target in place.
            with torch.no_grad():
                for p_target, p in zip(theta_target, theta, strict=True):
                    p_target.lerp_(p, tau)

        if not done:  # step limit reached mid-episode; not counted
            break
        returns.append(episode_return)
        if on_episode and on_episode(episode_return, length, step):
            break
    return actor, critic, returns


LITERAL = dict(warmup=0)  # the slide


class Actor(nn.Sequential):
    """mu(s; theta^mu): states (batch, n_features) -> actions (batch, action_size) in [-1, 1]."""

    def __init__(self, n_features: int, action_size: int, hidden: int):
        first, second = nn.Linear(n_features, hidden), nn.Linear(hidden, hidden)
        last = nn.Linear(hidden, action_size)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), last, nn.Tanh())


class Critic(nn.Sequential):
    """Q(s,a; theta^Q): states (batch, n_features), actions (batch, action_size) -> (batch,)."""

    def __init__(self, n_features: int, action_size: int, hidden: int):
        first, second = nn.Linear(n_features + action_size, hidden), nn.Linear(hidden, hidden)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cat([states, actions], dim=-1)).squeeze(-1)


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


class OrnsteinUhlenbeck:
    """N_t = N_{t-1} - 0.15 N_{t-1} + sigma xi_t, with xi_t standard normal and a time step of 1.

    It drifts back to 0. sigma is the standard deviation of an increment; that of N itself is 1.9
    times sigma in the long run.
    """

    def __init__(self, action_size: int, sigma: float, rng: np.random.Generator):
        self.value = np.zeros(action_size)
        self.sigma = sigma
        self.rng = rng

    def sample(self) -> np.ndarray:
        """The next value, (action_size,)."""
        self.value += -0.15 * self.value + self.sigma * self.rng.standard_normal(len(self.value))
        return self.value.copy()


def main(argv: list[str] | None = None) -> int:
    """The command line: `python ddpg.py --help`. Returns the exit status."""
    from common import runs

    act = lambda actor, critic, state: actor(state)  # mu(s)
    value = lambda actor, critic, state: critic(state, actor(state))
    return runs.main(train, argv, env="Pendulum-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
