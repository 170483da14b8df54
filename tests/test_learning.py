"""Smoke tests: each script trains for some seconds, and its returns rise further than an agent that
learns nothing can get.

Random actions hold the pole of CartPole-v1 for 22 steps on average, and a mean of 20 such episodes
above 50 does not happen in years; a pendulum left to chance gets about -1200 +- 300 an episode.
"""

import functools

import gymnasium as gym
import numpy as np
import pytest
import torch
from test_against_exact_values import optimal_values

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import qlearning_table
import reinforce
from common import envs


class Aim(gym.Env):
    """At each of twenty steps: see a number between -1 and 1, and hit it with the action, within
    bounds that are not symmetric. The reward of one step has nothing to do with the others."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-2, 4, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.goal = 0, self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.goal, {}

    def step(self, action):
        assert self.action_space.contains(action)
        reward, self.t = -float((action - self.goal)[0] ** 2), self.t + 1
        self.goal = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.goal, reward, self.t == 20, False, {}


class Look(gym.Env):
    """At each of twenty steps: say whether the white pixel is in the lower half (reward 1 or 0)."""

    observation_space = gym.spaces.Box(0, 255, (1, 8, 8), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def draw(self):
        image = np.zeros((1, 8, 8), np.uint8)
        image[0, self.np_random.integers(8), self.np_random.integers(8)] = 255
        self.lower = image[0, 4:].any()
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.draw(), {}

    def step(self, action):
        reward, self.t = float(action == self.lower), self.t + 1
        return self.draw(), reward, self.t == 20, False, {}


cartpole = functools.partial(envs.make, "CartPole-v1")


def improves(returns: list[float], above: float) -> None:
    assert np.mean(returns[:20]) < 50
    assert np.mean(returns[-20:]) > above


@pytest.mark.parametrize("env_id", ["Treasure-v0", "GridWorld-v0", "Maze-v0"])
@pytest.mark.parametrize("seed", range(3))
def test_qlearning_walks_the_shortest_way(env_id, seed):
    env = envs.make(env_id)
    Q, _ = qlearning_table.train(env, seed=seed)
    assert_shortest(env, lambda state: int(Q[state].argmax()))


def assert_shortest(env, act) -> None:
    """From every start, each action of the policy is one of the best, until the end is reached."""
    P = env.unwrapped.P
    best = optimal_values(P, gamma=0.9)
    for state in env.unwrapped.starts:
        done = False
        while not done:
            action = act(state)
            assert best[state][action] == pytest.approx(best[state].max())
            _, state, _, done = P[state][action][0]


def test_qlearning_drives_a_taxi():
    _, returns = qlearning_table.train(envs.make("Taxi-v3"))
    assert np.mean(returns[:100]) < -100
    assert np.mean(returns[-100:]) >= 7


def test_dqn_balances_the_pole():
    # Not seed 0, whose first network already balances for 61 steps without having learned.
    improves(dqn.train(cartpole(), seed=1, steps=8_000)[-1], above=100)


def test_dqn_finds_paradise():
    """The greedy policy gets there; the first episodes walk in circles, or into hell (-1)."""
    env = envs.make("Maze-v0")
    q_network, returns = dqn.train(env, steps=15_000, gamma=0.9)
    assert np.mean(returns[:20]) < 0.5
    (state, _), done = env.reset(), False
    while not done:
        action = q_network(torch.eye(16)[state]).argmax().item()
        state, reward, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    assert reward == 1


def test_reinforce_balances_the_pole():
    improves(reinforce.train(cartpole(), steps=20_000)[-1], above=100)


@pytest.mark.parametrize("script", [reinforce, a3c, ppo])
def test_continuous_actions(script):
    """Actions that pay no attention to the goal get -1/3 a step at best, and the first ones -3.1 to
    -7.6; seeds 0 to 9 end between -0.04 and -0.13."""
    budget = {
        reinforce: dict(steps=6_000, alpha=0.03, beta=0.03),
        a3c: dict(steps=9_000, alpha=0.03, workers=1),
        ppo: dict(steps=9_000, alpha=0.03, n_envs=2, horizon=100),
    }[script]
    *_, returns = script.train(Aim() if script is reinforce else Aim, gamma=0.0, **budget)
    assert np.mean(returns[:5]) < -1 * 20
    assert np.mean(returns[-20:]) > -0.25 * 20


@pytest.mark.parametrize("script", [dqn, reinforce, actor_critic, a3c, ppo])
def test_images(script):
    """A policy that does not look is right in 10 of 20 steps. Seeds 0 to 4 end at 17 to 20; only
    reinforce with seed 2, whose default steps are large for images, at 11."""
    budget = {
        dqn: dict(steps=2_000),
        actor_critic: dict(steps=6_000),
        a3c: dict(steps=4_000, workers=1),
        ppo: dict(steps=4_000, n_envs=2),
    }.get(script, dict(steps=4_000))
    make = Look if script in (a3c, ppo) else Look()
    *_, returns = script.train(make, gamma=0.0, **budget)
    assert np.mean(returns[:5]) < 14
    assert np.mean(returns[-20:]) > 16


def test_actor_critic_balances_the_pole():
    improves(actor_critic.train(cartpole(), steps=25_000)[-1], above=100)


def test_ddpg_swings_the_pendulum_up():
    _, _, returns = ddpg.train(envs.make("Pendulum-v1"), steps=4_000)
    assert np.mean(returns[:4]) < -700
    assert np.mean(returns[-5:]) > -400


def test_a3c_balances_the_pole():
    """One worker, whose result is the same every time; several are started in test_faults.py.
    Seeds 0 to 9: 180 to 251."""
    improves(a3c.train(cartpole, steps=10_000, workers=1)[-1], above=100)


def test_ppo_balances_the_pole():
    improves(ppo.train(cartpole, steps=20_000)[-1], above=100)
