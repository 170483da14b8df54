"""How many environment steps a second each program makes while it learns, on one core.

    python -m benchmark.speed                                  the scripts and Stable-Baselines3
    python -m benchmark.speed --cleanrl DIR --minimalrl DIR    and clones of these repositories

Every program runs as it is, with its own settings (Stable-Baselines3: its zoo's), one after the
other, in three rounds. After the first START steps of an environment, when all programs learn, the
processor time of the next SECONDS is taken. The median is written to docs/results/speed.csv.
CleanRL needs tensorboard.
"""

import argparse
import contextlib
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np

from benchmark import run

START, SECONDS = 12_000, 8.0
COLUMNS = ["program", "env", "steps_per_second", "rounds", "commit", "processor"]


def floor(env_id: str) -> None:
    """Act with an untrained network, and learn nothing: no program can be faster."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    env = gym.make(env_id)
    space, inputs = env.action_space, env.observation_space.shape[0]
    layers = nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, gym.spaces.flatdim(space))
    network = nn.Sequential(*layers)
    state, _ = env.reset(seed=0)
    while True:
        with torch.inference_mode():
            output = network(torch.from_numpy(state)).numpy()
        action = output.argmax() if isinstance(space, gym.spaces.Discrete) else output
        state, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            state, _ = env.reset()


@contextlib.contextmanager
def counting(report, start: int = START, seconds: float = SECONDS):
    """Count the steps of all environments that gym.make() opens; after it all is as before.

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

    with mock.patch.object(gym.wrappers.OrderEnforcing, "step", counted):
        yield


def measure(program: str, *flags: str) -> None:
    """Run a program in this process, and print its speed."""
    old_gym = types.ModuleType("gym")  # minimalRL imports it, and gives make() an old option
    vars(old_gym).update(vars(gym))
    old_gym.make = lambda env_id, autoreset=None, **options: gym.make(env_id, **options)
    sys.modules["gym"], sys.argv = old_gym, [program, *flags]
    say = lambda speed: print(f"\nspeed: {speed}", file=sys.__stdout__, flush=True)
    with counting(say):
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)


def speed(command: str, path: str) -> float:
    """Steps a second of one run, which then is ended; NaN if it ended too early."""
    program, *flags = command.split()
    with tempfile.TemporaryDirectory() as folder:  # some programs write where they are started
        if program.endswith(".py"):
            program = run.ROOT / program  # an absolute path stays as it is
            flags += ["--no-save"] if program.parent == run.ROOT else []
        python = [sys.executable, "-m", "benchmark.speed", "--measure", str(program), *flags]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        how = dict(cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        with subprocess.Popen(python, **how) as child:
            line = next((line for line in child.stdout if line.startswith("speed: ")), "")
            child.kill()
    return float(line[7:] or np.nan)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 1 if a program failed."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["--measure"], ["--floor"]):
        (measure if argv[0] == "--measure" else floor)(*argv[1:])
        return 0
    style = dict(formatter_class=argparse.RawDescriptionHelpFormatter)
    parser = argparse.ArgumentParser("python -m benchmark.speed", description=__doc__, **style)
    parser.add_argument("--cleanrl", type=Path, help="a clone of vwxyzjn/cleanrl")
    parser.add_argument("--minimalrl", type=Path, help="a clone of seungeunrho/minimalRL")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the programs, or some of them")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    clones = {k: str(p.resolve()) for k in ("cleanrl", "minimalrl") if (p := getattr(args, k))}
    path = os.pathsep.join([str(run.ROOT), *clones.values()])
    wanted = [row for row in run.PLAN["speed"] if row["program"] in (args.only or row.values())]
    wanted = [row for row in wanted if set(re.findall(r"{(\w+)}", row["run"])) <= clones.keys()]
    speeds = {}
    for row in wanted * args.rounds:
        found = speed(row["run"].format(**clones), path)
        speeds.setdefault((row["program"], row["env"]), []).append(found)
        print(f"{found:8,.0f}  {row['program']}, {row['env']}", flush=True)
    file = run.RESULTS / "speed.csv"
    lines = {(line["program"], line["env"]): line for line in run.read(file)}
    for key, found in speeds.items():
        values = *key, f"{np.median(found):.0f}", len(found), run.commit(), run.processor()
        if not np.isnan(found).any():  # else the line of before stays
            lines[key] = dict(zip(COLUMNS, values, strict=True))
    file.unlink(missing_ok=True)
    for line in lines.values():
        run.write(file, line, COLUMNS)
    return int(np.isnan([x for found in speeds.values() for x in found]).any())


if __name__ == "__main__":
    sys.exit(main())
