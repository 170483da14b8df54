"""benchmark/: the plan fits the scripts, missing runs are made once, the page shows the CSVs."""

import importlib

import gymnasium as gym
import pytest

pytest.importorskip("joblib", reason="no joblib: see docs/requirements.txt")
from benchmark import run, table
from common import runs
from tools import slide

ROWS = [row for section in ("learn", "zoo", "rlhf") for row in run.PLAN[section]]


@pytest.mark.parametrize("script", slide.SCRIPTS)
def test_the_plan_fits_the_script(script):
    """All flags exist, the environments do, and each departure is turned off somewhere."""
    train = importlib.import_module(script).train
    planned = [row for row in ROWS if row["script"] == script]
    flags = [f"{row['flags']} {row.get('better', '')}" for row in planned]
    assert planned
    for row, text in zip(planned, flags, strict=True):
        runs.parse(train, text.split(), script)
        assert row["env"] in gym.registry or (script, row["env"]) == ("rlhf", "")
    for name, flag, _ in slide.read(slide.ROOT / f"{script}.py").departures:
        literal = any("--literal" in row["flags"] and "off" in row for row in planned)
        assert not flag or literal or any(flag in text for text in flags), name


def test_a_run_is_made_once_and_kept(tmp_path, monkeypatch, capsys):
    row = dict(script="qlearning_table", env="Maze-v0", flags="--episodes 30", seeds=1)
    bad = dict(script="dqn", env="CartPole-v1", flags="--gamma 7", seeds=1, reference=1)
    monkeypatch.setattr(run, "PLAN", dict(learn=[row], zoo=[bad], rlhf=[], speed=[]))
    monkeypatch.setattr(run, "RESULTS", tmp_path)

    def said(status, flags=""):
        assert run.main(["--jobs", "1", *flags.split()]) == status
        return capsys.readouterr().out

    text = said(0, "--dry-run --only learn")
    assert text.startswith("1 runs, 0 of them done, 1 to do\npython -m benchmark.peers qlearning")
    text = said(1)
    assert "failed: python -m benchmark.peers dqn" in text and "--gamma 7.0: it must be" in text
    assert "3 runs, 2 of them done, 1 to do" in said(0, "--dry-run")  # what failed is not kept
    (learned,), (line,) = (run.read(tmp_path / name) for name in ("learn.csv", "zoo.csv"))
    assert -1 <= float(learned["return"]) <= 1 and float(learned["seconds"]) < 5
    assert (line["script"], line["return"]) == ("random", "21.61") and line["commit"]


def test_the_page_is_what_the_csvs_say():
    page = (slide.ROOT / "docs/results.md").read_text()
    assert page == table.page(), "run python -m benchmark.table"
