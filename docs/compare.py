"""Compare saved runs in one picture: mean and band over seeds, one colour a folder.

    python docs/compare.py runs/dqn/CartPole-v1 runs/ppo/CartPole-v1 -o compare.png

A folder holds a returns.csv, or folders with one, as a script's `--out` writes them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

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
    image = plotting.compare(runs, ", ".join(goals), goal, f"mean of the last {window} returns")
    try:
        given.out.write_bytes(image)
    except OSError as error:
        parser.error(f"cannot write {given.out}: {error.strerror}; choose another -o")
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
