"""What train() promises, exactly: defaults, seeds, budgets, reports, the ends of episodes, errors;
and values that are known."""

import inspect
import itertools
import random
import types

import gymnasium as gym
import numpy as np
import pytest
import torch

import rlhf
from common import runs
from tests.worlds import SCRIPTS, SMALL, Constant, Mixed, Probe, as_bytes, fitting, train

# Every default of train(), and LITERAL behind the bar.
DEFAULTS = """
qlearning_table: seed=0 episodes=5000 steps=1000000 gamma=0.99 alpha=0.1 epsilon=0.3
    epsilon_decay=True | gamma=0.9 epsilon=0.1 epsilon_decay=False
dqn: seed=0 episodes=100000 steps=300000 gamma=0.99 alpha=0.0005 memory=100000 batch=128
    epsilon=0.02 train_every=4 n_steps=5 scale_rewards=True hidden=128
    | alpha=0.001 batch=32 train_every=1 n_steps=1 scale_rewards=False
reinforce: seed=0 episodes=100000 steps=300000 gamma=0.99 alpha=0.005 beta=0.005 baseline=True
    scale_rewards=True adam=True hidden=64
    | alpha=3e-05 baseline=False scale_rewards=False adam=False
actor_critic: seed=0 steps=1000000 n_envs=16 gamma=0.99 alpha=0.001 beta=0.01 expected=True
    advantage=True adam=True hidden=64
    | n_envs=1 gamma=0.9 alpha=0.0001 expected=False advantage=False adam=False
ddpg: seed=0 episodes=100000 steps=20000 gamma=0.99 alpha=0.001 beta=0.001 memory=100000 batch=128
    tau=0.01 warmup=1000 sigma=0.1 hidden=128 | warmup=0
a3c: seed=0 steps=1000000 t_max=20 gamma=0.99 alpha=0.002 scale_rewards=True hidden=64
    | scale_rewards=False
ppo: seed=0 steps=1000000 n_envs=8 horizon=256 epochs=10 batch=256 gamma=0.99 gae_lambda=0.95
    alpha=0.002 beta=1.0 d_targ=0.01 normalize_states=True normalize_rewards=True hidden=64
    | normalize_states=False normalize_rewards=False
train: seed=0 steps=50000 beta=0.5 demonstrations=6000 comparisons=5000 |
fine_tune: seed=0 demonstrations=6000 epochs=3 batch=64 alpha=0.003 |
reward_model: seed=0 comparisons=5000 epochs=3 batch=64 alpha=0.002 |
ppo: seed=0 steps=50000 beta=0.5 n_outputs=256 epochs=2 batch=64 gae_lambda=0.95 alpha=0.0006
    clip=0.2 |
"""


def test_defaults():
    """Of qlearning_table, dqn, reinforce, actor_critic, ddpg, a3c, ppo and rlhf: one table."""
    found = []
    functions = [(name, script.train, script.LITERAL) for name, script in SCRIPTS.items()]
    for name in ("train", "fine_tune", "reward_model", "ppo"):
        functions.append((name, getattr(rlhf, name), {}))
    for name, function, literal in functions:
        defaults = {k: p.default for k, p in inspect.signature(function).parameters.items()}
        left_out = {None, inspect.Parameter.empty, defaults.get("workers")}  # the machine's cores
        shown = [f"{k}={v!r}" for k, v in defaults.items() if v not in left_out]
        found += [f"{name}:", *shown, "|", *(f"{k}={v!r}" for k, v in literal.items())]
    assert found == DEFAULTS.split()


# ------------------------------------------------------------------------------- seeds and budgets

every = pytest.mark.parametrize("script", SCRIPTS)


@every
@pytest.mark.parametrize("steps", [41, 48])
def test_reports_and_budget(script, steps):
    """Return, length and step of each episode that ended; unscaled, and none that was cut."""
    seen, lengths = [], itertools.cycle((4, 5))
    make = lambda: Mixed(length=next(lengths), **fitting(script))
    report = lambda *episode: seen.append(episode)
    _, returns, made = train(script, make, seed=11, steps=steps, on_episode=report)
    assert [env.seeds[0] for env in made] == [11, 12][: len(made)]
    expected, n = [], len(made)
    for i, env in enumerate(made):
        assert set(env.seeds[1:]) == {None}  # or all episodes would begin alike
        ends = [t + 1 for t, step in enumerate(env.log) if any(step[4:])]
        for start, end in itertools.pairwise([0, *ends]):
            total = sum(step[2] for step in env.log[start:end])
            expected.append((end * n, i, total, end - start))
    expected = [(total, length, step) for step, _, total, length in sorted(expected)]
    assert [episode[1:] for episode in seen] == [episode[1:] for episode in expected]
    assert returns == [episode[0] for episode in seen]
    assert returns == pytest.approx([episode[0] for episode in expected], abs=1e-6)
    assert all(type(x) is float for x in returns) and len(returns) > 4
    played = sum(len(env.log) for env in made)
    most = dict(actor_critic=2 * (steps // 2), ppo=48)
    assert played == most.get(script, steps) or script == "a3c" and steps < played <= steps + 3


@every
def test_on_episode_can_end_the_training(script):
    seen = []
    stop = lambda *episode: seen.append(episode) or len(seen) == 3
    options = dict(n_envs=1) if "n_envs" in SMALL[script] else {}
    make = lambda: Mixed(**fitting(script))
    _, returns, (env,) = train(script, make, steps=1000, on_episode=stop, **options)
    assert len(returns) == len(seen) == 3 and len(env.log) in (9, 10, 12)


@every
def test_the_seed_reaches_the_agent(script):
    """Another seed acts otherwise where the environment is the same for all seeds. The same one
    gives the same result: test_snippets. The global random states stay as they are."""
    make = lambda: Constant(**fitting(script))
    actions = lambda seed: [
        str(step[1]) for env in train(script, make, seed=seed, steps=60)[-1] for step in env.log
    ]
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert actions(1) != actions(2)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


# ---------------------------------------------------------------------------- other environments


@every
def test_a_wrapped_instance_works(script):
    """RecordEpisodeStatistics, which also counts returns, changes nothing."""
    make = lambda: Mixed(**fitting(script))
    wrapped = train(script, lambda: gym.wrappers.RecordEpisodeStatistics(make()), steps=60)
    assert as_bytes(*wrapped[:2]) == as_bytes(*train(script, make, steps=60)[:2])


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
    qlearning_table=([np.array([[3.0, 1], [0, 2]])], 2),
    dqn=([lambda state: LOGITS], 2),
    reinforce=([pi], None),
    actor_critic=([lambda state: LOGITS, lambda state: VALUES], LOGITS.softmax(0) @ VALUES),
    ddpg=([lambda state: torch.ones(1), lambda state, action: 2 * action.sum()], 2),
    a3c=([pi, V], 0.5),
    ppo=([pi, V], 0.5),
)


@pytest.mark.parametrize("script", HANDED)
def test_main_hands_over_the_greedy_action_and_the_value(script, monkeypatch):
    calls = []
    monkeypatch.setattr(runs, "main", lambda *args, **options: calls.append((args, options)) or 7)
    assert SCRIPTS[script].main(["--x"]) == 7
    ((args, options),), (learned, value) = calls, HANDED[script]
    state = 1 if script == "qlearning_table" else torch.zeros(3)
    env = dict(qlearning_table="Treasure-v0", ddpg="Pendulum-v1").get(script, "CartPole-v1")
    assert args == (SCRIPTS[script].train, ["--x"]) and options["env"] == env
    assert options.get("table", False) == (script == "qlearning_table")
    assert options["act"](*learned, state) == 1
    given = options.get("value")
    assert value is None if given is None else given(*learned, state) == pytest.approx(value)


# --------------------------------------------------------------------------------- known values


def test_the_lectures_grid_under_the_random_policy():
    """Sutton & Barto, Figure 4.1."""
    P, V = gym.make("GridWorld-v0").unwrapped.P, np.zeros(16)
    for _ in range(1000):
        rows = [[row for (row,) in P[s].values()] for s in P]
        V = np.array([np.mean([r + V[s2] * (not end) for _, s2, r, end in row]) for row in rows])
    figure = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    assert V.reshape(4, 4) == pytest.approx(np.array(figure), abs=1e-6)
