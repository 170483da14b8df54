"""What train() promises, exactly: defaults, seeds, budgets, reports, ends of episodes, errors."""

import itertools
import random
import tomllib
import types
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch

import rlhf
from common import runs
from tests.worlds import SCRIPTS, Constant, Mixed, Probe, fitting, train


def test_defaults():
    """Frozen: those of train(), of rlhf.py's steps, and LITERAL."""
    defaults = lambda f: {k: v for k, v in f.__kwdefaults__.items() if v is not None}
    found = {k: dict(train=defaults(x.train), LITERAL=x.LITERAL) for k, x in SCRIPTS.items()}
    del found["a3c"]["train"]["workers"]  # the machine's cores
    steps = rlhf.train, rlhf.fine_tune, rlhf.reward_model, rlhf.ppo
    found["rlhf"] = {step.__name__: defaults(step) for step in steps}
    assert found == tomllib.loads(Path(__file__).with_name("defaults.toml").read_text("utf-8"))


# ------------------------------------------------------------------------------- seeds and budgets

every = pytest.mark.parametrize("script", SCRIPTS)


@every
@pytest.mark.parametrize(("steps", "most"), [(41, 99), (48, 99), (1000, 3)])
def test_reports_and_budget(script, steps, most):
    """Return, length and step of each episode that ended; unscaled, and none that was cut. True
    from on_episode ends the training at once."""
    seen, lengths = [], itertools.cycle((4, 5))
    make = lambda: Mixed(length=next(lengths), **fitting(script))
    report = lambda *episode: seen.append(episode) or len(seen) == most
    _, returns, made = train(script, make, seed=11, steps=steps, on_episode=report)
    expected, n = [], len(made)
    for i, env in enumerate(made):
        assert env.seeds[0] == 11 + i
        assert set(env.seeds[1:]) == {None}  # or all episodes would begin alike
        for end in range(env.length, len(env.log) + 1, env.length):
            total = sum(step[2] for step in env.log[end - env.length : end])
            expected.append((end * n, i, total, env.length))
    expected = [(total, length, step) for step, _, total, length in sorted(expected)[:most]]
    assert np.array(seen) == pytest.approx(np.array(expected), abs=1e-6)
    assert returns == [episode[0] for episode in seen] and all(type(x) is float for x in returns)
    played = sum(len(env.log) for env in made)
    budget = dict(actor_critic=2 * (steps // 2), ppo=48).get(script, steps)
    budget = seen[-1][2] if len(seen) == most else budget
    assert played == budget or script == "a3c" and steps < played <= steps + 3


@every
def test_the_seed_reaches_the_agent(script):
    """Another seed acts otherwise where the environment is the same for all seeds. The same one
    gives the same result: test_snippets. The global random states stay as they are."""
    make = lambda: Constant(**fitting(script))
    logs = lambda seed: str([env.log for env in train(script, make, seed=seed, steps=60)[-1]])
    before, rng = (random.getstate(), np.random.get_state()[1].tolist()), np.random.default_rng
    assert logs(1) != logs(2)
    with mock.patch.object(np.random, "default_rng", side_effect=rng) as made:
        logs(3)
    assert {call.args for call in made.mock_calls} <= {(3,)}
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


# ---------------------------------------------------------------------------- other environments


@every
def test_divergence_is_told(script):
    """Also of a NaN, which compares with nothing."""
    make = lambda: Probe(scale=np.nan, **fitting(script))
    with pytest.raises(FloatingPointError, match="at step"):
        train(script, make, steps=60)


@every
def test_other_states_are_refused_in_one_line(script):
    """It says which wrapper helps."""
    make = lambda: Probe(**fitting(script) | dict(states=gym.spaces.Box(0, 1, (3,), np.float64)))
    with pytest.raises(AssertionError) as told:
        train(script, make, steps=9)
    says = "Discrete" if script == "qlearning_table" else "FlattenObservation"
    assert says in str(told.value) and "\n" not in str(told.value)


# ------------------------------------------------------------------------- what main() hands over

LOGITS, VALUES = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([3.0, 1.0, 2.0])
pi = lambda states: types.SimpleNamespace(mode=torch.ones(states.shape[:-1]))
V = lambda states: torch.full((len(states),), 0.5)
HANDED = dict(  # what was learned; the value of a state whose greedy action is 1
    qlearning_table=([np.array([[3.0, 1], [-3, 2]])], 2),
    dqn=([lambda state: LOGITS], 2),
    reinforce=([pi], None),
    actor_critic=([lambda state: LOGITS, lambda state: VALUES], LOGITS.softmax(0) @ VALUES),
    ddpg=([lambda state: torch.ones(1), lambda state, action: 2 * action.sum()], 2),
    a3c=([pi, V], 0.5),
    ppo=([pi, V], 0.5),
)


@pytest.mark.parametrize("script", HANDED)
def test_main_hands_over_the_greedy_action_and_the_value(script):
    with mock.patch.object(runs, "main", return_value=7) as main:
        assert SCRIPTS[script].main(["--x"]) == 7
    (args, options), (learned, value) = main.call_args, HANDED[script]
    state = 1 if script == "qlearning_table" else torch.zeros(3)
    env = dict(qlearning_table="Treasure-v0", ddpg="Pendulum-v1").get(script, "CartPole-v1")
    assert args == (SCRIPTS[script].train, ["--x"]) and options["env"] == env
    assert options.get("table", False) == (script == "qlearning_table")
    assert options["act"](*learned, state) == 1
    given = options.get("value")
    assert value is None if given is None else given(*learned, state) == pytest.approx(value)
