"""Q-learning with a table (off-policy TD control). Lecture part 2, "Q-learning".

Keep one number Q(s,a) for every state and action: an estimate of the return after doing a in s
and the best actions from then on. Before a step the table holds the "estimated value" Q(S,A). The
step shows R and S', and with them a "real value", R + gamma max_a Q(S',a). It is real in R only;
the rest is the table's own estimate. Q(S,A) moves towards it by the fraction alpha of the
difference. The max makes it off-policy: the actions come from an epsilon-greedy policy, but the
table learns Q*, the values of the optimal one.

Pseudocode (Q-learning for estimating pi ~ pi*; Watkins, 1989; Sutton & Barto, section 6.5)

    [1] Algorithm parameters: step size alpha in (0,1], small epsilon > 0
    [2] Initialize Q(s,a), for all s in S+, a in A(s), arbitrarily except that Q(terminal, .) = 0
    [3] Loop for each episode:
    [4]     Initialize S
    [5]     Loop for each step of episode:
    [6]         Choose A from S using policy derived from Q (e.g. epsilon-greedy)
    [7]         Take action A, observe R, S'
    [8]         Q(S,A) <- Q(S,A) + alpha [R + gamma max_a Q(S',a) - Q(S,A)]
    [9]         S <- S'
    [10]    until S is terminal

Where the slide is loose: on its epsilon-greedy slide epsilon = 0.9 means "90 % greedy". In the
box, in the field and in this code epsilon is the probability of a random action: the slide's 0.9
is --epsilon 0.1. In the expansion of Q the slide repeats R_{t+2} where R_{t+3} is meant, and the
"<=" of its derivation is "=" for Q* only.

Beyond the slide (the flag turns it off, and so does --literal)

    --no-epsilon-decay Epsilon falls linearly to 0 over the budget of episodes. Once the table is
                       good, random actions only lower the returns; before, they find more.

Try

    python qlearning_table.py --render
    python qlearning_table.py --env Treasure-v0 --env-kwargs size=12
    python qlearning_table.py --env Taxi-v3
    python qlearning_table.py --env FrozenLake8x8-v1 --episodes 20000

References

    Watkins, Learning from Delayed Rewards, 1989.
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd ed., 2018, section 6.5.
"""

import functools

import gymnasium as gym
import numpy as np


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 5_000,  # the budget in episodes
    steps: int = 1_000_000,  # environment steps at most; the first budget used up ends training
    gamma: float = 0.99,  # discount of the return
    alpha: float = 0.1,  # step size
    epsilon: float = 0.3,  # probability of a random action (the slide's epsilon is 1 minus it)
    epsilon_decay: bool = True,  # let epsilon fall linearly to 0 over the budget of episodes
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode=lambda episode_return, length, step: False,  # called after each; True ends training
) -> tuple[np.ndarray, list[float]]:
    """Train on discrete states and actions; returns the Q-table and all returns."""
    rng, env, returns, step = np.random.default_rng(seed), prepare(env), [], 0
    n_states, n_actions = env.observation_space.n, env.action_space.n

    # A small alpha learns slowly, but averages over many samples. A large one learns fast, but
    # where rewards or next states are random, Q follows the last few samples.
    # [1] Algorithm parameters: step size alpha in (0,1], small epsilon > 0
    assert 0 < alpha <= 1 and 0 <= epsilon <= 1
    # One row for each state, one column for each action. [8] never reads the row of a terminal
    # state: its values count as 0.
    # [2] Initialize Q(s,a), for all s in S+, a in A(s), arbitrarily except that Q(terminal, .) = 0
    Q = np.zeros((n_states, n_actions))
    # Training ends with the last episode, or earlier, when `steps` are used up.
    # [3] Loop for each episode:
    for episode in range(1, episodes + 1):
        eps = epsilon * (1 - (episode - 1) / episodes if epsilon_decay else 1)  # beyond the slide
        # Only the first reset gets the seed. If each did, all episodes would start in the same way.
        # [4] Initialize S
        S, _ = env.reset(seed=seed if episode == 1 else None)
        done = False
        # This loop runs until [10] leaves it, or until the budget in steps is used up.
        # [5] Loop for each step of episode:
        while step < steps:
            step += 1
            # With probability epsilon (the slide's 1 - epsilon) a random action. Greedy actions
            # alone would repeat the first good path, and better ones might stay untried.
            # [6] Choose A from S using policy derived from Q (e.g. epsilon-greedy)
            A = rng.integers(n_actions) if rng.random() < eps else greedy(Q[S], rng)
            # terminated: S' is terminal. truncated: a time limit cut the episode off.
            # [7] Take action A, observe R, S'
            S_next, R, terminated, truncated, info = env.step(A)
            done = terminated or truncated
            # `not terminated` is 0 where S' is terminal, so that Q(terminal, .) counts as 0.
            # A time limit is not terminal: the task would have gone on from S'.
            # [8] Q(S,A) <- Q(S,A) + alpha [R + gamma max_a Q(S',a) - Q(S,A)]
            Q[S, A] += alpha * (R + gamma * Q[S_next].max() * (not terminated) - Q[S, A])
            if not np.isfinite(Q[S, A]):
                raise FloatingPointError(f"Q {Q[S, A]} at step {step}: check the rewards and gamma")
            # Without this line [6] would go on choosing from the first state.
            # [9] S <- S'
            S = S_next
            # A time limit ends the episode as well, though S' is not terminal.
            # [10] until S is terminal
            if done:
                break
        if not done:  # the budget ended inside this episode: it has no return
            break
        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    return Q, returns


def greedy(values: np.ndarray, rng: np.random.Generator) -> int:
    """argmax_a of one row of the table, shape (n_actions,), ties broken at random.

    np.argmax takes the first of equal values: on a table of zeros it would always take action 0.
    """
    best = np.flatnonzero(values == values.max())
    return best[rng.integers(len(best))]


def prepare(env) -> gym.Env:
    """Wrap an environment, or what makes one: its states and actions are numbered from 0.

    At the end of an episode, info["episode"] holds its return "r" and its length "l".
    """
    env = gym.wrappers.RecordEpisodeStatistics(env() if callable(env) else env)
    states, actions, Discrete = env.observation_space, env.action_space, gym.spaces.Discrete
    if not isinstance(states, Discrete):  # a Tuple or MultiDiscrete: one number for all its parts
        starts, sizes = np.array([(part.start, part.n) for part in states]).T
        number = lambda s: int(np.ravel_multi_index(s - starts, sizes))
        states = Discrete(sizes.prod())
        env = gym.wrappers.TransformObservation(env, number, states)
    env = gym.wrappers.TransformObservation(env, lambda s: s - states.start, Discrete(states.n))
    return gym.wrappers.TransformAction(env, lambda a: int(a + actions.start), Discrete(actions.n))


# The slide and nothing else, with the gamma and the epsilon of the lecture's demo.
LITERAL = dict(gamma=0.9, epsilon=0.1, epsilon_decay=False)


def literally(env, *, literal: bool = False, **given):
    """train(), with LITERAL in place of its defaults if literal=True. What is given wins."""
    return literally.__wrapped__(env, **((LITERAL if literal else {}) | given))


train = functools.wraps(train)(literally)  # with the signature and the docstring of train() above


def main(argv: list[str] | None = None) -> int:
    """The command line: `python qlearning_table.py --help`. Returns the exit status."""
    from common import runs

    act = lambda Q, S: Q[S].argmax()  # the greedy action
    value = lambda Q, S: Q[S].max()
    return runs.main(train, argv, env="Treasure-v0", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
