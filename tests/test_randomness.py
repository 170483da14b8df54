"""One seed, one result, bit for bit; two seeds differ; numpy's and Python's global random states
are left alone. literal=True is LITERAL, bit for bit. Actions are drawn from pi."""

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
# script -> its environment, and a training of a second
SCRIPTS = {
    qlearning_table: (MAZE, dict(episodes=100)),
    dqn: (CARTPOLE, dict(steps=400)),
    reinforce: (CARTPOLE, dict(steps=600)),
    actor_critic: (CARTPOLE, dict(steps=300)),
    ddpg: (PENDULUM, dict(steps=210, batch=16, hidden=32)),
    a3c: (CARTPOLE, dict(steps=600, workers=1)),
    ppo: (CARTPOLE, dict(steps=1_000, horizon=64, epochs=4)),
}
RUNS = {
    script.__name__: functools.partial(script.train, env, **options)
    for script, (env, options) in SCRIPTS.items()
}
RUNS["ddpg"] = functools.partial(RUNS["ddpg"], steps=450, warmup=400)
RUNS |= {
    "reinforce, continuous": functools.partial(reinforce.train, PENDULUM, steps=1_000),
    "a3c, continuous": functools.partial(a3c.train, PENDULUM, steps=1_000, workers=1),
    "ppo, continuous": functools.partial(ppo.train, PENDULUM, steps=2_000, clip=0.2),
}
# script -> a value that is not LITERAL's
GIVEN = {
    qlearning_table: dict(epsilon_decay=True),
    dqn: dict(tau=0.01),
    reinforce: dict(alpha=1e-5),
    actor_critic: dict(batch=2),
    ddpg: dict(warmup=50),
    a3c: dict(scale_rewards=True),
    ppo: dict(scale_rewards=True),
}


class Bandit(gym.Env):
    """One state; four actions, counted from 1, or two numbers. `log` holds the actions."""

    observation_space = gym.spaces.Box(-9, 9, (3,))

    def __init__(self, continuous: bool = False):
        box = gym.spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = box if continuous else gym.spaces.Discrete(4, start=1)
        self.log = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([5, -5, 2], np.float32), {}

    def step(self, action):
        self.log.append(action)
        return self.reset()[0], 0.0, len(self.log) % 50 == 0, False, {}


STATE = torch.tensor([5.0, -5.0, 2.0])
N = 4_000
STILL = dict(seed=2, steps=N, alpha=1e-12)  # nothing is learned
DRAWN = {
    "reinforce": lambda env: reinforce.train(env, **STILL, beta=1e-12)[0](STATE),
    "actor_critic": lambda env: torch.distributions.Categorical(
        logits=actor_critic.train(env, **STILL, beta=1e-12)[0](STATE)
    ),
    "a3c": lambda env: a3c.train(lambda: env, **STILL, workers=1)[0].pi(STATE),
    "ppo": lambda env: ppo.train(lambda: env, **STILL, n_envs=4, horizon=250, epochs=1)[0](STATE),
}


@pytest.mark.parametrize("script", DRAWN)
def test_actions_are_drawn_from_pi(script):
    """Each of four actions as often as pi says, within five standard deviations."""
    env = Bandit()
    pi = DRAWN[script](env).probs.detach().numpy()
    assert pi.max() > 1.2 * pi.min()
    share = np.bincount(env.log, minlength=5)[1:] / len(env.log)
    assert np.all(np.abs(share - pi) < 5 * np.sqrt(pi * (1 - pi) / N))


@pytest.mark.parametrize("script", [script for script in DRAWN if script != "actor_critic"])
def test_continuous_actions_are_drawn_from_pi(script):
    env = Bandit(continuous=True)
    pi = DRAWN[script](env).base_dist
    drawn = np.array(env.log)
    assert drawn.mean(axis=0) == pytest.approx(pi.mean.detach().numpy(), abs=5 / np.sqrt(N))
    assert drawn.std(axis=0) == pytest.approx(pi.stddev.detach().numpy(), rel=0.05)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 5 / np.sqrt(N)


def test_dqn_takes_random_actions_with_probability_epsilon():
    """Of four actions three are seen in a random step only."""
    env = Bandit()
    q_network, _ = dqn.train(env, epsilon=0.2, steps=N, alpha=1e-12, train_every=10_000)
    other = np.array(env.log) != 1 + q_network(STATE).argmax().item()
    for part in np.split(other, 4):
        assert part.mean() == pytest.approx(0.75 * 0.2, abs=0.08)


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
    first = everything(RUNS[run](seed=1))
    random.seed(7)
    np.random.seed(7)  # a result that depends on these, or changes them, is found out
    before = random.getstate(), np.random.get_state()[1].tobytes(), np.random.get_state()[2]
    assert everything(RUNS[run](seed=1)) == first
    assert before == (
        random.getstate(),
        np.random.get_state()[1].tobytes(),
        np.random.get_state()[2],
    )
    assert everything(RUNS[run](seed=2)) != first


@pytest.mark.parametrize("script", GIVEN, ids=lambda script: script.__name__)
def test_literal_is_literal_and_a_given_value_wins(script):
    """literal=True equals LITERAL by hand; with a value beside it, LITERAL with that value."""
    env, budget = SCRIPTS[script]
    budget = budget | dict(seed=3)
    literal = everything(script.train(env, literal=True, **budget))
    assert literal == everything(script.train(env, **script.LITERAL, **budget))
    assert everything(script.train(env, literal=False, **budget)) != literal
    given = GIVEN[script]
    both = everything(script.train(env, literal=True, **given, **budget))
    assert both == everything(script.train(env, **(script.LITERAL | given), **budget))
    assert both != literal


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_an_environment_or_a_function_that_makes_one(script):
    env, budget = SCRIPTS[script]
    opened = gym.make(env().spec.id)
    assert everything(script.train(opened, **budget)) == everything(script.train(env, **budget))


def test_a3c_workers_see_different_states():
    """With one seed, each worker draws its own states and its own actions; or their data would be
    the same, and useless."""
    seen = []
    options = dict(seed=0, steps=60, t_max=5, gamma=0.9, alpha=1e-9, hidden=8, scale_rewards=True)
    for rank in (0, 1):
        torch.manual_seed(0)
        env = Walk()
        model = a3c.Model((3,), env.action_space, 8)
        theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        shared = a3c.Shared(theta, workers=2)
        a3c.worker(rank, lambda env=env: env, shared, lambda *_: None, **options)
        states, actions, *_ = zip(*env.log, strict=True)
        seen.append((np.array(states), list(actions)))
    assert not np.array_equal(seen[0][0], seen[1][0]) and seen[0][1] != seen[1][1]
