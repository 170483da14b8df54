"""Q-learning with a table (off-policy TD control). Lecture part 2, "Q-learning".

The idea: keep one number Q(s,a) for every state and action, the return to be expected after doing a in s. Before a step the table
holds the "estimated value" Q(S,A). After it the world has said more: the "real value" R + gamma max_a Q(S',a). Move the first
towards the second by the learning rate alpha. The max makes it off-policy: the table learns what the greedy policy is worth
while an epsilon-greedy policy looks around.

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

Where the slide is loose: on its epsilon-greedy slide epsilon = 0.9 means "90 % greedy". The box above and the field mean by
epsilon the probability of a random action, and so does this code: the slide's 0.9 is --epsilon 0.1. In the expansion of Q the
slide repeats R_{t+2} where R_{t+3} is meant, and its "<=" becomes "=" for Q* only.

Beyond the slide (all off under --literal)

    --no-epsilon-decay   off: epsilon falls in a line to 0 over the budget of episodes. Once the table is good, random actions
                         only spoil the returns.
    --alpha-decay 0      off: the step size of a pair (s,a) is alpha / (1 + alpha_decay visits). A fixed alpha keeps following the
                         last few samples; where chance rules the moves, only a falling one lets Q come to rest at Q*.

Try

    python qlearning_table.py --render
    python qlearning_table.py --env Treasure-v0 --env-kwargs size=12
    python qlearning_table.py --env Maze-v0
    python qlearning_table.py --env Taxi-v3

References

    Watkins, Learning from Delayed Rewards, 1989.
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd edition, 2018, section 6.5.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import gymnasium as gym
import numpy as np

from common import runs


def greedy(values: np.ndarray, rng: np.random.Generator) -> int:
    """argmax_a of one row of the table, shape (actions,), ties broken at random.

    np.argmax takes the first of equal values: on a table of zeros it would walk into the same wall for ever.
    """
    best = np.flatnonzero(values == values.max())
    return int(best[rng.integers(len(best))])


@runs.checked(observations="Discrete", actions={"Discrete"})
def train(
    env: gym.Env,
    *,
    seed: int = 0,
    episodes: int = 5_000,
    steps: int = 1_000_000,
    gamma: float = 0.9,
    alpha: float = 0.1,
    alpha_decay: float = 0.0,
    epsilon: float = 0.1,
    epsilon_decay: bool = True,
    literal: bool = False,
    on_episode: Callable[[float, int, int], bool] | None = None,
    on_table: Callable[[np.ndarray], None] | None = None,
) -> tuple[np.ndarray, list[float]]:
    """Q-learning with a table.

    Args:
        env: an environment with Discrete observations and Discrete actions.
        seed: one seed, one result; in [0, inf).
        episodes: the budget in episodes; in [1, inf).
        steps: the budget in environment steps; the first of the two that is used up ends the training; in [1, inf).
        gamma: discount of the return; in [0, 1].
        alpha: step size; in (0, 1].
        alpha_decay: how fast the step size of a pair (s,a) falls with its visits, alpha / (1 + alpha_decay visits); in [0, inf).
        epsilon: probability of a random action (1 minus the epsilon of the lecture's epsilon-greedy slide); in [0, 1].
        epsilon_decay: let epsilon fall in a line to 0 over the episodes.
        literal: the slide to the letter: everything under "Beyond the slide" is off.
        on_episode: called after each episode with its return, its length and the steps so far; True ends the training.
        on_table: called after each episode, before on_episode, with the table Q as it is then.

    Returns:
        The table Q, shape (states, actions), and the undiscounted return of every finished episode.

    Raises:
        ValueError: a number outside its interval, or spaces that do not fit.
        FloatingPointError: a value is no longer a finite number.
    """
    if literal:
        alpha_decay, epsilon_decay = 0.0, False
    rng = np.random.default_rng(seed)
    n_states, n_actions = env.observation_space.n, env.action_space.n
    returns, step = [], 0

    # [1] Algorithm parameters: step size alpha in (0,1], small epsilon > 0
    step_size, random_share = np.full((n_states, n_actions), alpha), epsilon

    # [2] Initialize Q(s,a), for all s in S+, a in A(s), arbitrarily except that Q(terminal, .) = 0
    Q = np.zeros((n_states, n_actions))
    visits = np.zeros((n_states, n_actions))  # of each pair, for alpha_decay

    # [3] Loop for each episode:
    for episode in range(1, episodes + 1):
        if epsilon_decay:
            random_share = epsilon * (1 - (episode - 1) / episodes)
        # The environment is seeded once; later resets go on from there.
        # [4] Initialize S
        S, _ = env.reset(seed=seed if episode == 1 else None)
        episode_return, t, done = 0.0, 0, False

        # [5] Loop for each step of episode:
        while step < steps:
            t, step = t + 1, step + 1
            # [6] Choose A from S using policy derived from Q (e.g. epsilon-greedy)
            A = int(rng.integers(n_actions)) if rng.random() < random_share else greedy(Q[S], rng)
            # [7] Take action A, observe R, S'
            S_next, R, terminated, truncated, _ = env.step(A)
            # Q(terminal, .) = 0, said once more by the factor: some environments reuse a terminal state's number. A time limit
            # (truncated) is not terminal, the world would have gone on: there the value of S' counts.
            # [8] Q(S,A) <- Q(S,A) + alpha [R + gamma max_a Q(S',a) - Q(S,A)]
            real_value = R + gamma * Q[S_next].max() * (not terminated)
            Q[S, A] += step_size[S, A] * (real_value - Q[S, A])
            if not math.isfinite(Q[S, A]):
                raise FloatingPointError(f"Q(S,A) is {Q[S, A]} at step {step}; look at the environment's rewards")
            visits[S, A] += 1
            step_size[S, A] = alpha / (1 + alpha_decay * visits[S, A])
            # [9] S <- S'
            S = S_next
            episode_return, done = episode_return + float(R), terminated or truncated
            # [10] until S is terminal
            if done:
                break

        if not done:  # the budget of steps ended inside this episode: it has no return yet
            break
        returns.append(episode_return)
        if on_table:
            on_table(Q)
        if on_episode and on_episode(episode_return, t, step):
            break
    return Q, returns


def main(argv: list[str] | None = None) -> int:
    """The command line: `python qlearning_table.py --help`. Returns the exit status."""
    with runs.Run(train, argv, env="Treasure-v0", weights="q_table.npy") as run:
        env = run.open_env()
        if run.load:
            Q = run.loaded(np.zeros((env.observation_space.n, env.action_space.n)))
        else:
            with run.training():
                Q, _ = train(env, **run.hyperparameters, on_episode=run.on_episode, on_table=run.on_table)
        rng = np.random.default_rng(0)
        run.finish(Q, act=lambda state: greedy(Q[state], rng), value=lambda state: Q[state].max())
        runs.print_table(Q, env)
    return run.status


if __name__ == "__main__":
    sys.exit(main())
