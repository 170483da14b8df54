"""Write a page of tables and pictures from the runs that benchmark/sweep.py has made.

python benchmark/report.py                       benchmark/runs -> benchmark/report/results.md, results/*.png
python benchmark/report.py --runs DIR --out DIR
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import sys
from collections import defaultdict
from pathlib import Path

import gymnasium as gym
import numpy as np
from sweep import DEMO, PEERS, REPOSITORY, SCRIPTS, SECOND, departures

sys.path.insert(0, str(REPOSITORY))  # for `common`
sys.path.insert(0, str(REPOSITORY / "docs"))  # for compare.py
import compare

from common import envs, plotting


@dataclasses.dataclass
class Result:
    """One finished run: `record` is its benchmark.json, the arrays are the columns of its returns.csv."""

    record: dict
    folder: Path
    steps: np.ndarray
    seconds: np.ndarray
    returns: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> Result:
        """Read a run's folder."""
        record = json.loads((folder / "benchmark.json").read_text())
        with open(folder / "returns.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = (
            np.array([float(row[name]) for row in rows]) for name in ("step", "seconds", "return")
        )
        return cls(record, folder, *columns)

    def __post_init__(self):
        self.threshold, self.window = envs.solved_at(self.record["env"])  # as in the scripts
        self.mean = plotting.running_mean(list(self.returns), self.window)
        self.final = self.mean[-1] if len(self.mean) else np.nan
        self.solved_at = None  # index of the episode
        if self.threshold is not None:
            reached = np.flatnonzero(self.mean[self.window - 1 :] >= self.threshold)
            self.solved_at = reached[0] + self.window - 1 if len(reached) else None
        elif self.optimal():
            self.solved_at = len(self.returns) - 1

    @property
    def speed(self) -> float:
        """Environment steps per second, over the whole run."""
        return self.steps[-1] / self.seconds[-1] if len(self.steps) else np.nan

    def optimal(self) -> bool:
        """Whether the greedy policy of a saved Q-table takes a best action in every state that can be met on its way."""
        with gym.make(self.record["env"]) as env:
            world = env.unwrapped
            if not (self.folder / "q_table.npy").exists() or not isinstance(world, envs.FiniteMDP):
                return False
            Q = np.load(self.folder / "q_table.npy", allow_pickle=False)
            gamma, best = 0.9, np.zeros_like(Q)
            for _ in range(1000):  # value iteration: gamma^1000 is nothing
                for s, actions in world.P.items():
                    for a, ((_, next_s, reward, end),) in actions.items():
                        best[s, a] = reward + gamma * best[next_s].max() * (not end)
            states, seen = list(world.starts), set()
            while states:
                s = states.pop()
                if s in seen or s in world.terminals:
                    continue
                seen.add(s)
                a = int(Q[s].argmax())
                if best[s, a] < best[s].max() - 1e-9:
                    return False
                states.append(world.P[s][a][0][1])
        return True


def number(x: float) -> str:
    """12,345 or 123 or 1.2, as many digits as a reader wants."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}"


def spread(values) -> str:
    """Median and range of numbers."""
    values = list(values)
    return (
        f"{number(np.median(values))} ({number(min(values))} to {number(max(values))})"
        if values
        else ""
    )


def row(results: list[Result], *first: str) -> str:
    """One line of a table over seeds."""
    solved = [r for r in results if r.solved_at is not None]
    final = [r.final for r in results]
    diverged = sum(r.record["status"] == 1 for r in results)
    cells = [
        *first,
        f"{len(solved)} of {len(results)}" + (f" ({diverged} diverged)" if diverged else ""),
        spread(r.steps[r.solved_at] for r in solved),
        spread(r.seconds[r.solved_at] for r in solved),
        f"{np.mean(final):.1f} ± {np.std(final):.1f}",
        number(np.median([r.speed for r in results])),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = [
    "solved",
    "steps to solve",
    "seconds to solve",
    "mean return at the end",
    "steps/s",
]


def table(*columns: str) -> list[str]:
    """The head of a table."""
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def chance(env: str) -> float:
    """Mean return of 100 episodes of random actions."""
    with envs.make(env) as world:
        world.action_space.seed(0)
        returns, total = [], 0.0
        world.reset(seed=0)
        while len(returns) < 100:
            _, reward, terminated, truncated, _ = world.step(world.action_space.sample())
            total += float(reward)
            if terminated or truncated:
                returns.append(total)
                total = 0.0
                world.reset()
    return float(np.mean(returns))


def flags(result: Result) -> str:
    """A run's flags, for a table."""
    return " ".join(result.record["flags"])


def curves(script: str, groups: dict[str, list[Result]]) -> bytes:
    """Mean and band over seeds of a script's default and of --literal, as PNG."""
    runs = {}
    for name, results in groups.items():
        diverged = sum(r.record["status"] == 1 for r in results)
        label = f"{name} ({len(results)} seeds{f', {diverged} diverged' if diverged else ''})"
        runs[label] = [(r.steps, r.mean) for r in results if len(r.mean)]
    first = next(iter(groups.values()))[0]
    title = f"{script}.py on {first.record['env']}"
    return compare.draw(runs, title, first.threshold, f"mean of the last {first.window} returns")


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=Path, default=REPOSITORY / "benchmark" / "runs", help="what sweep.py wrote"
    )
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "benchmark" / "report", help="folder of results.md"
    )
    args = parser.parse_args()
    by_group = defaultdict(lambda: defaultdict(list))  # group -> (script, env, flags) -> results
    for path in sorted(args.runs.glob("*/*/*/seed*/benchmark.json")):
        result = Result.read(path.parent)
        record = result.record
        by_group[record["group"]][record["script"], record["env"], flags(result)].append(result)
    if not by_group:
        print(
            f"report.py: no runs in {args.runs}; make some with benchmark/sweep.py", file=sys.stderr
        )
        return 2
    text = io.StringIO()
    write(text, by_group, args.out / "results")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.md").write_text(text.getvalue())
    print(args.out / "results.md")
    return 0


def write(file, by_group, pictures: Path) -> None:
    """Write the page to `file` and its pictures into the folder `pictures`."""

    def say(*lines):
        print(*lines, sep="\n", file=file)

    def results(group, script):
        """(environment, flags) -> results, of one script in one group."""
        return {(env, f): rs for (s, env, f), rs in sorted(by_group[group].items()) if s == script}

    records = [r.record for group in by_group.values() for rs in group.values() for r in rs]
    every = {
        key: sorted({json.dumps(record[key]) for record in records})
        for key in ("commit", "machine", "versions")
    }
    machine, versions = json.loads(every["machine"][0]), json.loads(every["versions"][0])
    say(
        "# Results",
        "",
        "Written by `python benchmark/report.py` from the runs of `python benchmark/sweep.py` (set-up and use:",
        "[benchmark/README.md](../benchmark/README.md)). Every figure is one of theirs; no seed is left out.",
        "",
        f"- Commit {', '.join(json.loads(c) for c in every['commit'])}.",
        f"- {machine['cores']} cores of {machine['processor']}, {machine['system']}, no GPU. A run has one core (a3c: two), while",
        "  another run is busy on the other.",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    )
    if any(len(values) > 1 for values in every.values()):
        say(
            "- These runs are of several commits, machines or versions; their benchmark.json says which."
        )
    say(
        "",
        "**Solved** is what the scripts call so: the mean return of 100 successive training episodes at or above 475 (CartPole-v1), -100",
        "(Acrobot-v1), 950 (InvertedPendulum-v5) or 8 (Taxi-v3, where the best possible mean is 7.93, so that it takes some luck); of 20",
        "episodes at or above -200 (Pendulum-v1); on the grid worlds: the greedy policy takes a shortest way from every start. Steps and",
        "seconds to solve are the median and the range over the seeds that solved it, counted from the start of training (a grid world: until",
        "training ended). Training ends when it is solved, or with the script's budget. The mean return at the end is that of the last 100",
        "training episodes (Pendulum-v1: 20): mean and standard deviation over all seeds. A seed gives the same run on the same machine; on",
        "another processor the rounding differs, and with it the run.",
        "",
        "## The defaults",
        "",
        "`python SCRIPT.py --env ENVIRONMENT --seed 0` to `--seed 9`, nothing else given (a3c: `--workers 2`, as many as there are cores).",
        "",
        *table("command", "environment", *HEAD),
    )
    for script in SCRIPTS:
        for (env, f), rs in results("default", script).items():
            f = f.replace("--workers 2", "")
            say(row(rs, f"`python {script}.py{' ' + f if f else ''}`", env))

    one, two = (
        [r for (_, f), rs in results("a3c", "a3c").items() if f"--workers {n}" in f for r in rs]
        for n in (1, 2)
    )
    if one and two:
        speeds = [float(np.median([r.speed for r in rs])) for rs in (one, two)]
        say("", "### A3C: what a second worker brings", "")
        say(
            f"With `--steps 300000 --no-stop-when-solved`, `--workers 1` makes {number(speeds[0])} steps/s and `--workers 2`",
            f"{number(speeds[1])}, {speeds[1] / speeds[0]:.2f} times as many (medians of {len(one)} runs each).",
        )

    if by_group["peer"]:
        say(
            "",
            "## The same, by Stable-Baselines3",
            "",
            "Measured by the same program in the same sweep, with the settings and the budgets of its zoo",
            "([peers.py](../benchmark/peers.py)). The first 10,000 steps of `sb3_ddpg` are random ones: that is the zoo's setting.",
            "",
            *table("algorithm", "environment", *HEAD),
        )
        for script in PEERS:
            for (env, _), rs in results("peer", script).items():
                say(row(rs, f"`{script}`", env))

    say(
        "",
        "## The slide to the letter",
        "",
        "What `--literal` learns in the same budget, with the step sizes that the script's `LITERAL` gives it. *Half way* is a mean return at",
        "the end that is at least half way from chance (random actions) to solved.",
        "",
        *table("command", "environment", "chance", "half way", *HEAD),
    )
    for script in SCRIPTS:
        for (env, f), rs in results("literal", script).items():
            luck = chance(env)
            goal = luck + (rs[0].threshold - luck) / 2 if rs[0].threshold is not None else None
            far = sum(r.final >= goal for r in rs) if goal is not None else ""
            say(
                row(
                    rs,
                    f"`python {script}.py {f}`",
                    env,
                    number(luck),
                    f"{far} of {len(rs)}" if goal is not None else "",
                )
            )
    pictures.mkdir(parents=True, exist_ok=True)
    say(
        "",
        "The interquartile mean over the seeds of the running mean, with its 95 % bootstrap interval, for the default and for `--literal`. A line ends where\nthe last of its runs ended: solved, diverged, or its budget used up.",
        "",
    )
    for script in SCRIPTS:
        both = [*results("default", script).items(), *results("literal", script).items()]
        groups = {
            "--literal" if "--literal" in f else "default": rs
            for (env, f), rs in both
            if env == DEMO[script] and "--clip" not in f
        }
        if groups:
            (pictures / f"{script}.png").write_bytes(curves(script, groups))
            say(f"![{script}.py, default and --literal](results/{script}.png)", "")

    say(
        "## What each departure buys",
        "",
        "Each departure that a script lists under *Beyond the slide* turned off by its flag, the others left on; the same seeds, ended when",
        "solved or with the budget. The first line is the default. A departure has to pay on one of the two environments.",
        "",
        *table("command", "environment", "solved", "steps to solve", "mean return at the end"),
    )
    for script in SCRIPTS:
        for env in filter(None, (DEMO[script], SECOND.get(script))):
            plain = results("default", script)
            key = env, "--workers 2" if script == "a3c" else ""
            lines = {"": plain[key]} if key in plain else {}
            found = {f: rs for (e, f), rs in results("ablation", script).items() if e == env}
            for flag in departures(script):  # in the order of the docstring
                lines |= {f: rs for f, rs in found.items() if flag in f}
            for name, rs in lines.items():
                _, solved, steps, _, end, _ = row(rs, "").split(" | ")
                say(f"| `{f'{script}.py {name}'.strip()}` | {env} | {solved} | {steps} | {end} |")


if __name__ == "__main__":
    sys.exit(main())
