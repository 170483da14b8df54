"""What goes wrong in practice: environments that raise, return NaN, or look odd; workers that die. A clear end, nothing lost."""

import functools
import multiprocessing
import os
import signal
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
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
    "dqn": lambda make, **budget: dqn.train(make(), warmup=50, **budget),
    "reinforce": lambda make, **budget: reinforce.train(make(), **budget),
    "actor_critic": lambda make, **budget: actor_critic.train(make(), **budget),
    "ddpg": lambda make, **budget: ddpg.train(make(), **budget),
    "a3c": lambda make, **budget: a3c.train(make, workers=1, **budget),
    "ppo": lambda make, **budget: ppo.train(make, **budget),
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
    assert "diverged" in errors and "step" in errors and "Traceback" not in errors
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


# ------------------------------------------------------------------------------------------------------- A3C's processes


@pytest.mark.parametrize(
    "method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods()))
)
def test_a3c_starts_by_fork_and_by_spawn(method, monkeypatch):
    monkeypatch.setattr(
        a3c.mp, "get_context", functools.partial(multiprocessing.get_context, method)
    )
    _, returns = a3c.train(Odd, steps=500, workers=2)
    assert set(returns) == {7.0}
    assert multiprocessing.active_children() == []


def test_a3c_a_worker_that_raises():
    with pytest.raises(a3c.WorkerFailed, match="the environment broke") as failure:
        a3c.train(functools.partial(Odd, raise_after=300), steps=1_000_000, workers=2)
    assert isinstance(failure.value.model, a3c.Model) and failure.value.returns
    assert multiprocessing.active_children() == []


def test_a3c_a_worker_that_is_killed():
    with pytest.raises(a3c.WorkerFailed, match="died"):
        a3c.train(functools.partial(Odd, kill_after=300), steps=1_000_000, workers=2)
    assert multiprocessing.active_children() == []


def test_a3c_saves_what_was_learned_before_a_worker_failed(capsys):
    gym.register("Breaks-v0", functools.partial(Odd, raise_after=300))
    # The evaluation makes an environment of its own, which holds out for its 20 episodes.
    assert run("a3c", "--env", "Breaks-v0", "--workers", "2", "--out", "out") == 1
    page, errors = capsys.readouterr()
    assert "the environment broke" in errors
    assert Path("out/weights.pt").exists() and "greedy policy" in page


def test_a3c_stops_all_workers_when_told_to():
    start = time.monotonic()
    _, returns = a3c.train(Odd, steps=10**9, workers=2, on_episode=lambda *episode: True)
    assert len(returns) == 1 and time.monotonic() - start < 30
    assert multiprocessing.active_children() == []
