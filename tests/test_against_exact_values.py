"""Learned values against exact ones: what a finite MDP's table P says, without learning."""

import gymnasium as gym
import numpy as np
import pytest

import qlearning_table
from common import envs


def optimal_values(P: dict, gamma: float) -> np.ndarray:
    """Q*(s,a) by value iteration: Q(s,a) <- sum_s' p [r + gamma max_a' Q(s',a')].

    Shape: (states, actions).
    """
    Q = np.zeros((len(P), len(P[0])))
    while True:
        V = Q.max(axis=1)
        better = np.array(
            [
                [
                    sum(p * (r + gamma * V[s2] * (not end)) for p, s2, r, end in P[s][a])
                    for a in P[s]
                ]
                for s in P
            ]
        )
        if np.abs(better - Q).max() < 1e-12:
            return better
        Q = better


def random_policy_values(P: dict) -> np.ndarray:
    """V(s) of the policy that takes every action equally often, gamma = 1: the solution of
    V = r + T V. Shape: (states,)."""
    T, r = np.zeros((len(P), len(P))), np.zeros(len(P))
    for s in P:
        for a in P[s]:
            for p, s2, reward, end in P[s][a]:
                r[s] += p * reward / len(P[s])
                T[s, s2] += p * (not end) / len(P[s])
    return np.linalg.solve(np.eye(len(P)) - T, r)


def test_the_lectures_grid_under_the_random_policy():
    """Sutton & Barto, Figure 4.1: the values that iterative policy evaluation converges to."""
    V = random_policy_values(gym.make("GridWorld-v0").unwrapped.P).reshape(4, 4)
    figure = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    assert pytest.approx(np.array(figure), abs=1e-9) == V


@pytest.mark.parametrize(
    ("env_id", "options", "tolerance"),
    [
        ("Treasure-v0", {}, 1e-6),
        ("GridWorld-v0", {}, 1e-6),
        ("Maze-v0", {}, 1e-6),
        ("FrozenLake-v1", {"is_slippery": False}, 1e-6),
        # Values reach 0.64; where chance rules, a constant step size leaves an error.
        ("FrozenLake-v1", {"is_slippery": True}, 0.08),
    ],
)
def test_qlearning_converges_to_the_optimal_values(env_id, options, tolerance):
    env = envs.make(env_id, **options)
    chance = options.get("is_slippery", False)
    # Off-policy: the values of the best policy, learned from moves that visit everything. Without
    # chance one look is the truth, and alpha = 1 is right; with chance each is a sample of many.
    settings = dict(episodes=3_000, epsilon=1.0, alpha=1.0)
    if chance:
        settings = dict(episodes=30_000, epsilon=0.7, alpha=0.01)
    Q, _ = qlearning_table.train(env, gamma=0.9, epsilon_decay=False, **settings)
    assert np.abs(Q - optimal_values(env.unwrapped.P, gamma=0.9)).max() < tolerance
