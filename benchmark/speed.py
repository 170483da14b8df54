"""How many environment steps a second each program makes while it learns, on one core.

    python -m benchmark.speed                                  the scripts and Stable-Baselines3
    python -m benchmark.speed --cleanrl DIR --minimalrl DIR    and clones of these repositories

Every program runs as it is, with its own settings (Stable-Baselines3: its zoo's), three times.
After the first START steps of an environment, when all programs learn, the processor time of the
next SECONDS is taken. The median is written to docs/results/speed.csv, where a program's last line
counts.
CleanRL needs tensorboard.
"""

import argparse
import os
import runpy
import subprocess
import sys
import tempfile
import time
from unittest import mock

import gymnasium as gym
import numpy as np

from benchmark import run

START, SECONDS, ROUNDS = 12_000, 8.0, 3
CHILD = "import sys; from benchmark import speed; speed.measure(*sys.argv[1:])"


def counting(report, start: int = START, seconds: float = SECONDS):
    """`with counting(...):` counts the steps of all environments that gym.make() opens.

    report(steps a second) is called once, after `start` steps and then `seconds`.
    """
    step, count, began = gym.wrappers.OrderEnforcing.step, 0, np.inf

    def counted(env, action):
        nonlocal count, began
        count += 1
        if count == start:
            began = time.process_time()
        elif count % 64 == 0 and (passed := time.process_time() - began) > seconds:
            report((count - start) / passed)
            began = np.inf
        return step(env, action)

    return mock.patch.object(gym.wrappers.OrderEnforcing, "step", counted)


def measure(program: str, *flags: str) -> None:
    """Run a program in this process, and print its speed."""
    sys.modules["gym"], sys.argv = gym, [program, *flags]  # minimalRL imports it as gym
    with counting(lambda speed: print(f"\nspeed: {speed}", file=sys.__stdout__, flush=True)):
        runpy.run_path(program, run_name="__main__")


def speed(command: list[str], path: str) -> float:
    """Steps a second of one run, which then is ended; NaN if it ended too early."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with tempfile.TemporaryDirectory() as folder:  # some programs write where they are started
        how = dict(cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        with subprocess.Popen([sys.executable, "-c", CHILD, *command], **how) as child:
            line = next((line for line in child.stdout if line.startswith("speed: ")), "")
            child.kill()
    return float(line[7:] or np.nan)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 1 if a program failed."""
    parser = argparse.ArgumentParser("python -m benchmark.speed", usage=__doc__)
    parser.add_argument("--cleanrl", type=os.path.abspath, help="clone of vwxyzjn/cleanrl")
    parser.add_argument("--minimalrl", type=os.path.abspath, help="clone of seungeunrho/minimalRL")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the programs, or some of them")
    args = parser.parse_args(argv)
    clones = dict(here=str(run.ROOT), cleanrl=args.cleanrl, minimalrl=args.minimalrl)
    path, failed = os.pathsep.join(filter(None, clones.values())), False
    for row in run.PLAN["speed"]:
        clone = row["run"].partition("}")[0].strip("{")  # the program's, of "{clone}/program.py"
        if clones[clone] and row["program"] in (args.only or row.values()):
            command = [word.format(**clones) for word in row["run"].split()]
            median = np.median([speed(command, path) for _ in range(ROUNDS)])  # or NaN
            line = dict(program=row["program"], env=row["env"], steps_per_second=f"{median:.0f}")
            run.say(f"{median:8,.0f}  {row['program']}, {row['env']}")
            failed |= np.isnan(median)
            if not np.isnan(median):
                run.write(run.RESULTS / "speed.csv", line | dict(rounds=ROUNDS) | run.where())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
