"""Small environments that all algorithms' tests share, and what a short training needs.

Probe: random states, episodes that end in three ways; Mixed: in all of them in turn. Aim: actions
in two dimensions with unequal bounds. Look: images. Constant: one state, reward 1 a step.
"""

import functools
import importlib
import itertools
import multiprocessing
import os
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from torch.nn.utils import parameters_to_vector as vector

VECTOR, BOX = Box(-np.inf, np.inf, (3,)), Box(-1.0, 1.0, (2,))


class Probe(gym.Env):
    """Random states, rewards that depend on state and action; it writes down what happens.

    Attributes:
        log: (state, action, reward, next_state, terminated, truncated) of each step.
        seeds: what reset() was given, one for each episode.

    Args:
        ends: how the episodes end, in turn: "terminal", "limit", or "both" in one step.
        length: of each episode.
        actions, states: the spaces.
        scale: the rewards are multiplied by it.
    """

    def __init__(self, ends=("terminal",), length=3, actions=BOX, states=VECTOR, scale=1.0):
        self.action_space, self.observation_space = actions, states
        self.ends, self.length, self.scale = itertools.cycle(ends), length, scale
        self.log, self.seeds = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.t, self.end = 0, next(self.ends)
        self.state = self.draw()
        return self.state, {}

    def draw(self):
        if isinstance(self.observation_space, Discrete):
            return int(self.np_random.integers(self.observation_space.n))
        return self.np_random.normal(size=3).astype(np.float32)

    def reward(self, action) -> float:
        return self.scale * float(np.sum(action) + self.np_random.normal())

    def step(self, action):
        assert self.t < self.length, "a step after the end of an episode"
        self.t += 1
        reward, state = self.reward(action), self.state
        self.state = self.draw()
        over = self.t == self.length
        flags = over and self.end != "limit", over and self.end != "terminal"
        self.log.append((state, np.copy(action), reward, self.state, *flags))
        return self.state, reward, *flags, {}


Mixed = functools.partial(Probe, ("terminal", "limit", "both"))


class Aim(Probe):
    """At each of ten steps: see two numbers, hit them with the action; -1 for each unit squared."""

    def __init__(self):
        actions = Box(np.float32([-2, 0]), np.float32([4, 3]))
        super().__init__(length=10, actions=actions, states=Box(-1, 1, (2,)))

    def draw(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reward(self, action):
        return -float(np.square(action - self.state - (1, 2)).sum())


class Look(Probe):
    """At each of ten steps: is the white pixel in the lower half? 1 or 0 for the answer."""

    def __init__(self):
        super().__init__(length=10, actions=Discrete(2), states=Box(0, 255, (1, 8, 8), np.uint8))

    def draw(self):
        image = np.zeros((1, 8, 8), np.uint8)
        image[0, self.np_random.integers(8), self.np_random.integers(8)] = 255
        return image

    def reward(self, action):
        return float(action == self.state[0, 4:].any())


class Constant(Probe):
    """Reward 1 a step, and one state."""

    def draw(self):
        return super().draw() ** 0  # 1, or three times 1

    def reward(self, action):
        return 1.0


def episodes(log) -> list[list]:
    """A log, cut behind the end of each episode; the last part may not have ended."""
    cuts = [0, *(t for t, step in enumerate(log, 1) if any(step[4:])), len(log)]
    return [log[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def two_workers_wait(folder: Path) -> gym.Env:
    """An environment, once both workers of a3c.py are there: each leaves a file in the folder."""
    if multiprocessing.current_process().daemon:
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
    return gym.make("CartPole-v1", max_episode_steps=1)


# ------------------------------------------------------------------------------- a short training

SMALL = dict(
    qlearning_table={},
    dqn=dict(batch=4, hidden=8),
    reinforce=dict(hidden=8),
    actor_critic=dict(n_envs=2, hidden=8),
    ddpg=dict(batch=4, warmup=5, hidden=8),
    a3c=dict(workers=1, t_max=3, hidden=8),
    ppo=dict(n_envs=2, horizon=8, epochs=2, batch=8, hidden=8),
)
SCRIPTS = {name: importlib.import_module(name) for name in SMALL}


def fitting(script: str) -> dict:
    """The spaces of a Probe that a script takes."""
    spaces = dict(actions=BOX if script == "ddpg" else Discrete(3))
    return spaces | (dict(states=Discrete(5)) if script == "qlearning_table" else {})


def given(script: str, make):
    """What the script's train() takes: a function that makes an environment, or one."""
    return make if script in ("actor_critic", "a3c", "ppo") else make()


def train(script: str, make, **options) -> tuple[list, list[float], list]:
    """A short training.

    Args:
        script: its name.
        make: makes an environment.
        options: of train(), beside those of SMALL.

    Returns:
        What was learned, the returns, and the environments that were used.
    """
    made = []
    make_env = lambda: made.append(make()) or made[-1]
    *learned, returns = SCRIPTS[script].train(given(script, make_env), **SMALL[script] | options)
    return learned, returns, [env for env in made if env.unwrapped.seeds]


def as_bytes(learned, returns=()) -> list[bytes]:
    """What train() returned, to the last bit."""
    table = lambda x: x if isinstance(x, np.ndarray) else vector(x.parameters()).detach().numpy()
    return [part.tobytes() for part in (*map(table, learned), np.array(returns))]
