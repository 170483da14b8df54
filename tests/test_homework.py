"""tools/homework.py: right answers pass, mistakes are caught and named, whatever is handed in."""

import csv
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tools import homework, slide

ANSWERS = tomllib.loads(homework.ANSWERS.read_text("utf-8"))
DQN = slide.ROOT / "dqn.py"
homework.DRAWS = 40  # fewer


def reference(script: str) -> homework.Reference:
    return homework.opened(slide.ROOT / f"{script}.py")


@pytest.mark.parametrize(("script", "which"), [("actor_critic", -1), ("ppo", -1), ("dqn", 0)])
def test_right_answers_in_other_words_pass(script, which):
    """`python -m tools.homework rate` tries all. That of dqn.py draws other random numbers."""
    at, code = ANSWERS[script][which].values()
    assert not homework.judge(reference(script), reference(script).put(at, code), at)


def test_the_error_rate(capsys, monkeypatch):
    """Every fifth known mistake is caught and named, every right answer passes."""
    right = reference("reinforce")
    monkeypatch.setattr(right, "mistakes", right.mistakes[::5])
    monkeypatch.setattr(homework, "Reference", lambda path: right)
    assert homework.main(["rate", "reinforce"]) == 0
    counts = r"so far (\d+) of \1 mistakes are caught, \1 named; (\d+) of \2 right answers pass"
    assert re.search(counts, capsys.readouterr().out)


@pytest.mark.parametrize(("script", "at", "old", "new", "says"), ANSWERS["said"])
def test_what_is_said(script, at, old, new, says, monkeypatch):
    """The difference, and the mistake where it is a known one."""
    right = reference(script)
    monkeypatch.setattr(right, "mistakes", [m for m in right.mistakes if says in f"as if: {m[1]}"])
    own = homework.text(right.source, right.own[at])
    assert says in homework.judge(right, right.put(at, own.replace(old, new)), at)


def test_tolerance():
    """Two thousandths of the largest number; of many numbers one in a hundred may differ."""
    right = np.array([0.0, -1, np.nan])
    assert homework.unlike(right, right + 1.9e-3) == ""
    assert homework.unlike(right, right + 2.1e-3) == "[0] is 0.0021, should be 0"
    assert homework.unlike(right, np.array([0, -1, 2])) == "[2] is 2, should be nan"
    assert homework.unlike(None, 3) == " is 3, should be None" and not homework.unlike(3, 3.0)
    far = lambda n, few: homework.unlike(np.zeros(n), np.arange(n) < few)
    assert far(1000, 1) and far(2000, 21) and not far(2000, 20)


def test_whatever_is_handed_in(capsys):
    """One row a file and line: an endless loop or a crash costs its own line only."""
    broken = source = DQN.read_text("utf-8")
    for old, new in {
        "next_state = phi(x)": "while True: pass",
        "D.store(state, action": "__import__('os')._exit(3); D.store(state, action",
        "# [11] Sample": "# Sample",
        "y = reward_j + gamma_j": "print(1); raise SystemExit; y = reward_j + gamma_j",
        "loss = (y - q).square().mean()": "loss = squares(y - q)",
        "def phi(": "squares = lambda x: (x**2).mean()\n\n\ndef phi(",
    }.items():
        broken = broken.replace(old, new)
    Path("a.py").write_text(broken)
    Path("b.py").write_text("def train(:\n")
    Path("c.py").write_text(source.replace("* (1 - terminated_j)", ""))
    assert homework.main(f"check a.py --against {DQN} --lines 9 --timeout 2".split()) == 1
    assert "no answer in time" in capsys.readouterr().out
    flags = f"a.py b.py c.py --against {DQN} --lines 10,11,12,13"
    assert homework.main(f"check {flags} --csv t.csv --gradescope g.json".split()) == 1
    _, _, points, says = zip(*csv.reader(Path("t.csv").open(newline="")), strict=True)
    assert points == ("points", *"0001", *"0000", *"1101")
    expected = ["says", "Python ended", "is missing", "SystemExit", "^$"]
    assert all(map(re.search, [*expected, *["^SyntaxError.*line 1"] * 4], says))
    assert len(json.loads(Path("g.json").read_text())["tests"]) == 12
    said = capsys.readouterr().out
    assert "as if: it bootstraps through a terminal state docs/html/dqn.html#12" in said
    assert "[13]  ok, given the right y" in said
    assert homework.main(["check", "c.py", "--whole"]) == 1
    assert "after [12]: y[" in capsys.readouterr().out


def test_an_assignment(tmp_path, capsys):
    """What is made is not done yet, its other lines are right, and its solution passes."""
    nbformat = pytest.importorskip("nbformat")
    assert homework.main(["make", str(DQN), "--lines", "5,11,phi", "--out", "hw"]) == 0
    assert "[11] the check catches 2 of 2 known mistakes" in capsys.readouterr().out
    blank = (tmp_path / "hw/dqn.py").read_text("utf-8")
    assert "# to assign: state_j, float32 (batch, n_features)\n" in blank and "alike" not in blank
    assert "            while ...:\n" not in blank and "        while ...:\n" in blank
    says = {at: homework.judge(reference("dqn"), blank, at) for at in ("5", "7", "11", "phi")}
    assert says == dict.fromkeys(("5", "11", "phi"), "not done yet") | {"7": ""}
    for path in ("hw/dqn.ipynb", "hw/source/hw/dqn.ipynb"):
        book = nbformat.read(path, 4)
        nbformat.validate(book)
        kinds = [cell.metadata.nbgrader for cell in book.cells if "nbgrader" in cell.metadata]
        assert sum(kind["grade"] for kind in kinds) == 3 == sum(k.get("points", 0) for k in kinds)
    homework.grade([homework.source_of(tmp_path / "hw/source/hw/dqn.ipynb")], "11", "dqn.py")
    with pytest.raises(AssertionError, match="not done yet"):
        homework.grade([homework.source_of(tmp_path / "hw/dqn.ipynb")], "11", "dqn.py")
