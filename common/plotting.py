"""Pictures: learning curves and clips. Every function returns bytes, so that the caller decides where they go.

matplotlib and Pillow are imported inside the functions: a run that draws nothing does not wait for them.
"""

from __future__ import annotations

import io
import sys
import time

import gymnasium as gym
import numpy as np

CURVE, BAND, GOAL = "#0b5fa5", "#9dc3e6", "#c44e00"  # apart in hue and in lightness: also in grey, also for colour-blind eyes


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
