"""Pictures: learning curves, what was learned, clips.

    python -m common.plotting runs/dqn/CartPole-v1 runs/ppo/CartPole-v1 -o compare.png

draws saved runs, mean and band over seeds, one colour a folder. The functions return bytes, so the
caller decides where they go. They import matplotlib, Pillow and imageio themselves: a run that
draws nothing does not wait for them.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import gymnasium as gym
import numpy as np

from common import envs

# These differ in hue and in lightness, for grey prints and colour-blind eyes.
CURVE, BAND, GOAL = "#0b5fa5", "#9dc3e6", "#c44e00"
# For many lines: the palette of Okabe and Ito; the line styles tell them apart in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), "-")


def _figure(width: float = 7, height: float = 4, columns: int = 1):
    """A figure and its axes, without pyplot and its global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def _finish(figure, axes, title: str, ylabel: str, threshold: float | None) -> bytes:
    """Threshold and labels of a learning curve; the figure as PNG."""
    if threshold is not None:
        label = f"solved: {threshold:g}"
        axes.axhline(threshold, color=GOAL, linestyle="--", linewidth=1, label=label)
    axes.set(title=title, xlabel="environment steps", ylabel=ylabel)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    return _png(figure)


def _png(figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


# --------------------------------------------------------------------------------- learning curves


def running_mean(returns: list[float], window: int) -> np.ndarray:
    """Mean of the last `window` returns (fewer at the start) at each episode; shape (episodes,)."""
    sums = np.cumsum(np.concatenate([[0.0], returns]))
    ends = np.arange(1, len(returns) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def learning_curve(rows: list[tuple], title: str, threshold, window: int, solved) -> bytes:
    """A learning curve as PNG: each episode faint, the running mean strong, the threshold a line.

    Args:
        rows: one (episode, step, seconds, return, length) for each episode.
        title: script, environment, seed.
        threshold: the mean return that counts as solved, or None.
        window: over how many episodes the mean goes.
        solved: the row of `rows` at which it was solved, or None; a star marks it.
    """
    steps, returns = [row[1] for row in rows], [row[3] for row in rows]
    figure, axes = _figure()
    axes.plot(steps, returns, ".", color=BAND, markersize=3, label="one episode")
    mean, label = running_mean(returns, window), f"mean of the last {window}"
    axes.plot(steps, mean, color=CURVE, linewidth=2, label=label)
    if solved is not None:
        label = f"episode {solved[0]}, step {solved[1]}"
        axes.plot(solved[1], threshold, "*", color=GOAL, markersize=14, label=label)
    return _finish(figure, axes, title, "return of the episode", threshold)


def compare(runs: dict[str, list[tuple]], title: str, threshold, ylabel: str) -> bytes:
    """Many runs as PNG: for each label the mean over its runs, and a band of one deviation.

    A run that ended earlier, for instance because it was solved, keeps its last value in the mean.

    Args:
        runs: label -> runs, each a pair of arrays: environment steps (increasing), and the running
            mean of the returns there.
        title: of the picture.
        threshold: the mean return that counts as solved, or None.
        ylabel: what the values are.
    """
    figure, axes = _figure()
    grid = np.linspace(0, max(steps[-1] for pairs in runs.values() for steps, _ in pairs), 400)
    for (label, pairs), colour, style in zip(runs.items(), cycle(COLOURS), cycle(STYLES)):
        start, end = max(steps[0] for steps, _ in pairs), max(steps[-1] for steps, _ in pairs)
        x = grid[(grid >= start) & (grid <= end)]  # from where every run has a return
        # At each x the last value that a run had by then.
        values = [mean[np.searchsorted(steps, x, side="right") - 1] for steps, mean in pairs]
        middle, band = np.mean(values, axis=0), np.std(values, axis=0)
        axes.plot(x, middle, color=colour, linestyle=style, linewidth=2, label=label)
        axes.fill_between(x, middle - band, middle + band, color=colour, alpha=0.2, linewidth=0)
    return _finish(figure, axes, title, ylabel, threshold)


# ------------------------------------------------------------------------------ what was learned

Look = Callable[[object], tuple]  # observation -> (greedy action, value or None)


def drawable(env: gym.Env) -> bool:
    """Whether picture() can draw what is learned there."""
    return getattr(env.unwrapped, "moves", None) is not None or plane_of(env) is not None


def picture(env: gym.Env, look: Look, title: str) -> bytes:
    """Draw what was learned, as PNG.

    Grid worlds: the value of each cell and the greedy arrows (GridWorld: beside the random
    policy's, as on the lecture's slide). CartPole, Pendulum and environments with two numbers for a
    state: the value and the greedy action over two state variables, the others at rest.

    Args:
        env: the environment; drawable(env) has to be true.
        look: observation -> (the greedy action, its value; None if no value was learned).
        title: script, environment, seed.
    """
    figure = (_plane if plane_of(env) else _grid)(env, look)
    figure.suptitle(title)
    return _png(figure)


def plane_of(env: gym.Env) -> tuple | None:
    """Two state variables to draw over; None if the environment has no two.

    Returns:
        Their names, their ranges, and a function (x, y) -> observation.
    """
    name, space = type(env.unwrapped).__name__, env.unwrapped.observation_space
    if name == "CartPoleEnv":  # the pole falls at 12 degrees; the cart stands still in the middle
        names, ranges = ("angle of the pole (degrees)", "velocity (rad/s)"), ((-12, 12), (-3, 3))
        return names, ranges, lambda x, y: np.array([0, 0, np.radians(x), y], np.float32)
    if name == "PendulumEnv":
        names, ranges = ("angle (degrees, 0: upright)", "velocity (rad/s)"), ((-180, 180), (-8, 8))
        cos, sin, rad = np.cos, np.sin, np.radians
        return names, ranges, lambda x, y: np.array([cos(rad(x)), sin(rad(x)), y], np.float32)
    if isinstance(space, gym.spaces.Box) and space.shape == (2,) and space.is_bounded():
        names = ("position", "velocity") if "MountainCar" in name else ("number 1", "number 2")
        ranges = zip(space.low, space.high, strict=True)
        return names, ranges, lambda x, y: np.array([x, y], space.dtype)
    return None


def _plane(env: gym.Env, look: Look, points: int = 45):
    from matplotlib import colormaps

    (x_name, y_name), (x_range, y_range), observation = plane_of(env)
    x, y = np.linspace(*x_range, points), np.linspace(*y_range, points)
    actions, values = zip(*(look(observation(i, j)) for j in y for i in x), strict=True)
    n = getattr(env.unwrapped.action_space, "n", None)  # None: continuous actions
    colours = dict(cmap=colormaps["cividis"].resampled(n or 256))
    colours |= dict(vmin=-0.5, vmax=n - 0.5) if n else {}
    panels = [("greedy action", [np.ravel(a)[0] for a in actions], colours)]
    if values[0] is not None:
        panels.insert(0, ("value", values, {}))
    figure, axes = _figure(4.6 * len(panels), 4, len(panels))
    for ax, (name, numbers, colours) in zip(np.ravel(axes), panels, strict=True):
        numbers = np.reshape(numbers, (points, points))
        bar = figure.colorbar(ax.pcolormesh(x, y, numbers, shading="nearest", **colours), ax=ax)
        ax.set(title=name, xlabel=x_name, ylabel=y_name)
    if n:  # CartPole and MountainCar order their actions like this
        names = {2: ["left", "right"], 3: ["left", "none", "right"]}.get(n, range(n))
        bar.set_ticks(range(n), labels=names)
    return figure


def _grid(env: gym.Env, look: Look):
    """The cells of a FiniteMDP with their values and arrows."""
    world = env.unwrapped
    (rows, columns), V = world.shape, np.full(world.shape, np.nan)
    looked = {s: look(s) for s in world.P if s not in world.terminals}
    panels = [("greedy policy", [(s, int(action)) for s, (action, _) in looked.items()])]
    if isinstance(world, envs.GridWorld):
        every = [(s, a) for s in looked for a in range(len(world.moves))]
        panels.insert(0, ("random policy", every))
    figure, axes = _figure(max(4.5, columns + 1) * len(panels), rows + 1.2, len(panels))
    for ax, (name, arrows) in zip(np.ravel(axes), panels, strict=True):
        for s, (_, value) in looked.items() if name == "greedy policy" else ():
            row, column = divmod(s, columns)
            V[row, column] = np.nan if value is None else value
            text = "" if value is None else f"{value:.2f}"
            ax.text(column, row + 0.42, text, ha="center", va="center", fontsize="x-small")
        ax.imshow(V, cmap="YlGn", alpha=0.6)  # pale enough for black arrows and numbers
        y, x = np.array([divmod(s, columns) for s, _ in arrows]).T
        down, right = np.array([world.moves[a] for _, a in arrows]).T
        ax.quiver(x, y, right, down, angles="xy", scale_units="xy", scale=3, width=0.008)
        for s in world.terminals:
            _, shape, colour = world.look(s)
            marker = {"square": "s", "circle": "o"}[shape]
            ax.plot(s % columns, s // columns, marker, color=np.array(colour) / 255, markersize=40)
        edges = dict(xticks=np.arange(columns + 1) - 0.5, yticks=np.arange(rows + 1) - 0.5)
        ax.set(title=name, aspect="equal", **edges)
        ax.tick_params(length=0, labelbottom=False, labelleft=False)
        ax.grid(color="0.6")
    return figure


# ------------------------------------------------------------------------------------------ clips


def frame(image: np.ndarray, total: float) -> np.ndarray:
    """An image for clip(), at most 480 pixels wide and high, with the return so far.

    Args:
        image: what env.render() gives, uint8, shape (height, width, 3).
        total: the return so far.
    """
    from PIL import Image, ImageDraw

    small = Image.fromarray(image)
    small.thumbnail((480, 480))
    draw, text = ImageDraw.Draw(small), f"return {total:.5g}"
    draw.text((6, 4), text, fill="black", stroke_width=2, stroke_fill="white")
    return np.asarray(small)


def clip(frames: list[np.ndarray], fps: float, kind: str = ".gif") -> bytes:
    """A clip of images of equal shape, `fps` a second; `kind` is .gif or .mp4.

    It holds its end for a second. GIF players show about 30 images a second at most; of a faster
    clip every second or third image is kept.
    """
    import imageio.v3 as iio

    every = max(1, round(fps / 30))
    fps, frames = fps / every, np.stack([*frames[:-1:every], *frames[-1:] * round(fps / every)])
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]  # .mp4: even sizes
    gif, mp4 = dict(duration=1000 / fps, loop=0, bits=6), dict(fps=fps, macro_block_size=2)
    return iio.imwrite("<bytes>", frames, extension=kind, **(gif if kind == ".gif" else mp4))


# ------------------------------------------------------------------------- many runs, from the disk


def saved_runs(folder: Path, window: int) -> list[tuple]:
    """The runs in a folder (its own returns.csv, or those of the folders in it).

    Each is a pair of arrays: environment steps, and the running mean of the returns there.
    """
    runs = []
    for path in sorted([*folder.glob("returns.csv"), *folder.glob("*/returns.csv")]):
        rows = np.array([line.split(",") for line in path.read_text().splitlines()[1:]], float)
        if len(rows):  # a3c's steps are only nearly sorted
            runs.append((np.maximum.accumulate(rows[:, 1]), running_mean(rows[:, 3], window)))
    return runs


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m common.plotting", description="Compare runs.")
    parser.add_argument("folders", nargs="+", type=Path, help="with returns.csv, or such folders")
    parser.add_argument("-o", "--out", type=Path, default=Path("compare.png"), help="compare.png")
    folders, out = vars(parser.parse_args(argv)).values()
    runs, goals = {}, {}
    for folder in folders:
        settings = next((json.loads(p.read_text()) for p in sorted(folder.glob("**/run.json"))), {})
        env = settings.get("env", "returns")
        goals[env], window = envs.solved_at(env)
        pairs = saved_runs(folder, window)
        if not pairs:
            print(f"{folder}: no returns.csv there; try runs/dqn/CartPole-v1", file=sys.stderr)
            return 2
        runs[f"{folder} ({len(pairs)} seed{'s' * (len(pairs) > 1)})"] = pairs
    goal = goals[env] if len(set(goals.values())) == 1 else None
    try:
        out.write_bytes(compare(runs, ", ".join(goals), goal, f"mean of the last {window} returns"))
    except OSError as error:
        print(f"cannot write {out}: {error.strerror}; choose another -o", file=sys.stderr)
        return 2
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
