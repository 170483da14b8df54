"""The lecture's environments, and `make(id)`, which opens any environment or says what is wrong.

Importing this module registers `Treasure-v0`, `GridWorld-v0`, `Maze-v0` and `MiniPong-v0` with
Gymnasium; elsewhere `gymnasium.make("common.envs:Maze-v0")` opens them. The first three are finite
MDPs and carry their transition table `P`; MiniPong shows images.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import textwrap
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Tuple

WHITE, BLACK, GREY, LINE = (255, 255, 255), (20, 20, 20), (150, 150, 150), (200, 200, 200)
RED, YELLOW = (213, 60, 50), (240, 190, 30)

# MuJoCo shows float64 states; prepare() turns them into float32, and says so at length.
warnings.filterwarnings("ignore", ".*precision lowered by casting.*")


class BadInput(ValueError):
    """The user gave something that cannot work; the message is one line that says what to do."""

    status = 2  # the exit status of the program


# ------------------------------------------------------------------------------- the environments


class FiniteMDP(gym.Env):
    """A grid of cells. The table `P` holds its whole dynamics, so exact values can be computed.

    Observation: Discrete(rows * columns), the cell, counted row by row from the top left.
    `P[s][a]` is a list of `(probability, next_state, reward, terminated)`, the format of
    Gymnasium's toy_text; here it has one entry, since every move is certain. A move into the wall
    stays where it is; a terminal cell leads to itself with reward 0.
    Rendering: "ansi" (a string) and "rgb_array" (uint8, shape (rows * 64, columns * 64, 3)). From
    these images Gymnasium makes "human" (a window).

    Args (of the subclasses' call):
        shape: rows and columns.
        terminals: cell -> reward for entering it; entering ends the episode.
        starts: the cells an episode may start in, all equally likely.
        render_mode: None, "ansi" or "rgb_array".
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 8}
    cell_pixels = 64
    moves: tuple[tuple[int, int], ...]  # the step (rows, columns) of each action
    action_names: tuple[str, ...]
    step_reward = 0.0  # of a move that ends in no terminal cell
    ground = "."  # the letter of an ordinary cell
    looks: dict[float, tuple] = {}  # reward of a terminal cell -> its letter, shape and colour

    def __init__(self, shape, terminals, starts, render_mode):
        self.shape, self.terminals, self.starts, self.s = shape, terminals, starts, starts[0]
        cells, actions = range(shape[0] * shape[1]), range(len(self.moves))
        self.observation_space, self.action_space = Discrete(len(cells)), Discrete(len(actions))
        self.P = {s: {a: [self._transition(s, a)] for a in actions} for s in cells}
        self.render_mode = render_mode

    def _transition(self, s: int, a: int) -> tuple[float, int, float, bool]:
        if s in self.terminals:
            return 1.0, s, 0.0, True
        (rows, columns), (down, right) = self.shape, self.moves[a]
        row = min(max(s // columns + down, 0), rows - 1)
        column = min(max(s % columns + right, 0), columns - 1)
        next_s = row * columns + column
        reward = float(self.terminals.get(next_s, self.step_reward))
        return 1.0, next_s, reward, next_s in self.terminals

    def reset(self, *, seed=None, options=None):
        """Start an episode, with options={"start": s} in s. Returns (state, info)."""
        super().reset(seed=seed)
        drawn = self.starts[self.np_random.integers(len(self.starts))]
        self.s = (options or {}).get("start", drawn)
        return self.s, {}

    def step(self, action):
        """Move. Returns (next_state, reward, terminated, truncated, info); TimeLimit truncates."""
        _, self.s, reward, terminated = self.P[self.s][int(action)][0]
        return self.s, reward, terminated, False, {}

    def render(self):
        """The present cell in the chosen render_mode: a string or an image."""
        if self.render_mode == "ansi":
            return self._text()
        return self._image() if self.render_mode == "rgb_array" else None

    def look(self, s: int) -> tuple:
        """Letter, shape ("square" or "circle") and colour of a cell."""
        return self.looks.get(self.terminals.get(s), (self.ground, "square", WHITE))

    def _text(self) -> str:
        cells = ["o" if s == self.s else self.look(s)[0] for s in self.P]
        return "\n".join("".join(row) for row in np.reshape(cells, self.shape))

    def _image(self) -> np.ndarray:
        n, columns = self.cell_pixels, self.shape[1]
        image = np.full((self.shape[0] * n, columns * n, 3), WHITE, np.uint8)
        y, x = np.mgrid[:n, :n] - (n - 1) / 2  # pixel distances from the middle of a cell
        distance = np.maximum(abs(x), abs(y))
        masks = {"square": distance < 0.42 * n, "circle": np.hypot(x, y) < 0.38 * n}
        for s in self.P:
            cell = image[s // columns * n :, s % columns * n :][:n, :n]
            cell[0], cell[:, 0] = LINE, LINE
            _, shape, colour = self.look(s)
            cell[masks[shape]] = colour
            if s == self.s:
                cell[distance < 0.26 * n] = RED
        return image


class Treasure(FiniteMDP):
    """The lecture's one-dimensional world: from the left end to the treasure "T" at the right end.

    The treasure gives reward 1, every other move 0.

    Args:
        size: number of cells, at least 2; the lecture has 6.
        render_mode: as FiniteMDP.
    """

    moves, action_names = ((0, -1), (0, 1)), ("left", "right")
    ground, looks = "-", {1.0: ("T", "circle", YELLOW)}

    def __init__(self, size: int = 6, render_mode: str | None = None):
        if size < 2:
            raise BadInput(f"size {size}: Treasure needs at least 2 cells")
        super().__init__((1, size), {size - 1: 1.0}, [0], render_mode)


class GridWorld(FiniteMDP):
    """The lecture's "A Simple MDP" (Sutton & Barto, Example 4.1): 4x4 cells, -1 for each move.

    Two grey corners end the episode. It starts in any other cell, all equally likely.

    Args:
        render_mode: as FiniteMDP.
    """

    moves, action_names = ((0, 1), (0, -1), (-1, 0), (1, 0)), ("right", "left", "up", "down")
    step_reward = -1.0
    looks = {-1.0: ("#", "square", GREY)}

    def __init__(self, render_mode: str | None = None):
        super().__init__((4, 4), {0: -1.0, 15: -1.0}, list(range(1, 15)), render_mode)


class Maze(FiniteMDP):
    """The lecture's maze: a red explorer, black hells (-1, end), a yellow paradise (+1, end).

    White ground gives 0. Paradise lies one step in from the bottom right corner, with hells above
    and to the left of it: the explorer starts in the top left corner and enters paradise from the
    right or from below. On the lecture's 4x4 grid that takes 6 moves.

    Args:
        size: rows and columns, at least 4.
        render_mode: as FiniteMDP.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 8}  # the lecture's window
    moves, action_names = ((-1, 0), (1, 0), (0, -1), (0, 1)), ("up", "down", "left", "right")
    looks = {-1.0: ("X", "square", BLACK), 1.0: ("P", "circle", YELLOW)}

    def __init__(self, size: int = 4, render_mode: str | None = None):
        if size < 4:
            raise BadInput(f"size {size}: Maze needs at least 4, or the hells close off paradise")
        paradise = (size - 2) * size + size - 2
        ends = {paradise - size: -1.0, paradise - 1: -1.0, paradise: 1.0}
        super().__init__((size, size), ends, [0], render_mode)


class MiniPong(gym.Env):
    """The lecture's Pong on 8x9 pixels: the agent has the right paddle, +1 or -1 for a point.

    Observation: the image, uint8, shape (8, 9, 1): paddles of 4 pixels and a ball, white (255) on
    black. The ball moves one pixel down or up and one sideways in each step, and comes off the
    upper half of a paddle upwards, off the lower half downwards. It is served from the middle
    towards the agent, at a random height. In each step the agent's paddle moves one pixel UP or
    DOWN, the opponent's with probability `skill` one pixel towards the ball. With skill 0.5 a
    player who follows the ball wins every game of one point.

    Args:
        points: the episode ends when one side has won this many.
        skill: of the opponent, in [0, 1].
        render_mode: None, "ansi" or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 8}
    rows, columns, paddle, action_names = 8, 9, 4, ("up", "down")

    def __init__(self, points: int = 1, skill: float = 0.5, render_mode: str | None = None):
        if points < 1 or not 0 <= skill <= 1:
            raise BadInput(f"points {points}, skill {skill}: at least 1 point, skill in [0, 1]")
        self.points, self.skill, self.render_mode = points, skill, render_mode
        self.observation_space = Box(0, 255, (self.rows, self.columns, 1), np.uint8)
        self.action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        """Start a game, paddles in the middle. Returns (image, info)."""
        super().reset(seed=seed)
        self.score = {-1: 0, 1: 0}  # of the left side, the opponent's, and the right side
        self.top = dict.fromkeys(self.score, (self.rows - self.paddle) // 2)
        self._serve()
        return self._image(), {}

    def _serve(self) -> None:
        self.y, self.x = int(self.np_random.integers(self.rows)), self.columns // 2
        self.down, self.right = int(self.np_random.choice([-1, 1])), 1

    def _move(self, side: int, down: int) -> None:
        self.top[side] = min(max(self.top[side] + down, 0), self.rows - self.paddle)

    def step(self, action):
        """Move paddles, then the ball. Returns (image, reward, terminated, truncated, info)."""
        self._move(1, 1 if action else -1)
        if self.np_random.random() < self.skill:
            self._move(-1, 1 if self.y > self.top[-1] + (self.paddle - 1) / 2 else -1)
        if not 0 <= self.y + self.down < self.rows:  # off the wall
            self.down = -self.down
        self.y, self.x, side, reward = self.y + self.down, self.x + self.right, self.right, 0
        if self.x in (0, self.columns - 1):  # it has come to the paddle of this side
            hit = self.y - self.top[side]
            self.down, self.right = 1 if hit >= self.paddle / 2 else -1, -side
            if not 0 <= hit < self.paddle:
                reward = -side
                self.score[-side] += 1
        image, done = self._image(), max(self.score.values()) == self.points
        if reward and not done:
            self._serve()
        return image, float(reward), done, False, {}

    def _image(self) -> np.ndarray:
        image = np.zeros(self.observation_space.shape, np.uint8)
        for side, top in self.top.items():
            image[top : top + self.paddle, -(side > 0)] = 255
        image[self.y, self.x] = 255
        return image

    def render(self):
        """The present image in the chosen render_mode: a string, or 16x16 for each pixel."""
        image = self._image()[..., 0]
        if self.render_mode == "ansi":
            return "\n".join("".join("#" if pixel else "." for pixel in row) for row in image)
        large = image.repeat(16, 0).repeat(16, 1)[..., None].repeat(3, 2)
        return large if self.render_mode == "rgb_array" else None


# The time limit ends a policy that walks in circles; a learning agent arrives long before it.
gym.register("Treasure-v0", entry_point="common.envs:Treasure", max_episode_steps=1000)
gym.register("GridWorld-v0", entry_point="common.envs:GridWorld", max_episode_steps=200)
gym.register("Maze-v0", entry_point="common.envs:Maze", max_episode_steps=200)
# 0.8: 90 % of the points.
gym.register("MiniPong-v0", "common.envs:MiniPong", reward_threshold=0.8, max_episode_steps=1000)

# Course notes name Taxi-v3. Gymnasium 1.3 renamed it to Taxi-v4, which differs only in options.
if "Taxi-v3" not in gym.registry:
    entry_point = "gymnasium.envs.toy_text.taxi:TaxiEnv"
    gym.register("Taxi-v3", entry_point, reward_threshold=8, max_episode_steps=200)


# ---------------------------------------------------------------------------- opening any of them


class Guard(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Ends the running episode after Ctrl-C, and refuses rewards that are not finite.

    Args:
        env: the environment.
        stop: None, or a shared value (multiprocessing.RawValue). Once it is not 0, the running
            episode ends as truncated, so that training ends in good order, in any process.

    Raises (in step):
        FloatingPointError: a reward is NaN or infinite: the environment's fault, not the learner's.
    """

    def __init__(self, env: gym.Env, stop=None):
        # So that env.spec can make it again.
        gym.utils.RecordConstructorArgs.__init__(self, stop=stop, _disable_deepcopy=True)
        super().__init__(env)
        self.stop, self.steps = stop, 0

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        if not math.isfinite(reward):
            what = f"{name_of(self.env)} gave the reward {float(reward)} at step {self.steps}"
            raise FloatingPointError(f"{what}: this environment is at fault, not the step size")
        truncated = truncated or bool(self.stop and self.stop.value)
        return observation, reward, terminated, truncated, info


def name_of(env: gym.Env) -> str:
    """The environment's id, or its class where it has none."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def phi(env: gym.Env, screen_size: int = 84) -> gym.Env:
    """The lecture's phi, if an environment shows images; any other stays as it is.

    Atari: AtariPreprocessing (grey, screen_size pixels high and wide, an action repeated 4 times,
    up to 30 no-ops), below 84 pixels with more contrast. Then the last 4 images, channels first,
    uint8: (4 * channels, height, width).
    """
    if hasattr(env.unwrapped, "ale") and len(env.observation_space.shape) == 3:
        env = gym.wrappers.AtariPreprocessing(env, screen_size=screen_size)
        if screen_size < 84:  # a small ball is pale there
            env = gym.wrappers.TransformObservation(env, contrast, env.observation_space)
    space = env.observation_space
    images = (
        isinstance(space, Box) and space.dtype in (np.uint8, bool) and len(space.shape) in (2, 3)
    )
    if not images or min(space.shape[:2]) < 5:  # too small for a filter: a vector, as any other
        return env
    env = gym.wrappers.FrameStackObservation(env, 4)  # (4, height, width), perhaps with channels
    shape = (4 * math.prod(space.shape[2:]), *space.shape[:2])
    white = np.uint8(255 // max(1, int(space.high.max())))  # the brightest pixel: about 255
    see = lambda x: np.moveaxis(x.reshape(4, *shape[1:], -1), 3, 1).reshape(shape) * white
    return gym.wrappers.TransformObservation(env, see, Box(0, 255, shape, np.uint8))


def contrast(image: np.ndarray) -> np.ndarray:
    """How far each pixel is from the background (the median), three times over, at most 255."""
    return np.minimum(3 * abs(image - np.median(image)), 255).astype(np.uint8)


def make(env_id: str, *, stop=None, **options) -> gym.Env:
    """Open a Gymnasium environment, or one of ours, by its id.

    Args:
        env_id: "CartPole-v1", "Maze-v0", "module:Name-v0", ...
        stop: as Guard.
        options: of gymnasium.make, for instance render_mode="human", and of the environment itself,
            for instance size=8. Atari: screen_size=42 for smaller images.

    Returns:
        The environment, wrapped in Guard.

    Raises:
        BadInput: the id is unknown, its package is not installed, or it refuses an option; the
            message says what to do.
    """
    name, seen = env_id.split(":")[-1], {}
    if name.startswith("ALE/"):  # the package ale_py registers them
        env_id, seen = f"ale_py:{name}", {"screen_size": options.pop("screen_size", 84)}
        if options.get("obs_type", "rgb") == "rgb":  # phi repeats the actions
            options = {"frameskip": 1} | options
    if env_id.startswith("MinAtar/") and env_id not in gym.registry:
        with contextlib.suppress(ImportError):
            import minatar.gym

            minatar.gym.register_envs()
    try:
        with warnings.catch_warnings():
            # The user asked for an older version, or for a window that Gymnasium makes itself.
            warnings.filterwarnings("ignore", ".*(out of date|HumanRendering).*")
            # The passive checker looks at every single step; the tests call check_env instead.
            return Guard(phi(gym.make(env_id, disable_env_checker=True, **options), **seen), stop)
    except Exception as error:  # whatever an environment does with its options
        why = first_line(error)
        if isinstance(error, ModuleNotFoundError):
            missing = getattr(error.__cause__ or error, "name", None)
            why = f"there is no module {missing!r}: pip install {missing}, or check the id"
        elif "Namespace MinAtar not found" in why:
            why = "pip install minatar"
        elif isinstance(error, gym.error.UnregisteredEnv) or not name:
            near = difflib.get_close_matches(name, gym.registry) or ["CartPole-v1", "Maze-v0"]
            why = f"there is none of this name; try {', '.join(near)}"
        raise BadInput(f"environment {env_id!r} does not open: {why}") from error


def solved_at(env_id: str) -> tuple[float | None, int]:
    """The mean return that counts as solved (None: there is none), and over how many episodes."""
    spec = gym.registry.get(env_id.split(":")[-1])
    return (-200.0, 20) if env_id == "Pendulum-v1" else (spec and spec.reward_threshold, 100)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]


# -------------------------------------------------------------------------------- do spaces fit?

# Kind of actions -> the scripts that take it. Observations: all that have a fixed size, but
# qlearning_table takes only those that a table can have a row for.
TAKERS = {
    "Discrete": ("qlearning_table", "dqn", "reinforce", "actor_critic", "a3c", "ppo"),
    "Box": ("reinforce", "ddpg", "a3c", "ppo"),
}


def check_spaces(env: gym.Env, script: str) -> None:
    """Refuse an environment whose spaces do not fit a script of this project.

    Raises:
        BadInput: naming the spaces and the scripts that take them.
    """
    states, actions = env.observation_space, env.action_space
    fit = TAKERS.get(type(actions).__name__, ())
    if not states.is_np_flattenable or (isinstance(actions, Box) and actions.dtype.kind != "f"):
        fit = ()
    parts = states if isinstance(states, (Tuple, MultiDiscrete)) else [states]
    finite = all(isinstance(part, Discrete) for part in parts)
    if not finite or math.prod(int(part.n) for part in parts) > 2**31:
        fit = [name for name in fit if name != "qlearning_table"]
    if script in sum(TAKERS.values(), ()) and script not in fit:  # nothing is known of a copy
        what = [textwrap.shorten(str(space), 60, placeholder=" ...") for space in (states, actions)]
        why = "observations {} and actions {} do not fit {}.py".format(*what, script)
        use = " or ".join(f"{name}.py" for name in fit) or "no script of this project"
        raise BadInput(f"{name_of(env)}: {why}; use {use}")


def check_memory(prepared: gym.Env, memory: int) -> None:
    """Refuse a replay memory that does not fit into this machine.

    Args:
        prepared: the environment as the script prepares it: float32 vectors, or uint8 images.
        memory: the capacity in transitions, an image or two vectors for each. On a GPU the memory
            is the GPU's, which is not checked.

    Raises:
        BadInput: naming its size and the flag.
    """
    space = prepared.observation_space
    each = math.prod(space.shape) * (1 if space.dtype == np.uint8 else 2 * 4)
    needed = memory * (each + 750)  # a tensor takes 750 bytes beside its numbers
    with contextlib.suppress(OSError):  # there is no such file on macOS and Windows
        text = Path("/proc/meminfo").read_text()
        free = int(re.search(r"MemAvailable:\s+(\d+) kB", text)[1]) * 1024
        if needed > free:
            sizes = f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free"
            fits = int(memory * free / needed / 2)
            raise BadInput(f"--memory {memory} {sizes}; try --memory {fits} or smaller images")
