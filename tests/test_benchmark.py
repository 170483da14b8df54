"""benchmark/: a sweep makes the missing runs and no others, and the report counts them."""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("joblib", reason="no joblib: see docs/requirements.txt")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmark"))

import report  # noqa: E402
import speed  # noqa: E402
import sweep  # noqa: E402
import zoo  # noqa: E402

import dqn  # noqa: E402
from common import envs  # noqa: E402


def program(name: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "benchmark" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_sweep_goes_on_where_it_was_and_is_reported(tmp_path, monkeypatch, capsys):
    def said(main, *flags):
        monkeypatch.setattr(sys, "argv", ["a program", *map(str, flags)])
        assert main() == 0
        return capsys.readouterr().out

    flags = "--scripts qlearning_table --only default --env Maze-v0 Treasure-v0 --seeds 0".split()
    flags += ["--out", tmp_path / "runs", "--cores", "2"]
    assert "2 runs, 0 of them done, 2 to do" in said(sweep.main, *flags, "--dry-run")
    assert "2 to do" in said(sweep.main, *flags)
    lost = next(tmp_path.glob("runs/qlearning_table/Maze-v0/*/seed0"))
    record = json.loads((lost / "benchmark.json").read_text())
    assert (
        record["command"].startswith("python qlearning_table.py --env Maze-v0 --seed 0")
        and record["versions"]["torch"]
    )
    (lost / "benchmark.json").unlink()  # as if it had been cut short
    assert "2 runs, 1 of them done, 1 to do" in said(sweep.main, *flags)
    assert (lost / "benchmark.json").exists()
    said(report.main, "--runs", tmp_path / "runs", "--out", tmp_path / "docs")
    assert (
        "| `python qlearning_table.py` | Maze-v0 | 1 of 1 |"
        in (tmp_path / "docs/results.md").read_text()
    )


def test_a_run_that_fails_is_not_kept(tmp_path):
    flags = "--flags=--gamma 7"
    done = program(
        "sweep.py", "--scripts", "dqn", flags, "--seeds", "0", "--out", tmp_path / "runs"
    )
    assert done.returncode == 1 and "--gamma 7.0: it must lie in [0, 1]" in done.stdout
    assert not list(tmp_path.glob("runs/**/benchmark.json"))


def test_the_plan_turns_every_departure_off_on_ten_seeds(tmp_path):
    text = program("sweep.py", "--only", "ablation", "--dry-run", "--out", tmp_path).stdout
    pages = [ast.get_docstring(ast.parse(path.read_text())) for path in ROOT.glob("*.py")]
    flags = [flag for page in pages for flag in re.findall(r"^ {4}(--\S.*?) +[A-Z]", page, re.M)]
    assert len(flags) >= 7
    for flag in flags:
        assert len(re.findall(f" {flag} --out", text)) % 10 == 0 < text.count(f" {flag} --out")


def test_a_part_of_the_plan_takes_no_flags(tmp_path):
    done = program("sweep.py", "--only", "default", "--flags=--alpha 1", "--out", tmp_path)
    assert done.returncode == 2 and "give one of them" in done.stderr


def test_no_runs_no_report(tmp_path):
    done = program("report.py", "--runs", tmp_path, "--out", tmp_path)
    assert done.returncode == 2 and "no runs in" in done.stderr


# ------------------------------------------------------------------------------------------ the zoo


@pytest.mark.parametrize("env", sorted({env for rows in zoo.ZOO.values() for env in rows}))
def test_the_rows_of_the_zoo_open_and_fit(env):
    if package := {"Lunar": "Box2D", "HalfC": "mujoco"}.get(env[:5]):
        pytest.importorskip(package, reason=f"no {package}: see benchmark/requirements.txt")
    with envs.make(env) as world:
        assert not world.spec.max_episode_steps or world.spec.max_episode_steps <= 1_000
        for script, rows in zoo.ZOO.items():
            if env in rows:
                envs.check_spaces(world, script)


def test_the_plan_of_the_zoo():
    rows = zoo.plan(["actor_critic", "a3c", "ddpg"], ["CartPole-v1", "Pendulum-v1"], [3])
    names = [[(peer.script, peer.env, peer.seed) for peer in zoo.peers(row)] for row in rows]
    a2c = [("sb3_a2c", "CartPole-v1", 3)]
    assert names == [a2c, a2c, [("sb3_a2c", "Pendulum-v1", 3)], [("sb3_ddpg", "Pendulum-v1", 3)]]
    assert zoo.peers(zoo.plan(["ddpg"], ["MountainCarContinuous-v0"], [3])[0]) == []
    rows = zoo.plan(list(zoo.ZOO), None, list(range(10)))
    assert [len(row) for row in rows].count(3) == 2 and {len(row) for row in rows} == {3, 10}
    commands = [" ".join(row[-1].command(Path("DIR"))) for row in rows]
    assert (
        "a3c.py --env Pendulum-v1 --seed 9 --steps 1000000 --no-stop-when-solved --workers 1"
        " --out DIR" in commands
    )
    assert "qlearning_table.py --env Taxi-v3 --seed 9 --no-stop-when-solved --out DIR" in commands
    assert len({row[0].folder for row in rows}) == len(rows) == 33
    assert [row[0].script for row in zoo.plan(["dqn", "ppo"], ["Pendulum-v1"], [4])] == ["ppo"]


def test_the_zoo_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rl_zoo3", reason="no rl_zoo3: see benchmark/requirements.txt")
    monkeypatch.setattr(zoo, "ZOO", {"dqn": {"CartPole-v1": (500, 300)}})

    def main(*flags):
        flags = [*flags, "--out", str(tmp_path / "runs"), "--cores", "1"]
        monkeypatch.setattr(sys, "argv", ["zoo.py", *flags])
        assert zoo.main() == 0
        return capsys.readouterr().out

    assert "2 runs, 0 of them done, 2 to do" in main("--seeds", "0")
    (path,) = tmp_path.glob("runs/sb3_dqn/CartPole-v1/*/seed0/benchmark.json")
    peer = json.loads(path.read_text())
    assert peer["command"].startswith(
        "python benchmark/peers.py sb3_dqn --env CartPole-v1 --seed 0"
    )
    # Its zoo trains after every 256 steps.
    assert len(peer["returns"]) == 100 and peer["steps"] == 512 and peer["seconds"] > 0
    rows = (path.parent / "returns.csv").read_text().splitlines()
    lengths = [int(row.split(",")[4]) for row in rows[1:]]
    assert rows[-1].split(",")[:2] == [str(len(lengths)), str(sum(lengths))] and 5 < len(lengths)
    (path,) = tmp_path.glob("runs/dqn/CartPole-v1/*/seed0/benchmark.json")
    record = json.loads(path.read_text())
    assert record["command"].startswith("python dqn.py --env CartPole-v1 --seed 0 --steps 300 ")
    assert len(record["returns"]) == 100 and record["steps"] == 300 and record["commit"]
    assert dqn.main(["--load", str(path.parent)]) == 0  # which plays the first 20 of these episodes
    assert (
        f"20 episodes: mean return {np.mean(record['returns'][:20]):.2f}" in capsys.readouterr()[0]
    )

    other = path.parent.with_name("seed1") / path.name
    other.parent.mkdir()
    other.write_text(json.dumps(record | {"returns": [30.0] * 50 + [12.5] * 50}))
    text = main("--seeds", "0", "1", "2", "--dry-run", "--table", str(tmp_path / "zoo.md"))
    assert "6 runs, 3 of them done, 3 to do" in text and text.count("--seed ") == 3
    line = (tmp_path / "zoo.md").read_text().splitlines()[-1]
    means = sorted([np.mean(record["returns"]), 21.25])
    low, mean, high = map(zoo.number, (means[0], np.mean(means), means[1]))
    sb3 = zoo.number(np.mean(peer["returns"]))
    assert line == (
        "| `python dqn.py --env CartPole-v1 --steps 300 --no-stop-when-solved` | 500"
        f" | {mean} | {mean} [{low} to {high}] | {low} to {high} | 2 | {record['seconds']:.2f}"
        f" | {sb3}, {sb3} to {sb3} (1)"
        f" | {peer['seconds']:.2f}, {peer['seconds'] / record['seconds']:.1f} times |  |"
    )
    other.write_text(json.dumps(record | {"returns": []}))  # it diverged
    diverged = f"| -inf to {zoo.number(np.mean(record['returns']))} | 2 |"
    assert diverged in main("--seeds", "0", "1", "--csv", str(tmp_path / "zoo.csv"))
    lines = (tmp_path / "zoo.csv").read_text().splitlines()
    assert lines[0] == "script,env,flags,seed,return,seconds,commit,processor" and len(lines) == 5
    mean = f"{np.mean(record['returns']):.2f}"
    assert lines[1] == (
        "dqn,CartPole-v1,--steps 300 --no-stop-when-solved,0,"
        f"{mean},{record['seconds']},{record['commit']},{record['machine']['processor']}"
    )
    assert ",1,-inf," in lines[2] and lines[3].startswith("sb3_dqn,CartPole-v1,--steps 300,0,")

    for folder in (tmp_path / "runs").iterdir():  # what is in the file needs no folder
        shutil.rmtree(folder)
    monkeypatch.setattr(zoo, "TRY", {("dqn", "CartPole-v1"): "--alpha 1e-3"})
    text = main("--seeds", "0", "1", "--csv", str(tmp_path / "zoo.csv"))
    assert "2 runs, 0 of them done, 2 to do" in text and diverged in text
    now = (tmp_path / "zoo.csv").read_text().splitlines()
    assert [line for line in now if "1e-3" not in line] == lines  # untouched
    tries = [line.split(",") for line in now if "1e-3" in line]
    assert [line[2] for line in tries] == ["--steps 300 --no-stop-when-solved --alpha 1e-3"] * 2
    low, high = sorted(float(line[4]) for line in tries)
    spread = f"{zoo.number((low + high) / 2)}, {zoo.number(low)} to {zoo.number(high)} (2)"
    assert f"times | `--alpha 1e-3`: {spread} |" in text


def test_the_optimum_is_exact():
    """FrozenLake from its rules: on ice an action excludes one direction, the opposite one."""
    ice = "SFFFFHFHFFFHHFFG"

    @functools.cache
    def best(s, k):
        """The best chance of the goal within k steps from s."""
        if ice[s] in "HG" or k == 0:
            return float(ice[s] == "G")
        row, column = divmod(s, 4)
        left, down = 4 * row + max(column - 1, 0), 4 * min(row + 1, 3) + column
        right, up = 4 * row + min(column + 1, 3), 4 * max(row - 1, 0) + column
        moves = [best(place, k - 1) for place in (left, down, right, up)]
        return (sum(moves) - min(moves)) / 3

    assert (
        zoo.optimum("FrozenLake-v1")
        == pytest.approx(best(0, 100))
        == pytest.approx(0.744, abs=1e-3)
    )
    assert zoo.optimum("CliffWalking-v1") == -13
    assert zoo.optimum("Taxi-v3") == pytest.approx(7.93, abs=0.005)
    assert zoo.optimum("Blackjack-v1") is None  # it has no table


def test_the_page_shows_what_is_in_zoo_csv():
    lines = zoo.load(ROOT / "docs" / "results" / "zoo.csv")
    rows = [zoo.row(runs, lines) for runs in zoo.plan(list(zoo.ZOO), None, list(range(10)))]
    page = (ROOT / "docs" / "results.md").read_text()
    section = page.split("## Beside the zoo's tuned settings\n")[1].split("\n## ")[0]
    shown = re.findall(r"^\| `python .*\n", section, re.M)
    assert shown == [row.replace(" --no-stop-when-solved", "") for row in rows if row]
    assert len(shown) == sum(map(len, zoo.ZOO.values()))


BUSY = """
import time
import gym
env = gym.make("CartPole-v1")
for _ in range(5):  # five episodes: steps are counted over all of them
    env.reset(seed=0)
    done = False
    while not done:
        until = time.process_time() + 0.002
        while time.process_time() < until:
            pass
        _, _, terminated, truncated, _ = env.step(0)
        done = terminated or truncated
"""


def test_speed_is_steps_by_processor_seconds(tmp_path, monkeypatch, capfd):
    """A program that takes 2 ms a step; the first steps do not count."""
    (tmp_path / "busy.py").write_text(BUSY)
    monkeypatch.setattr(speed, "START", 5)
    monkeypatch.setattr(speed, "SECONDS", 0.02)
    # measure() is for a process of its own: put back what it changes.
    monkeypatch.setattr(gym, "make", gym.make)
    monkeypatch.setitem(sys.modules, "gym", None)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(speed.os, "_exit", lambda status: sys.exit(status))
    monkeypatch.setattr(speed, "EVERY", 1)
    with pytest.raises(SystemExit, match="0"):
        speed.measure(str(tmp_path / "busy.py"))
    found = float(re.search("speed: (.*)", capfd.readouterr().out)[1])
    assert 350 < found < 501
