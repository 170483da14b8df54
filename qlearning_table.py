"""Q-learning with a table (off-policy TD control). Lecture part 2, "Q-learning".

Keep one number Q(s,a) for every state and action: an estimate of the return after taking a in s and
the best actions from then on. Before a step the table holds the "estimated value" Q(S,A). The step
shows R and S', and with them a "real value", R + gamma max_a Q(S',a). Only R is real in it; the
rest is the table's own estimate. Q(S,A) moves towards the "real value" by the fraction alpha of the
difference. The max makes it off-policy: the actions come from an epsilon-greedy policy, but the
table approaches Q*, the values of the optimal one.

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
"<=" of its derivation is "=" for Q* only. A time limit ends an episode, too, but S' is not terminal
then: the task would have gone on, so the values of S' still count in [8].

Beyond the slide (--literal, see LITERAL below, turns off all that has a flag and adapts constants)

    Falling epsilon (off: --no-epsilon-decay). Epsilon falls linearly towards 0 over the budget of
        episodes (less far if `steps` end the run first). At first random actions discover better
        ones; once the table is good, they only lower the returns.

Try

    python qlearning_table.py --render
    python qlearning_table.py --env Treasure-v0 --env-kwargs size=12
    python qlearning_table.py --env Taxi-v3
    python qlearning_table.py --env FrozenLake8x8-v1 --episodes 20000

References

    Watkins, Learning from Delayed Rewards, 1989.
    Sutton, Barto, Reinforcement Learning: An Introduction, 2nd ed., 2018, section 6.5.
"""

import gymnasium as gym
import numpy as np


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 5_000,  # episodes at most
    steps: int = 1_000_000,  # environment steps at most; training stops at whichever comes first
    gamma: float = 0.99,  # discount of the return
    alpha: float = 0.1,  # step size
    epsilon: float = 0.3,  # probability of a random action
    epsilon_decay: bool = True,  # let epsilon fall linearly to 0 over the episodes
    on_episode=None,  # called with (episode_return, length, step); may return True to stop
) -> tuple[np.ndarray, list[float]]:
    """Train on Discrete states and actions; returns the Q-table and the list of episode returns."""
    rng = np.random.default_rng(seed)
    assert isinstance(env.observation_space, gym.spaces.Discrete), "states must be Discrete"
    n_states = env.observation_space.n
    n_actions = env.action_space.n

    # [1] Algorithm parameters: step size alpha in (0,1], small epsilon > 0
    # Both are keywords of train(). A small alpha averages over many samples; a large one learns
    # fast, but follows the last few.
    assert 0 < alpha <= 1 and 0 <= epsilon <= 1
    # [2] Initialize Q(s,a), for all s in S+, a in A(s), arbitrarily except that Q(terminal, .) = 0
    # A row for each state, a column for each action. The zeros are arbitrary: [8] takes 0 for
    # Q(terminal, .), whatever the table holds there.
    Q = np.zeros((n_states, n_actions))
    returns = []
    step = 0
    # [3] Loop for each episode:
    for episode in range(1, episodes + 1):
        eps = epsilon
        if epsilon_decay:  # beyond the slide
            eps *= 1 - (episode - 1) / episodes
        # [4] Initialize S
        S, _ = env.reset(seed=seed if episode == 1 else None)  # seeded once, at the start
        episode_return = 0.0
        length = 0
        done = False
        # [5] Loop for each step of episode:
        while step < steps:
            step += 1
            # [6] Choose A from S using policy derived from Q (e.g. epsilon-greedy)
            # eps: probability of a random action. Greedy actions alone would repeat the first good
            # path: better ones would stay untried.
            if rng.random() < eps:
                A = rng.integers(n_actions)
            else:
                A = greedy(Q[S], rng)
            # [7] Take action A, observe R, S'
            # S_next is S'. terminated: S' is terminal. truncated: a time limit ended the episode.
            S_next, R, terminated, truncated, _ = env.step(A)
            done = terminated or truncated
            episode_return += R
            length += 1
            # [8] Q(S,A) <- Q(S,A) + alpha [R + gamma max_a Q(S',a) - Q(S,A)]
            # 1 - terminated is 0 where S' is terminal, so Q(terminal, .) counts as 0.
            Q[S, A] += alpha * (R + gamma * (1 - terminated) * Q[S_next].max() - Q[S, A])
            if not np.isfinite(Q[S, A]):
                raise FloatingPointError(f"Q {Q[S, A]} at step {step}: check the rewards and gamma")
            # [9] S <- S'
            S = S_next
            # [10] until S is terminal
            # A time limit ends the episode, too, though S is not terminal then.
            if done:
                break
        if not done:  # step limit reached mid-episode; not counted
            break
        returns.append(episode_return)
        if on_episode and on_episode(episode_return, length, step):
            break
    return Q, returns


# The slide, with the gamma and the epsilon of the lecture's demo.
LITERAL = dict(gamma=0.9, epsilon=0.1, epsilon_decay=False)


def greedy(values: np.ndarray, rng: np.random.Generator) -> int:
    """argmax_a of one row of the table, shape (n_actions,); ties are broken at random.

    np.argmax takes the first of equal values: on a table of zeros it would always take action 0.
    """
    best = np.flatnonzero(values == values.max())
    return best[rng.integers(len(best))]


def main(argv: list[str] | None = None) -> int:
    """The command line: `python qlearning_table.py --help`. Returns the exit status."""
    from common import runs

    act = lambda Q, S: Q[S].argmax()  # the greedy action
    value = lambda Q, S: Q[S].max()
    return runs.main(train, argv, env="Treasure-v0", act=act, value=value, table=True)


if __name__ == "__main__":
    raise SystemExit(main())
