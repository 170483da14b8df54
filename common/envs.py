"""The lecture's environments, and `make(id)`, which opens any environment and explains in one line what is wrong.

Importing this module registers `Treasure-v0`, `GridWorld-v0` and `Maze-v0` with Gymnasium; from elsewhere they are reached as
`gymnasium.make("common.envs:Maze-v0")`. All three are finite MDPs and carry their transition table `P`.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

WHITE, BLACK, GREY, LINE = (255, 255, 255), (20, 20, 20), (150, 150, 150), (200, 200, 200)
RED, YELLOW, BLUE = (213, 60, 50), (240, 190, 30), (45, 110, 190)


EnvMaker = Callable[[], gym.Env]


class BadInput(ValueError):
    """What the user gave cannot work; the message is one line that names the value and says what to do."""

    status = 2  # the exit status of the program


# ---------------------------------------------------------------------------------------------------- the environments


class FiniteMDP(gym.Env):
    """A grid of cells whose whole dynamics is the table `P`, so that exact values can be computed from it.

    Observation: Discrete(rows * columns), the cell, counted row by row from the top left.
    `P[s][a]` is a list of `(probability, next_state, reward, terminated)`, the format of Gymnasium's toy_text; here it has one
    entry, since every move is certain. A move into the wall stays where it is; a terminal cell leads to itself with reward 0.
    Rendering: "ansi" (a string), "rgb_array" (an image of uint8, shape (rows * 64, columns * 64, 3)), "human" (a window).

    Args (of the subclasses' call):
        shape: rows and columns.
        moves: the step (rows, columns) of each action.
        terminals: cell -> reward for entering it; entering ends the episode.
        step_reward: reward of every other move.
        starts: the cells an episode may start in, each as likely.
        render_mode: None, "ansi", "rgb_array" or "human".
    """

    metadata = {"render_modes": ["ansi", "rgb_array", "human"], "render_fps": 8}
    cell_pixels = 64
    action_names: tuple[str, ...] = ()  # for Q-tables and policy pictures

    def __init__(self, shape, moves, terminals, step_reward, starts, render_mode=None):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise BadInput(f"render_mode {render_mode!r}: use one of {', '.join(self.metadata['render_modes'])}")
        self.shape, self.terminals, self.starts, self.render_mode = shape, terminals, starts, render_mode
        self.moves = moves
        rows, columns = shape
        self.observation_space = Discrete(rows * columns)
        self.action_space = Discrete(len(moves))
        self.P: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = {}
        for s in range(rows * columns):
            self.P[s] = {}
            for a, (down, right) in enumerate(moves):
                row = min(max(s // columns + down, 0), rows - 1)
                column = min(max(s % columns + right, 0), columns - 1)
                next_s = row * columns + column
                if s in terminals:
                    self.P[s][a] = [(1.0, s, 0.0, True)]
                else:
                    self.P[s][a] = [(1.0, next_s, float(terminals.get(next_s, step_reward)), next_s in terminals)]
        self.s = starts[0]
        self._window = None

    def reset(self, *, seed=None, options=None):
        """Start an episode. Returns (state, info)."""
        super().reset(seed=seed)
        self.s = self.starts[0] if len(self.starts) == 1 else int(self.np_random.choice(self.starts))
        if self.render_mode == "human":
            self.render()
        return self.s, {}

    def step(self, action):
        """Move. Returns (next_state, reward, terminated, truncated, info); truncated is TimeLimit's to set."""
        _, self.s, reward, terminated = self.P[self.s][int(action)][0]
        if self.render_mode == "human":
            self.render()
        return self.s, reward, terminated, False, {}

    def render(self):
        """The present cell in the chosen render_mode: a string, an image, or a window that is brought up to date."""
        if self.render_mode == "ansi":
            return self._text()
        if self.render_mode == "rgb_array":
            return self._image()
        if self.render_mode == "human":
            from common import plotting

            self._window = self._window or plotting.Window()
            self._window.show(self._image(), self.metadata["render_fps"], type(self).__name__)
        return None

    def close(self):
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()

    # What the subclasses paint: the letter, the shape and the colour of a cell.
    def _letter(self, s: int) -> str:
        return "." if s not in self.terminals else "#"

    def _paint(self, s: int) -> tuple[str, tuple[int, int, int]]:
        return ("square", GREY) if s in self.terminals else ("square", WHITE)

    def _text(self) -> str:
        columns = self.shape[1]
        cells = ["o" if s == self.s else self._letter(s) for s in range(len(self.P))]
        return "\n".join("".join(cells[i : i + columns]) for i in range(0, len(cells), columns))

    def _image(self) -> np.ndarray:
        size, (rows, columns) = self.cell_pixels, self.shape
        image = np.full((rows * size, columns * size, 3), WHITE, np.uint8)
        y, x = np.mgrid[:size, :size] - (size - 1) / 2  # pixel distances from the middle of a cell
        masks = {"square": np.maximum(abs(x), abs(y)) < 0.42 * size, "circle": np.hypot(x, y) < 0.38 * size}
        agent = np.maximum(abs(x), abs(y)) < 0.26 * size
        for s in range(rows * columns):
            cell = image[s // columns * size :, s % columns * size :][:size, :size]
            cell[0], cell[:, 0] = LINE, LINE
            form, colour = self._paint(s)
            cell[masks[form]] = colour
            if s == self.s:
                cell[agent] = RED
        return image


class Treasure(FiniteMDP):
    """The lecture's one-dimensional world: from the left end to the treasure "T" in the rightmost cell; reward 1 there, else 0.

    Args:
        size: number of cells, at least 2; the lecture has 6.
        render_mode: as FiniteMDP.
    """

    action_names = ("left", "right")

    def __init__(self, size: int = 6, render_mode: str | None = None):
        if size < 2:
            raise BadInput(f"size {size}: Treasure needs at least 2 cells")
        super().__init__((1, size), [(0, -1), (0, 1)], {size - 1: 1.0}, 0.0, [0], render_mode)

    def _letter(self, s):
        return "T" if s in self.terminals else "-"

    def _paint(self, s):
        return ("circle", YELLOW) if s in self.terminals else ("square", WHITE)


class GridWorld(FiniteMDP):
    """The lecture's "A Simple MDP" (Sutton & Barto, Example 4.1): 4x4 cells, -1 a move, two grey corners end the episode.

    An episode starts in any other cell, each as likely.

    Args:
        render_mode: as FiniteMDP.
    """

    action_names = ("right", "left", "up", "down")

    def __init__(self, render_mode: str | None = None):
        moves = [(0, 1), (0, -1), (-1, 0), (1, 0)]
        super().__init__((4, 4), moves, {0: -1.0, 15: -1.0}, -1.0, list(range(1, 15)), render_mode)


class Maze(FiniteMDP):
    """The lecture's maze: a red explorer, black hells (reward -1, end), a yellow paradise (reward +1, end), white ground (0).

    Paradise lies one step in from the bottom right corner, with hells above and to the left of it: the explorer, starting in the
    top left corner, must come round from the right or from below. On the lecture's 4x4 grid that takes 6 moves.

    Args:
        size: rows and columns, at least 4.
        render_mode: as FiniteMDP.
    """

    action_names = ("up", "down", "left", "right")
    metadata = {"render_modes": ["human", "rgb_array", "ansi"], "render_fps": 8}

    def __init__(self, size: int = 4, render_mode: str | None = None):
        if size < 4:
            raise BadInput(f"size {size}: Maze needs at least 4, or the hells close off paradise")
        paradise = (size - 2) * size + size - 2
        terminals = {paradise - size: -1.0, paradise - 1: -1.0, paradise: 1.0}
        super().__init__((size, size), [(-1, 0), (1, 0), (0, -1), (0, 1)], terminals, 0.0, [0], render_mode)

    def _letter(self, s):
        return {None: ".", -1.0: "X", 1.0: "P"}[self.terminals.get(s)]

    def _paint(self, s):
        return {None: ("square", WHITE), -1.0: ("square", BLACK), 1.0: ("circle", YELLOW)}[self.terminals.get(s)]


# The time limit is only there so that a policy that walks in circles is noticed; a learning agent arrives long before it.
gym.register("Treasure-v0", entry_point="common.envs:Treasure", max_episode_steps=1000)
gym.register("GridWorld-v0", entry_point="common.envs:GridWorld", max_episode_steps=200)
gym.register("Maze-v0", entry_point="common.envs:Maze", max_episode_steps=200)

# Gymnasium 1.3 renamed Taxi-v3, which course notes name, to Taxi-v4; they differ only in options that are off by default.
if "Taxi-v3" not in gym.registry:
    gym.register("Taxi-v3", "gymnasium.envs.toy_text.taxi:TaxiEnv", reward_threshold=8, max_episode_steps=200)


# ------------------------------------------------------------------------------------------------- opening any of them

EXTRAS = {  # part of an entry point -> what to install
    "box2d": 'pip install "gymnasium[box2d]"',
    "mujoco": 'pip install "gymnasium[mujoco]"',
    "ale": 'pip install "gymnasium[atari]"',
    "toy_text": 'pip install "gymnasium[toy-text]"',
    "classic_control": 'pip install "gymnasium[classic-control]"',
    "phys2d": 'pip install "gymnasium[jax]"',
    "tabular": 'pip install "gymnasium[jax]"',
}


class StopRequest(gym.Wrapper):
    """Ends the running episode as truncated once `StopRequest.asked` is set (Ctrl-C), so that training can end in good order."""

    asked = False

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated or StopRequest.asked, info


def zero_based(env: gym.Env) -> gym.Env:
    """The same environment with Discrete states and actions counted from 0, as table rows and network outputs are."""
    space = env.action_space
    if isinstance(space, Discrete) and space.start != 0:
        env = gym.wrappers.TransformAction(env, lambda a, start=space.start: a + start, Discrete(space.n))
    space = env.observation_space
    if isinstance(space, Discrete) and space.start != 0:
        env = gym.wrappers.TransformObservation(env, lambda s, start=space.start: s - start, Discrete(space.n))
    return env


def make_zero_based(make_env: EnvMaker) -> gym.Env:
    """zero_based() for a function that makes an environment; at the top level, so that it can be sent to another process."""
    return zero_based(make_env())


def make(env_id: str, *, render_mode: str | None = None, **kwargs) -> gym.Env:
    """Open a Gymnasium environment, or one of ours, by its id.

    Args:
        env_id: "CartPole-v1", "Maze-v0", "module:Name-v0", ...
        render_mode: as gymnasium.make.
        kwargs: the environment's own options, for instance size=8.

    Returns:
        The environment, its Discrete spaces counted from 0, ended by Ctrl-C (see StopRequest).

    Raises:
        BadInput: the id is unknown, its package is not installed, or it refuses an option; the message says what to do.
    """
    name = env_id.split(":")[-1]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*out of date.*")  # an older version was asked for
            # The passive checker looks at every single step; check_env in the tests is the place for that.
            options = kwargs if render_mode is None else kwargs | {"render_mode": render_mode}
            env = gym.make(env_id, disable_env_checker=True, **options)
    except gym.error.DependencyNotInstalled as error:
        raise BadInput(f"{env_id} needs a package that is not installed: {_pip_line(name, error)}") from error
    except ModuleNotFoundError as error:
        if ":" in env_id:
            message = f"no module {error.name!r} for {env_id}: check the part before the colon, or install that package"
        else:
            message = f"{env_id} needs the package {error.name!r}: {_pip_line(name, error)}"
        raise BadInput(message) from error
    except (gym.error.Error, TypeError, AssertionError) as error:
        if name not in gym.registry and name.startswith("ALE/"):
            raise BadInput(f"{env_id} needs a package that is not installed: {EXTRAS['ale']}") from error
        if name not in gym.registry:
            raise BadInput(f"no environment {env_id!r}; {_closest(name)}") from error
        if render_mode is not None and "render" in str(error):
            raise BadInput(f"{env_id} cannot be rendered as {render_mode!r}: {_first_line(error)}") from error
        raise BadInput(f"{env_id} does not open with {kwargs or 'these options'}: {_first_line(error)}") from error
    return StopRequest(zero_based(env))


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _pip_line(name: str, error: BaseException) -> str:
    spec = gym.registry.get(name)
    for part, line in EXTRAS.items():
        if spec is not None and part in str(spec.entry_point):
            return line
    return _first_line(error)


def _closest(name: str) -> str:
    near = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.6)
    near = near or [i for i in gym.registry if i.lower().startswith(re.split(r"[-_\d]", name.lower())[0] or "?")][:3]
    return f"closest: {', '.join(near)}" if near else "for example CartPole-v1, Pendulum-v1 or Maze-v0"


# ------------------------------------------------------------------------------------------------------ do spaces fit?

# Which script takes which spaces; "vector" is anything that flattens into a vector of fixed length (Discrete: one-hot).
SCRIPTS = {
    "qlearning_table.py": ("Discrete", {"Discrete"}),
    "dqn.py": ("vector", {"Discrete"}),
    "reinforce.py": ("vector", {"Discrete", "Box"}),
    "actor_critic.py": ("vector", {"Discrete"}),
    "ddpg.py": ("vector", {"Box"}),
    "a3c.py": ("vector", {"Discrete", "Box"}),
    "ppo.py": ("vector", {"Discrete", "Box"}),
}


def check_spaces(env: gym.Env, observations: str, actions: set[str], hint: str = "") -> None:
    """Refuse an environment whose spaces do not fit.

    Args:
        env: the environment.
        observations: "Discrete", or "vector" for all that flattens.
        actions: names of the action spaces that fit, of "Discrete" and "Box".
        hint: what the lecture says about an action space that does not fit.

    Raises:
        BadInput: naming the space and the scripts of this project that take it.
    """
    observation_kind = "Discrete" if isinstance(env.observation_space, Discrete) else "vector"
    if not env.observation_space.is_np_flattenable:
        observation_kind = "variable"
    action_kind = type(env.action_space).__name__
    if isinstance(env.action_space, Box) and not np.issubdtype(env.action_space.dtype, np.floating):
        action_kind = "integer Box"
    name = env.spec.id if env.spec else type(env.unwrapped).__name__
    for what, space, fits in (
        ("observations", env.observation_space, observation_kind in {observations, "Discrete"}),
        ("actions", env.action_space, action_kind in actions),
    ):
        if fits:
            continue
        others = [s for s, (o, a) in SCRIPTS.items() if observation_kind in {o, "Discrete"} and action_kind in a]
        wanted = " or ".join(sorted(actions)) if what == "actions" else "Discrete" if observations == "Discrete" else "fixed-size"
        use = f"use {' or '.join(others)}" if others else "no script of this project takes them"
        short = re.sub(r"\s+", " ", str(space))
        short = short if len(short) <= 60 else short[:57] + "..."
        raise BadInput(f"{name}: its {what} are {short}, {wanted} ones fit here; {use}{hint if what == 'actions' else ''}")
