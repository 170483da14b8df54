"""What stands around the update formulas, by hand and with the defaults on: seeds, schedules,
memories, bounds of actions, minibatches, A3C's workers.

test_gradients.py has the formulas themselves; its Walk and its recording optimiser serve here, too.
"""

import functools
import importlib
import inspect
import re
import signal

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import qlearning_table
import reinforce
from tests.test_gradients import (
    GAMMA,
    Recorder,
    Walk,
    columns,
    gradients,
    load,
    load_both,
    naive_gae,
    ppo_networks,
    reward_scale,
    same,
    scaled_rewards,
)

SCRIPTS = [qlearning_table, dqn, reinforce, actor_critic, ddpg, a3c, ppo]
by_name = lambda script: script.__name__


@pytest.fixture
def recorders(monkeypatch) -> list[Recorder]:
    """All optimisers that a script makes; they record, and descend plainly."""
    Recorder.all = []
    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    return Recorder.all


# ------------------------------------------------------------------------------ seeds and budgets


class Logged(gym.Env):
    """Episodes of `length` steps, ended by a time limit and a terminal state in turn. Each episode
    has a number of its own as its state. `seeds`, `firsts`, `steps`: what happened."""

    def __init__(self, script, length: int = 2):
        table = script is qlearning_table
        self.observation_space = (
            gym.spaces.Discrete(10**6) if table else gym.spaces.Box(0.0, 1.0, (1,))
        )
        self.action_space = (
            gym.spaces.Box(-1.0, 1.0, (1,)) if script is ddpg else gym.spaces.Discrete(2)
        )
        self.length, self.seeds, self.firsts, self.steps, self.table = length, [], [], 0, table

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.firsts.append(int(self.np_random.integers(10**6)))
        self.t = 0
        return self.seen(), {}

    def seen(self):
        first = self.firsts[-1]
        return first if self.table else np.array([first / 10**6], np.float32)

    def step(self, action):
        self.t, self.steps = self.t + 1, self.steps + 1
        end, even = self.t == self.length, len(self.seeds) % 2 == 0
        return self.seen(), 1.0, end and even, end and not even, {}


SMALL = {
    dqn: dict(batch=4),
    actor_critic: dict(batch=4),
    ddpg: dict(batch=4, warmup=5),
    a3c: dict(workers=1, t_max=3),
    ppo: dict(n_envs=3, horizon=4),
}


def trained(script, length: int, **options) -> list[Logged]:
    """The environments of a training, in the order in which they were made."""
    made = []

    def make_env():
        made.append(Logged(script, length))
        return made[-1]

    take = make_env if script in (a3c, ppo) else make_env()
    script.train(take, **(SMALL.get(script, {}) | options))
    return made


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_only_the_first_reset_gets_the_seed(script):
    """Or all episodes would begin alike; each actor of ppo has a seed of its own."""
    made = [env for env in trained(script, 2, seed=11, steps=24) if env.seeds]
    assert [env.seeds[0] for env in made] == ([11, 12, 13] if script is ppo else [11])
    firsts = []
    for env in made:
        assert len(env.seeds) > 3 and set(env.seeds[1:]) == {None}
        firsts += env.firsts
    assert len(set(firsts)) == len(firsts)


# script -> the networks that it makes, in its order, and the places of those that come back
FIRST_WEIGHTS = {
    dqn: (lambda env: [dqn.QNetwork((3,), 2, 8)], [0]),
    reinforce: (lambda env: [reinforce.Policy((3,), env.action_space, 8)], [0]),
    actor_critic: (lambda env: [actor_critic.Network((3,), 2, 8) for _ in range(2)], [0, 1]),
    ddpg: (lambda env: [ddpg.Critic(3, 2, 8), ddpg.Actor(3, 2, 8)], [1, 0]),
    a3c: (lambda env: [a3c.Model((3,), env.action_space, 8)], [0]),
    ppo: (
        lambda env: [
            *(ppo.Policy((3,), env.action_space, 8, 1.0) for _ in range(2)),
            ppo.Value((3,), 8),
        ],
        [0, 2],
    ),
}


@pytest.mark.parametrize("seed", [0, 12])
@pytest.mark.parametrize("script", FIRST_WEIGHTS, ids=by_name)
def test_the_seed_given_draws_the_first_weights(script, seed):
    """They are those that torch draws after manual_seed(seed); of another seed none is the same."""
    env = Walk(script is ddpg)
    still = dict(alpha=1e-30) | (
        dict(beta=1e-30) if script in (reinforce, actor_critic, ddpg) else {}
    )
    options = SMALL.get(script, {}) | (dict(n_envs=1) if script is ppo else {}) | still
    take = (lambda: env) if script in (a3c, ppo) else env
    torch.manual_seed(99)  # what stood there before makes no difference
    *found, _ = script.train(take, seed=seed, steps=4, hidden=8, **options)
    make, back = FIRST_WEIGHTS[script]
    flat = lambda network: parameters_to_vector(network.parameters()).detach()
    for by_hand_seed in (0, 12):
        torch.manual_seed(by_hand_seed)
        made = make(env)
        for network, place in zip(found, back, strict=True):
            weights, expected = flat(network), flat(made[place])
            assert torch.allclose(weights, expected, atol=1e-6) == (by_hand_seed == seed)


@pytest.mark.parametrize("seed", [0, 12])
@pytest.mark.parametrize("script", [reinforce, actor_critic, a3c, ppo], ids=by_name)
def test_the_seed_given_draws_the_actions(script, seed):
    """Of the scripts that draw them with torch: nothing else draws between weights and actions."""
    env = Walk()
    options = SMALL.get(script, {}) | dict(alpha=1e-30) | (dict(n_envs=1) if script is ppo else {})
    take = (lambda: env) if script in (a3c, ppo) else env
    script.train(take, seed=seed, steps=4, hidden=8, **options)
    torch.manual_seed(seed)
    made = FIRST_WEIGHTS[script][0](env)
    if script is reinforce:
        reinforce.Value((3,), 8)  # drawn, too
    logits = {
        reinforce: lambda s: made[0].layers(s),
        actor_critic: lambda s: made[0](s),
        a3c: lambda s: made[0].actor(s),
        ppo: lambda s: made[1].load_state_dict(made[0].state_dict()) and made[1].layers(s),
    }[script]
    for s, a, *_ in env.log[:3]:
        s = torch.from_numpy(s[None] if script is ppo else s)
        assert int(Categorical(logits=logits(s)).sample()) == a


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
@pytest.mark.parametrize("length", [5, 1000])
def test_the_budget_in_steps_is_kept(script, length):
    """To the step, also inside an episode; a3c plays its last t_max, ppo its last rollout out."""
    steps = sum(env.steps for env in trained(script, length, steps=38))
    expected = {ppo: 48, a3c: 40 if length == 5 else 39}.get(script, 38)
    assert steps == expected


@pytest.mark.parametrize("script", SCRIPTS[:5], ids=by_name)
def test_the_budget_in_episodes_is_kept(script):
    (env,) = trained(script, 3, steps=10_000, episodes=7)
    assert (len(env.seeds), env.steps) == (7, 21)


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_on_episode_can_end_the_training(script):
    """It gets return, length and the steps so far, after each episode."""
    seen, options = [], SMALL.get(script, {}) | (dict(n_envs=1) if script is ppo else {})
    env = Logged(script, 4)
    take = (lambda: env) if script in (a3c, ppo) else env
    stop = lambda *episode: seen.append(episode) or len(seen) == 3
    *_, returns = script.train(take, steps=1000, **options, on_episode=stop)
    assert seen == [(4.0, 4, 4), (4.0, 4, 8), (4.0, 4, 12)]
    assert returns == [4.0] * 3


# -------------------------------------------------------------------------------------- --literal


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_literal_turns_off_each_departure_that_the_docstring_names(script):
    """The flags under "Beyond the slide" are LITERAL's values, and none of them is a default."""
    text = re.split(r"\nTry\n", script.__doc__.split("Beyond the slide")[1])[0]
    flags = re.findall(r"^    --(\S+)( [\d.]+)? +[A-Z]", text, re.M)
    literal = getattr(script, "LITERAL", {})  # none: the docstring says that nothing departs
    assert bool(flags) == bool(literal) != (": nothing." in text.partition("\n")[0])
    for flag, value in flags:
        name = flag.removeprefix("no-").replace("-", "_")
        off = float(value) if value else not flag.startswith("no-")
        assert literal[name] == off
        assert inspect.signature(script.train).parameters[name].default != off
    suits = {"gamma", "alpha", "beta", "batch", "steps", "epsilon"}
    assert set(literal) <= {f.removeprefix("no-").replace("-", "_") for f, _ in flags} | suits


# ---------------------------------------------------------------------------------------- epsilon


class Measured:
    """A generator of random numbers that writes down what each of them is compared with."""

    def __init__(self, seed=None):
        self.real = np.random.Generator(np.random.PCG64(seed))
        self.compared = Measured.compared = []

    def random(self):
        return self

    def __lt__(self, threshold):
        self.compared.append(float(threshold))
        return self.real.random() < threshold

    def integers(self, *arguments, **keywords):
        return self.real.integers(*arguments, **keywords)


@pytest.fixture
def epsilons(monkeypatch):
    monkeypatch.setattr(np.random, "default_rng", Measured)
    return lambda: Measured.compared


@pytest.mark.parametrize(("decay", "steps"), [(True, 1000), (False, 1000), (True, 18)])
def test_qlearning_epsilon_falls_over_the_episodes(epsilons, decay, steps):
    """From epsilon in the first to epsilon / episodes in the last, the same in all steps of one."""
    env = Logged(qlearning_table, 4)
    options = dict(episodes=5, steps=steps, epsilon=0.3, epsilon_decay=decay)
    qlearning_table.train(env, **options)
    expected = [0.3 * ((5 - e) / 5 if decay else 1) for e in range(5) for _ in range(4)]
    assert epsilons() == pytest.approx(expected[:steps])


def test_dqn_epsilon_is_constant(epsilons):
    dqn.train(Logged(dqn, 3), steps=20, epsilon=0.2)
    assert epsilons() == [0.2] * 20


def test_qlearning_breaks_ties_at_random():
    """Each of the best actions as often; no other."""
    rng = np.random.default_rng(0)
    drawn = [qlearning_table.greedy(np.array([1.0, 3, 3, 0, 3]), rng) for _ in range(3_000)]
    share = np.bincount(drawn, minlength=5) / 3_000
    assert share == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3], abs=0.05)


# ----------------------------------------------------------------------------- Q-learning's update


class Table(gym.Env):
    """Random moves between states 5, ..., 8, actions counted from 3; `log` as Walk's."""

    observation_space = gym.spaces.Discrete(4, start=5)
    action_space = gym.spaces.Discrete(3, start=3)

    def __init__(self):
        self.log = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.s = 0, int(self.np_random.integers(4))
        return 5 + self.s, {}

    def step(self, action):
        assert action in (3, 4, 5)
        s, self.s, self.t = self.s, int(self.np_random.integers(4)), self.t + 1
        reward, chance = self.np_random.normal() + self.s, self.np_random.random()
        terminated, truncated = bool(chance < 0.2), bool(chance > 0.8)
        self.log.append((s, action - 3, reward, self.s, terminated))
        return 5 + self.s, reward, terminated, truncated, {}


def test_qlearning_updates_by_hand():
    """[8], step by step, also at terminal states and time limits; nothing else changes the
    table."""
    env = Table()
    found, _ = qlearning_table.train(env, seed=4, episodes=60, gamma=0.7, alpha=0.25, epsilon=0.5)
    Q = np.zeros((4, 3))
    for s, a, r, s2, terminated in env.log:
        future = 0.0 if terminated else max(Q[s2])
        Q[s][a] = Q[s][a] + 0.25 * (r + 0.7 * future - Q[s][a])
    assert len(env.log) > 100
    assert found == pytest.approx(Q, abs=1e-12)


# ------------------------------------------------------------------------------- bounds of actions

INF = np.inf
BOXES = {
    "narrow and asymmetric": ([-0.1, 2.0], [0.3, 2.25]),
    "of two dimensions": ([[-0.1, 0.0, -3.0], [1.0, -2.0, -9.0]], [[0.3, 1, 9], [5.0, -1, -8]]),
    "half-bounded": ([0.5, -INF, -INF, -4.0], [INF, 3.0, INF, 4.0]),
}


class Bounded(Walk):
    """A Walk whose actions have bounds."""

    def __init__(self, box: str, length: int = 4):
        super().__init__(True, length)
        low, high = (np.array(bound, np.float32) for bound in BOXES[box])
        self.action_space = gym.spaces.Box(low, high)

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step(action)


def carried_out(raw, space) -> np.ndarray:
    """The action that the environment gets: clipped to [-1, 1], and that stretched to the bounds;
    with one bound, clipped and moved; without bounds as it is."""
    raw = np.asarray(raw, float).reshape(space.shape)
    result = np.empty(space.shape)
    for i, x in np.ndenumerate(raw):
        low, high = float(space.low[i]), float(space.high[i])
        if low > -INF and high < INF:
            result[i] = low + (min(max(x, -1), 1) + 1) / 2 * (high - low)
        elif low > -INF:
            result[i] = low + max(x, -1) + 1
        else:
            result[i] = high + min(x, 1) - 1 if high < INF else x
    return result


@pytest.fixture
def drawn(monkeypatch) -> list[torch.Tensor]:
    """All actions that a Gaussian policy draws, three times as far out as it would."""
    actions = []

    class Drawn(Independent):
        def sample(self):
            actions.append(3 * super().sample())
            return actions[-1].clone()

    for script in (reinforce, a3c, ppo):
        monkeypatch.setattr(script, "Independent", Drawn)
    return actions


def bounded(box, made, **options):
    made.append(Bounded(box, **options))
    return made[-1]


def check_actions(env: Bounded, raw: torch.Tensor) -> None:
    assert (raw.abs() > 1).float().mean() > 0.05 and (raw.abs() < 1).float().mean() > 0.05
    expected = [carried_out(x, env.action_space) for x in raw]
    assert np.array([step[1] for step in env.log]) == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize("box", BOXES)
def test_reinforce_learns_from_the_action_that_it_drew(recorders, drawn, box):
    """The environment gets an action within its bounds; log pi is that of the one drawn. All
    defaults on: scaled rewards, the baseline, V of the last state where a time limit ended it."""
    env = Bounded(box)
    reinforce.train(env, episodes=3, gamma=GAMMA, alpha=1e-6, beta=1e-6, hidden=8)
    raw = torch.stack(drawn)
    check_actions(env, raw)
    for episode, steps in enumerate(np.split(np.arange(12), 3)):
        s, _, r, s2, terminated, truncated = columns([env.log[i] for i in steps])
        assert (bool(terminated[-1]), bool(truncated[-1])) == (episode != 1, episode == 1)
        networks = reinforce.Policy((3,), env.action_space, 8), reinforce.Value((3,), 8)
        policy, V, found, found_v = load_both(*networks, recorders[0].steps[episode])
        v, later = torch.zeros(4), V(s2[-1:]).item() if episode == 1 else 0.0
        for t in (3, 2, 1, 0):
            v[t] = later = (1 - GAMMA) * r[t].item() + GAMMA * later
        weight = v - V(s).detach()
        same(found, gradients(-(policy(s).log_prob(raw[steps]) * weight).sum(), policy))
        same(found_v, gradients((v - V(s)).square().mean(), V))


@pytest.mark.parametrize("box", BOXES)
def test_a3c_learns_from_the_action_that_it_drew(monkeypatch, drawn, box):
    """As reinforce, all defaults on."""
    made, updates = [], []
    keep = lambda shared, d, *_: updates.append((shared.theta.clone(), d.clone()))
    monkeypatch.setattr(a3c.Shared, "adam", keep)
    options = dict(steps=11, workers=1, t_max=4, gamma=GAMMA, hidden=8)
    model, _ = a3c.train(lambda: bounded(box, made), **options)
    env, raw = made[-1], torch.stack(drawn)
    check_actions(env, raw)
    for update, (theta, found) in enumerate(updates):
        steps = np.arange(4 * update, 4 * update + 4)
        s, _, r, s2, terminated, _ = columns([env.log[i] for i in steps])
        vector_to_parameters(theta, model.parameters())
        R, targets = 0.0 if terminated[-1] else model.V(s2[-1:]).item(), torch.zeros(4)
        for i in (3, 2, 1, 0):
            targets[i] = R = (1 - GAMMA) * r[i].item() + GAMMA * R
        error = targets - model.V(s)
        climb = (model.pi(s).log_prob(raw[steps]) * error.detach()).sum()
        expected = gradients(error.square().sum() - climb, model)
        same([found], [parameters_to_vector(expected)])
    assert len(updates) == 3


@pytest.mark.parametrize("box", BOXES)
def test_ppo_learns_from_the_action_that_it_drew(recorders, drawn, box):
    """Two actors, episodes of different lengths, all defaults on: rewards scaled by the spread of
    both actors' returns."""
    made = []
    make_env = lambda: bounded(box, made, length=3 + len(made) % 2)
    rollout = dict(steps=14, n_envs=2, horizon=7, epochs=1, batch=14, gamma=GAMMA, hidden=8)
    ppo.train(make_env, **rollout)
    envs, raw = made[-2:], torch.stack(drawn)  # (7, 2, actions)
    parts, weights = [], []
    policy, V, found = ppo_networks(recorders[0].steps[0], envs[0].action_space)
    for i, (env, r) in enumerate(zip(envs, scaled_rewards(*(e.log for e in envs)), strict=True)):
        check_actions(env, raw[:, i])
        s, _, _, s2, terminated, truncated = columns(env.log)
        with torch.no_grad():
            values = V(s)
            delta = r + GAMMA * V(s2) * ~terminated - values
            A = naive_gae(delta, terminated | truncated, GAMMA * 0.98)
        parts.append((s, raw[:, i], A + values))
        weights.append(A)
    s, a, target = (torch.cat(part) for part in zip(*parts, strict=True))
    A = torch.cat(weights)
    assert any(step[5] for env in envs for step in env.log)  # a time limit inside the rollout
    surrogate, fit = (policy(s).log_prob(a) * A).mean(), (target - V(s)).square().mean()
    same(found, gradients(-surrogate, policy) + gradients(fit, V))


@pytest.mark.parametrize("box", BOXES)
def test_ddpg_keeps_the_action_that_it_carried_out(monkeypatch, box):
    """R holds what happened, the action within [-1, 1] and as the environment got it, and whether
    the next state was terminal, which a time limit is not."""
    kept, store = [], ddpg.ReplayMemory.store

    def keep(memory, *transition):
        kept.append([np.copy(part) for part in transition])
        return store(memory, *transition)

    monkeypatch.setattr(ddpg.ReplayMemory, "store", keep)
    env = Bounded(box)
    ddpg.train(env, steps=60, warmup=30, batch=4, sigma=1.5, hidden=8)
    assert len(kept) == len(env.log) == 60
    for (s, a, r, s2, terminated), step in zip(kept, env.log, strict=True):
        assert np.array_equal(s, step[0]) and np.array_equal(s2, step[3])
        assert a.dtype == np.float32 and np.abs(a).max() <= 1
        assert carried_out(a, env.action_space) == pytest.approx(step[1], abs=1e-5)
        assert (r, terminated) == (pytest.approx(step[2]), step[4])
    actions = np.array([transition[1] for transition in kept[:30]])  # the warm-up
    spread = np.corrcoef(actions.T)[~np.eye(actions.shape[1], dtype=bool)]
    assert np.abs(spread).max() < 0.75  # each dimension is drawn by itself
    assert {step[4] for step in env.log} == {step[5] for step in env.log} == {True, False}


# ------------------------------------------------------------------------------- memory and noise


def test_ddpg_memory_is_a_ring():
    """The last `capacity` transitions, each whole; before it is full only those that are there."""
    rng, memory = np.random.default_rng(0), ddpg.ReplayMemory(5, n_features=2, n_actions=3)
    for column in memory.columns:
        assert column.dtype == np.float32
        column.fill(np.nan)  # what must not be drawn
    for i in range(13):
        transition = np.full(2, i), np.full(3, i + 0.25), i + 0.5, np.full(2, i + 0.75), i % 3 == 0
        memory.store(*transition)
        s, a, r, s2, terminated = memory.sample(200, rng)
        assert [tuple(x.shape) for x in (s, a, r, s2, terminated)] == [
            (200, 2), (200, 3), (200, 1), (200, 2), (200, 1)
        ]  # fmt: skip
        numbers = s[:, 0].numpy()
        assert set(numbers.tolist()) == set(range(max(0, i - 4), i + 1))
        for column, plus in ((s, 0), (a, 0.25), (r, 0.5), (s2, 0.75)):
            expected = numbers + plus
            assert all((part == expected).all() for part in column.numpy().T)
        assert (terminated[:, 0].numpy() == (numbers % 3 == 0)).all()


def test_dqn_memory_is_a_ring():
    """As ddpg's; n steps are in test_gradients.py."""
    rng, memory = np.random.default_rng(0), dqn.ReplayMemory(5, n_steps=1, gamma=0.5)
    memory.numbers.fill(np.nan)
    for i in range(13):
        s, s2 = torch.full((2,), i), torch.full((2,), i + 0.75)
        memory.store(s, i + 1, i + 0.5, s2, i % 3 == 0, i % 3 == 0)
        batch = memory.sample(200, rng)
        assert [tuple(part.shape) for part in batch] == [
            (200, width) for width in (2, 1, 1, 2, 1, 1)
        ]
        s, a, r, s2, terminated, gammas = (part.numpy() for part in batch)
        assert set(s[:, 0].tolist()) == set(range(max(0, i - 4), i + 1))
        for column, expected in ((s, s), (a, s + 1), (r, s + 0.5), (s2, s + 0.75)):
            assert (column == expected[:, :1]).all()
        assert (terminated == (s[:, :1] % 3 == 0)).all() and (gammas == 0.5).all()


@pytest.mark.parametrize("script", [dqn, ddpg], ids=by_name)
def test_minibatches_are_drawn_uniformly(script):
    """With replacement, from the whole memory: each transition as often as the others."""
    memory = dqn.ReplayMemory(8, 1, 0.9) if script is dqn else ddpg.ReplayMemory(8, 1, 1)
    for i in range(11):
        last = (False, False) if script is dqn else (False,)
        memory.store(torch.tensor([i]), 0, 0.0, torch.tensor([i]), *last)
    drawn = memory.sample(16_000, np.random.default_rng(0))[0][:, 0].numpy()
    share = np.bincount(drawn.astype(int), minlength=11) / 16_000
    assert share == pytest.approx([0] * 3 + [1 / 8] * 8, abs=0.02)


@pytest.mark.parametrize(("batch", "first"), [(6, 8), (8, 8), (9, 12), (1, 4)])
def test_dqn_learns_once_the_memory_holds_a_minibatch(recorders, batch, first):
    """At each fourth step, from the first at which there are enough transitions."""
    dqn.train(Walk(length=5), steps=23, batch=batch, n_steps=1, train_every=4, alpha=1e-9)
    assert len(recorders[0].steps) == len(range(first, 24, 4))


@pytest.mark.parametrize("warmup", [0, 1, 9])
def test_ddpg_learns_after_the_warm_up(recorders, warmup):
    ddpg.train(Walk(True), steps=12, batch=3, warmup=warmup, hidden=8)
    assert [len(recorder.steps) for recorder in recorders] == [12 - warmup] * 2


def test_ddpg_noise_by_hand():
    """N_t = 0.85 N_{t-1} + sigma xi_t, from 0 on, with numbers of its own in each dimension."""
    process = ddpg.OrnsteinUhlenbeck(3, 0.2, np.random.default_rng(5))
    xi, N = np.random.default_rng(5).standard_normal((50, 3)), np.zeros(3)
    for t in range(50):
        N = 0.85 * N + 0.2 * xi[t]
        assert process.sample() == pytest.approx(N, abs=1e-12)


# ------------------------------------------------------------------------------------ the networks


def linear(layers: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in layers.modules() if isinstance(layer, torch.nn.Linear)]


def by_hand(layers: torch.nn.Sequential, x: np.ndarray, activation) -> np.ndarray:
    """A chain of W x + b, with the activation between two of them, in float64."""
    parts = linear(layers)
    for i, part in enumerate(parts):
        W, b = part.weight.detach().double().numpy(), part.bias.detach().double().numpy()
        x = W @ x + b
        x = activation(x) if i < len(parts) - 1 else x
    return x


STATES = torch.randn(7, 3, generator=torch.manual_seed(1))
relu = lambda x: np.maximum(x, 0)


def widths(layers: torch.nn.Sequential) -> list[int]:
    return [layer.out_features for layer in linear(layers)]


def check_network(found: torch.Tensor, layers, activation, change=lambda x: x, inputs=STATES):
    expected = [change(by_hand(layers, x.double().numpy(), activation)) for x in inputs]
    expected = np.array(expected).reshape(found.shape)
    assert found.detach().numpy() == pytest.approx(expected, abs=1e-5)


TRUNKS = [dqn, reinforce, actor_critic, a3c, ppo]


@pytest.mark.parametrize("script", TRUNKS, ids=by_name)
@pytest.mark.parametrize(
    ("shape", "filters", "features"),
    [
        ((4, 84, 84), (8, 4), 32 * 9 * 9),  # the paper's
        ((4, 42, 42), (4, 2), 32 * 9 * 9),
        ((16, 10, 10), (3, 1), 32 * 6 * 6),
        ((4, 8, 9), (3, 1), 32 * 4 * 5),
        ((3, 5, 5), (3, 1), 32),
        ((1, 39, 60), (3, 1), 32 * 35 * 56),
        ((1, 40, 60), (4, 2), 32 * 8 * 13),
        ((4, 210, 160), (16, 8), 32 * 11 * 8),
    ],
)
def test_trunk(script, shape, filters, features):
    """The paper's two convolutions; one image or a batch of them; a vector has no convolutions."""
    layers = script.Trunk(shape, 16)
    first, _, second, _, _, last, activation = layers
    assert (first.kernel_size[0], first.stride[0]) == filters and first.out_channels == 16
    assert second.kernel_size[0] == second.stride[0] + 2
    assert (second.stride[0], second.out_channels) == (1 + (filters[1] > 1), 32)
    assert (last.in_features, last.out_features) == (features, 16)
    images = torch.rand(2, *shape)
    assert layers(images[1]).shape == (16,)
    assert layers(images)[1].detach().numpy() == pytest.approx(
        layers(images[1]).detach().numpy(), abs=1e-5
    )
    assert isinstance(activation, torch.nn.ReLU)  # tanh of so many inputs is soon flat
    alone, activation = script.Trunk((3,), 16)
    assert (alone.in_features, alone.out_features) == (3, 16)
    assert isinstance(activation, torch.nn.ReLU if script is dqn else torch.nn.Tanh)


@pytest.mark.parametrize("size", [(5, 5), (10, 10), (8, 9), (42, 42), (84, 84)])
def test_every_pixel_counts(size):
    """Filters in steps may leave out the last rows and columns, and with them a paddle."""
    image = torch.rand(1, *size, requires_grad=True)
    dqn.Trunk((1, *size), 64)(image).square().sum().backward()
    assert (image.grad != 0).all()


@pytest.mark.parametrize("script", TRUNKS, ids=by_name)
def test_pixels_are_divided_by_255(script):
    images = torch.randint(0, 256, (2, 4, 12, 10), dtype=torch.uint8)
    trunk = script.Trunk((4, 12, 10), 8)
    assert torch.equal(trunk(images), trunk(images / 255)) and trunk(images).abs().max() < 2


def test_dqn_phi_copies():
    """An environment may write its next image into the same array."""
    image = np.zeros((4, 12, 10), np.uint8)
    state = dqn.phi(image)
    image.fill(9)
    assert state.dtype == torch.uint8 and (state == 0).all()


def test_networks_of_dqn():
    """Two hidden layers; the outputs may be any number."""
    Q = dqn.QNetwork((3,), 4, 16)
    assert widths(Q) == [16, 16, 4]
    check_network(Q(STATES), Q, relu)
    check_network(Q(STATES[0]), Q, relu, inputs=STATES[:1])  # acting: one state, no batch axis


def test_networks_of_actor_critic():
    network = actor_critic.Network((3,), 4, 16)
    assert widths(network) == [16, 4]
    check_network(network(STATES), network, np.tanh)


@pytest.mark.parametrize("script", [reinforce, a3c, ppo], ids=by_name)
def test_policies_begin_without_preferences(script):
    """Whatever the state, logits differ by the last biases only."""
    kind = script.Model if script is a3c else script.Policy
    network = kind((3,), gym.spaces.Discrete(4), 8, *[1.0] * (script is ppo))
    layers = network.actor if script is a3c else network.layers
    logits = layers(STATES).detach() - layers[-1].bias.detach()
    assert 0 < logits.abs().max() < 0.02


def test_networks_of_ddpg():
    """mu stays within [-1, 1]; Q sees state and action."""
    mu, Q = ddpg.Actor(3, 2, 16), ddpg.Critic(3, 2, 16)
    assert widths(mu) == [16, 16, 2]
    check_network(mu(STATES), mu, relu, np.tanh)
    assert (100 * STATES).abs().max() > 100 and mu(1e4 * STATES).abs().max() <= 1
    actions = torch.randn(7, 2, generator=torch.manual_seed(2))
    assert widths(Q) == [16, 16, 1]
    assert Q(STATES, actions).shape == (7, 1)
    check_network(Q(STATES, actions), Q, relu, inputs=torch.cat([STATES, actions], 1))


@pytest.mark.parametrize("std", [None, 0.4, 2])
def test_the_first_spread_of_ppo(std):
    """The one given, in each dimension, and 1 by default."""
    options = dict(n_envs=1, horizon=4, steps=4, hidden=8, alpha=1e-30)
    given = {} if std is None else dict(std=std)
    policy, *_ = ppo.train(lambda: Walk(True), **options, **given)
    assert policy(STATES).stddev.detach().numpy() == pytest.approx(std or 1)


@pytest.mark.parametrize("name", ["reinforce", "a3c", "ppo"])
def test_policies_and_values(name):
    """A softmax of the outputs, or a Gaussian around them with a learned spread for each dimension;
    V beside it, which shares no weight."""
    script, box = importlib.import_module(name), gym.spaces.Box(-1, 1, (2,))
    for space, n in ((gym.spaces.Discrete(4), 4), (box, 2)):
        if name == "a3c":
            model = script.Model((3,), space, 16)
            pi, layers, log_std = model.pi, model.actor, model.log_std
            V, critic = model.V, model.critic
        else:
            pi = script.Policy((3,), space, 16, *[1.0] * (name == "ppo"))
            layers, log_std = pi.layers, pi.log_std
            V = critic = script.Value((3,), 16)
        assert widths(layers) == [16, n] and widths(critic) == [16, 1]
        outputs = np.array([by_hand(layers, x.double().numpy(), np.tanh) for x in STATES])
        if space is box:
            assert (pi(STATES).stddev == 1).all()  # at first
            with torch.no_grad():
                log_std.copy_(torch.tensor([0.5, -1.5]))
            found, spread = pi(STATES), np.exp([0.5, -1.5])
            assert found.mean.detach().numpy() == pytest.approx(outputs, abs=1e-5)
            density = -0.5 * ((0.3 - outputs) / spread) ** 2 - np.log(spread * np.sqrt(2 * np.pi))
            log_prob = found.log_prob(torch.full((7, 2), 0.3)).detach().numpy()
            assert log_prob == pytest.approx(density.sum(axis=1), abs=1e-4)
        else:
            assert log_std is None
            expected = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
            assert pi(STATES).probs.detach().numpy() == pytest.approx(expected, abs=1e-5)
        assert V(STATES).shape == (7,) and V(STATES[None]).shape == (1, 7)
        check_network(V(STATES), critic, np.tanh)


# -------------------------------------------------------------------------------- scaled rewards


@pytest.mark.parametrize("how", ["default", "off", "literal"])
@pytest.mark.parametrize("gamma", [0.5, 0.99, 0.999, 0.99999, 1.0])
def test_dqn_scales_what_it_learns_and_not_what_it_reports(recorders, monkeypatch, gamma, how):
    """The gradients are those of targets with the reward times 1 - gamma, or times a thousandth if
    that is more; off, and with --literal, of the reward itself. Returns are the environment's."""
    kept, seen, store = [], [], dqn.ReplayMemory.store
    keep = lambda memory, *step: kept.append(step) or store(memory, *step)
    monkeypatch.setattr(dqn.ReplayMemory, "store", keep)
    env = Walk(length=3)
    what = dict(default={}, off=dict(scale_rewards=False), literal=dict(literal=True))[how]
    options = dict(steps=9, gamma=gamma, batch=1, memory=1, train_every=1, n_steps=1, alpha=1e-9)
    _, returns = dqn.train(env, **options, **what, on_episode=lambda *e: bool(seen.append(e)))
    rewards = np.array([step[2] for step in env.log])
    factor = reward_scale(gamma) if how == "default" else 1.0
    assert np.array([step[2] for step in kept]) == pytest.approx(factor * rewards, rel=1e-9)
    totals = rewards.reshape(3, 3).sum(axis=1)
    assert returns == pytest.approx(totals) == [episode[0] for episode in seen]
    assert [episode[1:] for episode in seen] == [(3, 3), (3, 6), (3, 9)]
    Q, errors = dqn.QNetwork((3,), 2, 128), []
    for (theta, found), (s, a, r, s2, terminated, _) in zip(
        recorders[0].steps, env.log, strict=True
    ):
        Q, s = load(Q, theta), torch.from_numpy(s)
        later = 0.0 if terminated else gamma * Q(torch.from_numpy(s2)).max().item()
        errors.append(factor * r + later - Q(s)[a].item())
        # The gradient of the last layer's bias is -2 (y - Q): it shows y.
        assert found[-1][a].item() == pytest.approx(-2 * errors[-1], rel=1e-4, abs=1e-6)
        same(found, gradients((factor * r + later - Q(s)[a]) ** 2, Q))


@pytest.mark.parametrize("how", ["default", "off", "literal"])
@pytest.mark.parametrize("gamma", [0.5, 0.99, 0.999, 0.99999, 1.0])
def test_reinforce_scales_what_it_learns_and_not_what_it_reports(
    recorders, monkeypatch, gamma, how
):
    """As dqn: log pi is weighted with, and V fitted to, sums of scaled rewards."""
    monkeypatch.setattr(torch.optim, "SGD", Recorder)  # --literal
    seen, env = [], Walk(length=3)
    what = dict(default={}, off=dict(scale_rewards=False), literal=dict(literal=True))[how]
    options = dict(steps=9, gamma=gamma, alpha=1e-9, beta=1e-9, hidden=8)
    _, returns = reinforce.train(env, **options, **what, on_episode=lambda *e: seen.append(e))
    rewards = np.array([step[2] for step in env.log]).reshape(3, 3)
    assert returns == pytest.approx(rewards.sum(axis=1)) == [episode[0] for episode in seen]
    assert [episode[1:] for episode in seen] == [(3, 3), (3, 6), (3, 9)]
    factor, baseline = reward_scale(gamma) if how == "default" else 1.0, how != "literal"
    for episode in range(3):
        s, a, r, s2, _, truncated = columns(env.log[3 * episode : 3 * episode + 3])
        networks = reinforce.Policy((3,), env.action_space, 8), reinforce.Value((3,), 8)
        policy, V, found, found_v = load_both(*networks, recorders[0].steps[episode])
        v, later = torch.zeros(3), V(s2[-1:]).item() if baseline and truncated[-1] else 0.0
        for t in (2, 1, 0):
            v[t] = later = factor * r[t].item() + gamma * later
        weight = v - V(s).detach() if baseline else v
        same(found, gradients(-(policy(s).log_prob(a) * weight).sum(), policy))
        if baseline:
            same(found_v, gradients((v - V(s)).square().mean(), V))
            shown = -2 * (v - V(s)).mean().item()  # the gradient of V's last bias
            assert found_v[-1].item() == pytest.approx(shown, rel=1e-4, abs=1e-6)
        else:
            assert all(g.abs().sum() == 0 for g in found_v)


@pytest.mark.parametrize("how", ["default", "off", "literal"])
@pytest.mark.parametrize("gamma", [0.5, 0.99, 0.999, 1.0])
def test_actor_critic_scales_what_it_learns_and_not_what_it_reports(
    recorders, monkeypatch, gamma, how
):
    """As dqn: the real value is a scaled reward, and what the critic says of the next state."""
    monkeypatch.setattr(torch.optim, "SGD", Recorder)  # --literal
    seen, env = [], Walk(length=3)
    what = dict(default={}, off=dict(scale_rewards=False), literal=dict(literal=True))[how]
    options = dict(steps=9, gamma=gamma, batch=1, alpha=1e-9, beta=1e-9, hidden=8)
    keep = lambda *episode: seen.append(episode)
    *_, returns = actor_critic.train(env, **options, **what, on_episode=keep)
    rewards = np.array([step[2] for step in env.log]).reshape(3, 3)
    assert returns == pytest.approx(rewards.sum(axis=1)) == [episode[0] for episode in seen]
    assert [episode[1:] for episode in seen] == [(3, 3), (3, 6), (3, 9)]
    factor = reward_scale(gamma) if how == "default" else 1.0
    networks = [actor_critic.Network((3,), 2, 8) for _ in range(2)]
    for step, (s, a, r, s2, terminated, _) in zip(recorders[0].steps, env.log, strict=True):
        _, critic, _, found = load_both(*networks, step)
        s, s2 = torch.from_numpy(s), torch.from_numpy(s2)
        y = factor * r + (0.0 if terminated else gamma * critic(s2).max().item())
        same(found, gradients((y - critic(s)[a]) ** 2, critic))
        shown = -2 * (y - critic(s)[a].item())  # the gradient of the last bias
        assert found[-1][a].item() == pytest.approx(shown, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("how", ["default", "off", "literal"])
@pytest.mark.parametrize("gamma", [0.5, 0.99, 0.999, 1.0])
def test_a3c_scales_what_it_learns_and_not_what_it_reports(monkeypatch, gamma, how):
    """As dqn: R is a sum of scaled rewards, and of V where a stretch or a time limit ends it."""
    seen, updates, env = [], [], Walk(length=3)
    keep = lambda shared, d, *_: updates.append((shared.theta.clone(), d.clone()))
    monkeypatch.setattr(a3c.Shared, "adam", keep)
    what = dict(default={}, off=dict(scale_rewards=False), literal=dict(literal=True))[how]
    options = dict(steps=8, workers=1, t_max=2, gamma=gamma, hidden=8)
    model, returns = a3c.train(lambda: env, **options, **what, on_episode=lambda *e: seen.append(e))
    rewards = np.array([step[2] for step in env.log]).reshape(3, 3)
    assert returns == pytest.approx(rewards.sum(axis=1)) == [episode[0] for episode in seen]
    assert [episode[1:] for episode in seen] == [(3, 3), (3, 6), (3, 9)]
    factor = reward_scale(gamma) if how == "default" else 1.0
    stretches = [(0, 2), (2, 3), (3, 5), (5, 6), (6, 8), (8, 9)]
    for (start, end), (theta, found) in zip(stretches, updates, strict=True):
        s, a, r, s2, terminated, _ = columns(env.log[start:end])
        vector_to_parameters(theta, model.parameters())
        R, targets = 0.0 if terminated[-1] else model.V(s2[-1:]).item(), torch.zeros(end - start)
        for i in reversed(range(end - start)):
            targets[i] = R = factor * r[i].item() + gamma * R
        error = targets - model.V(s)
        climb = (model.pi(s).log_prob(a) * error.detach()).sum()
        expected = gradients(error.square().sum() - climb, model)
        same([found], [parameters_to_vector(expected)])
        shown = -2 * error.sum().item()  # the gradient of V's last bias
        assert found[-1].item() == pytest.approx(shown, rel=1e-4, abs=1e-6)


# ------------------------------------------------------------------------------ PPO's minibatches


@pytest.mark.parametrize(("batch", "sizes"), [(4, [4, 4, 4, 2]), (7, [7, 7]), (50, [14])])
def test_ppo_goes_through_each_batch_k_times(recorders, monkeypatch, batch, sizes):
    """K epochs, each in ceil(NT / M) minibatches that hold every sample once, in another order."""
    seen, forward = [], ppo.Policy.forward

    def look(policy, states):
        if torch.is_grad_enabled() and policy.layers[-1].weight.requires_grad:  # learning
            seen.append([tuple(s) for s in states.tolist()])
        return forward(policy, states)

    monkeypatch.setattr(ppo.Policy, "forward", look)
    made = []

    def make_env():
        made.append(Walk(length=3))
        return made[-1]

    rollout = dict(steps=28, n_envs=2, horizon=7, epochs=3, batch=batch, alpha=1e-6, hidden=8)
    ppo.train(make_env, **rollout)
    assert [len(states) for states in seen] == sizes * 3 * 2
    assert len(recorders[0].steps) == len(sizes) * 3 * 2
    n, orders = len(sizes), []
    for epoch in range(6):
        states = sum(seen[n * epoch : n * epoch + n], [])
        first = 0 if epoch < 3 else 7
        played = [tuple(step[0].tolist()) for env in made[-2:] for step in env.log[first:][:7]]
        assert sorted(states) == sorted(played)
        orders.append(states)
    assert len({tuple(order) for order in orders[:3]}) == 3


def test_ppo_tells_each_actors_episodes():
    """Returns and lengths of the actor whose episode ended; steps of all actors together."""
    made, seen = [], []

    def make_env():
        made.append(Walk(length=3 + 2 * (len(made) % 2)))
        return made[-1]

    rollout = dict(steps=20, n_envs=2, horizon=10, epochs=1, hidden=8)
    ppo.train(make_env, **rollout, on_episode=lambda *e: seen.append(e))
    first, second = ([step[2] for step in env.log] for env in made[-2:])
    expected = [(sum(first[i : i + 3]), 3, 2 * i + 6, 0) for i in (0, 3, 6)]
    expected += [(sum(second[i : i + 5]), 5, 2 * i + 10, 1) for i in (0, 5)]
    expected = [episode[:3] for episode in sorted(expected, key=lambda e: (e[2], e[3]))]
    assert [episode[1:] for episode in seen] == [episode[1:] for episode in expected]
    assert [episode[0] for episode in seen] == pytest.approx([e[0] for e in expected], abs=1e-4)


def test_ppo_acts_with_theta_old(monkeypatch):
    """[g]: in each iteration the rollout comes from the policy as it was left by the one before."""
    acting, updated = [], []
    forward, step = ppo.Policy.forward, torch.optim.Adam.step
    flat = lambda policy: parameters_to_vector(policy.parameters()).detach().clone()

    def look(policy, states):
        if torch.is_inference_mode_enabled():
            acting.append(flat(policy))
        elif policy.layers[-1].weight.requires_grad:
            updated.append(policy)
        return forward(policy, states)

    thetas = []
    monkeypatch.setattr(ppo.Policy, "forward", look)
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda o: step(o) and 0 or thetas.append(flat(updated[-1]))
    )
    ppo.train(lambda: Walk(length=3), steps=15, n_envs=1, horizon=5, epochs=2, hidden=8)
    assert len(acting) == 15 and len(thetas) == 6
    assert all(torch.equal(theta, acting[0]) for theta in acting[:5])
    assert all(torch.equal(theta, thetas[1]) for theta in acting[5:10])
    assert all(torch.equal(theta, thetas[3]) for theta in acting[10:])
    assert not torch.equal(thetas[1], acting[0]) and not torch.equal(thetas[3], thetas[1])


# ---------------------------------------------------------------------------- A3C with two workers


SETTINGS = dict(seed=3, steps=128, t_max=5, gamma=GAMMA, alpha=0.05, hidden=8)
SETTINGS |= dict(scale_rewards=False)


class Meddled(Walk):
    """At each step another worker changes theta."""

    def __init__(self, shared, length):
        super().__init__(length=length)
        self.shared = shared

    def step(self, action):
        self.shared.theta.add_(0.05 * torch.sin(torch.arange(len(self.shared.theta)) + 1.0))
        return super().step(action)


@pytest.mark.parametrize("scaled", [True, False])
def test_a3c_one_of_two_workers_by_hand(monkeypatch, scaled):
    """The second worker begins where the first has been for a while, and the first goes on changing
    theta. Gradients are those of theta' as theta was at the start of a stretch; Adam's step is one
    of theta as it is now, with the means and the counts of both; T counts both. It learns from
    scaled rewards, or from the rewards; it reports the environment's returns."""
    torch.manual_seed(0)
    model = a3c.Model((3,), gym.spaces.Discrete(2), 8)
    shared = a3c.Shared(parameters_to_vector(model.parameters()).detach(), workers=2)
    rng = np.random.default_rng(1)
    shared.m.copy_(torch.from_numpy(rng.normal(size=len(shared.m))))
    shared.v.copy_(torch.from_numpy(rng.uniform(1, 2, size=len(shared.m))))
    shared.steps[0], shared.updates[0] = 100, 9
    env, updates, reports = Meddled(shared, length=7), [], []
    synchronised, adam = [shared.theta.clone()], a3c.Shared.adam

    def look(shared, d_theta, alpha, rank):
        before = [x.double().numpy().copy() for x in (shared.theta, shared.m, shared.v)]
        adam(shared, d_theta, alpha, rank)
        updates.append((before, d_theta.clone(), alpha, rank, len(env.log)))
        synchronised.append(shared.theta.clone())

    monkeypatch.setattr(a3c.Shared, "adam", look)
    settings = SETTINGS | dict(scale_rewards=scaled)
    a3c.worker(1, lambda: env, shared, lambda *e: reports.append(e), **settings)

    # Episodes have 7 steps: stretches of 5 and 2. T = 128 is not beyond T_max yet.
    assert [update[4] for update in updates] == [5, 7, 12, 14, 19, 21, 26, 28, 33]
    assert (shared.steps.tolist(), shared.updates.tolist(), shared.T) == ([100, 33], [9, 9], 133)
    totals = [sum(step[2] for step in env.log[i : i + 7]) for i in (0, 7, 14, 21)]
    assert reports == [(pytest.approx(total), 7) for total in totals]
    start = 0
    for i, (before, found, alpha, rank, end) in enumerate(updates):
        assert (alpha, rank) == (pytest.approx(0.05 * max(0, 1 - (100 + end) / 128)), 1)
        s, a, r, s2, terminated, _ = columns(env.log[start:end])
        r = (1 - GAMMA) * r if scaled else r
        vector_to_parameters(synchronised[i].clone(), model.parameters())
        R, targets = 0.0 if terminated[-1] else model.V(s2[-1:]).item(), torch.zeros(end - start)
        for k in reversed(range(end - start)):
            targets[k] = R = r[k].item() + GAMMA * R
        error = targets - model.V(s)
        climb = (model.pi(s).log_prob(a) * error.detach()).sum()
        same([found], [parameters_to_vector(gradients(error.square().sum() - climb, model))])
        theta, m, v = before
        assert not np.allclose(theta, synchronised[i].numpy(), atol=1e-3)  # theta was changed
        g, n = found.double().numpy(), 9 + i + 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - alpha * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
        assert synchronised[i + 1].numpy() == pytest.approx(theta, rel=1e-4, abs=1e-5)
        start = end


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a3c_each_worker_has_its_own_seed(monkeypatch, rank):
    """For the environment, for its actions, and not for the others' resets."""
    env, torch_seeds, seed = Logged(a3c, 2), [], torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda s: torch_seeds.append(s) or seed(s))
    model = a3c.Model((1,), env.action_space, 8)
    shared = a3c.Shared(parameters_to_vector(model.parameters()).detach(), workers=4)
    a3c.worker(rank, lambda: env, shared, lambda *_: None, **SETTINGS | dict(steps=12))
    assert torch_seeds == [3 + 1000 * rank] and env.seeds[0] == 3 + 1000 * rank
    assert set(env.seeds[1:]) == {None}


def test_a3c_a_worker_ends_when_the_others_are_told_to():
    """After its present stretch; or when the others have used up the budget."""
    model = a3c.Model((3,), gym.spaces.Discrete(2), 8)
    for stop, others in ((True, 0), (False, 10**6)):
        shared, env = a3c.Shared(parameters_to_vector(model.parameters()).detach(), 2), Walk()
        shared.stop[0], shared.steps[0] = stop, others
        options = SETTINGS | dict(t_max=2, steps=1000)
        a3c.worker(1, lambda env=env: env, shared, lambda *_: None, **options)
        assert (shared.steps[1].item(), len(env.log)) == (2, 2)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a3c_what_reaches_the_workers_and_what_comes_back(monkeypatch, workers, scaled):
    """Each of them gets its rank, the settings of train(), and the same shared state. Their
    episodes come back in order, and train() returns what they made of theta."""
    given, heard, stops = [], [], []
    expected = SETTINGS | dict(scale_rewards=scaled)
    arguments = expected | dict(workers=workers)

    def worker(rank, make_env, shared, report, **settings):
        given.append((rank, make_env, shared, settings))
        stops.append(shared.stop)
        shared.theta.fill_(0.5)
        shared.steps[rank] += 10
        report(10.0 * rank, 1 + rank)
        report(-1.0, 7)

    class Finished:
        def join(self, timeout):
            return True

    def start(function, arguments, n, **_):
        for rank in range(n):
            function(rank, *arguments)
        return Finished()

    monkeypatch.setattr(a3c, "worker", worker)
    monkeypatch.setattr(a3c.mp, "start_processes", start)
    make_env, before = Walk, signal.getsignal(signal.SIGINT)
    try:
        model, returns = a3c.train(
            make_env, **arguments, on_episode=lambda *e: heard.append(e) or len(heard) == 4
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert [rank for rank, *_ in given] == list(range(workers))
    shared = given[0][2]
    for _, made, state, settings in given:
        assert made is make_env and state is shared and settings == expected
    assert (len(shared.steps), shared.T) == (workers, 10 * workers)
    assert all((p == 0.5).all() for p in model.parameters())
    episodes = [e for rank in range(workers) for e in ((10.0 * rank, 1 + rank), (-1.0, 7))][:4]
    assert [e[:2] for e in heard] == episodes  # the fourth says stop: no more after it
    # With one worker T is that of the moment; of others' episodes main hears a little later.
    assert {e[2] for e in heard} == {10 * workers}
    assert returns == [episode[0] for episode in episodes]
    # The tensor that the workers look at, in shared memory, and no other in its place.
    assert all(stop is shared.stop for stop in stops) and shared.stop.is_shared()
    assert shared.stop.tolist() == [len(heard) == 4]


def test_a3c_workers_leave_ctrl_c_to_the_main_process(monkeypatch):
    put, handlers, before = [], [], signal.getsignal(signal.SIGINT)

    class Queue:
        def put(self, episode):
            put.append(episode)

    def worker(rank, make_env, shared, report, **settings):
        handlers.append(signal.getsignal(signal.SIGINT))
        report(2.5, 9)

    monkeypatch.setattr(a3c, "worker", worker)
    try:
        a3c.start_worker(1, Walk, None, Queue(), SETTINGS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_IGN] and put == [(2.5, 9)]


def test_a3c_two_processes_share_all(monkeypatch):
    """Both count, both change theta, and Adam's means are those of both."""
    kept, original = [], a3c.Shared

    class Kept(original):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            kept.append(self)

    monkeypatch.setattr(a3c, "Shared", Kept)
    model, returns = a3c.train(
        functools.partial(Walk, length=4), workers=2, **SETTINGS | dict(steps=400)
    )
    (shared,) = kept
    for tensor in (shared.theta, shared.m, shared.v, shared.steps, shared.updates):
        assert tensor.is_shared() and tensor.abs().sum() > 0
    assert (shared.steps > 0).all() and (shared.updates > 0).all()
    assert 400 < shared.T <= 400 + 2 * 5
    assert torch.equal(parameters_to_vector(model.parameters()), shared.theta)
    assert len(returns) == sum(int(n) // 4 for n in shared.steps)


# ----------------------------------------------------------------------------- what a script makes


@pytest.mark.parametrize("name", ["dqn", "ddpg", "a3c", "ppo", "reinforce", "actor_critic"])
def test_adam_or_the_plain_step_with_the_step_sizes_given(monkeypatch, name):
    """Adam is torch's own, with its usual constants, and each part has its own step size."""
    script, made = importlib.import_module(name), []
    for kind in (torch.optim.Adam, torch.optim.SGD):

        def make(self, parameters, kind=kind, init=kind.__init__, **options):
            init(self, parameters, **options)
            made.append((kind, [(g["lr"], g.get("betas")) for g in self.param_groups]))

        monkeypatch.setattr(kind, "__init__", make)
    env = Walk(name == "ddpg")
    take = (lambda: env) if name in ("a3c", "ppo") else env
    adam, sgd, usual = torch.optim.Adam, torch.optim.SGD, (0.9, 0.999)
    given, expected = {
        "dqn": (dict(alpha=0.3), [(adam, [(0.3, usual)])]),
        "ddpg": (
            dict(alpha=0.3, beta=0.2),
            [(adam, [(0.2, usual)]), (adam, [(0.3, usual)])],
        ),
        "a3c": (dict(workers=1), []),  # its own, in shared memory
        "ppo": (dict(alpha=0.3, n_envs=1, horizon=2, epochs=1), [(adam, [(0.3, usual)])]),
        "reinforce": (dict(alpha=0.3, beta=0.2), [(adam, [(0.3, usual), (0.2, usual)])]),
        "actor_critic": (dict(alpha=0.3, beta=0.2), [(adam, [(0.3, usual), (0.2, usual)])]),
    }[name]
    script.train(take, steps=2, **given)
    assert made == expected
    if "adam" in getattr(script, "LITERAL", {}):
        made.clear()
        script.train(take, steps=2, literal=True, **given)
        assert made == [(sgd, [(0.3, None), (0.2, None)])]


def test_qlearning_takes_an_epsilon_of_0():
    """No exploration at all is allowed, and so is exploration alone."""
    for epsilon in (0.0, 1.0):
        env = gym.make("FrozenLake-v1", is_slippery=False)
        assert qlearning_table.train(env, steps=200, epsilon=epsilon)[-1]
