"""Draw what a saved run has learned over two state variables: CartPole, Pendulum, MountainCar.

    python ddpg.py
    python -m tools.plane runs/ddpg/Pendulum-v1/seed0 pendulum.png

shows the value and the greedy action. Other environments fit if their state is two numbers.
"""

import importlib
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from common import envs, plotting, runs
from tools.slide import SCRIPTS


def plane(world) -> tuple:
    """What to draw over: two variables with their ranges, and (x, y) -> a state.

    Raises:
        BadInput: the environment has no two variables.
    """
    kind, space = type(world).__name__, world.observation_space
    if kind == "CartPoleEnv":  # the cart stands still in the middle
        variables = {"angle of the pole (degrees)": (-12, 12), "velocity (rad/s)": (-3, 3)}
        return variables, lambda x, y: [0, 0, np.radians(x), y]
    if kind == "PendulumEnv":
        variables = {"angle (degrees, 0: upright)": (-180, 180), "velocity (rad/s)": (-8, 8)}
        return variables, lambda x, y: [np.cos(np.radians(x)), np.sin(np.radians(x)), y]
    if space.shape == (2,):
        position, velocity = zip(space.low, space.high, strict=True)
        return dict(position=position, velocity=velocity), lambda x, y: [x, y]
    raise envs.BadInput(f"{envs.name_of(world)} has no two state variables to draw over")


def draw(run: runs.Run, out: Path, points: int = 45) -> int:
    """Draw value and greedy action of a saved run, `points` along each axis.

    Returns:
        The exit status.

    Raises:
        BadInput: as plane(), or the run cannot be loaded.
    """
    run.learned, door = run.load(), run.open()
    world, (variables, state) = door.unwrapped, plane(door.unwrapped)
    xlabel, ylabel = variables
    x, y = (np.linspace(*ends, points) for ends in variables.values())
    # The environment shows the state that it is given; its reward is the action.
    world.reset = lambda **_: (np.float32(world.state), {})
    world.step = lambda action: (np.float32(world.state), np.ravel(action)[0], False, False, {})

    def seen(i, j):
        world.state = state(i, j)
        return door.reset()[0]

    shown = {"greedy action": lambda state: door.step(run.greedy(state))[1]}
    if run.value:
        shown["value"] = lambda state: float(run.ask(run.value, state))
    fig, axes = plotting.figure(4.6 * len(shown), 4, len(shown))
    for ax, (title, ask) in zip(np.ravel(axes), shown.items(), strict=True):
        image = np.array([[ask(seen(i, j)) for i in x] for j in y])
        fig.colorbar(ax.pcolormesh(x, y, image, shading="nearest", cmap="cividis"), ax=ax)
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    fig.suptitle(run.title)
    runs.write(out.parent, {out.name: plotting.png(fig)})
    return 0


def main(argv: list[str]) -> int:
    """Draw the run in a folder. Returns the exit status.

    Args:
        argv: the folder, and the picture's name.

    Raises:
        BadInput: the folder holds no run, or one of rlhf.py, which has no environment.
    """
    try:
        folder, out = map(Path, argv)
        name = json.loads((folder / "run.json").read_text())["script"]
        script = importlib.import_module(
            SCRIPTS[SCRIPTS.index(name, 0, -1)]
        )  # but rlhf.py, the last
    except (OSError, ValueError, LookupError, TypeError):
        raise envs.BadInput("no run that fits: python -m tools.plane FOLDER FILE.png") from None
    with mock.patch.object(runs.Run, "go", lambda run: draw(run, out)):
        return script.main(["--load", str(folder)])


if __name__ == "__main__":
    sys.exit(runs.explained("plane", lambda: main(sys.argv[1:])))
