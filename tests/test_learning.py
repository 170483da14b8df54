"""Each script trains for a moment, and its returns rise further than chance gets.

What the tests ask is well below what seeds 0 to 2 reach.
"""

import functools
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

import a3c
from common import envs, pixels
from tests.worlds import SCRIPTS, Aim, Look, given, two_workers_wait

WALKING = dict(
    qlearning_table=dict(episodes=600),
    dqn=dict(steps=1_000, batch=32),
    reinforce=dict(steps=1_500),
    actor_critic=dict(steps=4_000),
    a3c=dict(steps=2_000, workers=1, alpha=5e-3),
    ppo=dict(steps=6_400, horizon=32, alpha=1e-2, d_targ=0.03),
)
AIMING = dict(
    ddpg=dict(steps=400, warmup=100, beta=0.01, hidden=32, sigma=0.05),
    ppo=dict(steps=3_000, alpha=0.03, n_envs=2, horizon=40, epochs=5, batch=80, d_targ=0.1),
)
LOOKING = dict(dqn=700, reinforce=900, actor_critic=2_000, a3c=1_500, ppo=2_048)  # steps
FASTER = dict(ppo=dict(n_envs=4, horizon=64, epochs=5, batch=128), a3c=dict(workers=1))


def learns(script: str, make, chance: float, enough: float, **options) -> list:
    """At first its returns are below chance, in the end above what is enough; what it learned."""
    *learned, returns = SCRIPTS[script].train(given(script, make), **options)
    assert np.mean(returns[:20]) < chance and np.mean(returns[-20:]) > enough
    return learned


@pytest.mark.parametrize("script", WALKING)
def test_discrete_actions(script):
    """The lecture's grid: random actions take 18.3 steps to a corner, the best ones 2."""
    make = functools.partial(envs.make, "GridWorld-v0", script == "qlearning_table")
    learns(script, make, -8, -6, gamma=0.9, **WALKING[script])


@pytest.mark.parametrize("script", AIMING)
def test_continuous_actions(script):
    """Two dimensions with unequal bounds: at first -55 or, with ddpg's noise, -30 an episode."""
    learns(script, lambda: envs.prepared(Aim()), -20, -10, gamma=0.0, **AIMING[script])


@pytest.mark.parametrize("script", LOOKING)
def test_images(script):
    """Who does not look is right in half of the ten steps. Each network sees with the trunk."""
    options = FASTER.get(script, {}) | dict(steps=LOOKING[script], trunk=pixels.Convolutions)
    for network in learns(script, Look, 7, 7.5, gamma=0.0, **options):
        assert any(isinstance(module, pixels.Convolutions) for module in network.modules())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a3c_with_two_workers(method, monkeypatch, tmp_path):
    """Both play, and report their episodes; what spawn starts imports the script anew."""
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda: method)
    make, seen = functools.partial(two_workers_wait, tmp_path), []
    keep = lambda *episode: seen.append(episode)
    with mock.patch.object(a3c, "in_processes", wraps=a3c.in_processes) as started:
        *learned, returns = a3c.train(make, steps=800, workers=2, on_episode=keep)
    shared = started.call_args.args[2]["shared"]
    assert len(returns) == len(seen) == shared.T and all(e[:2] == (1, 1) for e in seen)
    assert shared.counts[:2].min() > 0 and 800 < shared.T <= 840 and 700 < seen[-1][2] <= shared.T
    theta = parameters_to_vector(p for network in learned for p in network.parameters())
    assert torch.equal(theta, shared.theta) and all(x.is_shared() for x in vars(shared).values())
    if method == "fork":  # True ends both, and no episode counts after it
        stop = lambda *episode: True
        assert len(a3c.train(make, steps=10**6, workers=2, on_episode=stop)[-1]) == 1
        monkeypatch.setattr(a3c, "worker", lambda rank, report: report(rank))  # and ends at once
        assert a3c.in_processes(1, seen.append, {}) is None and seen[-1] == 0
