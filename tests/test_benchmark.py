"""benchmark/: a sweep makes the missing runs and no others, and the report counts them."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("joblib", reason="no joblib: see benchmark/requirements.txt")
ROOT = Path(__file__).parent.parent


def program(name: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "benchmark" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_sweep_goes_on_where_it_was_and_is_reported(tmp_path):
    sweep = [
        "--scripts",
        "qlearning_table",
        "--only",
        "default",
        "--seeds",
        "0",
        "--out",
        tmp_path / "runs",
        "--cores",
        "2",
    ]
    assert "4 runs, 0 of them done, 4 to do" in program("sweep.py", *sweep, "--dry-run").stdout
    done = program("sweep.py", *sweep)
    assert done.returncode == 0 and "4 to do" in done.stdout, done.stderr
    lost = next(tmp_path.glob("runs/qlearning_table/Maze-v0/*/seed0"))
    record = json.loads((lost / "benchmark.json").read_text())
    assert (
        record["command"].startswith("python qlearning_table.py --env Maze-v0 --seed 0")
        and record["versions"]["torch"]
    )
    (lost / "benchmark.json").unlink()  # as if it had been cut short
    assert "4 runs, 3 of them done, 1 to do" in program("sweep.py", *sweep).stdout
    assert (lost / "benchmark.json").exists()
    report = program("report.py", "--runs", tmp_path / "runs", "--out", tmp_path / "docs")
    assert report.returncode == 0, report.stderr
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
    flags = [flag for page in pages for flag in re.findall(r"^ {4}(--\S.*?) +off:", page, re.M)]
    assert len(flags) >= 7
    for flag in flags:
        assert len(re.findall(f" {flag} --out", text)) % 10 == 0 < text.count(f" {flag} --out")


def test_no_runs_no_report(tmp_path):
    done = program("report.py", "--runs", tmp_path, "--out", tmp_path)
    assert done.returncode == 2 and "no runs in" in done.stderr
