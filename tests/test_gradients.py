"""Every script's step, computed once more by hand: the targets, the gradients, their signs, and
what carries no gradient.

The scripts are not taken apart for this. They run on a small world that writes down what happens in
it, with optimisers that write down each gradient before they use it; then the same gradient is
computed here, from the formula on the slide.
"""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import reinforce

GAMMA = 0.9


class Walk(gym.Env):
    """Random states of three numbers, rewards that depend on the action; of three episodes the
    second ends by a time limit.

    Continuous actions have no bounds, so that none is clipped. `log` holds each transition: (state,
    action, reward, next_state, terminated, truncated), with the reward as the environment gave it.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,))

    def __init__(self, continuous: bool = False, length: int = 3):
        self.action_space = (
            gym.spaces.Box(-np.inf, np.inf, (2,)) if continuous else gym.spaces.Discrete(2)
        )
        self.length, self.log = length, []
        self.ends = itertools.cycle(["terminated", "truncated", "terminated"])

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
    """Plain gradient descent that keeps, for each step, the parameters before it and their
    gradients; of all groups, one after the other. `rates`: the step size of each group."""

    def __init__(self, parameters, lr=None, **options):
        super().__init__(list(parameters), lr=lr or 0.0)
        self.steps, self.rates = [], [group["lr"] for group in self.param_groups]
        Recorder.all.append(self)

    def record(self):
        parameters = [p for group in self.param_groups for p in group["params"]]
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


def load_both(first, second, step) -> tuple:
    """Two networks that share an optimiser, with the parameters before a recorded step, and the
    gradients of each in it."""
    theta, found = step
    n = len(list(first.parameters()))
    return load(first, theta[:n]), load(second, theta[n:]), found[:n], found[n:]


def gradients(value: torch.Tensor, network: torch.nn.Module) -> list[torch.Tensor]:
    found = torch.autograd.grad(value, list(network.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g
        for g, p in zip(found, network.parameters(), strict=True)
    ]


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """The same numbers, up to the rounding of a float32 against the largest of each tensor."""
    assert sum(e.abs().sum() for e in expected) > 0
    for f, e in zip(found, expected, strict=True):
        scale = max(1.0, e.abs().max().item())
        torch.testing.assert_close(f, e.to(f.dtype), rtol=1e-4, atol=1e-5 * scale)


def columns(log: list[tuple]) -> list[torch.Tensor]:
    return [torch.as_tensor(np.array(column)) for column in zip(*log, strict=True)]


def reward_scale(gamma: float) -> float:
    """What scale_rewards multiplies rewards with: 1 - gamma, but not less than a thousandth."""
    return 1 - gamma if gamma <= 0.999 else 0.001


# -------------------------------------------------------------------------------------- DQN, DDPG


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_dqn_semi_gradient(recorders, tau, scaled):
    """grad (y - Q(s,a;theta))^2 with y a constant of the target network, which has moved by tau in
    between; with tau = 1 it is Q itself. To the letter, and with rewards scaled by 1 - gamma."""
    env = Walk(length=2)
    what = dict(train_every=1, n_steps=1) if scaled else dict(literal=True)
    dqn.train(env, steps=4, gamma=GAMMA, alpha=1e-3, memory=1, batch=1, tau=tau, **what)
    (recorder,) = recorders
    assert recorder.rates == [1e-3]
    target = [p.clone() for p in recorder.steps[0][0]]  # theta' begins as theta
    for i, (s, a, r, s2, terminated, _) in enumerate(env.log):
        theta, found = recorder.steps[i]
        if i > 0:  # theta has made its step; then theta' <- tau theta + (1 - tau) theta'
            same(theta, [t - 1e-3 * g for t, g in zip(*recorder.steps[i - 1], strict=True)])
            target = [tau * new + (1 - tau) * old for new, old in zip(theta, target, strict=True)]
        online, slow = (
            load(dqn.QNetwork((3,), 2, 128), theta),
            load(dqn.QNetwork((3,), 2, 128), target),
        )
        r = (1 - GAMMA) * r if scaled else r
        with torch.no_grad():
            y = r if terminated else r + GAMMA * slow(torch.from_numpy(s2)).max().item()
        same(found, gradients((y - online(torch.from_numpy(s))[a]) ** 2, online))
    assert len(recorder.steps) == 4
    assert [step[4:] for step in env.log] == [
        (False, False),
        (True, False),
        (False, False),
        (False, True),
    ]


def test_dqn_memory_keeps_each_image_once_as_bytes():
    """Also with n steps, and in a full memory; the images of old transitions are given up."""
    for n in (1, 3):
        memory, states = dqn.ReplayMemory(16, n, GAMMA), []
        for step in range(60):
            if step % 20 == 0:
                states.append(torch.full((2, 5, 5), len(states), dtype=torch.uint8))
            states.append(torch.full((2, 5, 5), len(states), dtype=torch.uint8))
            end = step % 20 == 19
            memory.store(states[-2], 0, 0.0, states[-1], end, end)
        kept = [*memory.states, *memory.next_states]
        assert len({id(x) for x in kept}) == 17  # of the last 16 steps, and the last state
        s, _, _, s2, _, _ = memory.sample(200, np.random.default_rng(0))
        assert s.dtype == s2.dtype == torch.uint8 and s.shape == (200, 2, 5, 5)
        last = len(states) - 1
        assert (s2.int() == (s.int() + n).clamp(max=last)).all()


@pytest.mark.parametrize("n", [1, 3])
def test_dqn_sums_n_rewards(n):
    """The replay memory's n-step transitions, against a walk through the steps that were stored,
    also where the ring has wrapped. A step whose rewards are not complete is not in it yet."""
    rng, capacity = np.random.default_rng(0), 16
    memory = dqn.ReplayMemory(capacity, n_steps=n, gamma=GAMMA)
    log = [
        [float(i), i % 2, rng.normal(), i + 1.0, i % 5 == 4, i % 5 == 4 or i % 7 == 6]
        for i in range(37)
    ]
    for step in log:
        step[3] -= 0.5 * step[5]  # an episode's last state is not the next one's first
    for i, (s, a, r, s2, terminated, done) in enumerate(log):
        memory.store(torch.tensor([s]), a, r, torch.tensor([s2]), terminated, done)
        assert n > 1 or memory.stored == i + 1
    batch = memory.sample(400, rng)
    assert {(part.shape, part.dtype) for part in batch} == {((400, 1), torch.float32)}
    states, actions, rewards, next_states, terminated, gammas = batch
    complete = 37 if n == 1 else 35  # the last episode is not over: its first step is the 36th
    assert set(states[:, 0].int().tolist()) == set(range(complete - capacity, complete))
    for j, first in enumerate(states[:, 0].int().tolist()):
        total, last = 0.0, first
        for k in range(n):
            last = first + k
            total += GAMMA**k * log[last][2]
            if log[last][5]:
                break
        assert rewards[j].item() == pytest.approx(total, abs=1e-5)
        assert (next_states[j, 0].item(), bool(terminated[j])) == (log[last][3], log[last][4])
        assert gammas[j].item() == pytest.approx(GAMMA ** (last - first + 1))
        assert actions[j].tolist() == [first % 2]


def drawn(monkeypatch, script) -> list[tuple[torch.Tensor, ...]]:
    """All minibatches that a script draws from its memory."""
    batches, sample = [], script.ReplayMemory.sample

    def draw(memory, *arguments):
        batches.append(sample(memory, *arguments))
        return batches[-1]

    monkeypatch.setattr(script.ReplayMemory, "sample", draw)
    return batches


@pytest.mark.parametrize(("n_steps", "scaled"), [(1, False), (3, False), (3, True)])
def test_dqn_learns_from_the_mean_over_a_minibatch(recorders, monkeypatch, n_steps, scaled):
    batches = drawn(monkeypatch, dqn)
    env = Walk(length=4)
    what = dict(train_every=4, n_steps=n_steps, scale_rewards=scaled)
    dqn.train(env, steps=20, gamma=GAMMA, alpha=1e-6, batch=6, **what)
    assert len(recorders[0].steps) == 4  # at steps 8, 12, 16, 20: at step 4 the memory holds 4
    theta, found = recorders[0].steps[0]  # the first step: theta' is still theta
    Q = load(dqn.QNetwork((3,), 2, 128), theta)
    s, a, r, s2, terminated, gammas = batches[0]
    assert [part.shape[1] for part in batches[0]] == [3, 1, 1, 3, 1, 1]
    known = {tuple(step[0].tolist()): i for i, step in enumerate(env.log)}
    with torch.no_grad():
        for i in range(6):  # of the steps that the environment has seen
            t = known[tuple(s[i].tolist())]
            n = min(n_steps, 4 - t % 4)
            assert gammas[i].item() == pytest.approx(GAMMA**n)
            total = sum(GAMMA**k * env.log[t + k][2] for k in range(n))
            total *= 1 - GAMMA if scaled else 1
            assert r[i].item() == pytest.approx(total, abs=1e-5)
            assert (a[i].item(), terminated[i].item()) == (env.log[t][1], env.log[t + n - 1][4])
            assert np.array_equal(s2[i], env.log[t + n - 1][3])
        y = [r[i, 0] + gammas[i, 0] * (1 - terminated[i, 0]) * Q(s2[i]).max() for i in range(6)]
    errors = [y[i] - Q(s[i])[int(a[i, 0])] for i in range(6)]
    same(found, gradients(sum(e**2 for e in errors) / 6, Q))


def test_ddpg_learns_from_the_mean_over_a_minibatch(recorders, monkeypatch):
    batches = drawn(monkeypatch, ddpg)
    env = Walk(continuous=True, length=2)
    ddpg.train(env, steps=8, gamma=GAMMA, batch=6, warmup=7, hidden=16, beta=0.1)
    critics, actors = recorders
    assert len(critics.steps) == len(actors.steps) == 1
    (theta_q, found_q), (theta_mu, found_mu) = critics.steps[0], actors.steps[0]
    Q, mu = load(ddpg.Critic(3, 2, 16), theta_q), load(ddpg.Actor(3, 2, 16), theta_mu)
    s, a, r, s2, terminated = batches[0]
    assert [part.shape[1] for part in batches[0]] == [3, 2, 1, 3, 1]
    known = {tuple(step[0].tolist()): step for step in env.log}
    y = []
    for i in range(6):  # of the steps that the environment has seen
        _, _, reward, state, end, _ = known[tuple(s[i].tolist())]
        assert (r[i].item(), bool(terminated[i])) == (pytest.approx(reward), end)
        assert np.array_equal(s2[i], state)
        with torch.no_grad():
            y.append(reward + (0.0 if end else GAMMA * Q(s2[i], mu(s2[i])).item()))
    same(found_q, gradients(sum((y[i] - Q(s[i], a[i])) ** 2 for i in range(6)) / 6, Q))
    load(Q, [theta - 0.1 * g for theta, g in zip(theta_q, found_q, strict=True)])
    same(found_mu, gradients(-sum(Q(s[i], mu(s[i])) for i in range(6)) / 6, mu))


def test_the_noise_is_an_ornstein_uhlenbeck_process():
    """Mean 0, autocorrelation 0.85, spread sigma / sqrt(1 - 0.85^2), independent dimensions; it
    begins at 0. The tolerances are five standard deviations of 200,000 steps or more."""
    rng, sigma = np.random.default_rng(0), 0.2
    process = ddpg.OrnsteinUhlenbeck(2, sigma, rng)
    N = np.array([process.sample().copy() for _ in range(200_000)])
    assert N.shape == (200_000, 2)
    assert N.mean(axis=0) == pytest.approx([0, 0], abs=0.016)
    assert N.std(axis=0) == pytest.approx([sigma / np.sqrt(1 - 0.85**2)] * 2, rel=0.02)
    for k in (1, 2, 5):
        for d in range(2):
            assert np.corrcoef(N[:-k, d], N[k:, d])[0, 1] == pytest.approx(0.85**k, abs=0.02)
    assert abs(np.corrcoef(N[:, 0], N[:, 1])[0, 1]) < 0.03
    assert abs(np.corrcoef(N[:-1, 0], N[1:, 1])[0, 1]) < 0.03
    xi = np.diff(N, axis=0) + 0.15 * N[:-1]  # the increments, without the drift
    assert xi.std(axis=0) == pytest.approx([sigma] * 2, rel=0.01)
    first = [ddpg.OrnsteinUhlenbeck(1, sigma, rng).sample().item() for _ in range(10_000)]
    assert np.std(first) == pytest.approx(sigma, rel=0.05)


def test_ddpg_explores_with_a_process_for_each_episode(recorders, monkeypatch):
    """[5], [8]: a_t = mu(s_t) + N_t within the bounds, N begins anew in each episode; before that
    the warm-up, with actions from all over the space."""
    processes, original = [], ddpg.OrnsteinUhlenbeck

    class Kept(original):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.values = []
            processes.append(self)

        def sample(self):
            self.values.append(super().sample().copy())
            return self.values[-1]

    monkeypatch.setattr(ddpg, "OrnsteinUhlenbeck", Kept)
    env = Walk(continuous=True, length=10)
    steps = dict(steps=600, warmup=400, batch=1, memory=1, hidden=16)
    actor, *_ = ddpg.train(env, sigma=0.5, alpha=0.0, **steps)
    assert recorders[1].rates == [0.0] and len(recorders[1].steps) == 200  # mu stays as it is
    states, actions, *_ = (np.array(column) for column in zip(*env.log, strict=True))
    assert actions.dtype == np.float32 and np.abs(actions).max() <= 1
    warm = actions[:400]
    assert warm.min() < -0.98 and warm.max() > 0.98
    assert warm.std() == pytest.approx(1 / np.sqrt(3), rel=0.1)
    processes = [process for process in processes if process.values]
    assert [len(process.values) for process in processes] == [10] * 60
    noise = np.concatenate([process.values for process in processes])
    with torch.no_grad():
        by_hand = (actor(torch.from_numpy(states)).numpy() + noise).clip(-1, 1)
    assert actions[400:] == pytest.approx(by_hand[400:], abs=1e-5)
    for process in processes[1:]:  # from 0 on, and by a step of sigma
        assert np.abs(process.values[0]).max() < 5 * 0.5
    firsts = np.array([process.values[0] for process in processes])
    assert firsts.std() == pytest.approx(0.5, rel=0.25)


def test_ddpg_gradients_and_soft_updates(recorders):
    """--literal: from the first step on."""
    env = Walk(continuous=True, length=2)
    ddpg.train(
        env, steps=4, gamma=GAMMA, memory=1, batch=1, tau=0.25, hidden=16, literal=True,
        beta=0.1, alpha=0.2,
    )  # fmt: skip
    critics, actors = recorders
    assert (critics.rates, actors.rates) == ([0.1], [0.2])
    assert len(critics.steps) == len(actors.steps) == 4
    targets = [p.clone() for p in critics.steps[0][0]], [p.clone() for p in actors.steps[0][0]]
    for i, (s, a, r, s2, terminated, _) in enumerate(env.log):
        s, a, s2 = torch.from_numpy(s), torch.from_numpy(a), torch.from_numpy(s2)
        theta_q, theta_mu = critics.steps[i][0], actors.steps[i][0]
        if i > 0:  # [15]
            targets = [
                [0.25 * new + 0.75 * old for new, old in zip(thetas, slow, strict=True)]
                for thetas, slow in zip((theta_q, theta_mu), targets, strict=True)
            ]
        Q, mu = load(ddpg.Critic(3, 2, 16), theta_q), load(ddpg.Actor(3, 2, 16), theta_mu)
        Q_slow = load(ddpg.Critic(3, 2, 16), targets[0])
        mu_slow = load(ddpg.Actor(3, 2, 16), targets[1])
        with torch.no_grad():
            y = r if terminated else r + GAMMA * Q_slow(s2, mu_slow(s2)).item()
        same(critics.steps[i][1], gradients((y - Q(s, a)) ** 2, Q))  # [13]

        # [14], written out: grad_a Q at a = mu(s), times the Jacobian of mu; with the critic after
        # its step, climbing.
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


# ------------------------------------------------------------------------ REINFORCE, actor-critic


class TwoDecisions(gym.Env):
    """Two decisions between two actions; the first leads to state 1 or 2, the second pays. Small
    enough to enumerate."""

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
TRAJECTORIES = list(itertools.product((0, 1), repeat=2))


def scripted(actions) -> type[Categorical]:
    """A softmax that draws these actions, one after the other."""
    queue = iter(actions)

    class Scripted(Categorical):
        def sample(self):
            return torch.tensor(next(queue))

    return Scripted


def exact_gradient_of_J(pi, network) -> list[torch.Tensor]:
    """J(theta) = sum over all trajectories of pi(a_1|s_0) pi(a_2|s_1) (r_1 + r_2), and its gradient
    by autograd. `pi`: the probabilities, (states, actions)."""
    J = sum(
        pi[0, a] * pi[1 + a, b] * float(TwoDecisions.FIRST[a] + TwoDecisions.SECOND[a, b])
        for a, b in TRAJECTORIES
    )
    return gradients(J, network)


def played(monkeypatch, recorders, actions, **options):
    """REINFORCE's first gradient (of ascent) after an episode with these actions, and the policy
    that played it."""
    recorders.clear()
    monkeypatch.setattr(reinforce, "Categorical", scripted(actions))
    reinforce.train(TwoDecisions(), episodes=1, gamma=1.0, seed=3, hidden=8, **options)
    networks = reinforce.Policy((4,), TwoDecisions.action_space, 8), reinforce.Value((4,), 8)
    policy, _, found, _ = load_both(*networks, recorders[0].steps[0])
    return policy, [-g for g in found]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_climbs_the_expected_return(monkeypatch, recorders, baseline, scaled):
    """The update, averaged over all trajectories with their probabilities, is the gradient of J:
    for v_t, and with a baseline; of a thousandth of J with scaled rewards, as gamma is 1."""
    expected = 0
    for a, b in TRAJECTORIES:
        what = dict(baseline=baseline, scale_rewards=scaled)
        policy, g = played(monkeypatch, recorders, (a, b), **what)
        pi = policy(ONE_HOT).probs
        p = (pi[0, a] * pi[1 + a, b]).item()
        g = [p * (1000 if scaled else 1) * part for part in g]
        expected = [x + y for x, y in zip(expected, g, strict=True)] if expected else g
    same(expected, exact_gradient_of_J(pi, policy))


def second_moment(monkeypatch, recorders, **options) -> float:
    total = 0.0
    for a, b in TRAJECTORIES:
        policy, g = played(monkeypatch, recorders, (a, b), **options)
        pi = policy(ONE_HOT).probs
        total += (pi[0, a] * pi[1 + a, b]).item() * sum(part.square().sum() for part in g).item()
    return total


def test_a_baseline_lowers_the_variance(monkeypatch, recorders):
    """The mean of the gradient is the same (above), so that the mean of its square tells the
    variance."""
    without = second_moment(monkeypatch, recorders, baseline=False, scale_rewards=False)
    means = torch.tensor([3.0, 2.0, 1.0, 0.0])  # the mean return, if all actions are as likely
    monkeypatch.setattr(
        reinforce.Value,
        "forward",
        lambda self, s: means[s.argmax(-1)] + 0 * torch.nn.Sequential.forward(self, s),
    )
    what = dict(baseline=True, scale_rewards=False)
    assert second_moment(monkeypatch, recorders, **what) < without


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("baseline", "scaled"), [(False, False), (True, False), (True, True)])
def test_reinforce_returns_are_discounted_sums(recorders, baseline, scaled, continuous):
    """grad sum_t log pi(a_t|s_t) v_t with v_t = r_{t+1} + gamma r_{t+2} + ... With the baseline:
    less V(s_t), which is fitted to v_t; and V goes on where a time limit ends the rewards. All
    rewards times 1 - gamma where they are scaled."""
    env = Walk(continuous, length=4)
    what = dict(baseline=baseline, scale_rewards=scaled)
    reinforce.train(env, episodes=2, gamma=GAMMA, alpha=0.1, beta=1e-6, hidden=8, **what)
    assert recorders[0].rates == [0.1, 1e-6]
    for episode in (0, 1):
        s, a, r, s2, terminated, truncated = columns(env.log[4 * episode : 4 * episode + 4])
        assert bool(terminated[-1]) == (episode == 0) and bool(truncated[-1]) == (episode == 1)
        r = (1 - GAMMA) * r if scaled else r
        policy, V, found, found_v = load_both(
            reinforce.Policy((3,), env.action_space, 8),
            reinforce.Value((3,), 8),
            recorders[0].steps[episode],
        )
        rest = V(s2[-1:]).item() if baseline and episode == 1 else 0.0
        v = torch.tensor(
            [
                sum(GAMMA**k * r[t + k].item() for k in range(4 - t)) + GAMMA ** (4 - t) * rest
                for t in range(4)
            ]
        )
        weight = v - V(s).detach() if baseline else v
        same(found, gradients(-(policy(s).log_prob(a) * weight).sum(), policy))
        if baseline:
            same(found_v, gradients((v - V(s)).square().mean(), V))
        else:
            assert all(g.abs().sum() == 0 for g in found_v)


def actor_critics(step, features=3):
    """actor_critic's two networks before a recorded step, and their gradients in it."""
    networks = [actor_critic.Network((features,), 2, 8) for _ in range(2)]
    return load_both(*networks, step)


def test_actor_critic_rules_to_the_letter(recorders, monkeypatch):
    """--literal: the slide's two updates, one step at a time, with plain gradient descent."""
    monkeypatch.setattr(torch.optim, "SGD", Recorder)
    env = Walk(length=2)
    actor_critic.train(env, steps=4, gamma=GAMMA, hidden=8, literal=True, alpha=0.1, beta=0.2)
    (recorder,) = recorders
    assert recorder.rates == [0.1, 0.2]
    assert len(recorder.steps) == 4
    for step, (s, a, r, s2, terminated, _) in zip(recorder.steps, env.log, strict=True):
        s, s2 = torch.from_numpy(s), torch.from_numpy(s2)
        actor, critic, found_actor, found_critic = actor_critics(step)
        with torch.no_grad():
            real_value = r if terminated else r + GAMMA * critic(s2).max().item()
            weight = critic(s)[a].item()
        same(found_actor, gradients(-weight * actor(s).log_softmax(-1)[a], actor))
        same(found_critic, gradients((real_value - critic(s)[a]) ** 2, critic))


@pytest.mark.parametrize(("advantage", "batch"), [(False, 1), (True, 2)])
def test_actor_critic_with_the_true_values_climbs_the_expected_return(
    recorders, monkeypatch, advantage, batch
):
    """sum_a pi(a|s) Q(s,a) grad log pi(a|s) = grad sum_a pi(a|s) Q(s,a): with the true Q the
    expected update of [1] is grad J. So it is with the advantage, if the batch is the episode: the
    real value is then the return. (It is grad J / 2 there, the mean over the two steps.)

    The critic is made to know the truth: in state 0, Q is the first reward plus what the policy
    earns after it.
    """
    total = 0
    for a, b in TRAJECTORIES:
        recorders.clear()
        monkeypatch.setattr(actor_critic, "Categorical", scripted((a, b)))
        steps = run_with_true_values(monkeypatch, recorders, advantage=advantage, batch=batch)
        assert len(steps) == 2 // batch
        actor = actor_critics(steps[0], features=4)[0]
        pi = actor(ONE_HOT).softmax(-1)
        p = (pi[0, a] * pi[1 + a, b]).item()
        for step in steps:
            g = [-p * batch * part for part in actor_critics(step, features=4)[2]]
            total = [x + y for x, y in zip(total, g, strict=True)] if total else g
    same(total, exact_gradient_of_J(pi, actor))


def run_with_true_values(monkeypatch, recorders, **options) -> list:
    """Two steps of actor_critic in TwoDecisions, with a critic that returns the true Q; nothing is
    changed. Returns the recorded steps."""
    made, plain = [], torch.nn.Sequential.forward
    original = actor_critic.Network.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        made.append(self)

    def forward(self, states):
        if self is made[0]:  # the actor
            return plain(self, states)
        pi = plain(made[0], ONE_HOT).softmax(-1).detach()
        later = (pi[1:3] * torch.tensor(TwoDecisions.SECOND, dtype=torch.float32)).sum(-1)
        truth = torch.zeros(4, 2)
        truth[0] = torch.tensor(TwoDecisions.FIRST, dtype=torch.float32) + later
        truth[1:3] = torch.tensor(TwoDecisions.SECOND, dtype=torch.float32)
        return truth[states.argmax(-1)] + 0 * plain(self, states)

    with monkeypatch.context() as patch:
        patch.setattr(actor_critic.Network, "__init__", remember)
        patch.setattr(actor_critic.Network, "forward", forward)
        patch.setattr(Recorder, "step", Recorder.record)  # record each step, and do not move
        options |= dict(hidden=8, scale_rewards=False)
        actor_critic.train(TwoDecisions(), episodes=1, gamma=1.0, **options)
    return recorders[0].steps


@pytest.mark.parametrize("scaled", [True, False])
def test_actor_critic_batch(recorders, scaled):
    """The defaults: rewards summed up to the end of the batch or of an episode, less the mean of Q
    under pi."""
    env, n = Walk(length=3), 8
    actor_critic.train(env, steps=n, gamma=GAMMA, batch=n, hidden=8, scale_rewards=scaled)
    s, a, r, s2, terminated, truncated = columns(env.log)
    r = (1 - GAMMA) * r if scaled else r
    assert len(recorders[0].steps) == 1
    actor, critic, found_actor, found_critic = actor_critics(recorders[0].steps[0])
    y = torch.zeros(n)
    for t in range(n):  # forwards, naively
        for k in range(t, n):
            y[t] += GAMMA ** (k - t) * r[k].item()
            if terminated[k]:
                break
            if truncated[k] or k == n - 1:
                y[t] += GAMMA ** (k - t + 1) * critic(s2[k]).max().item()
                break
    taken = lambda table: table[torch.arange(n), a]
    same(found_critic, gradients((y - taken(critic(s))).square().mean(), critic))
    log_pi = actor(s).log_softmax(-1)
    weight = (y - (log_pi.exp() * critic(s)).sum(-1)).detach()
    same(found_actor, gradients(-(taken(log_pi) * weight).mean(), actor))


# --------------------------------------------------------------------------------------- A3C, PPO


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("t_max", [3, 4, 6])
def test_a3c_accumulates_the_gradients_of_the_box(monkeypatch, continuous, t_max, scaled):
    """The naive sums of [16] and [17] over each stretch of t_max steps, or up to the end of an
    episode; with theta' as theta is at its beginning. By default with rewards times 1 - gamma, and
    to the letter."""
    made, updates, alphas = [], [], []

    def make_env():
        made.append(Walk(continuous, length=4))
        return made[-1]

    def descend(shared, d_theta, alpha, rank):
        updates.append((shared.theta.clone(), d_theta.clone()))
        alphas.append(alpha)
        assert (alpha, rank) == (pytest.approx(0.01 * max(0, 1 - shared.T / 20)), 0)
        shared.theta.sub_(d_theta, alpha=alpha)

    monkeypatch.setattr(a3c.Shared, "adam", descend)
    options = dict(steps=20, workers=1, t_max=t_max, gamma=GAMMA, alpha=0.01, hidden=8)
    learned, _ = a3c.train(make_env, seed=5, **options, literal=not scaled)
    log, first = made[-1].log, 0
    torch.manual_seed(5)
    model = a3c.Model((3,), made[0].action_space, 8)
    torch.testing.assert_close(updates[0][0], parameters_to_vector(model.parameters()).detach())
    ends = set()
    for theta, found in updates:
        n = 1
        while n < t_max and not any(log[first + n - 1][4:]):
            n += 1
        s, a, r, s2, terminated, truncated = columns(log[first : first + n])
        r = (1 - GAMMA) * r if scaled else r
        first += n
        ends.add((bool(terminated[-1]), bool(truncated[-1])))
        vector_to_parameters(theta.clone(), model.parameters())
        V = model.V(s)
        tail = 0.0 if terminated[-1] else model.V(s2[-1:]).item()
        R = torch.tensor(
            [
                sum(GAMMA ** (k - i) * r[k].item() for k in range(i, n)) + GAMMA ** (n - i) * tail
                for i in range(n)
            ]
        )
        climb = (model.pi(s).log_prob(a) * (R - V).detach()).sum()  # [16]
        expected = gradients((R - V).square().sum() - climb, model)  # [17]
        same([found], [parameters_to_vector(expected)])
    assert first == len(log) > 20  # T > T_max
    assert {(True, False), (False, True)} <= ends and ((False, False) in ends) == (t_max < 4)
    torch.testing.assert_close(
        parameters_to_vector(learned.parameters()).detach(), theta - alphas[-1] * found
    )


def test_a3c_adam():
    """Kingma & Ba, 2015, Algorithm 1, with the defaults of the paper, whoever makes the step."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=5)
    shared = a3c.Shared(torch.tensor(theta, dtype=torch.float32), workers=3)
    m = v = np.zeros(5)
    for n, rank in enumerate([0, 1, 1, 2, 0, 0, 1, 2, 2, 2], start=1):
        g = rng.normal(size=5) * 10.0 ** rng.integers(-3, 3)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - 0.02 * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-8)
        shared.adam(torch.tensor(g, dtype=torch.float32), 0.02, rank)
        assert shared.theta.numpy() == pytest.approx(theta, rel=1e-4, abs=1e-5)
    assert (shared.T, shared.stop.tolist()) == (0, [False])
    assert shared.theta.is_shared() and shared.stop.is_shared()
    shared.steps[1] += 5
    shared.steps[2] += 2
    assert shared.T == 7


def naive_gae(delta, done, discount) -> torch.Tensor:
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, up to the end of the episode: the double sum, term
    by term."""
    A = torch.zeros(len(delta))
    for t in range(len(delta)):
        for k in range(t, len(delta)):
            A[t] += discount ** (k - t) * delta[k].item()
            if done[k]:
                break
    return A


def ppo_networks(step, action_space):
    """ppo's policy and V before a recorded step, and the gradients of both in it."""
    policy, V = ppo.Policy((3,), action_space, 8, 1.0), ppo.Value((3,), 8)
    return (*load_both(policy, V, step)[:2], step[1])


def scaled_rewards(*logs) -> torch.Tensor:
    """Rewards divided by the spread, so far, of the discounted sums of all actors: (actors, steps).

    A new episode begins at 0. Gymnasium counts 1e-4 samples of mean 0 and variance 1 as the first.
    """
    scaled, sums, totals = [], [], np.zeros(len(logs))
    for steps in zip(*logs, strict=True):
        _, _, rewards, _, terminated, truncated = map(np.array, zip(*steps, strict=True))
        totals = totals * GAMMA * (1 - terminated) + rewards
        sums.extend(totals)
        count = len(sums) + 1e-4
        variance = (np.square(sums).sum() + 1e-4) / count - (sum(sums) / count) ** 2
        scaled.append(rewards / np.sqrt(variance + 1e-8))
        totals = totals * ~(terminated | truncated)
    return torch.tensor(np.array(scaled).T, dtype=torch.float32)


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_ppo_begins_as_the_policy_gradient(recorders, clip, continuous, scale):
    """At theta = theta_old the ratio is 1 and the KL is flat: both surrogates have the gradient of
    E[log pi A], with the GAE of a rollout in which episodes end, terminated and truncated."""
    made = []

    def make_env():
        made.append(Walk(continuous, length=3))
        return made[-1]

    n = 14
    rollout = dict(steps=n, n_envs=1, horizon=n, epochs=1, batch=n, gamma=GAMMA, gae_lambda=0.8)
    what = dict(clip=clip, scale_rewards=scale)
    _, _, returns = ppo.train(make_env, **rollout, **what, hidden=8)
    env = made[-1]
    policy, V, found = ppo_networks(recorders[0].steps[0], env.action_space)
    s, a, r, s2, terminated, truncated = columns(env.log)
    assert terminated.sum() >= 2 and truncated.sum() >= 1
    assert returns == pytest.approx([r[i : i + 3].sum().item() for i in range(0, 12, 3)])
    r = scaled_rewards(env.log)[0] if scale else r.float()
    with torch.no_grad():
        values = V(s)
        delta = r + GAMMA * V(s2) * ~terminated - values
        A = naive_gae(delta, terminated | truncated, GAMMA * 0.8)
    fit = (A + values - V(s)).square().mean()
    same(found, gradients(-(policy(s).log_prob(a) * A).mean(), policy) + gradients(fit, V))


def test_ppo_step_size_falls_to_0_over_the_budget(recorders):
    options = dict(n_envs=2, horizon=3, epochs=1, batch=6, alpha=0.3, hidden=8)
    ppo.train(Walk, steps=18, **options)
    first, second, third = recorders[0].steps
    for before, after, rate in [(first, second, 0.3), (second, third, 0.2)]:  # and then 0.1
        moved = [a - b for a, b in zip(before[0], after[0], strict=True)]
        same(moved, [rate * g for g in before[1]])


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_ppo_surrogate_away_from_theta_old(recorders, clip):
    """The second step on the same batch: ratio and KL to theta_old, beta and eps as they stand in
    the formula."""
    made = []

    def make_env():
        made.append(Walk(length=3))
        return made[-1]

    n = 8
    ppo.train(
        make_env, steps=n, n_envs=1, horizon=n, epochs=2, batch=n, gamma=GAMMA, gae_lambda=0.8,
        clip=clip, beta=0.7, alpha=0.1, literal=True, hidden=8,
    )  # fmt: skip
    assert recorders[0].rates == [0.1]
    env = made[-1]
    s, a, r, s2, terminated, truncated = columns(env.log)
    old, V_old, _ = ppo_networks(recorders[0].steps[0], env.action_space)
    policy, V, found = ppo_networks(recorders[0].steps[1], env.action_space)
    with torch.no_grad():
        values = V_old(s)
        delta = r.float() + GAMMA * V_old(s2) * ~terminated - values
        A = naive_gae(delta, terminated | truncated, GAMMA * 0.8)
        log_old, pi_old = old(s).log_prob(a), old(s)
    ratio = (policy(s).log_prob(a) - log_old).exp()
    assert (ratio - 1).abs().max() > 0.05  # so that the clip matters
    if clip == 0:
        surrogate = (ratio * A - 0.7 * kl_divergence(pi_old, policy(s))).mean()
    else:
        high, low = torch.tensor(1.05), torch.tensor(0.95)
        clipped = torch.where(A > 0, torch.min(ratio, high), torch.max(ratio, low))
        surrogate = (clipped * A).mean()
    fit = (A + values - V(s)).square().mean()
    same(found, gradients(-surrogate, policy) + gradients(fit, V))


def test_ppo_beta_adapts(recorders, monkeypatch):
    """d < d_targ / 1.5 halves beta, d > 1.5 d_targ doubles it: seen in the weight of the KL in the
    next iteration."""
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
    options = dict(steps=30, n_envs=1, horizon=10, epochs=1, batch=10, alpha=0.1, hidden=8)
    ppo.train(Walk, d_targ=1e3, **options)
    assert betas == [1.0, 0.5, 0.25]
    betas.clear()
    ppo.train(Walk, d_targ=1e-9, **options)
    assert betas == [1.0, 2.0, 4.0]
    # Within a factor of 1.5 of the distance it stays. The first distance is that of any d_targ.
    distances, item = [], Weighed.mean
    monkeypatch.setattr(Weighed, "mean", lambda kl: distances.append(item(kl)) or distances[-1])
    ppo.train(Walk, d_targ=1.0, **options)
    for factor, beta in ((1.4, 1.0), (1.6, 0.5), (1 / 1.4, 1.0), (1 / 1.6, 2.0)):
        betas.clear()
        ppo.train(Walk, d_targ=factor * distances[0].item(), **options)
        assert betas[:2] == [1.0, beta]
