"""One seed, one result, bit for bit; two seeds differ; numpy's and Python's global random states are left alone."""

import functools
import random

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

CARTPOLE, PENDULUM, MAZE = (functools.partial(envs.make, name) for name in ("CartPole-v1", "Pendulum-v1", "Maze-v0"))
RUNS = {
    "qlearning_table": lambda seed: qlearning_table.train(MAZE(), seed=seed, episodes=100),
    "dqn": lambda seed: dqn.train(CARTPOLE(), seed=seed, steps=1_000, warmup=100),
    "reinforce": lambda seed: reinforce.train(CARTPOLE(), seed=seed, steps=1_000),
    "reinforce, continuous": lambda seed: reinforce.train(PENDULUM(), seed=seed, steps=1_000),
    "actor_critic": lambda seed: actor_critic.train(CARTPOLE(), seed=seed, steps=1_000),
    "ddpg": lambda seed: ddpg.train(PENDULUM(), seed=seed, steps=600, warmup=500),
    "ddpg, gaussian": lambda seed: ddpg.train(PENDULUM(), seed=seed, steps=600, warmup=500, noise="gaussian"),
    "a3c": lambda seed: a3c.train(CARTPOLE, seed=seed, steps=1_000, workers=1),
    "ppo": lambda seed: ppo.train(CARTPOLE, seed=seed, steps=3_000),
    "ppo, continuous": lambda seed: ppo.train(PENDULUM, seed=seed, steps=4_000, objective="clip"),
}


def everything(result) -> list[bytes]:
    """What a run returned, as bytes: weights or table, and returns."""
    *learned, returns = result
    arrays = [t.numpy() for part in learned if isinstance(part, torch.nn.Module) for t in part.state_dict().values()]
    arrays += [part for part in learned if isinstance(part, np.ndarray)]
    return [array.tobytes() for array in arrays] + [np.array(returns).tobytes()]


@pytest.mark.parametrize("run", RUNS)
def test_one_seed_one_result(run):
    first = everything(RUNS[run](1))
    random.seed(7)
    np.random.seed(7)  # a result that depends on these, or changes them, is found out
    before = random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2]
    assert everything(RUNS[run](1)) == first
    assert before == (random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2])
    assert everything(RUNS[run](2)) != first
