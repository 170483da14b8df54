"""benchmark/: the plan fits the scripts, missing runs are made once, the page shows the CSVs."""

import itertools
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("joblib", reason="no joblib: see docs/requirements.txt")
from benchmark import peers, run, speed, table
from common import runs
from tests.worlds import SCRIPTS
from tools import slide


def test_the_plan_fits_the_scripts():
    """All flags exist, and the environments do."""
    for row in run.PLAN["learn"] + run.PLAN["zoo"]:
        flags = f"{row['flags']} {row.get('better', '')}".split()
        runs.parse(SCRIPTS[row["script"]].train, flags, row["script"])
        assert row["env"] in gym.registry


PROGRAMS = {  # what is written of the run, or said where nothing is
    "print('solved at step 42, 7 s\\ngreedy policy: mean return -7.25')": ("42", "", "-7.25"),
    "exit('it diverged')": ("", "", "-inf"),
    "1 / 0": "ZeroDivisionError: division by zero",
    "exit(2)": "status 2",
    "print('hello')": "status 0",
}


def test_a_run_is_made_once_and_kept(tmp_path, monkeypatch, capsys):
    """But not one that failed: it crashed, or said nothing of what is looked for. exit(2) is one
    whose older runs are known."""
    rows = [dict(script=code, env="Maze-v0", flags="", seeds=2) for code in PROGRAMS]
    monkeypatch.setattr(run, "PLAN", dict(learn=rows, zoo=[], rlhf=[], speed=[]))
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "command", lambda section, code, *_: ["-c", code])
    run.write(tmp_path / "summaries.csv", dict(script="exit(2)", env="Maze-v0", flags=""))

    def said(status, flags):
        assert run.main(["--jobs", "1", *flags.split()]) == status
        return capsys.readouterr().out.splitlines()

    assert said(0, "--dry-run")[0] == "10 runs, 2 of them done, 8 to do"
    told = said(1, "--seeds 1 --only learn zoo")
    for line in run.read(tmp_path / "learn.csv"):
        assert PROGRAMS[line["script"]] == (line["solved"], line["last"], line["return"])
        assert line["seed"] == "1" and line["commit"]
    assert all(f"failed: python -c {c} {PROGRAMS[c]}" in told for c in ("1 / 0", "print('hello')"))
    assert said(0, "--dry-run --env Maze-v0")[0] == "10 runs, 4 of them done, 6 to do"


@mock.patch.multiple(runs, EPISODES=1, STEPS=1)  # peers.main() changes them
def test_what_is_run(monkeypatch, capsys):
    """The commands; a random player and a script, judged by 100 episodes."""
    command = lambda *words: " ".join(run.command(*words))
    monkeypatch.setenv("CLEANRL", "/peers")
    assert command("speed", "x", "A-v1", "$CLEANRL/a.py", "0") == "-m benchmark.speed /peers/a.py"
    said = "-m benchmark.peers dqn --env A-v1 --gamma 1 --seed 3"
    assert command("zoo", "dqn", "A-v1", "--gamma 1", "3") == said
    assert peers.main("random --env CartPole-v1".split()) == 0
    assert "greedy policy, 100 episodes: mean return 21.61, " in capsys.readouterr().out
    assert peers.main("qlearning_table --episodes 30 --out out".split()) == 0
    assert "greedy policy, 100 episodes" in capsys.readouterr().out and not Path("out").exists()


def test_speed(monkeypatch):
    """Steps after the first hundred, by a clock that advances a second whenever it is read."""
    found = []
    monkeypatch.setattr(speed.time, "process_time", itertools.count().__next__)
    with mock.patch.multiple(speed, START=100, SECONDS=2.5), speed.counting(found.append):
        SCRIPTS["dqn"].train(gym.make("CartPole-v1"), steps=300)
    assert found == [(256 - 100) / 3]


def test_page_and_figures_are_what_the_csvs_say(tmp_path, monkeypatch):
    """Otherwise: python -m benchmark.table. Dots may be a little paler elsewhere."""
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    run.RESULTS.mkdir()
    table.main()
    docs, image = slide.ROOT / "docs", lambda path: np.int16(Image.open(path).convert("RGB"))
    assert (tmp_path / "results.md").read_text() == (docs / "results.md").read_text()
    for name in ("steps.png", "departures.png", "zoo.png"):
        made, stored = image(run.RESULTS / name), image(docs / "results" / name)
        assert made.shape == stored.shape and (abs(made - stored) > 64).sum() < 100, name
