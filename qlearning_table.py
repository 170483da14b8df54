"""Q-learning with a table (off-policy TD control). Lecture part 2, "Q-learning".

Keep one number Q(s,a) for every state and action: the return to expect after doing a in s. Before
a step the table holds the "estimated value" Q(S,A). After it the environment has shown a "real
value", R + gamma max_a Q(S',a). Move the first towards the second by the step size alpha. The max
makes it off-policy: the table learns the values of the greedy policy while an epsilon-greedy one
explores.

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
is --epsilon 0.1. In the expansion of Q the slide repeats R_{t+2} where R_{t+3} is meant, and its
"<=" becomes "=" for Q* only.

Beyond the slide (--literal turns it off)

    --no-epsilon-decay off: epsilon falls in a line to 0 over the episodes. Once the table is good,
                       random actions only lower the returns.

Try

    python qlearning_table.py --render
    python qlearning_table.py --env Treasure-v0 --env-kwargs size=12
    python qlearning_table.py --env Maze-v0
    python qlearning_table.py --env Taxi-v3

References

    Watkins, Learning from Delayed Rewards, 1989.
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd ed., 2018, section 6.5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import gymnasium as gym
import numpy as np


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # one seed, one result
    episodes: int = 5_000,  # the budget in episodes
    steps: int = 1_000_000,  # the budget in environment steps; the first budget used up ends it
    gamma: float = 0.9,  # discount of the return
    alpha: float = 0.1,  # step size
    epsilon: float = 0.1,  # probability of a random action (the slide's epsilon is 1 minus it)
    epsilon_decay: bool = True,  # let epsilon fall in a line to 0 over the episodes
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode: Callable[[float, int, int], bool] = lambda *_: False,  # True ends the training
) -> tuple[np.ndarray, list[float]]:
    """Train on Discrete states and actions; returns the table (states, actions) and all returns."""
    rng, env, returns, step = np.random.default_rng(seed), prepare(env), [], 0
    n_states, n_actions = env.observation_space.n, env.action_space.n

    # A small alpha learns slowly, but averages over many samples. A large one learns fast, but
    # where rewards or next states are random, Q follows the last few samples.
    # [1] Algorithm parameters: step size alpha in (0,1], small epsilon > 0
    assert 0 < alpha <= 1 and 0 <= epsilon <= 1
    # One row for each state, one column for each action. S is never terminal in [8], so the row of
    # a terminal state stays 0, unless the environment uses its number for another state, too.
    # [2] Initialize Q(s,a), for all s in S+, a in A(s), arbitrarily except that Q(terminal, .) = 0
    Q = np.zeros((n_states, n_actions))
    # [3] Loop for each episode:
    for episode in range(1, episodes + 1):
        decay = 1 - (episode - 1) / episodes if epsilon_decay else 1  # beyond the slide
        # Only the first reset gets the seed: given to each, it would start all episodes alike.
        # [4] Initialize S
        S, _ = env.reset(seed=seed if episode == 1 else None)
        done = False
        # [5] Loop for each step of episode:
        while step < steps:
            step += 1
            # Greedy actions alone repeat the first good path found; better ones stay untried.
            # [6] Choose A from S using policy derived from Q (e.g. epsilon-greedy)
            A = rng.integers(n_actions) if rng.random() < decay * epsilon else greedy(Q[S], rng)
            # [7] Take action A, observe R, S'
            S_next, R, terminated, truncated, info = env.step(A)
            # (not terminated) is 0 where S' is terminal: Q(terminal, .) = 0 in any case.
            # A time limit (truncated) is not terminal: the task would have gone on from S'.
            # [8] Q(S,A) <- Q(S,A) + alpha [R + gamma max_a Q(S',a) - Q(S,A)]
            Q[S, A] += alpha * (R + gamma * Q[S_next].max() * (not terminated) - Q[S, A])
            if not np.isfinite(Q[S, A]):
                raise FloatingPointError(f"Q(S,A) is {Q[S, A]} at step {step}: look at the rewards")
            # [9] S <- S'
            S = S_next
            # A time limit ends the episode as well, though S' is not terminal.
            # [10] until S is terminal
            if done := terminated or truncated:
                break
        if not done:  # the budget ended inside this episode: it has no return
            break
        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    return Q, returns


def greedy(values: np.ndarray, rng: np.random.Generator) -> int:
    """argmax_a of one row of the table, shape (actions,), ties broken at random.

    np.argmax takes the first of equal values: on a table of zeros it always walks into one wall.
    """
    best = np.flatnonzero(values == values.max())
    return best[rng.integers(len(best))]


def prepare(env: gym.Env | Callable[[], gym.Env]) -> gym.Env:
    """Preprocessing at the door: returns are counted, states and actions are counted from 0."""
    env = gym.wrappers.RecordEpisodeStatistics(env() if callable(env) else env)
    states, actions = env.observation_space, env.action_space
    count = lambda s: int(s - states.start)
    env = gym.wrappers.TransformObservation(env, count, gym.spaces.Discrete(states.n))
    move = lambda a: int(a + actions.start)
    return gym.wrappers.TransformAction(env, move, gym.spaces.Discrete(actions.n))


LITERAL = dict(epsilon_decay=False)  # the slide and nothing else


def literally(train: Callable, slide: dict) -> Callable:
    """train(), where literal=True takes `slide` in place of the defaults; what is given wins."""

    def either(env, *, literal: bool = False, **given):
        return train(env, **(slide | given if literal else given))

    return functools.wraps(train)(either)


train = literally(train, LITERAL)


def main(argv: list[str] | None = None) -> int:
    """The command line: `python qlearning_table.py --help`. Returns the exit status."""
    from common import runs

    act = lambda Q, S: Q[S].argmax()  # the greedy action
    value = lambda Q, S: Q[S].max()
    return runs.main(train, argv, env="Treasure-v0", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
