"""The stepper: what it prints is what the script did, and the script does the same without it."""

import re
import sys

import numpy as np
import pytest
import torch

import ppo
from tests.test_snippets import expected, typed
from tools import slide, step

# Script -> flags, and a statement whose result follows from the numbers that are printed.
STATEMENTS = {
    "qlearning_table": ("--show 25:26", "Q[S, A] += alpha * (R + gamma * (1 - terminated) * Q"),
    "dqn": ("--env Maze-v0 --batch 8 --epsilon 1 --show 16:16", "y = reward_j"),
    "reinforce": ("--show 1:40", "v[t] = rewards[t]"),
    "actor_critic": ("--show 16:16", "critic_loss = "),
    "ddpg": ("--warmup 8 --batch 8 --show 9:9", "y = reward_i"),
    "a3c": ("--t-max 3 --show 1:4", "R = rewards[i]"),
    "ppo": ("--n-envs 2 --horizon 4 --batch 4 --show 8:8", "A = gae"),
    "rlhf": ("--demonstrations 4 --comparisons 4 --show 4:4", "loss = -logsigmoid"),
}
VALUE = r"(\[.*?\]+|-?\d\S*|True|False)"
CHIP = re.compile(
    rf"   (?:\* )?([A-Za-z_]\S*?(?:\[[^=]*\])?) = (?:(\S+) → )?{VALUE}(?=   |$)", re.M
)


@pytest.fixture(autouse=True)
def _scripts_stay(monkeypatch):
    """The stepper loads a script under its own name: afterwards the old one has it again."""
    for name in sys.modules.keys() & set(slide.SCRIPTS):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])


def printed(capsys, path, flags: str) -> str:
    assert step.main([str(path), *flags.split()]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", slide.SCRIPTS)
def test_a_statement_from_the_numbers_beside_it(capsys, name):
    flags, begin = STATEMENTS[name]
    out = printed(capsys, slide.ROOT / f"{name}.py", flags)
    assert "ended here; nothing is saved" in out
    stops = re.split(r"^(?=\[)", out, flags=re.MULTILINE)
    stop = next(stop for stop in reversed(stops) if f"  {begin}" in stop)
    row = next(line for line in stop.splitlines() if f"  {begin}" in line)[7:].strip()
    target, sign, calculation = re.split(r" (\+?=) ", row.split("   ")[0], maxsplit=1)
    given = dict(torch=torch, gae=ppo.gae, logsigmoid=torch.nn.functional.logsigmoid)
    chips = {term: (before or now, now) for term, before, now in CHIP.findall(stop)}
    for i, term in enumerate(sorted(chips, key=len, reverse=True)):
        calculation = re.sub(rf"(?<![\w.]){re.escape(term)}(?![\w])", f"x{i}", calculation)
        value = eval(chips[term][term != target])
        given[f"x{i}"] = torch.tensor(value) if "loss" in begin else np.array(value)
    result = torch.as_tensor(eval(calculation, given)).numpy()
    before, now = map(eval, chips[target])
    assert np.allclose(result + (before if sign == "+=" else 0), now, rtol=2e-3, atol=2e-3), row


def test_a_copy_elsewhere_with_a_mistake(capsys, tmp_path):
    """Without the factor in [12] y is not the reward alone where a state is terminal."""
    source = (slide.ROOT / "dqn.py").read_text(encoding="utf-8")
    assert source.count("(1 - terminated_j) * ") == 1
    (tmp_path / "mine.py").write_text(source.replace("(1 - terminated_j) * ", ""), encoding="utf-8")
    out = printed(capsys, tmp_path / "mine.py", "--env Maze-v0 --batch 8 --epsilon 1 --show 40:44")
    vector = lambda name: np.array(eval(re.search(rf"{name} = (\[.*?\])", out)[1]))
    terminal = vector("terminated_j") == 1
    assert terminal.any() and (vector("reward_j") != vector(r"\* y"))[terminal].all()
    assert not list(tmp_path.glob("runs")), "something was saved"


@pytest.mark.parametrize("name", ["dqn", "a3c", "rlhf"])
def test_watching_changes_nothing(name):
    path, stops = slide.ROOT / f"{name}.py", []
    train = step.load(path).train
    with step.Tracer(path, stops.append, lambda step: True):
        assert typed(name, train) == expected(name)
    tags = {tag.tag for tag in slide.read(path).tags if tag.text != "return theta"}
    assert tags <= {stop.tag for stop in stops}


@pytest.mark.parametrize(
    "argv, says",
    [
        (["no_such.py"], "no_such.py"),
        ([str(slide.ROOT / "README.md")], "not Python"),
        ([str(slide.ROOT / "common/envs.py")], "no tags"),
        ([str(slide.ROOT / "dqn.py"), "--show", "x"], "--show"),
        ([str(slide.ROOT / "qlearning_table.py"), "--steps", "9", "--show", "50:60"], "at step 9"),
        ([str(slide.ROOT / "dqn.py"), "--env", "Pendulum-v1"], "ddpg.py"),
    ],
)
def test_bad_input_is_one_line(capsys, argv, says):
    assert step.main(argv) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
