"""The table of rlhf.py in docs/results.md, from saved runs.

for s in 0 1 2 3 4 5 6 7 8 9; do OMP_NUM_THREADS=1 python rlhf.py --seed $s; done
python benchmark/rlhf_table.py runs/rlhf/seed*
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path

COLUMNS = (
    "seed",
    "ranked rightly",
    "win rate",
    "true reward (pi_SFT)",
    "beta 0: true reward, peak and end",
    "score, at the peak and at the end",
    "seconds",
)


def smooth(values: list[float]) -> list[float]:
    """Means of three iterations: one alone has a standard error of 0.2."""
    return [statistics.mean(values[max(i - 1, 0) : i + 2]) for i in range(len(values))]


def main(folders: list[str]) -> int:
    """Print the table and what it comes to. Returns the exit status."""
    print("|" + "|".join(f" {name} " for name in COLUMNS) + "|")
    print("|---" * len(COLUMNS) + "|")
    met, seconds = [], []
    for folder in map(Path, folders):
        run = json.loads((folder / "run.json").read_text())
        rows = list(csv.DictReader((folder / "returns.csv").open()))
        free = [row for row in rows if float(row["beta"]) == 0]
        true = smooth([float(row["true_reward"]) for row in free])
        score = smooth([float(row["score"]) for row in free])
        peak, m = true.index(max(true)), run["measured"]
        seconds.append(run["seconds"])
        met.append(
            (
                m["accuracy"] >= 0.8,
                m["win_rate"] >= 0.75,
                m["true_reward"] > m["sft_true_reward"],
                true[-1] < true[peak] - 0.5 and score[-1] > score[peak],
                true[-1] < m["sft_true_reward"],
            )
        )
        print(
            f"| {run['hyperparameters']['seed']} | {m['accuracy']:.3f} | {m['win_rate']:.3f} "
            f"| {m['true_reward']:.2f} ({m['sft_true_reward']:.2f}) "
            f"| {true[peak]:.2f}, {true[-1]:.2f} | {score[peak]:.2f}, {score[-1]:.2f} "
            f"| {run['seconds']:.0f} |"
        )
    names = (
        "at least 0.8 of fresh pairs ranked rightly",
        "win rate at least 0.75",
        "true reward above that of pi_SFT",
        "over-optimised without the penalty (0.5 below the peak, while the score has risen)",
        "even below pi_SFT",
    )
    print()
    for name, column in zip(names, zip(*met, strict=True), strict=True):
        print(f"- {name}: {sum(column)} of {len(column)}")
    print(f"- seconds of a run: median {statistics.median(seconds):.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
