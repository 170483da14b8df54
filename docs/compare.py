"""Compare saved runs in one picture, one colour a folder.

    python docs/compare.py runs/dqn/CartPole-v1 runs/ppo/CartPole-v1 -o compare.png

A folder holds a returns.csv, or folders with one, as a script's `--out` writes them. The line is
the interquartile mean over the seeds, the band its 95 % bootstrap interval: what Agarwal et al.
(Deep Reinforcement Learning at the Edge of the Statistical Precipice, 2021) recommend for few runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path

import numpy as np
import scipy.stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for common

from common import envs, plotting


def saved_runs(folder: Path, window: int) -> list[tuple]:
    """The runs in a folder (its own returns.csv, or those of the folders in it).

    Each is a pair of arrays: environment steps, and the running mean of the returns there.
    """
    runs = []
    for path in sorted([*folder.glob("returns.csv"), *folder.glob("*/returns.csv")]):
        rows = np.array([line.split(",") for line in path.read_text().splitlines()[1:]], float)
        if len(rows):  # a3c's steps are only nearly sorted
            runs.append(
                (np.maximum.accumulate(rows[:, 1]), plotting.running_mean(rows[:, 3], window))
            )
    return runs


def middle(values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over runs without the lowest and the highest quarter, and its 95 % interval.

    The interval says where the mean might lie with other seeds. Of one run it has no width.
    """
    mean = functools.partial(scipy.stats.trim_mean, proportiontocut=0.25)
    centre = mean(values, axis=0)
    if len(values) == 1:
        return centre, centre, centre
    settings = dict(axis=0, method="percentile", n_resamples=2_000, rng=0)
    interval = scipy.stats.bootstrap((values,), mean, **settings).confidence_interval
    return centre, *interval


def draw(runs: dict[str, list[tuple]], title: str, threshold, ylabel: str) -> bytes:
    """Many runs as PNG: for each label the interquartile mean over its runs, and its interval.

    A run that ended earlier, for instance because it was solved, keeps its last value.

    Args:
        runs: label -> runs, each a pair of arrays: environment steps (increasing), and the running
            mean of the returns there.
        title: of the picture.
        threshold: the mean return that counts as solved, or None.
        ylabel: what the values are.
    """
    fig, axes = plotting.figure()
    axes.set_prop_cycle(color=plotting.COLOURS)
    grid = np.linspace(0, max(steps[-1] for pairs in runs.values() for steps, _ in pairs), 400)
    for label, pairs in runs.items():
        start, end = max(steps[0] for steps, _ in pairs), max(steps[-1] for steps, _ in pairs)
        x = grid[(grid >= start) & (grid <= end)]  # from where every run has a return
        # At each x the last value that a run had by then.
        values = [mean[np.searchsorted(steps, x, side="right") - 1] for steps, mean in pairs]
        centre, low, high = middle(values)
        (line,) = axes.plot(x, centre, linewidth=2, label=label)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
    labels = dict(title=title, xlabel="environment steps", ylabel=ylabel)
    return plotting.finished(fig, axes, threshold, **labels)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare saved runs.")
    parser.add_argument("folders", nargs="+", type=Path, help="with returns.csv, or such folders")
    parser.add_argument("-o", "--out", type=Path, default=Path("compare.png"), help="compare.png")
    given, runs, goals = parser.parse_args(argv), {}, {}
    for folder in given.folders:
        settings = next((json.loads(p.read_text()) for p in sorted(folder.glob("**/run.json"))), {})
        env = settings.get("env", "returns")
        goals[env], window = envs.solved_at(env)
        pairs = saved_runs(folder, window)
        if not pairs:
            parser.error(f"{folder}: no returns.csv there; try runs/dqn/CartPole-v1")
        runs[f"{folder} ({len(pairs)} seed{'s' * (len(pairs) > 1)})"] = pairs
    goal = goals[env] if len(set(goals.values())) == 1 else None
    image = draw(runs, ", ".join(goals), goal, f"mean of the last {window} returns")
    try:
        given.out.write_bytes(image)
    except OSError as error:
        parser.error(f"cannot write {given.out}: {error.strerror}; choose another -o")
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
