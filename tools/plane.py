"""Draw what a saved run has learned over two state variables: CartPole, Pendulum, MountainCar.

    python ddpg.py
    python -m tools.plane runs/ddpg/Pendulum-v1/seed0 docs/ddpg-Pendulum-v1.png

shows the value and the greedy action. Other environments fit if their state is two numbers.
"""

import importlib
import json
import sys
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np

from common import plotting, runs
from common.envs import BadInput
from tools.slide import SCRIPTS

ANGLE = "angle (degrees, 0: upright)"
# Class -> its two variables, their ranges, and (x, y) -> an observation.
PLANES = {
    "CartPoleEnv": (ANGLE, "velocity", (-12, 12), (-3, 3), lambda x, y: [0, 0, np.radians(x), y]),
    "PendulumEnv": (
        *(ANGLE, "velocity", (-180, 180), (-8, 8)),
        lambda x, y: [np.cos(np.radians(x)), np.sin(np.radians(x)), y],
    ),
}


def loaded(folder: Path) -> runs.Run:
    """A saved run, with what it has learned.

    Raises:
        BadInput: the folder holds no such run.
    """
    try:
        name = json.loads((folder / "run.json").read_text())["script"]
        script = importlib.import_module(name if name in SCRIPTS else "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder}: no run.json of a script of this project") from error
    # What is greedy, and its value, stand in the script's main().
    with mock.patch.object(runs, "main", lambda train, argv, **given: given):
        given = {"value": None, "table": False} | script.main([])
    run = runs.Run(name, script.train, ["--load", str(folder)], **given)
    run.learned = run.load()
    return run


def plane(run: runs.Run, points: int = 45) -> bytes:
    """Value and greedy action over two state variables, as PNG."""
    from matplotlib import colormaps

    env, layers = run.open(), []
    name, space = type(env.unwrapped).__name__, env.unwrapped.observation_space
    if name not in PLANES and space.shape != (2,):
        raise BadInput(f"{run.env_id} has no two state variables to draw over")
    ranges = np.array([space.low, space.high]).T if space.shape == (2,) else ()
    given = PLANES.get(name) or ("position", "velocity", *ranges, lambda x, y: [x, y])
    x_name, y_name, x_range, y_range, observation = given
    while isinstance(env, gym.Wrapper):
        layers, env = [env, *layers], env.env
    x, y = np.linspace(*x_range, points), np.linspace(*y_range, points)
    actions, values = [], []
    for state in (np.array(observation(i, j), np.float32) for j in y for i in x):
        for layer in layers:  # an observation is changed from the inside out, an action back
            if isinstance(layer, gym.ObservationWrapper):
                state = layer.observation(state)
        action = run.greedy(state)
        for layer in reversed(layers):
            action = layer.action(action) if isinstance(layer, gym.ActionWrapper) else action
        actions.append(np.ravel(action)[0])
        values += [float(run.ask(run.value, state))] if run.value else []
    n = getattr(env.action_space, "n", None)  # None: continuous actions
    style = dict(cmap=colormaps["cividis"].resampled(n), vmin=-0.5, vmax=n - 0.5) if n else {}
    panels = {"value": (values, {})} if values else {}
    panels["greedy action"] = actions, style
    fig, axes = plotting.figure(4.6 * len(panels), 4, len(panels))
    for ax, (title, (numbers, style)) in zip(np.ravel(axes), panels.items(), strict=True):
        numbers = np.reshape(numbers, (points, points))
        fig.colorbar(ax.pcolormesh(x, y, numbers, shading="nearest", **style), ax=ax)
        ax.set(title=title, xlabel=x_name, ylabel=y_name)
    fig.suptitle(run.title)
    return plotting.png(fig)


def draw(folder: Path, out: Path) -> int:
    """Draw the run in a folder. Returns the exit status."""
    runs.write(out.parent, {out.name: plane(loaded(folder))})
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python -m tools.plane FOLDER FILE.png")
    sys.exit(runs.explained("plane", lambda: draw(*map(Path, sys.argv[1:]))))
