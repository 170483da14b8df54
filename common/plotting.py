"""Pictures: learning curves, what was learned, clips, windows.

    python -m common.plotting runs/dqn/CartPole-v1 runs/ppo/CartPole-v1 -o compare.png

draws saved runs, mean and band over seeds, one colour a folder. The functions return bytes, so that the caller decides where they
go. matplotlib, Pillow and pygame are imported inside the functions: a run that draws nothing does not wait for them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path

import gymnasium as gym
import numpy as np

CURVE, BAND, GOAL = "#0b5fa5", "#9dc3e6", "#c44e00"  # apart in hue and in lightness: also in grey, also for colour-blind eyes
# For many lines: the palette of Okabe and Ito, made for colour-blind eyes; the line styles tell them apart in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), "-")


def _figure(width: float = 7, height: float = 4, columns: int = 1, rows: int = 1):
    """A figure and its axes, without pyplot and its global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)


def _png(figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


# ------------------------------------------------------------------------------------------------------- learning curves


def running_mean(returns: list[float], window: int) -> np.ndarray:
    """Mean of the last `window` returns at each episode (of those there are, at the start). Shape: (episodes,)."""
    sums = np.cumsum(np.concatenate([[0.0], returns]))
    ends = np.arange(1, len(returns) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def learning_curve(rows: list[tuple], title: str, threshold: float | None, window: int, solved: tuple | None) -> bytes:
    """A learning curve as PNG: each episode faint, the running mean strong, the threshold a line, where it was solved marked.

    Args:
        rows: one (episode, step, seconds, return, length) for each episode.
        title: script, environment, seed.
        threshold: the mean return that counts as solved, or None.
        window: over how many episodes the mean goes.
        solved: the row of `rows` at which it was solved, or None.
    """
    steps, returns = [row[1] for row in rows], [row[3] for row in rows]
    figure, axes = _figure()
    axes.plot(steps, returns, ".", color=BAND, markersize=3, label="one episode")
    axes.plot(steps, running_mean(returns, window), color=CURVE, linewidth=2, label=f"mean of the last {window}")
    if threshold is not None:
        axes.axhline(threshold, color=GOAL, linestyle="--", linewidth=1, label=f"solved: {threshold:g}")
    if solved is not None:
        axes.plot(solved[1], threshold, "*", color=GOAL, markersize=14, label=f"episode {solved[0]}, step {solved[1]}")
    axes.set(title=title, xlabel="environment steps", ylabel="return of the episode")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    # The upper axis counts episodes: at equal distances of steps, the episode that ended last before.
    places = np.unique(np.searchsorted(steps, np.linspace(steps[0], steps[-1], 7), side="right") - 1)
    top = axes.secondary_xaxis("top")
    top.set_xticks([steps[i] for i in places], [str(rows[i][0]) for i in places], fontsize="x-small")
    top.set_xlabel("episodes", fontsize="small")
    return _png(figure)


def compare(runs: dict[str, list[tuple]], title: str, threshold: float | None, ylabel: str) -> bytes:
    """Many runs as PNG: for each label the mean over its runs, and a band of one standard deviation.

    A run that ended earlier, for instance because it was solved, stands in the mean with its last value.

    Args:
        runs: label -> runs, each a pair of arrays: environment steps (increasing), and the running mean of the returns there.
        title: of the picture.
        threshold: the mean return that counts as solved, or None.
        ylabel: what the values are.
    """
    figure, axes = _figure()
    grid = np.linspace(0, max(steps[-1] for pairs in runs.values() for steps, _ in pairs), 400)
    for (label, pairs), colour, style in zip(runs.items(), cycle(COLOURS), cycle(STYLES)):
        end = max(steps[-1] for steps, _ in pairs)
        x = grid[(grid >= max(steps[0] for steps, _ in pairs)) & (grid <= end)]  # from where every run has a return
        # At each x the last value that a run had by then.
        values = np.stack([mean[np.searchsorted(steps, x, side="right") - 1] for steps, mean in pairs])
        middle, band = values.mean(axis=0), values.std(axis=0)
        axes.plot(x, middle, color=colour, linestyle=style, linewidth=2, label=label)
        axes.fill_between(x, middle - band, middle + band, color=colour, alpha=0.2, linewidth=0)
    if threshold is not None:
        axes.axhline(threshold, color="black", linestyle=":", linewidth=1, label=f"solved: {threshold:g}")
    axes.set(title=title, xlabel="environment steps", ylabel=ylabel)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    return _png(figure)


# ------------------------------------------------------------------------------------------------------ what was learned

Value = Callable[[object], float]  # observation -> value
Act = Callable[[object], object]  # observation -> greedy action


def picture(env: gym.Env, act: Act, value: Value | None, title: str, tables: dict[int, np.ndarray] | None = None) -> bytes | None:
    """What was learned, where it can be drawn, as PNG; None where it cannot.

    Grid worlds: the value of each cell and the greedy arrows (GridWorld: beside the random policy's, as on the lecture's slide).
    Treasure with a Q-table: the table as it was after some of the episodes. CartPole, Pendulum and whatever has two numbers for a
    state: the value and the greedy action over two state variables, the others at rest.

    Args:
        env: the environment.
        act: observation -> the greedy action.
        value: observation -> its value; None if no value was learned.
        title: script, environment, seed.
        tables: episode -> the Q-table after it, shape (states, actions).
    """
    world = env.unwrapped
    if tables and world.shape[0] == 1:
        return _tables(world, tables, title)
    if getattr(world, "moves", None):
        return _grid(world, act, value, title)
    plane = plane_of(env)
    return _plane(plane, act, value, env.action_space, title) if plane else None


def drawable(env: gym.Env) -> bool:
    """Whether picture() can draw what is learned there."""
    return getattr(env.unwrapped, "moves", None) is not None or plane_of(env) is not None


def plane_of(env: gym.Env) -> tuple | None:
    """Two state variables to draw over: their names, their ranges, and (x, y) -> observation; None if there are no two."""
    name, space = type(env.unwrapped).__name__, env.observation_space
    if name == "CartPoleEnv":  # the pole falls at 12 degrees
        zeros = (0.0, 0.0)
        return (
            ("angle of the pole (degrees)", "its angular velocity (rad/s)"),
            ((-12, 12), (-3, 3)),
            lambda x, y: np.array([*zeros, np.radians(x), y], np.float32),
        )
    if name == "PendulumEnv":
        return (
            ("angle (degrees, 0 is upright)", "angular velocity (rad/s)"),
            ((-180, 180), (-8, 8)),
            lambda x, y: np.array([np.cos(np.radians(x)), np.sin(np.radians(x)), y], np.float32),
        )
    if isinstance(space, gym.spaces.Box) and space.shape == (2,) and space.is_bounded():
        names = ("position", "velocity") if "MountainCar" in name else ("first number", "second number")
        return names, tuple(zip(space.low, space.high, strict=True)), lambda x, y: np.array([x, y], space.dtype)
    return None


def _plane(plane: tuple, act: Act, value: Value | None, action_space: gym.Space, title: str, points: int = 45) -> bytes:
    (x_name, y_name), (x_range, y_range), observation = plane
    import matplotlib

    n = getattr(action_space, "n", 0)  # of Discrete actions
    names = {2: ["left", "right"], 3: ["left", "none", "right"]}.get(n, range(n))  # as CartPole and MountainCar have it
    x, y = np.linspace(*x_range, points), np.linspace(*y_range, points)
    states = [observation(i, j) for j in y for i in x]
    actions = np.array([np.ravel(act(s))[0] for s in states], float).reshape(points, points)
    panels = [("greedy action", actions, "cividis")]
    if value is not None:
        panels.insert(0, ("value", np.array([value(s) for s in states]).reshape(points, points), "viridis"))
    figure, axes = _figure(4.6 * len(panels), 4, len(panels))
    for ax, (name, numbers, colours) in zip(np.ravel(axes), panels, strict=True):
        few = n and name == "greedy action"
        limits = dict(vmin=-0.5, vmax=n - 0.5) if few else {}
        palette = matplotlib.colormaps[colours].resampled(n if few else 256)
        image = ax.pcolormesh(x, y, numbers, cmap=palette, shading="nearest", **limits)
        ax.set(title=name, xlabel=x_name, ylabel=y_name)
        bar = figure.colorbar(image, ax=ax)
        if few:
            bar.set_ticks(range(n), labels=names)
    figure.suptitle(title)
    return _png(figure)


def _grid(world, act: Act, value: Value | None, title: str) -> bytes:
    """The cells with their values and arrows."""
    rows, columns = world.shape
    everywhere = {s: range(len(world.moves)) for s in world.P if s not in world.terminals}
    panels = [("greedy policy", {s: [int(act(s))] for s in everywhere}, value)]
    if type(world).__name__ == "GridWorld":
        panels.insert(0, ("random policy", everywhere, None))
    figure, axes = _figure(max(4.5, 1.0 * columns + 1) * len(panels), 1.0 * rows + 1.2, len(panels))
    for ax, (name, arrows, numbers) in zip(np.ravel(axes), panels, strict=True):
        V = np.full(world.shape, np.nan)
        for s in arrows if numbers is not None else ():
            V[divmod(s, columns)] = numbers(s)
        image = ax.imshow(V, cmap="YlGn")
        for s in world.P:
            row, column = divmod(s, columns)
            if s in world.terminals:
                form, colour = world._paint(s)
                rgb = np.array(colour) / 255
                ax.add_patch(_patch(form, column, row, rgb))
                continue
            middle = (image.norm(V[row, column]) if numbers is not None else 0) > 0.6
            ink = "white" if middle else "black"
            for a in arrows[s]:
                down, right = world.moves[a]
                start = (
                    (column - 0.05 * right, row - 0.05 * down) if len(arrows[s]) > 1 else (column - 0.2 * right, row - 0.2 * down)
                )
                ax.annotate(
                    "",
                    (column + 0.3 * right, row + 0.3 * down),
                    start,
                    arrowprops=dict(arrowstyle="-|>", color=ink, shrinkA=0, shrinkB=0, linewidth=1.5),
                )
            if numbers is not None:
                ax.text(column, row + 0.42, f"{V[row, column]:.2f}", ha="center", va="center", fontsize="x-small", color=ink)
        ax.set(title=name if numbers is None else f"{name} and value", xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        ax.set_xticks(np.arange(columns + 1) - 0.5, [])
        ax.set_yticks(np.arange(rows + 1) - 0.5, [])
        ax.grid(color="0.6")
        ax.tick_params(length=0)
        ax.set_aspect("equal")
    figure.suptitle(title)
    return _png(figure)


def _patch(form: str, x: float, y: float, colour):
    from matplotlib.patches import Circle, Rectangle

    return Circle((x, y), 0.38, color=colour) if form == "circle" else Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, color=colour)


def _tables(world, tables: dict[int, np.ndarray], title: str) -> bytes:
    """Q-tables of a one-dimensional world, one below the other: a column is a cell, a row an action."""
    names, most = world.action_names, max(float(Q.max()) for Q in tables.values())
    figure, axes = _figure(1.1 * world.shape[1] + 1.5, 0.85 * len(tables) + 0.9, 1, len(tables))
    for ax, (episode, Q) in zip(np.ravel(axes), tables.items(), strict=True):
        image = ax.imshow(Q.T, cmap="YlGn", vmin=0, vmax=most, aspect="auto")
        for (s, a), q in np.ndenumerate(Q):
            if s not in world.terminals:
                ax.text(
                    s,
                    a,
                    f"{q:.2g}" if q else "0",
                    ha="center",
                    va="center",
                    fontsize="small",
                    color="white" if q > 0.6 * most else "black",
                )
        ax.set_yticks(range(len(names)), names, fontsize="small")
        ax.set_xticks([])
        ax.set_ylabel(f"episode\n{episode}", rotation=0, ha="right", va="center", fontsize="small")
    np.ravel(axes)[-1].set_xticks(
        range(len(Q)), [world._letter(s) if s in world.terminals else f"cell {s}" for s in range(len(Q))]
    )
    figure.colorbar(image, ax=axes, label="Q(s, a)")
    figure.suptitle(title)
    return _png(figure)


# ------------------------------------------------------------------------------------------------------ clips and windows


def encoder() -> str | None:
    """A program that writes .mp4 files: ffmpeg, or the one that the package imageio-ffmpeg brings; None if there is none."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return imageio_ffmpeg.get_ffmpeg_exe()


def clip(frames: list[tuple[np.ndarray, float]], fps: float, kind: str = ".gif") -> bytes:
    """A clip of (image, return so far) pairs, the return written into each image; `kind` is .gif or .mp4.

    GIF players do not show more than about 30 images a second, so that faster environments are shown at every second or third.
    """
    from PIL import Image, ImageDraw

    every = max(1, round(fps / 30))
    images = []
    for frame, total in [*frames[:-1:every], frames[-1]]:
        image = Image.fromarray(frame)
        image.thumbnail((480, 480))
        text = f"return {total:g}" if total == int(total) else f"return {total:.1f}"
        ImageDraw.Draw(image).text((6, 4), text, fill=(0, 0, 0), stroke_width=2, stroke_fill=(255, 255, 255))
        images.append(image)
    if kind == ".mp4":
        return _mp4([*images, *images[-1:] * round(fps / every)], fps / every)
    images = [image.quantize(64) for image in images]
    gif = io.BytesIO()
    pause = round(1000 * every / fps)
    last = [pause] * (len(images) - 1) + [1000]  # hold the end, so that it can be read before the clip starts again
    images[0].save(gif, format="GIF", save_all=True, append_images=images[1:], duration=last, loop=0)
    return gif.getvalue()


def _mp4(images: list, fps: float) -> bytes:
    width, height = (n - n % 2 for n in images[0].size)  # the usual format has even sizes only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps:g} -i -".split()
        command = [encoder(), "-loglevel", "error", *source, "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
        raw = b"".join(image.convert("RGB").crop((0, 0, width, height)).tobytes() for image in images)
        subprocess.run(command, input=raw, check=True)
        return path.read_bytes()


class Window:
    """A window for images, opened with the first of them. Closing it, or Escape, ends the watching and nothing else."""

    def __init__(self):
        self.closed, self._screen = False, None

    def show(self, image: np.ndarray | None, fps: float, title: str) -> bool:
        """Show an image, shape (height, width, 3), for 1/fps seconds; None leaves the last one. False once it was closed."""
        import pygame  # comes with gymnasium[classic-control]

        if self._screen is None and image is not None and not self.closed:
            pygame.display.init()
            self._screen = pygame.display.set_mode((image.shape[1], image.shape[0]))
            self._clock = pygame.time.Clock()
        if self._screen is None:
            return not self.closed
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                self.close()
                return False
        pygame.display.set_caption(title)
        if image is not None:
            self._screen.blit(pygame.surfarray.make_surface(image.swapaxes(0, 1)), (0, 0))
            pygame.display.flip()
            self._clock.tick(fps)
        return True

    def close(self) -> None:
        """Close it, if it is open."""
        if self._screen is not None:
            import pygame

            pygame.display.quit()
        self.closed, self._screen = True, None


def show_text(env: gym.Env, pause: float) -> None:
    """Print a text environment's present state (on a terminal: over the one before it), then wait `pause` seconds."""
    text = env.render().rstrip("\n")
    print(text, flush=True)
    if sys.stdout.isatty():
        time.sleep(pause)
        print(f"\x1b[{text.count(chr(10)) + 1}A\x1b[J", end="")


# ------------------------------------------------------------------------------------------------ many runs, from the disk


def saved_runs(folder: Path, window: int) -> list[tuple]:
    """The runs in a folder (its own returns.csv, or those of the folders in it) as (steps, running means of the returns)."""
    runs = []
    for path in sorted(p for pattern in ("returns.csv", "*/returns.csv") for p in folder.glob(pattern)):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        if rows:
            mean = running_mean([float(row["return"]) for row in rows], window)
            runs.append((np.array([int(row["step"]) for row in rows]), mean))
    return runs


def main(argv: Iterable[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m common.plotting", description="Draw saved runs: mean and band over seeds.")
    parser.add_argument("folders", nargs="+", type=Path, help="each with returns.csv, or with folders that have one (seeds)")
    parser.add_argument("-o", "--out", type=Path, default=Path("compare.png"), help="default: compare.png")
    args = parser.parse_args(argv)
    runs, environments, thresholds = {}, [], set()
    for folder in args.folders:
        settings = next((json.loads(p.read_text()) for p in sorted(folder.glob("**/run.json"))), {})
        env = settings.get("env", "")
        spec = gym.registry.get(env)
        threshold, window = (-200.0, 20) if env == "Pendulum-v1" else (spec.reward_threshold if spec else None, 100)
        pairs = saved_runs(folder, window)
        if not pairs:
            print(f"{folder}: no returns.csv there; give a folder like runs/dqn/CartPole-v1", file=sys.stderr)
            return 2
        environments.append(env)
        thresholds.add(threshold)
        label = settings.get("script", folder.name) if len(args.folders) > 1 else folder.name
        label = label if not any(key.startswith(f"{label} (") for key in runs) else str(folder)
        runs[f"{label} ({len(pairs)} seed{'s' * (len(pairs) > 1)})"] = pairs
    title = ", ".join(dict.fromkeys(filter(None, environments))) or "returns"
    threshold = thresholds.pop() if len(thresholds) == 1 else None
    try:
        args.out.write_bytes(compare(runs, title, threshold, f"mean of the last {window} returns"))
    except OSError as error:
        print(f"cannot write {args.out}: {error.strerror}; choose another file with -o", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
