"""Make the runs of plan.toml that are not in docs/results/*.csv yet, each in its own process.

    python -m benchmark.run --dry-run                what is missing
    python -m benchmark.run --only learn --script ppo dqn --seeds 0 1 2
    python -m benchmark.run                          all of it: many hours

A line is written as soon as its run ends, so a run of this program that was stopped goes on where
it was. To measure again after a change, delete the lines first. On a cluster: see README.md.
"""

import csv
import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import joblib

from common.runs import Parser, explained, say

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
KEY = ("script", "env", "flags", "seed")
PLAN = tomllib.loads((ROOT / "benchmark" / "plan.toml").read_text())
SAID = PLAN["columns"]  # section -> column of its CSV -> where a program says it


def beside(row: dict) -> dict[str, tuple[str, str, int]]:
    """What a row of the plan asks for: name -> script, flags, how many seeds."""
    seeds, runs = row.get("seeds", 10), {}
    runs["ours"] = row["script"], row["flags"], seeds
    if "better" in row:
        runs["tried"] = row["script"], f"{row['flags']} {row['better']}", seeds
    if "peer" in row:
        runs["sb3"] = row["peer"], re.search(r"--steps \d+", row["flags"])[0], 3
    if "reference" in row:
        runs["random"] = "random", "", 1
    return runs


def planned() -> list[tuple[str, ...]]:
    """All runs of the plan: section, script, environment, flags, seed."""
    runs = []
    for section in SAID:
        for row in PLAN[section]:
            for script, flags, seeds in beside(row).values():
                runs += [(section, script, row["env"], flags, str(seed)) for seed in range(seeds)]
    return list(dict.fromkeys(runs))  # one peer may stand beside two scripts


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV; none where it does not exist."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def command(section: str, script: str, env: str, flags: str, seed: str) -> list[str]:
    """A run's command, for Python in the repository's folder."""
    if section == "speed":  # of any program: its flags begin with its file
        return ["-m", "benchmark.speed", *map(os.path.expandvars, flags.split())]
    where = ["--env", env] * bool(env)
    return ["-m", "benchmark.peers", script, *where, *flags.split(), "--seed", seed]


def measure(*run: str) -> tuple[tuple[str, ...], dict[str, str], str]:
    """Make one run. Returns it, its line in the CSV, and why it failed if there is no line."""
    # One thread: the networks are small, and each core has a run of its own.
    how = dict(cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    done = subprocess.run([sys.executable, *command(*run)], check=False, **how)
    found = {k: [*re.findall(said, done.stdout, re.M), ""][0] for k, said in SAID[run[0]].items()}
    diverged = "return" in found and done.returncode == 1 and "Traceback" not in done.stderr
    if not diverged and (done.returncode or not any(found.values())):
        return run, {}, (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
    line = dict(zip(KEY, run[1:], strict=True)) | found
    if diverged:
        line["return"] = "-inf"
    return run, line | where(), ""


def where() -> dict[str, str]:
    """The commit, whether files differ from it, and the processor, which may round differently."""
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    changed = git("status", "--porcelain", "-uno", "--", "*.py").stdout
    commit = git("rev-parse", "--short=10", "HEAD").stdout.strip() + " with changes" * bool(changed)
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return dict(commit=commit, processor=[*names, platform.processor()][0])


def write(path: Path, line: dict[str, str]) -> None:
    """Append a line (column -> value) to a CSV, below a header if it is the first one."""
    rows = [line.values()] if path.exists() else [line.keys(), line.values()]
    with open(path, "a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 1 if a run failed."""
    parser = Parser("python -m benchmark.run", usage=__doc__, allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true", help="only say what is missing")
    only = dict(default=[*SAID][:3], help="sections of the plan [all but speed]")
    parser.add_argument("--only", nargs="+", choices=SAID, **only)
    for name in ("script", "env", "seeds"):
        parser.add_argument(f"--{name}", nargs="+", help="only these")
    parser.add_argument("--jobs", type=int, default=-1, help="runs at a time [as many as cores]")
    args = parser.parse_args(argv)
    chosen = (args.only, args.script, args.env, None, args.seeds)
    runs = [r for r in planned() if all(not c or x in c for x, c in zip(r, chosen, strict=True))]
    done = {(s, *map(line.get, KEY)) for s in SAID for line in read(RESULTS / f"{s}.csv")}
    older = {("learn", *map(line.get, KEY[:3])) for line in read(RESULTS / "summaries.csv")}
    missing = [run for run in runs if run not in done and run[:4] not in older]
    say(f"{len(runs)} runs, {len(runs) - len(missing)} of them done, {len(missing)} to do")
    if args.dry_run:
        say("\n".join(f"python {' '.join(command(*run))}" for run in missing))
        return 0
    failed = 0
    parallel = joblib.Parallel(args.jobs, return_as="generator_unordered", pre_dispatch="n_jobs")
    for run, line, why in parallel(joblib.delayed(measure)(*run) for run in missing):
        say(f"{'failed' if why else 'done'}: python {' '.join(command(*run))} {why}")
        failed += bool(why)
        if line:
            write(RESULTS / f"{run[0]}.csv", line)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(explained("run", main))
