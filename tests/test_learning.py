"""Smoke tests: each script trains for some seconds, and its returns rise further than an agent that learns nothing can get."""

import numpy as np

import dqn
from common import envs


def test_dqn_balances_the_pole():
    # Random actions hold the pole for 22 steps on average, and the mean of 20 random episodes stays below 40.
    _, returns = dqn.train(envs.make("CartPole-v1"), steps=8_000)
    assert np.mean(returns[:20]) < 40
    assert np.mean(returns[-20:]) > 100


def test_dqn_finds_paradise():
    env = envs.make("Maze-v0")
    q_network, _ = dqn.train(env, steps=6_000)
    state, _ = env.reset()
    moves, done = 0, False
    while not done:
        state, reward, terminated, truncated, _ = env.step(q_network.greedy(q_network.phi(state)))
        moves, done = moves + 1, terminated or truncated
    assert (moves, reward) == (6, 1.0)
