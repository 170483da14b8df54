"""One seed, one result, bit for bit; two seeds differ; numpy's and Python's global random states are left alone."""

import functools
import random

import gymnasium as gym
import numpy as np
import pytest
import torch

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import qlearning_table
import reinforce
from common import envs
from tests.test_gradients import Walk

CARTPOLE, PENDULUM, MAZE = (
    functools.partial(envs.make, name) for name in ("CartPole-v1", "Pendulum-v1", "Maze-v0")
)
RUNS = {
    "qlearning_table": lambda seed: qlearning_table.train(MAZE(), seed=seed, episodes=100),
    "dqn": lambda seed: dqn.train(CARTPOLE(), seed=seed, steps=1_000, warmup=100),
    "reinforce": lambda seed: reinforce.train(CARTPOLE(), seed=seed, steps=1_000),
    "reinforce, continuous": lambda seed: reinforce.train(PENDULUM(), seed=seed, steps=1_000),
    "actor_critic": lambda seed: actor_critic.train(CARTPOLE(), seed=seed, steps=1_000),
    "ddpg": lambda seed: ddpg.train(PENDULUM(), seed=seed, steps=600, warmup=500),
    "ddpg, gaussian": lambda seed: ddpg.train(
        PENDULUM(), seed=seed, steps=600, warmup=500, noise="gaussian"
    ),
    "a3c": lambda seed: a3c.train(CARTPOLE, seed=seed, steps=1_000, workers=1),
    "ppo": lambda seed: ppo.train(CARTPOLE, seed=seed, steps=3_000),
    "ppo, continuous": lambda seed: ppo.train(PENDULUM, seed=seed, steps=4_000, objective="clip"),
}


@pytest.mark.parametrize(
    "network",
    [reinforce.Policy, a3c.Model, actor_critic.Network],
    ids=["reinforce", "a3c", "actor_critic"],
)
def test_actions_are_drawn_from_pi(network):
    """Each of four actions as often as pi says, within five standard deviations of 20,000 draws."""
    torch.manual_seed(0)
    actions = gym.spaces.Discrete(4)
    policy = network(
        gym.spaces.Box(-1, 1, (3,)), 4 if network is actor_critic.Network else actions, 8
    )
    state, rng, n = np.ones(3, np.float32), np.random.default_rng(0), 20_000
    with torch.no_grad():
        for p in policy.parameters():
            p *= 4  # or pi is nearly even
        pi = (
            policy(torch.from_numpy(state)).softmax(0)
            if network is actor_critic.Network
            else policy.pi(torch.from_numpy(state)).probs
        )
    pi = pi.numpy()
    assert pi.max() > 2 * pi.min()
    share = np.bincount([policy.sample(state, rng) for _ in range(n)], minlength=4) / n
    assert np.all(np.abs(share - pi) < 5 * np.sqrt(pi * (1 - pi) / n))


@pytest.mark.parametrize("network", [reinforce.Policy, a3c.Model], ids=["reinforce", "a3c"])
def test_continuous_actions_are_drawn_from_pi(network):
    torch.manual_seed(0)
    policy = network(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-2, 2, (2,)), 8)
    state, rng, n = np.ones(3, np.float32), np.random.default_rng(0), 20_000
    pi = policy.pi(torch.from_numpy(state)).base_dist
    drawn = np.array([policy.sample(state, rng) for _ in range(n)])
    assert drawn.mean(axis=0) == pytest.approx(pi.mean.detach().numpy(), abs=5 / np.sqrt(n))
    assert drawn.std(axis=0) == pytest.approx(pi.stddev.detach().numpy(), rel=0.05)


def everything(result) -> list[bytes]:
    """What a run returned, as bytes: weights or table, and returns."""
    *learned, returns = result
    arrays = [
        t.numpy()
        for part in learned
        if isinstance(part, torch.nn.Module)
        for t in part.state_dict().values()
    ]
    arrays += [part for part in learned if isinstance(part, np.ndarray)]
    return [array.tobytes() for array in arrays] + [np.array(returns).tobytes()]


@pytest.mark.parametrize("run", RUNS)
def test_one_seed_one_result(run):
    first = everything(RUNS[run](1))
    random.seed(7)
    np.random.seed(7)  # a result that depends on these, or changes them, is found out
    before = random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2]
    assert everything(RUNS[run](1)) == first
    assert before == (
        random.getstate(),
        np.random.get_state()[1].tobytes(),
        np.random.get_state()[2],
    )
    assert everything(RUNS[run](2)) != first


def test_a3c_workers_see_different_states():
    """With one seed, each worker draws its own states and its own actions; or their data would be the same, and useless."""
    seen, options = (
        [],
        dict(seed=0, steps=60, t_max=5, gamma=0.9, alpha=1e-9, entropy=0.0, hidden=8),
    )
    for rank in (0, 1):
        torch.manual_seed(0)
        env = Walk()
        theta, _ = a3c.in_one_vector(a3c.Model(env.observation_space, env.action_space, 8))
        shared = a3c.Shared(theta, workers=2)
        a3c.worker(
            rank,
            lambda env=env: env,
            shared,
            lambda *_: False,
            rescale=False,
            adam=False,
            scale=True,
            **options,
        )
        states, actions, *_ = zip(*env.log, strict=True)
        seen.append((np.array(states), list(actions)))
    assert not np.array_equal(seen[0][0], seen[1][0]) and seen[0][1] != seen[1][1]
