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

import gymnasium as gym
import numpy as np

from common import envs, plotting, runs
from tools.slide import SCRIPTS

# Class -> the two variables, their ranges, and (x, y) -> an observation.
PLANES = {
    "CartPoleEnv": (
        ("angle of the pole (degrees)", "velocity (rad/s)"),
        ((-12, 12), (-3, 3)),
        lambda x, y: [0, 0, np.radians(x), y],  # the cart stands still in the middle
    ),
    "PendulumEnv": (
        ("angle (degrees, 0: upright)", "velocity (rad/s)"),
        ((-180, 180), (-8, 8)),
        lambda x, y: [np.cos(np.radians(x)), np.sin(np.radians(x)), y],
    ),
}


class Stub(gym.Env):
    """Has the spaces of an environment, shows the `state` that it is given, keeps the `action`."""

    def __init__(self, env: gym.Env):
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, **_):
        return np.float32(self.state), {}

    def step(self, action):
        self.action = np.ravel(action)[0]
        return np.float32(self.state), 0.0, False, False, {}


def plane(folder: Path, points: int = 45) -> bytes:
    """Value and greedy action of a saved run over two state variables, as PNG.

    Raises:
        BadInput: the folder holds no run, or its environment has no two variables.
    """
    try:
        name = json.loads((folder / "run.json").read_text())["script"]
        script = importlib.import_module(SCRIPTS[SCRIPTS.index(name)])  # and nothing else
    except (OSError, ValueError, LookupError, TypeError):
        raise envs.BadInput(f"{folder}: no run.json of a script of this project") from None
    with mock.patch.object(runs, "main", lambda train, argv, **given: given):
        given = {"value": None, "table": False} | script.main([])  # what is greedy, its value
    run = runs.Run(name, script.train, ["--load", str(folder)], **given)
    run.learned, env = run.load(), run.open().unwrapped
    labels, ranges, state = PLANES.get(type(env).__name__, (("position", "velocity"), None, None))
    if state is None:
        if env.observation_space.shape != (2,):
            raise envs.BadInput(f"{run.env_id} has no two state variables to draw over")
        ranges = np.transpose([env.observation_space.low, env.observation_space.high])
        state = lambda x, y: [x, y]
    x, y = (np.linspace(*ends, points) for ends in ranges)
    stub, found = Stub(env), {"greedy action": [], "value": []}
    door = envs.prepared(stub)
    for stub.state in [state(i, j) for j in y for i in x]:
        seen, _ = door.reset()
        door.step(run.greedy(seen))
        found["greedy action"].append(stub.action)
        found["value"] += [float(run.ask(run.value, seen))] if run.value else []
    shown = {title: numbers for title, numbers in found.items() if numbers}
    fig, axes = plotting.figure(4.6 * len(shown), 4, len(shown))
    for ax, (title, numbers) in zip(np.ravel(axes), shown.items(), strict=True):
        image = np.reshape(numbers, (points, points))
        fig.colorbar(ax.pcolormesh(x, y, image, shading="nearest", cmap="cividis"), ax=ax)
        ax.set(title=title, xlabel=labels[0], ylabel=labels[1])
    fig.suptitle(run.title)
    return plotting.png(fig)


def main(argv: list[str] | None = None) -> int:
    """The command line: a run's folder, and the picture's name. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def go() -> int:
        if len(argv) != 2:
            raise envs.BadInput("give a run's folder and a file: python -m tools.plane FOLDER PNG")
        runs.write(Path(argv[1]).parent, {Path(argv[1]).name: plane(Path(argv[0]))})
        return 0

    return runs.explained("tools/plane", go)


if __name__ == "__main__":
    sys.exit(main())
