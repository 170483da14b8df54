"""The stepper: what it prints is what the script did, and the script does the same without it."""

import re
import shutil
from pathlib import Path

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
CHIP = re.compile(rf"(?m)   (?:\* )?([A-Za-z_]\S*?(?:\[[^=]*\])?) = (?:(\S+) → )?{VALUE}(?=   |$)")


def copy(name: str) -> Path:
    """A student's copy of a script, elsewhere and under another name."""
    return Path(shutil.copy(slide.ROOT / f"{name}.py", "mine.py")).resolve()


@pytest.mark.parametrize("name", slide.SCRIPTS)
def test_a_statement_from_the_numbers_beside_it(capsys, name):
    flags, begin = STATEMENTS[name]
    assert step.main([str(copy(name)), *flags.split()]) == 0
    out = capsys.readouterr().out
    assert "ended here; nothing is saved" in out and not Path("runs").exists()
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


@pytest.mark.parametrize("name", ["dqn", "a3c", "rlhf"])
def test_watching_changes_nothing(name):
    path, stops = copy(name), []
    train = step.load(path).train
    with step.Tracer(path, stops.append, lambda step: True):
        assert typed(name, train) == expected(name)
    tags = {tag.tag for tag in slide.read(path).tags if tag.text != "return theta"}
    assert tags <= {stop.tag for stop in stops}


BAD_INPUT = {  # a word of the message -> command
    "no_such.py": "no_such.py",
    "not Python": f"{slide.ROOT}/README.md",
    "no tags": f"{slide.ROOT}/common/envs.py",
    "--show": "mine.py --show x",
    "at step 9": "mine.py --steps 9 --show 50:60",
    "at least 1": "mine.py --steps 0",
}


@pytest.mark.parametrize("says", BAD_INPUT)
def test_bad_input_is_one_line(capsys, says):
    copy("qlearning_table")
    assert step.main(BAD_INPUT[says].split()) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
