"""A time limit is not an end: what is learned in a world whose values are known with and without
the bootstrap.

One state, reward 1 a step, gamma 0.5. If the episode is cut by a time limit, the rewards would have
gone on, and the value is 1 / (1 - gamma) = 2. If the step is terminal, nothing follows, and the
value is 1. A script that bootstraps where it should not, or does not where it should, ends at the
other number.
"""

import functools

import gymnasium as gym
import numpy as np
import pytest
import torch

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import qlearning_table
import reinforce


class OneState(gym.Env):
    """Each episode is one step long, and ends as `end` says; the actions make no difference."""

    def __init__(self, end: str, discrete_state: bool = False, continuous: bool = False):
        self.end, self.discrete_state = end, discrete_state
        self.observation_space = (
            gym.spaces.Discrete(1) if discrete_state else gym.spaces.Box(0.0, 1.0, (1,))
        )
        self.action_space = (
            gym.spaces.Box(-1.0, 1.0, (1,)) if continuous else gym.spaces.Discrete(2)
        )

    def _observation(self):
        return 0 if self.discrete_state else np.ones(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        return self._observation(), 1.0, self.end == "terminated", self.end == "truncated", {}


ENDS = pytest.mark.parametrize(("end", "value"), [("truncated", 2.0), ("terminated", 1.0)])
STATE = torch.ones(1)


def near(value: float):
    return pytest.approx(value, abs=0.1)


SCALED = pytest.mark.parametrize("scaled", [True, False])  # rewards times 1 - gamma, which is 0.5


@ENDS
def test_qlearning_table(end, value):
    Q, returns = qlearning_table.train(
        OneState(end, discrete_state=True),
        gamma=0.5,
        epsilon=1.0,
        epsilon_decay=False,
        episodes=500,
    )
    assert returns == [1.0] * 500
    assert Q[0] == near(value)


@ENDS
@SCALED
@pytest.mark.parametrize(("n_steps", "tau"), [(1, 0.1), (5, 0.1), (1, 1.0)])
def test_dqn(end, value, n_steps, tau, scaled):
    q_network, _ = dqn.train(
        OneState(end), steps=1_000, gamma=0.5, epsilon=1.0, train_every=1, batch=32, hidden=32,
        tau=tau, alpha=1e-3, n_steps=n_steps, scale_rewards=scaled,
    )  # fmt: skip
    found = q_network(STATE).detach().numpy() * (2 if scaled else 1)
    assert found == near(value)


@ENDS
@SCALED
def test_reinforce(end, value, monkeypatch, scaled):
    made, original = [], reinforce.Value

    def Value(*arguments):  # train() keeps the baseline to itself
        made.append(original(*arguments))
        return made[-1]

    monkeypatch.setattr(reinforce, "Value", Value)
    reinforce.train(OneState(end), steps=700, gamma=0.5, scale_rewards=scaled)
    assert made[0](STATE[None]).item() * (2 if scaled else 1) == near(value)


@ENDS
@SCALED
@pytest.mark.parametrize("batch", [1, 16])
def test_actor_critic(end, value, batch, scaled):
    # So slow an actor that both actions go on being tried, and valued.
    steps = 3_000 if batch > 1 else 600
    _, critic, _ = actor_critic.train(
        OneState(end), steps=steps, gamma=0.5, batch=batch, alpha=1e-6, beta=1e-2,
        scale_rewards=scaled,
    )  # fmt: skip
    assert critic(STATE).detach().numpy() * (2 if scaled else 1) == near(value)


@ENDS
def test_ddpg(end, value):
    _, critic, _ = ddpg.train(
        OneState(end, continuous=True), steps=800, gamma=0.5, warmup=20, tau=0.1, hidden=32
    )
    assert critic(STATE, torch.zeros(1)).item() == near(value)


@ENDS
@SCALED
def test_a3c(end, value, scaled):
    options = dict(steps=1_500, gamma=0.5, workers=1, scale_rewards=scaled)
    model, _ = a3c.train(functools.partial(OneState, end), **options)
    assert model.V(STATE).item() * (2 if scaled else 1) == near(value)


@ENDS
def test_ppo(end, value):
    options = dict(steps=1_600, n_envs=2, horizon=16, batch=16, gamma=0.5, scale_rewards=False)
    _, V, _ = ppo.train(functools.partial(OneState, end), **options)
    assert V(STATE[None]).item() == near(value)


class Countdown(gym.Env):
    """Episodes of five steps, the state counting 0, 1, 2, 3, 4, 5; reward 1 a step; ends as `end`
    says."""

    observation_space, action_space = gym.spaces.Discrete(6), gym.spaces.Discrete(2)

    def __init__(self, end: str):
        self.end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s = 0
        return self.s, {}

    def step(self, action):
        self.s += 1
        over = self.s == 5
        return self.s, 1.0, over and self.end == "terminated", over and self.end == "truncated", {}


def test_ppo_transitions_stay_within_an_episode(monkeypatch):
    """The vector environment resets by itself; the last next_state must be state 5, not state 0 of
    the next episode."""
    seen, original = [], ppo.Value

    def Value(*arguments):
        V = original(*arguments)
        V.register_forward_pre_hook(lambda V, given: seen.append(given[0].detach().clone()))
        return V

    monkeypatch.setattr(ppo, "Value", Value)
    ppo.train(functools.partial(Countdown, "truncated"), steps=40, n_envs=2, horizon=20, epochs=1)
    # one-hot, time by time -> (20, 2)
    states, next_states = (batch.argmax(dim=-1).unflatten(0, (-1, 2)) for batch in seen[:2])
    assert torch.equal(next_states, states + 1)
    assert states[:6, 0].tolist() == [0, 1, 2, 3, 4, 0]


SCRIPTS = {
    qlearning_table: dict(steps=60, episodes=60),
    dqn: dict(steps=60, batch=4),
    reinforce: dict(steps=60),
    actor_critic: dict(steps=60, batch=4),
    ddpg: dict(steps=60, warmup=10, batch=4),
    a3c: dict(steps=60, workers=1, t_max=5),
    ppo: dict(steps=60, n_envs=1, horizon=20),
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_what_an_episode_reports(script):
    """Each episode here is one step long and brings 1: so do the reports say, the steps count up,
    and the budget is kept."""
    seen = []
    make = functools.partial(
        OneState, "terminated", discrete_state=script is qlearning_table, continuous=script is ddpg
    )
    *_, returns = script.train(
        make if script in (a3c, ppo) else make(),
        on_episode=lambda *episode: bool(seen.append(episode)),
        **SCRIPTS[script],
    )
    steps = 61 if script is a3c else 60  # [19] of a3c is T > T_max
    assert returns == [1.0] * steps
    assert seen == [(1.0, 1, step) for step in range(1, steps + 1)]
