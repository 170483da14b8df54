"""Our scripts, each with one set of defaults, beside Stable-Baselines3 tuned to each environment.

    python benchmark/zoo.py                               all rows; it takes many hours
    python benchmark/zoo.py --scripts ppo --env Acrobot-v1 --seeds 0 1 2
    python benchmark/zoo.py --dry-run                     no runs: what there is to do, the table
    python benchmark/zoo.py --csv docs/results/zoo.csv    only the runs that are not in this file

A run has the steps that rl-baselines3-zoo gives Stable-Baselines3, and does not stop when it is
solved. Then the greedy policy plays 100 episodes: these returns are in the run's benchmark.json,
which is otherwise as sweep.py writes it. Where a run of Stable-Baselines3 takes less than 10
minutes, it is made as well, by the zoo's own program and with its settings (peers.py), and where
one or two flags do better, our script with them, too (TRY). Runs go on where they were stopped.
At the end the table of all runs that are there is printed; --table FILE writes it, too. --csv FILE
keeps one line a run: what is in it counts as done.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import importlib
import io
import json
import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from sweep import REPOSITORY, Run, add_flags, carry_out_all

sys.path.insert(0, str(REPOSITORY))  # for `common`
sys.path.insert(0, str(REPOSITORY / "docs"))  # for compare.py
import compare

EPISODES, STEPS = 100, 100_000  # of the greedy policy; the longest time limit is 1,000 steps
A2C = {
    "CartPole-v1": (500, 500_000),
    "Acrobot-v1": (-83.4, 500_000),
    "MountainCar-v0": (-111, 1_000_000),
    "LunarLander-v3": (156, 200_000),
}
# Script -> environment -> the zoo's mean return (None: there is none), and its steps (None: the
# script's budget). From benchmark.md in https://github.com/DLR-RM/rl-baselines3-zoo.
ZOO = {
    "qlearning_table": dict.fromkeys(
        ("Taxi-v3", "CliffWalking-v1", "FrozenLake-v1", "FrozenLake8x8-v1", "Blackjack-v1"),
        (None, None),
    ),
    "dqn": {
        "CartPole-v1": (500, 50_000),
        "Acrobot-v1": (-76.6, 100_000),
        "MountainCar-v0": (-100.8, 120_000),
        "LunarLander-v3": (154, 100_000),
    },
    "reinforce": dict.fromkeys(
        ("CartPole-v1", "Acrobot-v1", "LunarLander-v3", "MountainCarContinuous-v0"),
        (None, 300_000),
    ),
    "actor_critic": A2C,
    "ddpg": {
        "Pendulum-v1": (-152, 20_000),
        "LunarLanderContinuous-v3": (230, 300_000),
        "MountainCarContinuous-v0": (93.5, 300_000),
    },
    "a3c": A2C | {"Pendulum-v1": (-163, 1_000_000), "MountainCarContinuous-v0": (91, 100_000)},
    "ppo": {
        "CartPole-v1": (500, 100_000),
        "Acrobot-v1": (-73.5, 1_000_000),
        "MountainCar-v0": (-110, 1_000_000),
        "LunarLander-v3": (242, 1_000_000),
        "Pendulum-v1": (-172, 100_000),
        "MountainCarContinuous-v0": (88, 20_000),
        "HalfCheetah-v5": (5819, 1_000_000),
    },
}
# A run takes more than 10 minutes: three seeds, and no run of Stable-Baselines3.
LONG = {("ddpg", "LunarLanderContinuous-v3"), ("ddpg", "MountainCarContinuous-v0")}
PEERS = dict(dqn="sb3_dqn", actor_critic="sb3_a2c", ddpg="sb3_ddpg", a3c="sb3_a2c", ppo="sb3_ppo")
NO_PEER = LONG | {("ppo", "HalfCheetah-v5")}
# Where one set of defaults does not do it: the one or two flags that do better.
TRY = {
    ("qlearning_table", "FrozenLake8x8-v1"): "--episodes 20000",
    ("dqn", "LunarLander-v3"): "--train-every 1",
    ("a3c", "MountainCar-v0"): "--t-max 200",
    ("a3c", "MountainCarContinuous-v0"): "--t-max 200",
    ("ppo", "Pendulum-v1"): "--gae-lambda 0.9",
    ("ppo", "HalfCheetah-v5"): "--gae-lambda 0.9 --std 0.4",
}
# Of --csv. Another processor rounds differently, so that a seed may end elsewhere there.
COLUMNS = "script", "env", "flags", "seed", "return", "seconds", "commit", "processor"
NOTE = """\
Mean return of 100 episodes of the greedy policy after so many steps: over the seeds the median, the
interquartile mean with its 95 % bootstrap interval, the least and the most. *Reference* is what
rl-baselines3-zoo reports for Stable-Baselines3 with settings tuned to the environment, of one run
each (A2C beside actor_critic.py and a3c.py; LunarLander-v2 and HalfCheetah-v3, older versions); for
qlearning_table.py it is the exact optimum within the time limit. *SB3 here*: the zoo's own program,
run beside ours: median, range and seeds; *time*: median seconds of training, and how many times
ours those are. *Try*: ours with these flags. \\*: a run takes more than 10 minutes, so that there
are three seeds only. A run that diverged counts as -inf.

| command | reference | median | interquartile mean | range | seeds | time | SB3 here | time | try |
|---|---|---|---|---|---|---|---|---|---|
"""


def plan(scripts: list[str], envs: list[str] | None, seeds: list[int]) -> list[list[Run]]:
    """The runs of each row of the table; `envs` None: on all environments."""
    rows = []
    for script in scripts:
        for env, (_, steps) in ZOO[script].items():
            flags = f"--steps {steps} " if steps else ""
            flags += "--no-stop-when-solved" + (" --workers 1" if script == "a3c" else "")
            some = seeds[:3] if (script, env) in LONG else seeds
            if not envs or env in envs:
                rows.append([Run("zoo", script, env, tuple(flags.split()), seed) for seed in some])
    return rows


def peers(runs: list[Run]) -> list[Run]:
    """The runs of Stable-Baselines3 beside those of one row."""
    script, env = runs[0].script, runs[0].env
    if script not in PEERS or (script, env) in NO_PEER:
        return []
    flags = "--steps", str(ZOO[script][env][1])
    return [Run("zoo", PEERS[script], env, flags, run.seed) for run in runs]


def tries(runs: list[Run]) -> list[Run]:
    """The runs of one row once more, with the flags of TRY."""
    flags = TRY.get((runs[0].script, runs[0].env), "").split()
    return [dataclasses.replace(run, flags=(*run.flags, *flags)) for run in runs if flags]


def evaluate(record: dict, folder: Path) -> dict:
    """Let the policy that was saved in `folder` play; of a run that diverged, nothing.

    Returns:
        "returns", one for each episode, and "steps" and "seconds", those of the training.
    """
    if record["status"]:
        return {"returns": []}
    found = re.search(r"^trained for .*, (\d+) steps, ([\d.]+) s", record["output"], re.M)
    training = dict(steps=int(found[1]), seconds=float(found[2]))
    if record["script"] in PEERS.values():
        return training | {"returns": json.loads((folder / "returns.json").read_text())}
    sys.path.insert(0, str(REPOSITORY))  # of a worker, which may be on another machine
    import torch

    from common import runs

    torch.set_num_threads(1)
    played, play = [], runs.play
    keep = lambda *args, **kwargs: played.extend(play(*args, **kwargs)) or played
    load = ["--load", str(folder), "--seed", str(record["seed"])]
    with (
        mock.patch.multiple(runs, EPISODES=EPISODES, STEPS=STEPS, play=keep),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        status = importlib.import_module(record["script"]).main(load)
    if status:
        raise RuntimeError(f"{record['script']}.py --load {folder} ended with status {status}")
    return training | {"returns": [total for total, *_ in played]}


def optimum(env_id: str) -> float | None:
    """The best mean return within the time limit, from an environment's transition table P.

    Value iteration without a discount: after k rounds V[s] is the best mean return of k steps
    from s. Without a time limit it is 1,000 of them. None: there is no table.
    """
    from common import envs

    env = envs.make(env_id)
    table = getattr(env.unwrapped, "P", None)
    if not table:
        return None
    V = [0.0] * len(table)
    for _ in range(env.spec.max_episode_steps or 1_000):
        V = [
            max(
                sum(p * (reward + V[s] * (not end)) for p, s, reward, end in outcomes)
                for outcomes in table[state].values()
            )
            for state in range(len(table))
        ]
    return float(np.dot(env.unwrapped.initial_state_distrib, V))


def number(x: float | None) -> str:
    """1,234 or 12.34; nothing where there is no number."""
    return "" if x is None or np.isnan(x) else f"{x:,.{0 if abs(x) >= 100 else 2}f}"


def key(run: Run) -> tuple[str, ...]:
    """What identifies a run in --csv: its first four columns."""
    return run.script, run.env, " ".join(run.flags), str(run.seed)


def load(path: Path | None) -> dict[tuple[str, ...], dict[str, str]]:
    """The lines of a --csv file, by key()."""
    if not path or not path.exists():
        return {}
    with open(path, newline="") as file:
        return {tuple(line[c] for c in COLUMNS[:4]): line for line in csv.DictReader(file)}


def collect(runs: list[Run], root: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """The same of the runs that are below `root`."""
    lines = {}
    for run in runs:
        path = root / run.folder / "benchmark.json"
        if path.exists():
            record = json.loads(path.read_text())
            mean = f"{np.mean(record['returns'] or -np.inf):.2f}"
            seconds, where = str(record.get("seconds", "")), record["machine"]["processor"]
            values = *key(run), mean, seconds, record["commit"], where
            lines[key(run)] = dict(zip(COLUMNS, values, strict=True))
    return lines


def read(runs: list[Run], lines: dict) -> tuple[list[float], float]:
    """Of the runs that are there: the mean return of each, and the median seconds of training."""
    found = [lines[key(run)] for run in runs if key(run) in lines]
    seconds = [float(line["seconds"]) for line in found if line["seconds"]]
    return [float(line["return"]) for line in found], float(np.median(seconds or np.nan))


def row(runs: list[Run], lines: dict) -> str:
    """One line of the table, of the runs that are there; none: ""."""
    means, seconds = read(runs, lines)
    if not means:
        return ""
    script, env = runs[0].script, runs[0].env
    reference = optimum(env) if script == "qlearning_table" else ZOO[script][env][0]
    mean, low, high = map(number, compare.middle(means))
    span = lambda means: f"{number(min(means))} to {number(max(means))}"
    short = lambda means: f"{number(np.median(means))}, {span(means)} ({len(means)})"
    others, other_seconds = read(peers(runs), lines)
    better, _ = read(tries(runs), lines)
    cells = [
        f"`python {script}.py --env {env} {' '.join(runs[0].flags)}`",
        number(reference),
        number(np.median(means)),
        mean + f" [{low} to {high}]" * (len(means) > 1),
        span(means),
        f"{len(means)}" + r" \*" * ((script, env) in LONG),
        number(seconds),
        short(others) if others else "",
        f"{number(other_seconds)}, {other_seconds / seconds:.1f} times" if others else "",
        f"`{TRY[script, env]}`: {short(better)}" if better else "",
    ]
    return "| " + " | ".join(cells) + " |\n"


def main() -> int:
    """The command line. Returns the exit status: 1 if a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scripts", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--env", nargs="+", help="only these environments")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="where to write the table")
    parser.add_argument("--csv", type=Path, metavar="FILE.csv", help="one line a run, kept")
    add_flags(parser, "runs/zoo")
    args = parser.parse_args()

    rows, lines = plan(args.scripts, args.env, args.seeds), load(args.csv)
    everything = sum([runs + peers(runs) + tries(runs) for runs in rows], [])
    # A2C stands beside two scripts.
    missing = list(dict.fromkeys(run for run in everything if key(run) not in lines))
    status = carry_out_all(missing, args, evaluate)
    lines |= collect(missing, args.out.resolve())
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(line for _, line in sorted(lines.items()))
    text = NOTE + "".join(row(runs, lines) for runs in rows)
    print(text)
    if args.table:
        args.table.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
