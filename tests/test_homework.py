"""tools/homework.py: right answers pass, mistakes are caught and named, whatever is handed in."""

import csv
import json
import tomllib

import pytest

from tools import homework, slide

ANSWERS = tomllib.loads(homework.ANSWERS.read_text("utf-8"))


@pytest.fixture(scope="module")
def reference():
    """reference(script): parsed once."""
    found = {}

    def get(script: str) -> homework.Reference:
        if script not in found:
            found[script] = homework.Reference(slide.ROOT / f"{script}.py")
        return found[script]

    return get


@pytest.mark.parametrize("script", ANSWERS)
def test_right_answers_in_other_words_pass(reference, script):
    """One of them; `python -m tools.homework rate` tries all."""
    answer = ANSWERS[script][0]
    source = homework.put(reference(script), {answer["at"]: answer["code"]})
    assert not homework.judge(reference(script), source, answer["at"])


@pytest.mark.parametrize(
    ("script", "at"),
    [("qlearning_table", "8"), ("dqn", "12"), ("a3c", "14"), ("ppo", "gae"), ("rlhf", "until_end")],
)
def test_mistakes_are_caught_and_named(reference, script, at):
    """All that are known in these lines; `python -m tools.homework rate` tries the others."""
    found = homework.rate(reference(script), at)
    assert len(found) > 1 and [m["sentence"] for m, _, named in found if not named] == []


SAYS = {
    ("12", "y = ", "target = "): "you assign `target`, the task asks for `y`",
    ("12", "amax(dim=1)", "amax(dim=1, keepdim=True)"): "has the shape (6, 6), should have (6,)",
    (
        "12",
        "with torch.no_grad()",
        "if True",
    ): "there is a gradient of y by q_network.parameters[0]",
    ("12", "next_value = ", "next_value = undefined + "): "NameError: name 'undefined'",
    ("5", "not done and step", "step"): "comes to the lines inside, but the line goes on",
    ("10", "step % train_every", "(step + 1) % train_every"): "but the line",
}


@pytest.mark.parametrize("change", SAYS)
def test_what_is_said(reference, change):
    at, old, new = change
    rows = homework.place(reference("dqn"), at)
    lines = reference("dqn").source.splitlines(keepends=True)
    own = "".join(lines[rows.start - 1 : rows.stop - 1])
    assert old in own
    lines[rows.start - 1 : rows.stop - 1] = [own.replace(old, new)]
    assert SAYS[change] in homework.judge(reference("dqn"), "".join(lines), at)


def test_whatever_is_handed_in(tmp_path, capsys):
    """One row a file and line: an endless loop or a crash costs its own line only."""
    source = (slide.ROOT / "dqn.py").read_text("utf-8")
    changes = {
        "next_state = phi(x)": "while True: pass",
        "D.store(state, action": "__import__('os')._exit(3); D.store(state, action",
        "# [11] Sample": "# Sample",
        "y = reward_j + gamma_j": "print(1); raise SystemExit; y = reward_j + gamma_j",
        "loss = (y - q).square().mean()": "loss = ((y - q) ** 2).mean()",
    }
    broken = source
    for old, new in changes.items():
        assert old in broken
        broken = broken.replace(old, new)
    (tmp_path / "a.py").write_text(broken)
    (tmp_path / "b_dqn.py").write_text("def train(:\n# [9] Set s_{t+1} = s_t, a_t, x_{t+1} and pre")
    (tmp_path / "c.py").write_text(source)
    files = [str(tmp_path / name) for name in ("a.py", "b_dqn.py", "c.py")]
    flags = [
        "--lines",
        "9,10,11,12,13",
        "--timeout",
        "15",
        "--csv",
        "t.csv",
        "--gradescope",
        "g.json",
    ]
    assert homework.main(["check", *files, *flags, "--against", str(slide.ROOT / "dqn.py")]) == 1
    with open("t.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 15 and len(json.load(open("g.json"))["tests"]) == 15
    says = [row["says"] for row in table[:5]]
    assert [says[0][:9], says[1][:11], says[4]] == ["no answer", "the process", ""]
    assert "is missing" in says[2] and "SystemExit" in says[3]
    assert all(row["says"].startswith("not Python: line 1") for row in table[5:10])
    assert all(row["points"] == "1" for row in table[10:])
    assert "ok, given the right" in capsys.readouterr().out


def test_an_assignment(tmp_path, reference, capsys):
    """What is made is not done yet, its other lines are right, and its solution passes."""
    nbformat = pytest.importorskip("nbformat")
    dqn = slide.ROOT / "dqn.py"
    assert homework.main(["make", str(dqn), "--lines", "6,12,phi", "--out", "hw"]) == 0
    assert "[12] the check catches 16 of 16 known mistakes" in capsys.readouterr().out
    blank = (tmp_path / "hw/dqn.py").read_text("utf-8")
    assert "# to assign: y, float32 (batch,)\n" in blank and "no_grad():  # y" not in blank
    says = {at: homework.judge(reference("dqn"), blank, at) for at in ("6", "7", "12", "13", "phi")}
    assert [at for at, text in says.items() if text == "not done yet"] == ["6", "12", "phi"]
    assert says["7"] == says["13"] == ""
    for path in ("hw/dqn.ipynb", "hw/source/hw/dqn.ipynb"):
        book = nbformat.read(path, 4)
        nbformat.validate(book)
        kinds = [cell.metadata.nbgrader for cell in book.cells if "nbgrader" in cell.metadata]
        assert sum(kind["grade"] for kind in kinds) == 3 == sum(k.get("points", 0) for k in kinds)
    source = homework.source_of(tmp_path / "hw/source/hw/dqn.ipynb")
    assert "### BEGIN SOLUTION" in source and not homework.judge(reference("dqn"), source, "12")
    homework.grade([source], "12", "dqn.py")
    with pytest.raises(AssertionError, match="not done yet"):
        homework.grade([homework.source_of(tmp_path / "hw/dqn.ipynb")], "12", "dqn.py")


def test_bad_input(capsys):
    assert homework.main(["make", str(slide.ROOT / "dqn.py"), "--lines", "99", "--out", "x"]) == 2
    assert homework.main(["check", "nothing.py"]) == 2
    assert "has no line or piece 99" in (said := capsys.readouterr().err)
    assert "nothing.py" in said and "Traceback" not in said
