"""One run of Stable-Baselines3 by its zoo, rl_zoo3, with the zoo's settings for the environment.

Where the zoo has none, it takes its defaults, without a word.

    python benchmark/peers.py sb3_ppo --env CartPole-v1 --seed 0 --out DIR

It saves the same returns.csv as the project's scripts, so that both are measured in the same way,
and the returns of 100 episodes of the greedy policy (returns.json).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from rl_zoo3 import ALGOS, train, utils
from stable_baselines3.common.evaluation import evaluate_policy

EPISODES = 100


def episodes(folder: Path) -> list[tuple]:
    """(step, seconds, return, length) of all episodes that the monitors of a run noted, in order.

    All n environments move at once: after k steps of each, n k steps have been made.
    """
    found, monitors = [], sorted(folder.glob("*.monitor.csv"))
    for monitor in monitors:
        with open(monitor, newline="") as file:
            next(file)  # a comment
            rows = list(csv.DictReader(file))
        steps = np.cumsum([int(row["l"]) for row in rows]) * len(monitors)
        found += [
            (int(step), float(row["t"]), float(row["r"]), int(row["l"]))
            for step, row in zip(steps, rows, strict=True)
        ]
    return sorted(found)


def greedy(algorithm: str, env_id: str, folder: Path, seed: int) -> tuple[int, list[float]]:
    """How many steps the saved policy was trained; the returns of EPISODES greedy episodes."""
    settings, stats = utils.get_saved_hyperparams(str(folder / env_id), test_mode=True)
    env = utils.create_test_env(
        env_id, stats_path=stats, seed=seed, should_render=False, hyperparams=settings
    )
    model = ALGOS[algorithm].load(folder / f"{env_id}.zip", device="cpu")
    returns, _ = evaluate_policy(model, env, EPISODES, return_episode_rewards=True)
    return model.num_timesteps, returns


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", choices=["sb3_a2c", "sb3_ddpg", "sb3_dqn", "sb3_ppo"])
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=-1, help="default: the zoo's")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    algorithm = args.algorithm.removeprefix("sb3_")
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--algo {algorithm} --env {args.env} --seed {args.seed} -n {args.steps} -f {folder}"
        )
        flags += " --device cpu --num-threads 1 --eval-freq -1 --verbose 0"
        saved = Path(folder, algorithm, f"{args.env}_1")
        with (
            mock.patch.object(sys, "argv", ["train.py", *flags.split()]),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            start = time.perf_counter()
            train.train()
            seconds = time.perf_counter() - start
            rows = episodes(saved)
            steps, returns = greedy(algorithm, args.env, saved, args.seed + 1_000_000)
    print(f"trained for {len(rows)} episodes, {steps} steps, {seconds:.1f} s")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "returns.json").write_text(json.dumps(returns))
    with open(args.out / "returns.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["episode", "step", "seconds", "return", "length"])
        writer.writerows((number, *row) for number, row in enumerate(rows, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
