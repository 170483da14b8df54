"""Draw what a saved run has learned over two state variables: CartPole, Pendulum, MountainCar.

    python ddpg.py
    python docs/plane.py runs/ddpg/Pendulum-v1/seed0 docs/ddpg-Pendulum-v1.png

shows the value and the greedy action. Other environments fit if their state is two numbers.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for common and the scripts

from common import envs, plotting, runs
from common.envs import BadInput

Look = Callable[[object], tuple]  # observation -> (greedy action, value or None)


def plane_of(env: gym.Env) -> tuple | None:
    """Two state variables to draw over; None if the environment has no two.

    Returns:
        Their names, their ranges, and a function (x, y) -> observation.
    """
    name, space = type(env.unwrapped).__name__, env.unwrapped.observation_space
    if name == "CartPoleEnv":  # the pole falls at 12 degrees; the cart stands still in the middle
        names, ranges = ("angle of the pole (degrees)", "velocity (rad/s)"), ((-12, 12), (-3, 3))
        return names, ranges, lambda x, y: [0, 0, np.radians(x), y]
    if name == "PendulumEnv":
        names, ranges = ("angle (degrees, 0: upright)", "velocity (rad/s)"), ((-180, 180), (-8, 8))
        return names, ranges, lambda x, y: [np.cos(np.radians(x)), np.sin(np.radians(x)), y]
    if isinstance(space, gym.spaces.Box) and space.shape == (2,) and space.is_bounded():
        names = ("position", "velocity") if "MountainCar" in name else ("number 1", "number 2")
        return names, zip(space.low, space.high, strict=True), lambda x, y: [x, y]
    return None


def plane(env: gym.Env, look: Look, points: int = 45):
    """Value and greedy action over two state variables."""
    from matplotlib import colormaps

    (x_name, y_name), (x_range, y_range), observation = plane_of(env)
    x, y = np.linspace(*x_range, points), np.linspace(*y_range, points)
    looked = [look(np.array(observation(i, j), np.float32)) for j in y for i in x]
    actions, values = zip(*looked, strict=True)
    n = getattr(env.unwrapped.action_space, "n", None)  # None: continuous actions
    colours = dict(cmap=colormaps["cividis"].resampled(n), vmin=-0.5, vmax=n - 0.5) if n else {}
    panels = {} if values[0] is None else {"value": (values, {})}
    panels["greedy action"] = [np.ravel(a)[0] for a in actions], colours
    fig, axes = plotting.figure(4.6 * len(panels), 4, len(panels))
    for ax, (name, (numbers, colours)) in zip(np.ravel(axes), panels.items(), strict=True):
        numbers = np.reshape(numbers, (points, points))
        bar = fig.colorbar(ax.pcolormesh(x, y, numbers, shading="nearest", **colours), ax=ax)
        ax.set(title=name, xlabel=x_name, ylabel=y_name)
    if n:  # CartPole and MountainCar order their actions like this
        names = {2: ["left", "right"], 3: ["left", "none", "right"]}.get(n, range(n))
        bar.set_ticks(range(n), labels=names)
    return fig


def look_of(greedy: runs.Greedy) -> Look:
    """What is greedy in a prepared environment, for observations of the unwrapped one."""
    layers, env = [], greedy.env
    while isinstance(env, gym.Wrapper):
        layers.append(env)
        env = env.env

    def look(observation) -> tuple:
        # The wrappers change an observation from the inside out, an action from the outside in.
        for layer in reversed(layers):
            if isinstance(layer, gym.ObservationWrapper):
                observation = layer.observation(observation)
        action, value = greedy.look(observation)
        for layer in layers:
            if isinstance(layer, gym.ActionWrapper):
                action = layer.action(action)
        return action, value

    return look


def loaded(folder: Path) -> tuple[runs.Run, runs.Greedy]:
    """A saved run and its greedy policy.

    Raises:
        BadInput: the folder holds no such run.
    """
    try:
        name = json.loads((folder / "run.json").read_text())["script"]
        if name not in sum(envs.TAKERS.values(), ()):  # no other module is imported
            raise KeyError(name)
        script = importlib.import_module(name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BadInput(f"{folder}: no run.json of a script of this project") from error
    # What is greedy, and its value, stand in the script's main().
    with mock.patch.object(runs, "main", lambda train, argv, **given: given):
        given = {"several": False, "value": None} | script.main([])
    argv = ["--load", str(folder)]
    run = runs.Run(script.__name__, script.train, argv, given["env"], given["several"])
    learned = runs.load(folder, run.untrained)
    return run, runs.Greedy(run.prepare(run.open()), learned, given["act"], given["value"])


def draw(folder: Path, out: Path) -> int:
    """Draw the run in a folder. Returns the exit status."""
    run, greedy = loaded(folder)
    if plane_of(greedy.env) is None:
        raise BadInput(f"{run.flags.env} has no two state variables to draw over")
    fig = plane(greedy.env, look_of(greedy))
    fig.suptitle(run.title)
    runs.write(out.parent, {out.name: plotting.png(fig)})
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line: a run's folder, and the picture's name. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 2:
        print("python docs/plane.py FOLDER FILE.png", file=sys.stderr)
        return 2
    return runs.explained("plane", lambda: draw(*map(Path, argv)))


if __name__ == "__main__":
    sys.exit(main())
