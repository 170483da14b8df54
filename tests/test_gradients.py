"""Every script's step, computed once more by hand: the targets, the gradients, their signs, and what carries no gradient.

The scripts are not taken apart for this. They run on a small world that writes down what happens in it, with optimisers that
write down each gradient before they use it; then the same gradient is computed here, from the formula on the slide.
"""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import reinforce

GAMMA = 0.9


class Walk(gym.Env):
    """Random states of three numbers, rewards that depend on the action; of three episodes the second ends by a time limit.

    Continuous actions have no bounds, so that none is clipped. `log` holds each transition: (state, action, reward,
    next_state, terminated, truncated).
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))

    def __init__(self, continuous: bool = False, length: int = 3):
        self.action_space = (
            gym.spaces.Box(-np.inf, np.inf, (2,)) if continuous else gym.spaces.Discrete(2)
        )
        self.length, self.log, self.ends = (
            length,
            [],
            itertools.cycle(["terminated", "truncated", "terminated"]),
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.state = 0, self.np_random.normal(size=3).astype(np.float32)
        return self.state, {}

    def step(self, action):
        self.t += 1
        end = next(self.ends) if self.t == self.length else None
        state, self.state = self.state, self.np_random.normal(size=3).astype(np.float32)
        reward = float(np.sum(action) + self.t)
        self.log.append(
            (state, action, reward, self.state, end == "terminated", end == "truncated")
        )
        return self.state, reward, end == "terminated", end == "truncated", {}


class Recorder(torch.optim.SGD):
    """Plain gradient descent that keeps, for each step, the parameters before it and their gradients."""

    def __init__(self, parameters, **options):
        super().__init__(list(parameters), lr=0.1)
        self.steps = []
        Recorder.all.append(self)

    def record(self):
        parameters = self.param_groups[0]["params"]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
        self.steps.append(([p.detach().clone() for p in parameters], grads))

    def step(self):
        self.record()
        super().step()


@pytest.fixture(autouse=True)
def recorders(monkeypatch) -> list[Recorder]:
    """All optimisers that a script makes, in its order."""
    Recorder.all = []
    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    return Recorder.all


def load(network: torch.nn.Module, values: list[torch.Tensor]) -> torch.nn.Module:
    """The network, with these parameters."""
    with torch.no_grad():
        for p, value in zip(network.parameters(), values, strict=True):
            p.copy_(value)
    return network


def gradients(value: torch.Tensor, network: torch.nn.Module) -> list[torch.Tensor]:
    found = torch.autograd.grad(value, list(network.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(found, network.parameters(), strict=True)
    ]


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert sum(e.abs().sum() for e in expected) > 0
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)


def columns(log: list[tuple]) -> list[torch.Tensor]:
    return [torch.as_tensor(np.array(column)) for column in zip(*log, strict=True)]


# ------------------------------------------------------------------------------------------------------------ DQN, DDPG


@pytest.mark.parametrize("double", [True, False])
def test_dqn_semi_gradient(recorders, double):
    """grad (y - Q(s,a;theta))^2 with y a constant of the target network, which has moved by tau in between."""
    env = Walk(length=2)
    dqn.train(
        env,
        steps=4,
        gamma=GAMMA,
        memory=1,
        batch=1,
        warmup=1,
        train_every=1,
        n_steps=1,
        tau=0.25,
        double=double,
        huber=False,
        anneal=False,
        rescale=False,
    )
    (recorder,) = recorders
    target = [p.clone() for p in recorder.steps[0][0]]  # theta' begins as theta
    for i, (s, a, r, s2, terminated, _) in enumerate(env.log):
        theta, found = recorder.steps[i]
        if i > 0:  # after each step: theta' <- tau theta + (1 - tau) theta'
            target = [0.25 * new + 0.75 * old for new, old in zip(theta, target, strict=True)]
        online = load(dqn.QNetwork(env.observation_space, 2, 128), theta)
        slow = load(dqn.QNetwork(env.observation_space, 2, 128), target)
        with torch.no_grad():
            values = slow(torch.from_numpy(s2))
            best = online(torch.from_numpy(s2)).argmax() if double else values.argmax()
            y = r if terminated else r + GAMMA * values[best].item()
        same(found, gradients((y - online(torch.from_numpy(s))[a]) ** 2, online))
    assert [step[4:] for step in env.log] == [
        (False, False),
        (True, False),
        (False, False),
        (False, True),
    ]


def test_dqn_sums_n_rewards():
    """The replay memory's n-step transitions, against a walk through the stored ones, also where the ring has wrapped."""
    rng, n, capacity = np.random.default_rng(0), 3, 16
    memory = dqn.ReplayMemory(capacity, features=1)
    log = [
        (float(i), i % 2, rng.normal(), float(i) + 0.5, i % 5 == 4, i % 5 == 4 or i % 7 == 6)
        for i in range(37)
    ]
    for s, a, r, s2, terminated, done in log:
        memory.store([s], a, r, [s2], terminated, done)
    states, actions, rewards, next_states, terminated, discount = memory.sample(400, n, GAMMA, rng)
    assert set(states[:, 0].int().tolist()) == set(
        range(37 - capacity, 37)
    )  # all of the last 16, none that is overwritten
    for j, first in enumerate(states[:, 0].int().tolist()):
        total, last = 0.0, first
        for k in range(n):
            last = first + k
            total += GAMMA**k * log[last][2]
            if log[last][5] or last == 36:
                break
        assert rewards[j].item() == pytest.approx(total, abs=1e-5)
        assert (next_states[j, 0].item(), bool(terminated[j])) == (log[last][3], log[last][4])
        assert discount[j].item() == pytest.approx(GAMMA ** (last - first + 1))
        assert actions[j].item() == first % 2


def drawn(monkeypatch, script) -> list[tuple[torch.Tensor, ...]]:
    """All minibatches that a script draws from its memory."""
    batches, sample = [], script.ReplayMemory.sample

    def draw(memory, *arguments):
        batches.append(sample(memory, *arguments))
        return batches[-1]

    monkeypatch.setattr(script.ReplayMemory, "sample", draw)
    return batches


def test_dqn_learns_from_the_mean_over_a_minibatch(recorders, monkeypatch):
    batches = drawn(monkeypatch, dqn)
    env = Walk(length=2)
    dqn.train(
        env,
        steps=8,
        gamma=GAMMA,
        batch=6,
        warmup=8,
        train_every=1,
        n_steps=1,
        huber=False,
        anneal=False,
        rescale=False,
    )
    theta, found = recorders[0].steps[0]  # the first step: theta' is still theta
    Q = load(dqn.QNetwork(env.observation_space, 2, 128), theta)
    s, a, r, s2, terminated, _ = batches[0]
    with torch.no_grad():
        y = r + GAMMA * (1 - terminated) * Q(s2).amax(dim=1)
    errors = [y[i] - Q(s[i])[a[i]] for i in range(6)]
    same(found, gradients(sum(e**2 for e in errors) / 6, Q))


def test_ddpg_learns_from_the_mean_over_a_minibatch(recorders, monkeypatch):
    batches = drawn(monkeypatch, ddpg)
    env = Walk(continuous=True, length=2)
    ddpg.train(env, steps=8, gamma=GAMMA, batch=6, warmup=8, hidden=16)
    critics, actors = recorders
    (theta_q, found_q), (theta_mu, found_mu) = critics.steps[0], actors.steps[0]
    Q, mu = (
        load(ddpg.Critic(3, 2, 16), theta_q),
        load(ddpg.Actor(env.observation_space, env.action_space, 16), theta_mu),
    )
    s, a, r, s2, terminated = batches[0]
    with torch.no_grad():
        y = r + GAMMA * (1 - terminated) * Q(s2, mu(s2))
    same(found_q, gradients(sum((y[i] - Q(s[i], a[i])) ** 2 for i in range(6)) / 6, Q))
    load(Q, [theta - 0.1 * g for theta, g in zip(theta_q, found_q, strict=True)])
    same(found_mu, gradients(-sum(Q(s[i], mu(s[i])) for i in range(6)) / 6, mu))


def test_ddpg_explores_with_fading_noise(monkeypatch):
    """After the warm-up a_t = mu(s_t) + N_t; the spread of N_t falls in a line to 0 over noise_decay steps, or stays (0)."""
    monkeypatch.setattr(Recorder, "step", lambda self: None)  # nothing is learned meanwhile

    def noise(**options) -> np.ndarray:
        env, means, mu = Walk(continuous=True, length=50), [], ddpg.Actor.mu
        monkeypatch.setattr(
            ddpg.Actor, "mu", lambda actor, state: (means.append(mu(actor, state)), means[-1])[1]
        )
        ddpg.train(
            env, steps=900, warmup=100, sigma=0.2, noise="gaussian", batch=1, memory=1, **options
        )
        monkeypatch.setattr(ddpg.Actor, "mu", mu)
        actions = np.array([action for _, action, *_ in env.log[-len(means) :]])
        inside = np.all(np.abs(actions) < 1, axis=1)  # not clipped
        return np.where(inside[:, None], actions - np.array(means), np.nan)

    always, fading = noise(noise_decay=0), noise(noise_decay=600)
    assert np.nanstd(always[:400]) == pytest.approx(0.2, rel=0.15)
    assert np.nanstd(always[-200:]) == pytest.approx(0.2, rel=0.15)
    assert np.nanstd(fading[:50]) == pytest.approx(
        0.2 * (1 - 125 / 600), rel=0.25
    )  # steps 100 to 150
    assert np.nanstd(fading[350:450]) == pytest.approx(
        0.2 * (1 - 500 / 600), rel=0.25
    )  # steps 450 to 550
    assert np.nanmax(np.abs(fading[-200:])) < 1e-6


def test_ddpg_gradients_and_soft_updates(recorders):
    env = Walk(continuous=True, length=2)
    ddpg.train(env, steps=4, gamma=GAMMA, memory=1, batch=1, warmup=1, tau=0.25, hidden=16)
    critics, actors = recorders
    s0 = env.observation_space, env.action_space, 16
    targets = [p.clone() for p in critics.steps[0][0]], [p.clone() for p in actors.steps[0][0]]
    for i, (s, a, r, s2, terminated, _) in enumerate(env.log):
        s, a, s2 = torch.from_numpy(s), torch.from_numpy(a), torch.from_numpy(s2)
        theta_q, theta_mu = critics.steps[i][0], actors.steps[i][0]
        if i > 0:  # [15]
            targets = [
                [0.25 * new + 0.75 * old for new, old in zip(thetas, slow, strict=True)]
                for thetas, slow in zip((theta_q, theta_mu), targets, strict=True)
            ]
        Q, mu = load(ddpg.Critic(3, 2, 16), theta_q), load(ddpg.Actor(*s0), theta_mu)
        Q_slow, mu_slow = load(ddpg.Critic(3, 2, 16), targets[0]), load(ddpg.Actor(*s0), targets[1])
        with torch.no_grad():
            y = r if terminated else r + GAMMA * Q_slow(s2, mu_slow(s2)).item()
        same(critics.steps[i][1], gradients((y - Q(s, a)) ** 2, Q))  # [13]

        # [14], written out: grad_a Q at a = mu(s), times the Jacobian of mu; with the critic after its step, climbing.
        after = [theta - 0.1 * g for theta, g in zip(*critics.steps[i], strict=True)]
        Q = load(Q, after)
        action = mu(s)
        at = action.detach().requires_grad_()
        (grad_a,) = torch.autograd.grad(Q(s, at), at)
        by_hand = [torch.zeros_like(p) for p in mu.parameters()]
        for d in range(2):
            for total, g in zip(by_hand, gradients(mu(s)[d], mu), strict=True):
                total += grad_a[d] * g
        same(actors.steps[i][1], [-g for g in by_hand])


# ------------------------------------------------------------------------------------------- REINFORCE, actor-critic


class TwoDecisions(gym.Env):
    """Two decisions between two actions; the first leads to state 1 or 2, the second pays. Small enough to enumerate."""

    observation_space, action_space = gym.spaces.Discrete(4), gym.spaces.Discrete(2)
    FIRST, SECOND = np.array([2.0, 1.0]), np.array([[3.0, 1.0], [-2.0, 4.0]])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.s = 0
        return 0, {}

    def step(self, action):
        if self.s == 0:
            self.s = 1 + action
            return self.s, self.FIRST[action], False, False, {}
        reward = self.SECOND[self.s - 1, action]
        self.s = 3
        return 3, reward, True, False, {}


ONE_HOT = torch.eye(4)


def exact_gradient_of_J(policy) -> list[torch.Tensor]:
    """J(theta) = sum over all trajectories of pi(a_1|s_0) pi(a_2|s_1) (r_1 + r_2), and its gradient by autograd."""
    pi = policy.pi(ONE_HOT).probs
    J = sum(
        pi[0, a] * pi[1 + a, b] * float(TwoDecisions.FIRST[a] + TwoDecisions.SECOND[a, b])
        for a, b in itertools.product((0, 1), repeat=2)
    )
    return gradients(J, policy)


def played(
    monkeypatch, recorders, actions, **options
) -> tuple[reinforce.Policy, list[torch.Tensor]]:
    """REINFORCE's first gradient (of ascent) after an episode with these actions, and the policy that played it."""
    recorders.clear()
    queue = iter(actions)
    monkeypatch.setattr(reinforce.Policy, "sample", lambda self, state, rng: np.int64(next(queue)))
    options = dict(normalize=False, mean=False, rescale=False, hidden=8) | options
    reinforce.train(TwoDecisions(), episodes=1, gamma=1.0, seed=3, **options)
    theta, found = recorders[0].steps[0]
    policy = load(
        reinforce.Policy(TwoDecisions.observation_space, TwoDecisions.action_space, 8), theta
    )
    return policy, [-g for g in found]


@pytest.mark.parametrize(
    "options", [dict(weight="return"), dict(weight="trajectory"), dict(baseline="value")]
)
def test_reinforce_climbs_the_expected_return(monkeypatch, recorders, options):
    """The update, averaged over all trajectories with their probabilities, is the gradient of J: for v_t, for r(tau), and with
    a baseline (whose own fit is left out: it shares no weight with the policy)."""
    options = dict(baseline="none") | options
    expected, variance = None, 0.0
    for a, b in itertools.product((0, 1), repeat=2):
        policy, g = played(monkeypatch, recorders, (a, b), **options)
        pi = policy.pi(ONE_HOT).probs.detach()
        weighted = [pi[0, a] * pi[1 + a, b] * part for part in g]
        expected = (
            weighted
            if expected is None
            else [x + y for x, y in zip(expected, weighted, strict=True)]
        )
        variance += (pi[0, a] * pi[1 + a, b] * sum(part.square().sum() for part in g)).item()
    names = [name for name, _ in policy.named_parameters()]
    pairs = [
        (e, x)
        for name, e, x in zip(names, expected, exact_gradient_of_J(policy), strict=True)
        if "value" not in name
    ]
    same([e for e, _ in pairs], [x for _, x in pairs])


def second_moment(monkeypatch, recorders, **options) -> float:
    total = 0.0
    for a, b in itertools.product((0, 1), repeat=2):
        policy, g = played(monkeypatch, recorders, (a, b), **options)
        pi = policy.pi(ONE_HOT).probs.detach()
        names = [name for name, _ in policy.named_parameters()]
        size = sum(
            part.square().sum() for name, part in zip(names, g, strict=True) if "value" not in name
        )
        total += (pi[0, a] * pi[1 + a, b] * size).item()
    return total


def test_a_baseline_lowers_the_variance(monkeypatch, recorders):
    """The mean of the gradient is the same (above), so that the mean of its square tells the variance."""
    whole = second_moment(monkeypatch, recorders, baseline="none", weight="trajectory")
    rest = second_moment(monkeypatch, recorders, baseline="none", weight="return")
    means = torch.tensor(
        [3.0, 2.0, 1.0, 0.0]
    )  # the mean return from each state, if all actions are as likely
    monkeypatch.setattr(
        reinforce.Policy, "V", lambda self, s: means[s.argmax(-1)] + 0 * self.value(s).squeeze(-1)
    )
    with_baseline = second_moment(monkeypatch, recorders, baseline="value", weight="return")
    assert with_baseline < rest < whole


def test_reinforce_returns_are_discounted_sums(monkeypatch, recorders):
    """v_t = r_{t+1} + gamma r_{t+2} + ..., seen in the gradient: grad sum_t log pi(a_t|s_t) v_t."""
    env = Walk(length=4)
    reinforce.train(
        env, episodes=1, gamma=GAMMA, baseline="none", normalize=False, mean=True, hidden=8
    )
    theta, found = recorders[0].steps[0]
    s, a, r, *_ = columns(env.log)
    v = torch.tensor(
        [sum(GAMMA**k * r[t + k] for k in range(4 - t)) for t in range(4)], dtype=torch.float32
    )
    policy = load(reinforce.Policy(env.observation_space, env.action_space, 8), theta)
    same(found, gradients(-(policy.pi(s).log_prob(a) * v).mean(), policy))


def test_actor_critic_rules_to_the_letter(recorders, monkeypatch):
    """--literal: the slide's two updates, one step at a time, with plain gradient descent."""
    monkeypatch.setattr(torch.optim, "SGD", Recorder)
    env = Walk(length=2)
    actor_critic.train(env, steps=4, gamma=GAMMA, hidden=8, literal=True)
    actors, critics = recorders
    for i, (s, a, r, s2, terminated, _) in enumerate(env.log):
        s, s2 = torch.from_numpy(s), torch.from_numpy(s2)
        actor, critic = (
            load(actor_critic.Network(env.observation_space, 2, 8), recorder.steps[i][0])
            for recorder in (actors, critics)
        )
        with torch.no_grad():
            real_value = r if terminated else r + GAMMA * critic(s2).max().item()
            weight = critic(s)[a].item()
        same(actors.steps[i][1], gradients(-weight * actor(s).log_softmax(-1)[a], actor))
        same(critics.steps[i][1], gradients((real_value - critic(s)[a]) ** 2, critic))


def test_actor_critic_with_the_true_values_climbs_the_expected_return(recorders, monkeypatch):
    """sum_a pi(a|s) Q(s,a) grad log pi(a|s) = grad sum_a pi(a|s) Q(s,a): with the true Q the expected update of [1] is grad J.

    The critic is made to know the truth: in state 0, Q is the first reward plus what the policy earns after it.
    """
    monkeypatch.setattr(torch.optim, "SGD", Recorder)
    expected = None
    for advantage in (False, True):
        total = None
        for a, b in itertools.product((0, 1), repeat=2):
            recorders.clear()
            queue = iter((a, b))
            monkeypatch.setattr(
                actor_critic.Network, "sample", lambda self, state, rng, queue=queue: next(queue)
            )
            theta = run_with_true_values(monkeypatch, advantage)
            steps = recorders[0].steps
            actor = load(actor_critic.Network(TwoDecisions.observation_space, 2, 8), theta)
            pi = actor(ONE_HOT).softmax(-1)
            p = (pi[0, a] * pi[1 + a, b]).item()
            g = [
                -p * (first + second)
                for first, second in zip(steps[0][1], steps[1][1], strict=True)
            ]
            total = g if total is None else [x + y for x, y in zip(total, g, strict=True)]
        J = sum(
            pi[0, a] * pi[1 + a, b] * float(TwoDecisions.FIRST[a] + TwoDecisions.SECOND[a, b])
            for a, b in itertools.product((0, 1), repeat=2)
        )
        expected = gradients(J, actor)
        same(total, expected)


def run_with_true_values(monkeypatch, advantage: bool) -> list[torch.Tensor]:
    """Two steps of actor_critic in TwoDecisions, with a critic that returns the true Q; nothing is changed.

    Returns the actor's parameters.
    """
    made = []
    original = actor_critic.Network.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        made.append(self)

    def forward(self, states):
        if self is made[0]:  # the actor
            return self.layers(states)
        pi = made[0].layers(ONE_HOT).softmax(-1).detach()
        later = (pi[1:3] * torch.tensor(TwoDecisions.SECOND, dtype=torch.float32)).sum(-1)
        truth = torch.zeros(4, 2)
        truth[0] = torch.tensor(TwoDecisions.FIRST, dtype=torch.float32) + later
        truth[1:3] = torch.tensor(TwoDecisions.SECOND, dtype=torch.float32)
        return truth[states.argmax(-1)] + 0 * self.layers(states)

    with monkeypatch.context() as patch:
        patch.setattr(actor_critic.Network, "__init__", remember)
        patch.setattr(actor_critic.Network, "forward", forward)
        patch.setattr(Recorder, "step", Recorder.record)  # record each step, and do not move
        actor_critic.train(
            TwoDecisions(),
            episodes=1,
            gamma=1.0,
            batch=1,
            advantage=advantage,
            sampled=False,
            normalize=False,
            entropy=0.0,
            hidden=8,
        )
    return [p.detach().clone() for p in made[0].parameters()]


def test_actor_critic_batch(recorders):
    """The defaults: rewards summed up to the end of the batch or of an episode, less the mean of Q under pi."""
    env, n = Walk(length=3), 8
    actor_critic.train(
        env, steps=n, gamma=GAMMA, batch=n, normalize=False, rescale=False, entropy=0.3, hidden=8
    )
    s, a, r, s2, terminated, truncated = columns(env.log)
    actor, critic = (
        load(actor_critic.Network(env.observation_space, 2, 8), recorder.steps[0][0])
        for recorder in recorders
    )
    y = torch.zeros(n)
    for t in range(n):  # forwards, naively
        for k in range(t, n):
            y[t] += GAMMA ** (k - t) * r[k]
            if terminated[k]:
                break
            if truncated[k] or k == n - 1:
                y[t] += GAMMA ** (k - t + 1) * critic(s2[k]).max().item()
                break
    taken = lambda table: table[torch.arange(n), a]  # noqa: E731
    same(recorders[1].steps[0][1], gradients((y - taken(critic(s))).square().mean(), critic))
    log_pi = actor(s).log_softmax(-1)
    weight = (y - (log_pi.exp() * critic(s)).sum(-1)).detach()
    entropy = -(log_pi.exp() * log_pi).sum(-1).mean()
    same(
        recorders[0].steps[0][1], gradients(-(taken(log_pi) * weight).mean() - 0.3 * entropy, actor)
    )


# -------------------------------------------------------------------------------------------------------------- A3C, PPO


@pytest.mark.parametrize("continuous", [False, True])
def test_a3c_accumulates_the_gradients_of_the_box(continuous):
    """One stretch of t_max steps and one plain update: theta moves against the naive sum of [16] and [17]."""
    made = []

    def make_env():
        made.append(Walk(continuous, length=4))
        return made[-1]

    for t_max in (3, 4, 6):  # ends before the episode does, with it, and would end after it
        made.clear()
        moved, _ = a3c.train(
            make_env,
            seed=5,
            steps=1,
            workers=1,
            t_max=t_max,
            gamma=GAMMA,
            alpha=0.01,
            entropy=0.2,
            adam=False,
            rescale=False,
            hidden=8,
        )
        torch.manual_seed(5)
        model = a3c.Model(made[0].observation_space, made[0].action_space, 8)
        log = made[-1].log
        s, a, r, s2, terminated, truncated = columns(log)
        n = min(t_max, 4)
        assert len(log) == n and bool(terminated[-1]) == (n == 4)
        V = model.V(s)
        tail = 0.0 if terminated[-1] else model.V(s2[-1:]).item()
        R = torch.tensor(
            [
                sum(GAMMA ** (k - i) * r[k] for k in range(i, n)) + GAMMA ** (n - i) * tail
                for i in range(n)
            ]
        )
        pi = model.pi(s)
        climb = (pi.log_prob(a) * (R - V).detach()).sum() + 0.2 * pi.entropy().sum()  # [16]
        descend = (R - V).square().sum()  # [17]
        expected = gradients(descend - climb, model)
        found = [
            (old - new.detach()) / 0.01
            for old, new in zip(model.parameters(), moved.parameters(), strict=True)
        ]
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, e.float(), rtol=1e-2, atol=1e-2)


def naive_gae(delta, done, discount) -> torch.Tensor:
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, up to the end of the episode: the double sum, term by term."""
    A = torch.zeros(len(delta))
    for t in range(len(delta)):
        for k in range(t, len(delta)):
            A[t] += discount ** (k - t) * delta[k]
            if done[k]:
                break
    return A


@pytest.mark.parametrize("objective", ["kl", "clip"])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("normalize", "rescale"), [(False, False), (True, False), (False, True)])
def test_ppo_begins_as_the_policy_gradient(recorders, objective, continuous, normalize, rescale):
    """At theta = theta_old the ratio is 1 and the KL is flat: both surrogates have the gradient of E[log pi A], with the GAE of
    a rollout in which episodes end, terminated and truncated."""
    made = []

    def make_env():
        made.append(Walk(continuous, length=3))
        return made[-1]

    n = 14
    rollout = dict(steps=n, n_envs=1, horizon=n, epochs=1, batch=n, gamma=GAMMA, gae_lambda=0.8)
    ppo.train(
        make_env, **rollout, objective=objective, normalize=normalize, rescale=rescale, hidden=8
    )
    theta, found = recorders[0].steps[0]
    env = made[-1]
    s, a, r, s2, terminated, truncated = columns(env.log)
    assert terminated.sum() >= 2 and truncated.sum() >= 1
    model = load(ppo.Model(env.observation_space, env.action_space, 8), theta)
    if rescale:  # values in units of the rollout's sum of rewards
        model.unit.fill_(abs(r.sum()))
    with torch.no_grad():
        V, V2 = model.V(s), model.V(s2)
        delta = r + GAMMA * V2 * ~terminated - V
        A = naive_gae(delta, terminated | truncated, GAMMA * 0.8).float()
        weight = (
            (A - A.mean()) / A.var(correction=0).sqrt() if normalize else A
        )  # mean 0, spread 1; the values keep A itself
    log_pi = model.pi(s).log_prob(a)
    loss = -(log_pi * weight).mean() + ((A + V - model.V(s)) / model.unit).square().mean()
    same(found, gradients(loss.float(), model))


@pytest.mark.parametrize("objective", ["kl", "clip"])
def test_ppo_surrogate_away_from_theta_old(recorders, objective, monkeypatch):
    """The second step on the same batch: ratio and KL to theta_old, beta and eps as they stand in the formula."""
    made = []

    def make_env():
        made.append(Walk(length=3))
        return made[-1]

    n = 8
    ppo.train(
        make_env, steps=n, n_envs=1, horizon=n, epochs=2, batch=n, gamma=GAMMA, gae_lambda=0.8,
        objective=objective, beta=0.7, clip=0.05, normalize=False, rescale=False, hidden=8,
    )  # fmt: skip
    env = made[-1]
    s, a, r, s2, terminated, truncated = columns(env.log)
    old = load(ppo.Model(env.observation_space, env.action_space, 8), recorders[0].steps[0][0])
    theta, found = recorders[0].steps[1]
    model = load(ppo.Model(env.observation_space, env.action_space, 8), theta)
    with torch.no_grad():
        V = old.V(s)
        A = naive_gae(
            r + GAMMA * old.V(s2) * ~terminated - V, terminated | truncated, GAMMA * 0.8
        ).float()
        log_old, pi_old = old.pi(s).log_prob(a), old.pi(s)
    ratio = (model.pi(s).log_prob(a) - log_old).exp()
    assert (ratio - 1).abs().max() > 0.05  # so that the clip matters
    if objective == "kl":
        surrogate = (ratio * A - 0.7 * kl_divergence(pi_old, model.pi(s))).mean()
    else:
        surrogate = (
            torch.where(
                A > 0, torch.min(ratio, torch.tensor(1.05)), torch.max(ratio, torch.tensor(0.95))
            )
            .mul(A)
            .mean()
        )
    loss = -surrogate + (A + V - model.V(s)).square().mean()
    same(found, gradients(loss, model))


def test_ppo_beta_adapts(recorders, monkeypatch):
    """d < d_targ / 1.5 halves beta, d > 1.5 d_targ doubles it: seen in the weight of the KL in the next iteration."""
    betas = []
    real = ppo.kl_divergence

    class Weighed:
        """Stands for the KL of a minibatch, and remembers what it is multiplied with."""

        def __init__(self, kl):
            self.kl = kl

        def __rmul__(self, beta):
            betas.append(beta)
            return beta * self.kl

        def mean(self):
            return self.kl.mean()

    monkeypatch.setattr(ppo, "kl_divergence", lambda p, q: Weighed(real(p, q)))
    options = dict(steps=30, n_envs=1, horizon=10, epochs=1, batch=10, beta=1.0, hidden=8)
    ppo.train(Walk, d_targ=1e3, **options)
    assert betas == [1.0, 0.5, 0.25]
    betas.clear()
    ppo.train(Walk, d_targ=1e-9, **options)
    assert betas == [1.0, 2.0, 4.0]
