"""What goes wrong in practice: environments that raise, return NaN, or look odd; workers that die.
A clear end, and no process left behind."""

import functools
import multiprocessing
import os
import signal
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch.multiprocessing as mp
from test_command_line import run

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import qlearning_table
import reinforce


class Odd(gym.Env):
    """A world of short episodes in which something can be odd.

    Args:
        shape: of the observations; None: a Discrete state.
        continuous: Box actions in place of Discrete ones.
        nan_after: from this step on rewards are NaN.
        raise_after: at this step the environment raises.
        kill_after: at this step the process is killed.
    """

    def __init__(
        self, shape=(2,), continuous=False, nan_after=None, raise_after=None, kill_after=None
    ):
        self.observation_space = (
            gym.spaces.Discrete(3) if shape is None else gym.spaces.Box(-1.0, 1.0, shape)
        )
        self.action_space = (
            gym.spaces.Box(-1.0, 1.0, (1,)) if continuous else gym.spaces.Discrete(2)
        )
        self.nan_after, self.raise_after, self.kill_after, self.total = (
            nan_after,
            raise_after,
            kill_after,
            0,
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observation(), {}

    def _observation(self):
        space = self.observation_space
        return (
            self.t % 3
            if isinstance(space, gym.spaces.Discrete)
            else np.full(space.shape, 0.1 * (self.t % 3), np.float32)
        )

    def step(self, action):
        self.t, self.total = self.t + 1, self.total + 1
        if self.total == self.raise_after:
            raise RuntimeError("the environment broke")
        if self.total == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        reward = float("nan") if self.nan_after and self.total > self.nan_after else 1.0
        return self._observation(), reward, self.t == 7, False, {}


gym.register("NaN-v0", functools.partial(Odd, nan_after=500))
gym.register("NaNStates-v0", functools.partial(Odd, shape=None, nan_after=500))
gym.register("NaNBox-v0", functools.partial(Odd, continuous=True, nan_after=500))

TRAIN = {
    "qlearning_table": lambda make, **budget: qlearning_table.train(make(), **budget),
    "dqn": lambda make, **budget: dqn.train(make(), **budget),
    "reinforce": lambda make, **budget: reinforce.train(make(), **budget),
    "actor_critic": lambda make, **budget: actor_critic.train(make(), **budget),
    "ddpg": lambda make, **budget: ddpg.train(make(), **budget),
    "a3c": lambda make, **budget: a3c.train(make, workers=1, **budget),
    "ppo": lambda make, **budget: ppo.train(make, n_envs=4, horizon=64, **budget),
}
NEURAL = [script for script in TRAIN if script != "qlearning_table"]


def odd(script: str, **options):
    """The odd world with the spaces that this script takes."""
    fit = {"ddpg": dict(continuous=True), "qlearning_table": dict(shape=None)}.get(script, {})
    return functools.partial(Odd, **(fit | options))


@pytest.mark.parametrize("script", TRAIN)
def test_nan_rewards_end_the_training_and_name_the_step(script):
    with pytest.raises(FloatingPointError, match=r"step \d+"):
        TRAIN[script](odd(script, nan_after=500), steps=20_000)


@pytest.mark.parametrize("script", TRAIN)
def test_nan_rewards_on_the_command_line(script, capsys):
    env = {"ddpg": "NaNBox-v0", "qlearning_table": "NaNStates-v0"}.get(script, "NaN-v0")
    more = ["--workers", "1"] if script == "a3c" else []
    assert run(script, "--env", env, "--steps", "20000", "--out", "out", *more) == 1
    page, errors = capsys.readouterr()
    assert f"{env} gave the reward nan at step 501" in errors and "Traceback" not in errors
    assert Path("out/returns.csv").exists() and not Path("out/weights.pt").exists()


@pytest.mark.parametrize("script", TRAIN)
def test_an_environment_that_raises_is_not_hushed_up(script):
    with pytest.raises(RuntimeError, match="the environment broke"):
        TRAIN[script](odd(script, raise_after=300), steps=20_000)


@pytest.mark.parametrize("script", NEURAL)
@pytest.mark.parametrize("shape", [(), (0,), (5_000,), (2, 3, 4), None])
def test_observations_of_any_shape(script, shape):
    """No dimension, none at all, very many, several, and Discrete: all become one vector."""
    *_, returns = TRAIN[script](odd(script, shape=shape), steps=300)
    assert returns and set(returns) == {7.0}


class Endless(Odd):
    """Episodes that never end."""

    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info


@pytest.mark.parametrize("script", TRAIN)
def test_the_budget_ends_an_episode_that_does_not_end(script):
    env = functools.partial(
        Endless, shape=None if script == "qlearning_table" else (2,), continuous=script == "ddpg"
    )
    *_, returns = TRAIN[script](env, steps=400)
    assert returns == []


# ---------------------------------------------------------------------------- actions and bounds


class Bounded(gym.Env):
    """Takes actions of its space, keeps them, and refuses all others."""

    observation_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, low, high, dtype=np.float32, shape=None):
        low, high = (np.broadcast_to(np.array(x, dtype), shape or (2,)) for x in (low, high))
        self.action_space, self.log = gym.spaces.Box(low, high, dtype=dtype), []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.log.append(action)
        return self.reset()[0], float(-np.square(action).mean()), len(self.log) % 20 == 0, False, {}


INF = np.inf
BOXES = {
    "half-bounded below": (0, INF),
    "half-bounded above": (-INF, 3),
    "not bounded": (-INF, INF),
    "asymmetric and narrow": (-0.1, 0.3),
    "narrow, far from 0": (100.0, 100.1),
    "one of each": ([0, -0.7], [INF, 0.2]),
    "two halves": ([-INF, 2], [-1, INF]),
    "float64": (-0.1, 0.3, np.float64),
    "of two dimensions": (-0.1, 0.3, np.float32, (2, 3)),
}
CONTINUOUS = {
    "reinforce": dict(steps=400),
    "a3c": dict(steps=400, workers=1),
    # its spread begins smaller
    "ppo": dict(steps=12_000, n_envs=20, horizon=300, epochs=1, alpha=1e-6),
    "ddpg": dict(steps=400, warmup=200, batch=16, sigma=0.5),
}


@pytest.mark.filterwarnings("ignore:.*precision lowered.*")
@pytest.mark.parametrize("script", CONTINUOUS)
@pytest.mark.parametrize("box", BOXES)
def test_actions_lie_in_their_space_and_reach_its_bounds(script, box):
    env = Bounded(*BOXES[box])
    make = {"ddpg": lambda: env, "reinforce": lambda: env}.get(script, lambda: lambda: env)
    train = {"a3c": a3c, "ppo": ppo, "ddpg": ddpg, "reinforce": reinforce}[script].train
    train(make(), **CONTINUOUS[script])
    actions, space = np.array(env.log), env.action_space
    assert len(actions) >= 400 and actions.shape[1:] == space.shape
    for bound, found in ((space.low, actions.min(axis=0)), (space.high, actions.max(axis=0))):
        if script != "ddpg":  # whose actions are no Gaussian's: what has no bound, it need not find
            assert found[np.isfinite(bound)] == pytest.approx(bound[np.isfinite(bound)], rel=1e-6)
    if space.is_bounded():
        assert actions.min(axis=0) == pytest.approx(space.low, abs=0.05)
        assert actions.max(axis=0) == pytest.approx(space.high, abs=0.05)
    moves = space.low < space.high
    assert np.all(actions.std(axis=0)[moves] > 0)


# --------------------------------------------------------------------------------- A3C's processes


def no_process_left() -> bool:
    return multiprocessing.active_children() == []


@pytest.fixture(params=sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def method(request, monkeypatch):
    """Both ways to start a process."""
    monkeypatch.setattr(mp, "get_start_method", lambda *_, **__: request.param)


def test_a3c_starts_by_fork_and_by_spawn(method):
    seen = []
    _, returns = a3c.train(Odd, steps=500, workers=2, on_episode=lambda *e: bool(seen.append(e)))
    assert set(returns) == {7.0}
    assert [episode[:2] for episode in seen] == [(7.0, 7)] * len(returns)
    assert 500 - 2 * 7 <= 7 * len(returns) <= 500 + 2 * 20 + 7
    assert no_process_left()


def test_a3c_processes_change_the_theta_that_the_caller_gets():
    """With a step size next to 0 it stays as it was drawn."""
    options = dict(steps=500, workers=2, seed=3)
    moved, still = (a3c.train(Odd, alpha=alpha, **options)[0] for alpha in (1e-2, 1e-12))
    pairs = zip(moved.parameters(), still.parameters(), strict=True)
    assert max((p - q).abs().max().item() for p, q in pairs) > 0.02


def test_a3c_a_worker_that_raises():
    with pytest.raises(mp.ProcessRaisedException, match="the environment broke"):
        a3c.train(functools.partial(Odd, raise_after=300), steps=1_000_000, workers=2)
    assert no_process_left()


def test_a3c_a_worker_that_is_killed():
    with pytest.raises(mp.ProcessExitedException, match="SIGKILL"):
        a3c.train(functools.partial(Odd, kill_after=300), steps=1_000_000, workers=2)
    assert no_process_left()


def test_a3c_nan_in_a_worker():
    """As with one worker, a FloatingPointError of one line."""
    with pytest.raises(FloatingPointError, match=r"^loss nan at step \d+") as failure:
        a3c.train(functools.partial(Odd, nan_after=300), steps=1_000_000, workers=2)
    assert "\n" not in str(failure.value)
    assert no_process_left()


@pytest.mark.parametrize("workers", [1, 2])
def test_a3c_stops_all_workers_when_told_to(workers):
    start = time.monotonic()
    _, returns = a3c.train(Odd, steps=10**9, workers=workers, on_episode=lambda *episode: True)
    assert len(returns) == 1 and time.monotonic() - start < 30
    assert no_process_left()
