"""Pictures: learning curves, what was learned, clips.

The functions return bytes, so the caller decides where they go. They import matplotlib, Pillow and
imageio themselves: a run that draws nothing does not wait for them.
"""

import io

import numpy as np

from common import envs

# These differ in hue and in lightness, for grey prints and colour-blind eyes.
CURVE, BAND, GOAL = "#0b5fa5", "#9dc3e6", "#c44e00"
SHAPES = {"square": "■", "circle": "●"}
ARROWS, ALL = {(0, 1): "→", (0, -1): "←", (-1, 0): "↑", (1, 0): "↓"}, "↑\n←  →\n↓"
# Environment -> two variables of its state, their ranges, and the state of two such values.
PLANES = {
    "CartPole": ("radians", "rad/s", (-0.21, 0.21, -3, 3), lambda x, y: [0, 0, x, y]),
    "Pendulum": ("radians", "rad/s", (-3.14, 3.14, -8, 8), lambda x, y: [np.cos(x), np.sin(x), y]),
    "MountainCar": ("position", "velocity", (-1.2, 0.6, -0.07, 0.07), lambda x, y: [x, y]),
}
# For many lines: the palette of Okabe and Ito.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def figure(width: float = 7, height: float = 4, columns: int = 1):
    """A figure and its axes, without pyplot and its global state."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(1, columns)


def png(fig) -> bytes:
    """A figure as PNG."""
    fig.savefig(content := io.BytesIO(), format="png", dpi=120)
    return content.getvalue()


def finished(fig, axes, threshold: float | None = None, **labels) -> bytes:
    """A figure of curves as PNG, with the threshold (if there is one) and its labels."""
    if threshold is not None:
        axes.axhline(threshold, color=GOAL, ls="--", lw=1, label=f"solved: {threshold:g}")
    axes.set(**labels)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    return png(fig)


# --------------------------------------------------------------------------------- learning curves


def running_mean(returns: list[float], window: int) -> np.ndarray:
    """Mean of the last `window` returns (fewer at the start) at each episode; shape (episodes,)."""
    ends = range(1, len(returns) + 1)
    return np.array([np.mean(returns[max(0, end - window) : end]) for end in ends])


def learning_curve(progress, title: str, greedy: list[float], window: int = 10) -> bytes:
    """A learning curve as PNG: each episode faint, the running mean strong, the threshold a line.

    Args:
        progress: the training's runs.Progress; a star marks where it was solved.
        title: script, environment, seed.
        greedy: the greedy policy's returns after training; a diamond marks their mean.
        window: over how many episodes the running mean goes.
    """
    _, steps, _, returns, _ = np.array(progress.rows).T
    mean, last, solved = running_mean(returns, window), np.mean(greedy), progress.solved
    fig, axes = figure()
    axes.plot(steps, returns, ".", color=BAND, ms=3, label="one episode")
    axes.plot(steps, mean, color=CURVE, lw=2, label=f"mean of the last {window}")
    axes.plot(steps[-1], last, "D", color=COLOURS[2], label=f"greedy policy: {last:.5g}")
    if solved:
        label = f"solved by the mean of {progress.window}"
        axes.plot(solved[1], progress.goal, "*", color=GOAL, ms=14, label=label)
    labels = dict(title=title, xlabel="environment steps", ylabel="return of the episode")
    return finished(fig, axes, progress.goal, **labels)


# ------------------------------------------------------------------------------ what was learned


def plane_of(env) -> tuple | None:
    """The environment's entry in PLANES."""
    return PLANES.get(envs.name_of(env).partition("-")[0].removesuffix("Continuous"))


def plane(env, look, title: str, points: int = 45) -> bytes:
    """Draw what was learned over two variables, as PNG: the greedy action, and the value.

    Actions are those of the script: numbers from 0 on, or from -1 to 1.

    Args:
        env: one of PLANES, as envs.make opens it.
        look, title: as picture().
        points: along each axis.
    """
    xlabel, ylabel, ends, state = plane_of(env)

    def seen(x: float, y: float) -> tuple:
        env.unwrapped.reset = lambda **_: (np.float32(state(x, y)), {})
        action, value = look(env.reset()[0])  # what the wrappers make of it
        return np.ravel(action)[0], value

    columns, rows = np.linspace(*ends[:2], points), np.linspace(*ends[2:], points)
    images = np.array([[seen(x, y) for x in columns] for y in rows], float)  # no value: NaN
    names = ("greedy action", "value")[: 2 if np.isfinite(images).all() else 1]
    fig, axes = figure(4.6 * len(names), 4, len(names))
    for ax, name, image in zip(np.ravel(axes), names, np.moveaxis(images, 2, 0), strict=False):
        colours = ax.imshow(image, "cividis", aspect="auto", origin="lower", extent=ends)
        fig.colorbar(colours, ax=ax)
        ax.set(title=name, xlabel=xlabel, ylabel=ylabel)
    fig.suptitle(title)
    return png(fig)


def picture(env, look, title: str) -> bytes:
    """Draw what was learned in a grid world, as PNG: the value of each cell, the greedy arrows.

    GridWorld: beside the random policy's, as on the lecture's slide.

    Args:
        env: a FiniteMDP as envs.make opens it.
        look: state -> (the greedy action, its value; None if no value was learned).
        title: script, environment, seed.
    """
    world = env.unwrapped
    rows, columns = world.shape
    names = ["random policy"] * isinstance(world, envs.GridWorld) + ["greedy policy"]
    fig, axes = figure(max(4.5, columns + 1) * len(names), rows + 1.2, len(names))
    fig.suptitle(title)
    for ax, name in zip(np.ravel(axes), names, strict=True):
        V = np.full(world.shape, np.nan)
        for s in world.P:
            text, style = ALL, dict(size="large")
            if s in world.terminals:
                shape, colour = world.look(s)
                text, style = SHAPES[shape], dict(size=40, color=np.array(colour) / 255)
            elif name == "greedy policy":
                action, value = look(env.reset(options={"start": s})[0])
                text = ARROWS[world.moves[action]]
                if value is not None:
                    V[divmod(s, columns)], text = value, f"{text}\n{value:.2f}"
            ax.text(s % columns, s // columns, text, ha="center", va="center", **style)
        ax.imshow(V, cmap="YlGn", alpha=0.6)  # pale enough for black arrows and numbers
        ax.set(title=name, xticks=np.arange(columns + 1) - 0.5, yticks=np.arange(rows + 1) - 0.5)
        ax.tick_params(length=0, labelbottom=False, labelleft=False)
        ax.grid(color="0.6")
    return png(fig)


# ------------------------------------------------------------------------------------------ clips


def frame(image: np.ndarray, total: float) -> np.ndarray:
    """An image for clip(), 160 to 480 pixels wide or high, with the return so far.

    Args:
        image: what env.render() gives, shape (height, width, 3), uint8 or (MinAtar) from 0 to 1.
        total: the return so far.
    """
    from PIL import Image, ImageDraw

    image = image if image.dtype == np.uint8 else np.uint8(255 * image)
    n = max(1, 160 // max(image.shape[:2]))
    small = Image.fromarray(image.repeat(n, 0).repeat(n, 1))
    small.thumbnail((480, 480))
    style = dict(fill="black", stroke_width=2, stroke_fill="white")
    ImageDraw.Draw(small).text((6, 4), f"return {total:.5g}", **style)
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
    gif = dict(plugin="pillow", duration=1000 / fps, loop=0, bits=6)
    mp4 = dict(plugin="FFMPEG", fps=fps, macro_block_size=2)
    return iio.imwrite("<bytes>", frames, extension=kind, **{".gif": gif, ".mp4": mp4}[kind])
