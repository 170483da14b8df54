"""The stepper: what it prints is what the script did, and the script does the same without it."""

import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

import ppo
from tests.test_snippets import expected, typed
from tests.worlds import Constant
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


def test_where_a_run_is():
    """The return so far, and how the episode has ended; a terminal state at the limit is one."""
    tracer, told = mock.Mock(envs=[]), []
    env = step.Watched(Constant(("terminal", "limit", "both"), 2, Discrete(2)), tracer)
    for t in range(6):
        t % 2 or env.reset()
        env.step(0)
        told.append(step.place(t, env))
    assert told[::2] == [f"step {t}, return so far 1" for t in (0, 2, 4)]
    ended = re.findall("has ended, ([a-z ]+): return 2", str(told))
    assert ended == ["terminal", "time limit", "terminal"] == [row[4] for row in env.past[1::2]]


@pytest.mark.parametrize("name", ["dqn", "a3c", "rlhf"])
def test_watching_changes_nothing(name):
    path, stops = copy(name), []
    train = step.load(path).train
    with step.Tracer(path, stops.append, lambda step: True):
        assert typed(name, train) == expected(name)
    tags = {tag.tag for tag in slide.read(path).tags if tag.text != "return theta"}
    assert tags <= {stop.tag for stop in stops}
