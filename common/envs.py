"""The lecture's environments, and the door: `make(id)` opens any environment for train().

Importing this module registers `Treasure-v0`, `GridWorld-v0`, `Maze-v0` and `MiniPong-v0` with
Gymnasium; elsewhere `gymnasium.make("common.envs:Maze-v0")` opens them. The first three are finite
MDPs and carry their transition table `P`; MiniPong shows images.
"""

import textwrap
import warnings

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Tuple
from gymnasium.wrappers import RescaleAction, TransformAction, TransformObservation, TransformReward

from common import pixels

WHITE, BLACK, GREY, LINE = (255, 255, 255), (20, 20, 20), (150, 150, 150), (200, 200, 200)
RED, YELLOW = (213, 60, 50), (240, 190, 30)
# A terminal cell's letter on the map -> the reward for entering it, its shape and its colour.
GOAL = 1.0, "circle", YELLOW
ENDS = {"T": GOAL, "P": GOAL, "X": (-1.0, "square", BLACK), "#": (-1.0, "square", GREY)}

# MuJoCo shows float64 states; prepared() turns them into float32, and says so at length.
warnings.filterwarnings("ignore", ".*precision lowered by casting.*")


class BadInput(ValueError):
    """The user gave something that cannot work; the message is one line that says what to do."""


# ------------------------------------------------------------------------------- the environments


class FiniteMDP(gym.Env):
    """A grid of cells. The table `P` holds its whole dynamics, so exact values can be computed.

    Observation: Discrete(rows * columns), the cell, counted row by row from the top left.
    `P[s][a]` is a list of `(probability, next_state, reward, terminated)`, the format of
    Gymnasium's toy_text; here it has one entry, since every move is certain. A move into the wall
    stays where it is; a terminal cell leads to itself with reward 0.
    Rendering: "ansi" (a string) and "rgb_array" (uint8, shape (rows * 64, columns * 64, 3)). From
    these images Gymnasium makes "human" (a window).

    A subclass has `moves`, the step (rows, columns) of each action, and their `action_names`.

    Args (of the subclasses' call):
        cells: the map, a string for each row; a letter of ENDS is a terminal cell.
        starts: the cells an episode may start in, all equally likely.
        render_mode: None, "ansi" or "rgb_array".
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 8}
    step_reward = 0.0  # of a move that ends in no terminal cell

    def __init__(self, cells, starts, render_mode):
        self.cells, self.shape = "".join(cells), (len(cells), len(cells[0]))
        self.terminals = {s: ENDS[x][0] for s, x in enumerate(self.cells) if x in ENDS}
        self.starts, self.s, self.render_mode = starts, starts[0], render_mode
        n, actions = len(self.cells), range(len(self.moves))
        self.observation_space, self.action_space = Discrete(n), Discrete(len(actions))
        self.P = {s: {a: [self._transition(s, a)] for a in actions} for s in range(n)}

    def _transition(self, s: int, a: int) -> tuple[float, int, float, bool]:
        if s in self.terminals:
            return 1.0, s, 0.0, True
        place = np.add(np.unravel_index(s, self.shape), self.moves[a])
        s_next = int(np.ravel_multi_index(place, self.shape, mode="clip"))  # it stays at a wall
        return 1.0, s_next, self.terminals.get(s_next, self.step_reward), s_next in self.terminals

    def reset(self, *, seed=None, options=None):
        """Start an episode, with options={"start": s} in s. Returns (state, info)."""
        super().reset(seed=seed)
        self.s = (options or {}).get("start", int(self.np_random.choice(self.starts)))
        return self.s, {}

    def step(self, action):
        """Move. Returns (next_state, reward, terminated, truncated, info); TimeLimit truncates."""
        _, self.s, reward, terminated = self.P[self.s][int(action)][0]
        return self.s, reward, terminated, False, {}

    def look(self, s: int) -> tuple:
        """Shape ("square" or "circle") and colour of a cell."""
        return ENDS.get(self.cells[s], (0, "square", WHITE))[1:]

    def render(self):
        """The present cell in the chosen render_mode: a string or an image."""
        (rows, columns), n = self.shape, 64  # pixels of a cell
        if self.render_mode == "ansi":
            cells = ["o" if s == self.s else letter for s, letter in enumerate(self.cells)]
            return "\n".join("".join(row) for row in np.reshape(cells, self.shape))
        y, x = np.mgrid[:n, :n] - (n - 1) / 2  # pixel distances from the middle of a cell
        distance = np.maximum(abs(x), abs(y))
        masks = {"square": distance < 0.42 * n, "circle": np.hypot(x, y) < 0.38 * n}
        image = np.full((rows, n, columns, n, 3), WHITE, np.uint8)
        image[:, 0], image[:, :, :, 0] = LINE, LINE
        for s in self.P:
            cell, (shape, colour) = image[s // columns, :, s % columns], self.look(s)
            cell[masks[shape]] = colour
        image[self.s // columns, :, self.s % columns][distance < 0.26 * n] = RED
        return image.reshape(rows * n, columns * n, 3)


class Treasure(FiniteMDP):
    """The lecture's one-dimensional world: from the left end to the treasure "T" at the right end.

    The treasure gives reward 1, every other move 0.

    Args:
        size: number of cells, at least 2; the lecture has 6.
        render_mode: as FiniteMDP.
    """

    moves, action_names = ((0, -1), (0, 1)), ("left", "right")

    def __init__(self, size: int = 6, render_mode: str | None = None):
        assert size >= 2, f"size {size}: Treasure needs at least 2 cells"
        super().__init__(["-" * (size - 1) + "T"], [0], render_mode)


class GridWorld(FiniteMDP):
    """The lecture's "A Simple MDP" (Sutton & Barto, Example 4.1): 4x4 cells, -1 for each move.

    Two grey corners end the episode. It starts in any other cell, all equally likely.

    Args:
        render_mode: as FiniteMDP.
    """

    moves, action_names = ((0, 1), (0, -1), (-1, 0), (1, 0)), ("right", "left", "up", "down")
    step_reward = -1.0

    def __init__(self, render_mode: str | None = None):
        super().__init__(["#...", "....", "....", "...#"], range(1, 15), render_mode)


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

    def __init__(self, size: int = 4, render_mode: str | None = None):
        assert size >= 4, f"size {size}: Maze needs at least 4, or the hells close off paradise"
        free = "." * (size - 3)
        cells = ["..." + free] * (size - 3) + [free + ".X.", free + "XP.", free + "..."]
        super().__init__(cells, [0], render_mode)


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
        assert points >= 1 and 0 <= skill <= 1, "at least 1 point, and skill in [0, 1]"
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

    def _move(self, side: int, down: bool) -> None:
        top = self.top[side] + (1 if down else -1)
        self.top[side] = min(max(top, 0), self.rows - self.paddle)

    def step(self, action):
        """Move paddles, then the ball. Returns (image, reward, terminated, truncated, info)."""
        self._move(1, action == 1)
        if self.np_random.random() < self.skill:
            self._move(-1, self.y > self.top[-1] + (self.paddle - 1) / 2)
        if not 0 <= self.y + self.down < self.rows:  # off the wall
            self.down = -self.down
        self.y, self.x, side, reward = self.y + self.down, self.x + self.right, self.right, 0
        if self.x in (0, self.columns - 1):  # it has come to the paddle of this side
            hit = self.y - self.top[side]
            self.down, self.right = 1 if hit >= self.paddle / 2 else -1, -side
            if not 0 <= hit < self.paddle:
                reward = -side
                self.score[-side] += 1
        image, done = self._image(), max(self.score.values()) >= self.points
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
        image = self._image()
        if self.render_mode == "ansi":
            return "\n".join("".join(row) for row in np.where(image[..., 0], "#", "."))
        return image.repeat(16, 0).repeat(16, 1).repeat(3, 2)


# The time limit ends a policy that walks in circles; a learning agent arrives long before it.
gym.register("Treasure-v0", "common.envs:Treasure", max_episode_steps=1000)
gym.register("GridWorld-v0", "common.envs:GridWorld", max_episode_steps=200)
gym.register("Maze-v0", "common.envs:Maze", max_episode_steps=200)
# 0.8: 90 % of the points.
gym.register("MiniPong-v0", "common.envs:MiniPong", reward_threshold=0.8, max_episode_steps=1000)
# The name in course notes; Taxi-v4 differs only in options.
gym.register("Taxi-v3", gym.spec("Taxi-v4").entry_point, reward_threshold=8, max_episode_steps=200)


# --------------------------------------------------------------------------------------- the door


def make(env_id: str, table: bool = False, /, **options) -> gym.Env:
    """Open a Gymnasium environment, or one of ours, by its id, as train() expects it.

    Args:
        env_id: "CartPole-v1", "Maze-v0", "module:Name-v0", ...
        table: as prepared().
        options: of gymnasium.make, for instance render_mode="human", and of the environment itself,
            for instance size=8. Atari: screen_size=42 for smaller images.

    Raises:
        BadInput: the id is unknown, its package is not installed, it refuses an option, or its
            spaces fit no script; the message says what to do.
    """
    name, size = env_id.split(":")[-1], 84
    if name.startswith("ALE/"):  # the package ale_py registers them; phi() repeats the actions
        env_id, size = f"ale_py:{name}", options.pop("screen_size", size)
        options = {"frameskip": 1} | options
    try:
        with warnings.catch_warnings(action="ignore"):  # an older version, or none named
            if name.startswith("MinAtar/"):
                import minatar.gym

                minatar.gym.register_envs()
            # Without the passive checker: what matters here, prepared() looks at in every step.
            env = pixels.phi(gym.make(env_id, disable_env_checker=True, **options), size)
    except Exception as error:  # whatever an environment does with its options
        why = short(error, 200) + "; see README.md for packages" * isinstance(error, ImportError)
        raise BadInput(f"environment {env_id!r} does not open: {why}") from error
    return prepared(env, table)


def prepared(env: gym.Env, table: bool = False) -> gym.Env:
    """Wrap an environment, so that its spaces are those that every script knows.

    States become float32 vectors (Discrete ones one-hot); a component that is bounded within
    (-1, 1) is divided by its bound, since small inputs have little effect on a new network. Images,
    uint8 (channels, height, width), stay as they are. Discrete actions are counted from 0; Box
    actions lie in [-1, 1], larger ones are clipped. Rewards become Python's floats.

    Args:
        env: the environment.
        table: states are numbered from 0, for a Q-table, if they are Discrete (or several of them).

    Raises:
        BadInput: the spaces fit no script.
        FloatingPointError (in reset and step): a state, a reward or an action is not finite.
    """
    states, actions, name = env.observation_space, env.action_space, name_of(env)
    box = isinstance(actions, Box) and actions.dtype.kind == "f" and len(actions.shape) == 1
    box = box and actions.is_bounded() and (actions.low < actions.high).all()
    if not states.is_np_flattenable or not (isinstance(actions, Discrete) or box):
        raise BadInput(f"{name}: no script takes {short(states)} with actions {short(actions)}")

    def finite(x, what: str, hint: str = "mend the environment"):
        if not np.isfinite(x).all():
            raise FloatingPointError(f"{name} {what} {x}; {hint}")
        return x

    env = TransformReward(env, lambda r: finite(np.float64(r), "gave the reward").item())
    if table:
        parts = states if isinstance(states, (Tuple, MultiDiscrete)) else [states]
        if not all(isinstance(part, Discrete) for part in parts):
            raise BadInput(f"{name}: a table has no row for each of {short(states)}; use dqn.py")
        starts, sizes = np.array([(part.start, part.n) for part in parts]).T
        row = lambda s: int(np.ravel_multi_index(np.ravel(s) - starts, sizes))
        env = TransformObservation(env, row, Discrete(sizes.prod()))
    elif not shows_images(env):
        env = gym.wrappers.FlattenObservation(env)
        low, high = np.float32((env.observation_space.low, env.observation_space.high))
        unit = np.maximum(-low, high).clip(1e-3, 1)
        vector = lambda state: finite(np.float32(state / unit), "shows")
        env = TransformObservation(env, vector, Box(low / unit, high / unit))
    if isinstance(actions, Discrete):
        return TransformAction(env, lambda a: int(a + actions.start), Discrete(actions.n))

    def inside(action):
        finite(action, "is given the action", "training diverged; lower the step sizes")
        # Clipped behind RescaleAction, whose rounding could put an action outside of the space.
        return action.clip(actions.low, actions.high).astype(actions.dtype)

    return RescaleAction(TransformAction(env, inside, actions), -1.0, 1.0)


# Kind of actions -> the scripts that take it.
TAKERS = {Discrete: "qlearning_table dqn reinforce actor_critic a3c ppo".split()}
TAKERS[Box] = "reinforce ddpg a3c ppo".split()


def check(env: gym.Env, script: str) -> None:
    """Refuse an environment whose actions a script of this project does not take.

    Raises:
        BadInput: naming the scripts that take them.
    """
    takers, known = TAKERS[type(env.action_space)], TAKERS[Discrete] + TAKERS[Box]
    if script in known and script not in takers:  # any other is a copy
        actions = f"{name_of(env)} has actions {short(env.action_space)}"
        raise BadInput(f"{actions}; use {'.py or '.join(takers)}.py")


def shows_images(env: gym.Env) -> bool:
    """Whether a script needs a trunk for its states."""
    space = env.observation_space
    return space.dtype == np.uint8 and len(space.shape) == 3 and min(space.shape[1:]) >= 5


def short(x, most: int = 60) -> str:
    """A space or what an exception says, in one line of at most so many letters."""
    return textwrap.shorten(str(x) or type(x).__name__, most, placeholder=" ...")


def name_of(env: gym.Env) -> str:
    """The environment's id, or its class where it has none."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__
