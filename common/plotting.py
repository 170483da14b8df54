"""Pictures: learning curves and clips. Every function returns bytes, so that the caller decides where they go.

matplotlib and Pillow are imported inside the functions: a run that draws nothing does not wait for them.
"""

from __future__ import annotations

import io
import sys
import time
from itertools import cycle

import gymnasium as gym
import numpy as np

CURVE, BAND, GOAL = "#0b5fa5", "#9dc3e6", "#c44e00"  # apart in hue and in lightness: also in grey, also for colour-blind eyes
# For many lines: the palette of Okabe and Ito, made for colour-blind eyes; the line styles tell them apart in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), "-")


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
    from matplotlib.figure import Figure

    steps, returns = [row[1] for row in rows], [row[3] for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, returns, ".", color=BAND, markersize=3, label="one episode")
    axes.plot(steps, running_mean(returns, window), color=CURVE, linewidth=2, label=f"mean of the last {window}")
    if threshold is not None:
        axes.axhline(threshold, color=GOAL, linestyle="--", linewidth=1, label=f"solved: {threshold:g}")
    if solved is not None:
        axes.plot(solved[1], threshold, "*", color=GOAL, markersize=14, label=f"episode {solved[0]}, step {solved[1]}")
    axes.set(title=title, xlabel="environment steps", ylabel="return of the episode")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    # The upper axis counts episodes: a tick stands at the step with which that episode ended.
    places = np.unique(np.linspace(0, len(rows) - 1, 6).round().astype(int))
    top = axes.secondary_xaxis("top")
    top.set_xticks([steps[i] for i in places], [str(rows[i][0]) for i in places], fontsize="x-small")
    top.set_xlabel("episodes", fontsize="small")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def compare(runs: dict[str, list[tuple]], title: str, threshold: float | None, ylabel: str) -> bytes:
    """Many runs as PNG: for each label the mean over its runs, and a band of one standard deviation.

    A run that ended earlier, for instance because it was solved, stands in the mean with its last value.

    Args:
        runs: label -> runs, each a pair of arrays: environment steps (increasing), and the running mean of the returns there.
        title: of the picture.
        threshold: the mean return that counts as solved, or None.
        ylabel: what the values are.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    longest = max(steps[-1] for pairs in runs.values() for steps, _ in pairs)
    grid = np.linspace(0, longest, 400)
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
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def clip(frames: list[tuple[np.ndarray, float]], fps: float) -> bytes:
    """An animated GIF of (image, return so far) pairs, the return written into each image.

    GIF players do not show more than about 30 images a second, so that faster environments are shown at every second or third.
    """
    from PIL import Image, ImageDraw

    every = max(1, round(fps / 30))
    shown = [*frames[:-1:every], frames[-1]]
    images = []
    for frame, total in shown:
        image = Image.fromarray(frame)
        image.thumbnail((480, 480))
        ImageDraw.Draw(image).text(
            (6, 4),
            f"return {total:g}" if total == int(total) else f"return {total:.1f}",
            fill=(0, 0, 0),
            stroke_width=2,
            stroke_fill=(255, 255, 255),
        )
        images.append(image.quantize(64))
    gif = io.BytesIO()
    pause = round(1000 * every / fps)
    last = [pause] * (len(images) - 1) + [1000]  # hold the end, so that it can be read before the clip starts again
    images[0].save(gif, format="GIF", save_all=True, append_images=images[1:], duration=last, loop=0)
    return gif.getvalue()


def show_text(env: gym.Env, pause: float) -> None:
    """Print a text environment's present state (on a terminal: over the one before it), then wait `pause` seconds."""
    if env.render_mode != "ansi":
        return
    text = env.render().rstrip("\n")
    print(text, flush=True)
    if sys.stdout.isatty():
        time.sleep(pause)
        print(f"\x1b[{text.count(chr(10)) + 1}A\x1b[J", end="")
