"""Run scripts on environments and seeds, each run in its own process, and collect what they save.

    python benchmark/sweep.py                                     the whole plan
    python benchmark/sweep.py --only default peer --seeds 0 1 2   a part of it
    python benchmark/sweep.py --scripts dqn ppo --env Acrobot-v1 --flags="--alpha 1e-3"
                                                                  anything else

A run that is there already is not made again, so that a sweep which was killed goes on where it
was. `python benchmark/report.py` then writes a page. On a cluster: --backend dask or
--backend ray, see benchmark/README.md.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import joblib

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = ("qlearning_table", "dqn", "reinforce", "actor_critic", "ddpg", "a3c", "ppo")
DEMO = dict.fromkeys(SCRIPTS, "CartPole-v1") | {"qlearning_table": "Taxi-v3", "ddpg": "Pendulum-v1"}
# Each departure has to pay on one of two environments. InvertedPendulum-v5 needs gymnasium[mujoco].
SECOND = {
    "dqn": "Acrobot-v1",
    "reinforce": "Acrobot-v1",
    "actor_critic": "Acrobot-v1",
    "ddpg": "InvertedPendulum-v5",
    "a3c": "Acrobot-v1",
    "ppo": "Pendulum-v1",
}
PEERS = {
    "sb3_ppo": "CartPole-v1",
    "sb3_a2c": "CartPole-v1",
    "sb3_dqn": "CartPole-v1",
    "sb3_ddpg": "Pendulum-v1",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        group: the part of the page that it belongs to.
        script: one of SCRIPTS or PEERS.
        env: the environment's id.
        flags: what follows on the command line.
        seed: the seed.
        cores: how many it keeps busy; a3c has two workers.
    """

    group: str
    script: str
    env: str
    flags: tuple[str, ...]
    seed: int
    cores: int = 1

    @property
    def folder(self) -> Path:
        """Where its files are, below the folder of the sweep."""
        settings = re.sub(r"[^\w.=]+", "_", " ".join(self.flags)).strip("_") or "default"
        return Path(self.script, self.env, settings, f"seed{self.seed}")

    def command(self, out: Path) -> list[str]:
        """The command line, for the repository's root."""
        program = (
            ["benchmark/peers.py", self.script] if self.script in PEERS else [f"{self.script}.py"]
        )
        return [
            *program,
            "--env",
            self.env,
            "--seed",
            str(self.seed),
            *self.flags,
            "--out",
            str(out),
        ]


def departures(script: str) -> list[str]:
    """The flags under "Beyond the slide" in a script's docstring, each turns one departure off."""
    page = ast.get_docstring(ast.parse((REPOSITORY / f"{script}.py").read_text()))
    part = page.split("Beyond the slide")[1].split("\nTry\n")[0]
    return re.findall(r"^ {4}(--\S+(?: [\d.]+)?) +[A-Z]", part, re.M)


def plan(seeds: list[int]) -> list[Run]:
    """The runs behind the page. Each ends when it is solved, or with its script's budget."""
    runs = []

    def add(group, script, env, *flags, some=seeds):
        cores = 2 if script == "a3c" and "--workers 1" not in flags else 1
        if cores == 2 and "--workers 2" not in flags:
            flags = ("--workers 2", *flags)  # the default is as many as there are cores, up to four
        runs.extend(
            Run(group, script, env, tuple(" ".join(flags).split()), seed, cores) for seed in some
        )

    for env in ("Treasure-v0", "GridWorld-v0", "Maze-v0", "Taxi-v3"):
        add("default", "qlearning_table", env)
    for script, env in SECOND.items():
        add("default", script, DEMO[script])
        add("default", script, env)
    add("default", "ppo", "CartPole-v1", "--clip 0.2")
    for script in PEERS:  # PPO is the yardstick of the others; they are slow
        add("peer", script, PEERS[script], some=seeds if script == "sb3_ppo" else seeds[:3])
    for script in SCRIPTS:
        add("literal", script, DEMO[script], "--literal")
    for workers in ("--workers 1", "--workers 2"):  # equally many steps, to compare the speed
        whole = "--steps 300000 --no-stop-when-solved"
        add("a3c", "a3c", "CartPole-v1", workers, whole, some=seeds[:3])
    for script in SCRIPTS:
        for flag in departures(script):
            for env in filter(None, (DEMO[script], SECOND.get(script))):
                add("ablation", script, env, flag)
    return runs


def carry_out(run: Run, root: Path, more=lambda record, folder: {}) -> str:
    """Make one run. Its folder appears once it is whole: nothing half-done is taken for done.

    Args:
        run: the run.
        root: the folder of the sweep.
        more: (record, folder) -> what benchmark.json holds beside the record.

    Returns:
        A line on how it went; it begins with "failed" if there is nothing to keep.
    """
    name = f"{' '.join([run.script, run.env, *run.flags])}, seed {run.seed}"
    folder = root / run.folder
    part = folder.with_name(folder.name + f".part{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    started = time.time()
    # One thread a run: the networks are small, and what runs beside it has its own core.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, *run.command(part)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if (
        done.returncode not in (0, 1) or not (part / "returns.csv").exists()
    ):  # 1: it diverged, and that is a result
        shutil.rmtree(part, ignore_errors=True)
        why = (done.stderr.strip() or "no message").splitlines()[-1]
        return f"failed with status {done.returncode}: {name}: {why}"
    record = dataclasses.asdict(run) | {
        "command": "python " + " ".join(run.command(Path("DIR"))),
        "status": done.returncode,
        "output": done.stdout + done.stderr,
        "wall_seconds": round(time.time() - started, 1),
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
        },
        "versions": _versions(),
    }
    record |= more(record, part)
    (part / "benchmark.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return f"{record['wall_seconds']:7.1f} s  {name}"


def _commit() -> str:
    git = ["git", "-C", str(REPOSITORY)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run(
            [*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
        return commit + (" with changes" if changed else "")
    return "unknown"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for package in ("torch", "gymnasium", "numpy", "box2d", "mujoco", "stable-baselines3"):
        with contextlib.suppress(PackageNotFoundError):  # only some runs need the last three
            versions[package] = version(package)
    return versions


def backend(name: str, address: str | None):
    """The joblib backend called `name`, connected to the cluster at `address` (None: start one)."""
    if name == "dask":
        import cloudpickle
        from dask.distributed import Client

        # Its workers cannot import this file, which zoo.py does.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        Client(address)  # joblib finds the newest client by itself
    elif name == "ray":
        import ray
        from ray.util.joblib import register_ray

        ray.init(address=address)
        register_ray()
    return joblib.parallel_config(backend=name)


def add_flags(parser: argparse.ArgumentParser, folder: str) -> None:
    """The flags that say how runs are made; they go to `folder` in benchmark/."""
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=list(range(10)), metavar="N", help="default: 0 to 9"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "benchmark" / folder,
        help=f"default: benchmark/{folder}",
    )
    parser.add_argument(
        "--cores", type=int, default=os.cpu_count(), help="to use at once, on all machines together"
    )
    parser.add_argument(
        "--backend",
        default="loky",
        help="of joblib: loky (this machine), dask, ray, or one you registered",
    )
    parser.add_argument(
        "--address", help="of the dask or ray cluster; without it, one is started here"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to do")


def carry_out_all(runs: list[Run], args: argparse.Namespace, *more) -> int:
    """Make the runs that are not there yet.

    Args:
        runs: all runs.
        args: the values of the flags of add_flags().
        more: as carry_out().

    Returns:
        The exit status: 1 if a run failed.
    """
    root = args.out.resolve()
    missing = [run for run in runs if not (root / run.folder / "benchmark.json").exists()]
    print(
        f"{len(runs)} runs, {len(runs) - len(missing)} of them done, {len(missing)} to do",
        flush=True,
    )
    if args.dry_run:
        for run in missing:
            print("python " + " ".join(run.command(run.folder)))
        return 0
    failed = 0
    with backend(args.backend, args.address) if missing else contextlib.nullcontext():
        # Runs that take two cores go after the others, fewer at a time, so that each has the cores
        # it is measured on.
        for cores in sorted({run.cores for run in missing}):
            tasks = [
                joblib.delayed(carry_out)(run, root, *more) for run in missing if run.cores == cores
            ]
            jobs = min(len(tasks), max(1, args.cores // cores))
            # As they end, where the backend can tell; ray hands over all results at the end.
            lines = joblib.Parallel(
                jobs, batch_size=1, pre_dispatch=jobs, return_as=_results(args.backend)
            )(tasks)
            for line in lines:
                print(line, flush=True)
                failed += line.startswith("failed")
    return 1 if failed else 0


def main() -> int:
    """The command line. Returns the exit status: 1 if a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", metavar="GROUP", help="of: default peer literal a3c ablation"
    )
    parser.add_argument(
        "--scripts",
        nargs="+",
        choices=[*SCRIPTS, *PEERS],
        help="of the plan; with --env or --flags: these",
    )
    parser.add_argument(
        "--env",
        nargs="+",
        help="with --only: of the plan; else, instead of it: the scripts on these",
    )
    parser.add_argument(
        "--flags",
        default="",
        help='instead of the plan: what the scripts are given, "--alpha 1e-3 --steps 9999"',
    )
    add_flags(parser, "runs")
    args = parser.parse_args()
    if args.only and args.flags:
        parser.error("--only takes a part of the plan and --flags replaces it: give one of them")

    if args.flags or (args.env and not args.only):
        scripts, flags = args.scripts or SCRIPTS, tuple(args.flags.split())
        runs = [
            Run("own", s, env, flags, seed, 2 if s == "a3c" else 1)
            for s in scripts
            for env in args.env or [DEMO[s]]
            for seed in args.seeds
        ]
    else:
        runs = [
            r
            for r in plan(args.seeds)
            if r.script in (args.scripts or r.script)
            and r.group in (args.only or r.group)
            and r.env in (args.env or r.env)
        ]
    return carry_out_all(runs, args)


def _results(name: str) -> str:
    return "list" if name == "ray" else "generator_unordered"


if __name__ == "__main__":
    sys.exit(main())
