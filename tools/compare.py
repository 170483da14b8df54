"""Compare saved runs in one picture, one colour a folder.

    python -m tools.compare runs/dqn/CartPole-v1 runs/ppo/CartPole-v1 compare.png

A folder holds a returns.csv, or folders with one, as a script's `--out` writes them. The line is
the mean of the last 20 returns, over all runs of the folder; the band goes from the least to the
most. A run that ended earlier keeps its last value.
"""

import contextlib
import sys
from pathlib import Path

import numpy as np

from common import envs, plotting, runs


def draw(folders: list[Path], out: Path) -> int:
    """Draw the runs in these folders. Returns the exit status.

    Raises:
        BadInput: a folder holds no run.
    """
    fig, axes = plotting.figure()
    axes.set_prop_cycle(color=plotting.COLOURS)
    for folder in folders:
        found = []
        for path in [*folder.glob("returns.csv"), *folder.glob("*/returns.csv")]:
            with contextlib.suppress(ValueError):  # no episode has ended, or it is something else
                _, steps, _, returns, _ = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2).T
                # a3c's steps are only nearly sorted
                found.append((np.maximum.accumulate(steps), plotting.running_mean(returns, 20)))
        if not found:
            raise envs.BadInput(f"{folder}: no episodes in a returns.csv; try runs/dqn/CartPole-v1")
        x = np.linspace(max(s[0] for s, _ in found), max(s[-1] for s, _ in found), 400)
        values = np.array([mean[np.searchsorted(steps, x, "right") - 1] for steps, mean in found])
        (line,) = axes.plot(x, values.mean(0), linewidth=2, label=f"{folder} ({len(found)})")
        axes.fill_between(x, values.min(0), values.max(0), color=line.get_color(), alpha=0.2)
    labels = dict(xlabel="environment steps", ylabel="mean of the last 20 returns")
    runs.write(out.parent, {out.name: plotting.finished(fig, axes, **labels)})
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("python -m tools.compare FOLDER ... FILE.png")
    *folders, out = map(Path, sys.argv[1:])
    sys.exit(runs.explained("compare", lambda: draw(folders, out)))
