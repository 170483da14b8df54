"""benchmark/: the plan fits the scripts, missing runs are made once, the page shows the CSVs."""

import contextlib
import importlib
import io
import re

import gymnasium as gym
import pytest

pytest.importorskip("joblib", reason="no joblib: see docs/requirements.txt")
pytest.importorskip("jinja2", reason="no jinja2: see docs/requirements.txt")
from benchmark import run, speed, table
from common import envs, language
from tools import slide

ROWS = [row for section in ("learn", "zoo", "rlhf") for row in run.PLAN[section]]


@pytest.mark.parametrize("script", slide.SCRIPTS)
def test_the_plan_fits_the_script(script):
    """All flags exist, the environments do, and each departure is turned off somewhere."""
    text = io.StringIO()
    with pytest.raises(SystemExit, match="0"), contextlib.redirect_stdout(text):
        importlib.import_module(script).main(["--help"])
    planned = [row for row in ROWS if row["script"] == script]
    flags = [f"{row['flags']} {row.get('better', '')}" for row in planned]
    known = set(re.findall(r"--[\w-]+", text.getvalue()))
    assert planned and set(re.findall(r"--[\w-]+", " ".join(flags))) <= known
    for row in planned:
        assert row["env"] in gym.registry or (script, row["env"]) == ("rlhf", "")
    for name, flag, _ in slide.read(slide.ROOT / f"{script}.py").departures:
        literal = any("--literal" in row["flags"] and "off" in row for row in planned)
        assert not flag or literal or any(flag in text for text in flags), name


def test_a_run_is_made_once_and_kept(tmp_path, monkeypatch, capsys):
    row = dict(script="qlearning_table", env="Maze-v0", flags="--episodes 30", seeds=1)
    bad = dict(script="dqn", env="CartPole-v1", flags="--gamma 7", seeds=1, reference=1)
    monkeypatch.setattr(run, "PLAN", dict(learn=[row], zoo=[bad], rlhf=[], speed=[]))
    monkeypatch.setattr(run, "RESULTS", tmp_path)

    def said(status, *flags):
        assert run.main(["--jobs", "1", *flags]) == status
        return capsys.readouterr().out

    text = said(0, "--dry-run", "--only", "learn")
    assert (
        "1 runs, 0 of them done, 1 to do\npython -m benchmark.peers qlearning_table --env Maze-v0"
        in text
    )
    assert not list(tmp_path.iterdir())
    said(0, "--only", "learn")
    before = (tmp_path / "learn.csv").read_text()
    assert "3 runs, 1 of them done, 2 to do" in (text := said(1))
    assert "failed: python -m benchmark.peers dqn" in text and "--gamma 7.0: it must be" in text
    assert "3 runs, 2 of them done, 1 to do" in said(0, "--dry-run")  # what failed is not kept
    assert (tmp_path / "learn.csv").read_text() == before
    (line,) = run.read(tmp_path / "learn.csv")
    assert -1 <= float(line["return"]) <= 1 and float(line["seconds"]) < 5 and line["commit"]
    (line,) = run.read(tmp_path / "zoo.csv")
    assert line["script"] == "random" and 10 < float(line["return"]) < 40


def test_what_rlhf_says_is_found():
    names = "accuracy win_rate kl true_reward sft_true_reward score sft_score".split()
    text = language.REPORT.format(**dict(zip(names, range(7), strict=True)))
    for beta in ("0.5", "0"):
        text += f"\nPPO, beta {beta}: at its best true reward 3.75{beta}, score 2.48{beta};"
        text += f"\n    at the end true reward -5.47{beta}, score 6.68{beta}"
    text += "\ntrained for 37 s\n"
    found = [re.search(pattern, text, re.M)[1] for pattern in run.SAID["rlhf"].values()]
    assert found == "0.000 1.000 3.00 4.00 3.750 -5.470 2.480 6.680 37".split()


def test_the_page_is_what_the_csvs_say():
    page = (slide.ROOT / "docs/results.md").read_text()
    assert page == table.page(), "run python -m benchmark.table"
    assert table.number(float("nan")) == ""
    for name in ("steps", "departures", "zoo"):
        assert 5_000 < (slide.ROOT / f"docs/results/{name}.png").stat().st_size < 150_000


def test_counting_steps_leaves_gymnasium_as_it_was():
    order = gym.wrappers.OrderEnforcing
    everything = lambda: (gym.make, gym.envs.registration.make, order.step, gym.Env.step)
    before, speeds = everything(), []
    with speed.counting(speeds.append, start=10, seconds=0.0):
        env = envs.make("CartPole-v1")
        env.reset(seed=0)
        for i in range(200):
            assert not speeds or i >= 63  # after 10 steps, then at the first look at the clock
            if any(env.step(0)[2:4]):
                env.reset()
    assert everything() == before and len(speeds) == 1 and speeds[0] > 0
