"""Each formula once more: tables of constants, and the gradient of every step of a short training,
computed from what the environment wrote down.

A hook of PyTorch's optimisers records; the scripts are not taken apart.
"""

# ruff: noqa: B023  (each loss is used within its turn of the loop)

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence
from torch.nn.utils import parameters_to_vector as vector
from torch.nn.utils import vector_to_parameters
from torch.optim.optimizer import register_optimizer_step_pre_hook

from common import envs
from tests.worlds import BOX, SCRIPTS, Mixed, Probe, episodes, fitting, train

qlearning_table, dqn, reinforce, actor_critic, ddpg, a3c, ppo = SCRIPTS.values()

# ----------------------------------------------------------------------------------- the recorder


@pytest.fixture
def recorded():
    """Of each optimiser, in the order of their first steps: the parameters before each step, their
    gradients, the optimiser's name, the step sizes."""
    steps = {}

    def record(optimizer, *_):
        groups = optimizer.param_groups
        theta = [p for group in groups for p in group["params"]]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in theta]
        row = vector(theta).detach(), vector(grads), type(optimizer).__name__
        steps.setdefault(optimizer, []).append((*row, [group["lr"] for group in groups]))

    handle = register_optimizer_step_pre_hook(record)
    yield steps
    handle.remove()


def load(values: torch.Tensor, *networks) -> None:
    """Give networks these parameters."""
    vector_to_parameters(values.clone(), torch.nn.ModuleList(networks).parameters())


def check(step, loss, *networks) -> None:
    """A recorded step has the gradients of loss(*networks), up to the rounding of float32."""
    load(step[0], *networks)
    theta = [*torch.nn.ModuleList(networks).parameters()]
    grads = torch.autograd.grad(loss(*networks), theta, allow_unused=True, materialize_grads=True)
    assert vector(grads).any()
    for found, grad in zip(step[1].split([p.numel() for p in theta]), grads, strict=True):
        most = 2e-5 * max(1, grad.abs().max().item())
        torch.testing.assert_close(found, grad.flatten(), rtol=1e-3, atol=most)


def spied(monkeypatch, owner, name: str) -> list[tuple]:
    """What a method is called on (a function: its first argument), and what it returns."""
    calls, original = [], getattr(owner, name)

    def spy(self, *args):
        calls.append((self, original(self, *args)))
        return copy.deepcopy(calls[-1][1])

    monkeypatch.setattr(owner, name, spy)
    return calls


def columns(log) -> list[torch.Tensor]:
    return [torch.as_tensor(np.array(part)) for part in zip(*log, strict=True)]


def drawn(log, states: torch.Tensor) -> list[torch.Tensor]:
    """The steps of which a minibatch's states are, in columns; no two states are alike."""
    steps = {step[0].tobytes(): step for step in log}
    return columns([steps[state.numpy().tobytes()] for state in states])


def discounted(x, factor: float) -> list:
    """x_t + factor x_{t+1} + factor^2 x_{t+2} + ... for each t."""
    return [sum(factor**k * later for k, later in enumerate(x[t:])) for t in range(len(x))]


def sums_of_n(log, n: int, gamma: float) -> list[tuple]:
    """(s, a, sum of n rewards, the state after them, terminated, gamma^n) of the steps of a log;
    at the end of an episode fewer than n. Steps whose rewards are still to come are left out."""
    rows = []
    for part in episodes(log):
        for t in range(len(part) if any(part[-1][4:]) else len(part) - n + 1):
            few = part[t : t + n]
            total = discounted([step[2] for step in few], gamma)[0]
            rows.append((*few[0][:2], total, *few[-1][3:5], gamma ** len(few)))
    return rows


def errors(log, V, gamma: float, factor: float) -> torch.Tensor:
    """v_t - V(s_t) of the steps of an episode, or of a part of one. V of its last state stands for
    what follows, unless that state is terminal. The rewards are multiplied by the factor."""
    s, _, r, s_next, terminated, _ = columns(log)
    later = 0.0 if terminated[-1] else V(s_next).tolist()[-1]
    return torch.tensor(discounted([*(factor * r).tolist(), later], gamma)[:-1]) - V(s)


DISCRETE = functools.partial(Mixed, actions=Discrete(3))

# ------------------------------------------------------------------------------------- Q-learning


def test_qlearning_table_update():
    """[8], step by step."""
    make = lambda: Mixed(length=4, **fitting("qlearning_table"))
    options = dict(seed=4, episodes=40, gamma=0.7, alpha=0.25, epsilon=0.5)
    (found,), _, (env,) = train("qlearning_table", make, **options)
    Q = np.zeros((5, 3))
    for s, a, r, s_next, terminated, _ in env.log:
        Q[s, a] = 0.75 * Q[s, a] + 0.25 * (r + 0.7 * (not terminated) * max(Q[s_next]))
    assert found == pytest.approx(Q, abs=1e-12)


@pytest.mark.parametrize("decay", [True, False])
def test_qlearning_table_epsilon(decay):
    """A random action with this probability, in the second episode of two with half of it."""
    make = lambda: Probe(length=2000, **fitting("qlearning_table"))
    options = dict(episodes=2, epsilon=0.8, epsilon_decay=decay, alpha=1.0, gamma=0.0)
    _, _, (env,) = train("qlearning_table", make, **options)
    Q, other = np.zeros((5, 3)), []
    for s, a, r, *_ in env.log:
        other.append(Q[s, a] < Q[s].max())
        Q[s, a] = r
    shares = np.reshape(other, (2, 2000)).mean(1)
    assert shares == pytest.approx([0.8 * 2 / 3, (0.4 if decay else 0.8) * 2 / 3], abs=0.05)


def test_qlearning_table_breaks_ties_at_random():
    rng, values = np.random.default_rng(0), np.array([1.0, 3, 3, 0, 3])
    share = np.bincount([qlearning_table.greedy(values, rng) for _ in range(3_000)]) / 3_000
    assert share == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3], abs=0.05)


# ---------------------------------------------------------------------------------- DQN and DDPG


@pytest.mark.parametrize(("n", "gamma", "factor"), [(1, 0.9, 1), (3, 0.9, 0.1), (3, 1.0, 0.001)])
def test_dqn_step(recorded, monkeypatch, n, gamma, factor):
    """[8] to [13], with sums of n rewards; which steps a minibatch holds is all that is asked."""
    batches = spied(monkeypatch, dqn.ReplayMemory, "sample")
    options = dict(steps=40, batch=8, train_every=4, alpha=0.01, memory=20)
    options |= dict(n_steps=n, gamma=gamma, scale_rewards=factor < 1)
    _, _, (env,) = train("dqn", lambda: DISCRETE(length=5), **options)
    (steps,), rows = recorded.values(), sums_of_n(env.log, n, gamma)
    assert len(batches) == (9 if n == 1 else 8)  # from the first minibatch on: at step 8, or 12
    assert batches[0][0].capacity == 20
    for step, (_, batch) in zip(steps, batches, strict=True):
        s, a, r, s_next, terminated, rest = drawn(rows, batch[0])

        def loss(Q):
            best = torch.tensor([max(row) for row in Q(s_next).tolist()])
            y = factor * r + rest * ~terminated * best
            return sum((y[j] - Q(s[j])[a[j]]) ** 2 for j in range(8)).float() / 8

        assert step[2:] == ("Adam", [0.01])
        check(step, loss, dqn.QNetwork((3,), 3, 8))


def test_dqn_epsilon():
    """A random action with this probability, each one alike; otherwise the best one."""
    options = dict(steps=3000, epsilon=0.6, batch=9999, alpha=0.0)
    (Q,), _, (env,) = train("dqn", DISCRETE, **options)
    s, a, *_ = columns(env.log)
    share = ((a - Q(s).argmax(1)) % 3).bincount() / 3000
    assert share.tolist() == pytest.approx([0.6, 0.2, 0.2], abs=0.04)


def test_dqn_phi_copies():
    """An environment may write its next image into the same array."""
    state = dqn.phi(image := np.zeros((4, 12, 10), np.uint8))
    image.fill(9)
    assert state.dtype == np.uint8 and not state.any()


def test_ddpg_step(recorded, monkeypatch):
    """[8] to [15], with the slow copies followed by hand."""
    batches = spied(monkeypatch, ddpg.ReplayMemory, "sample")
    noises = spied(monkeypatch, ddpg.OrnsteinUhlenbeck, "sample")
    options = dict(steps=20, warmup=11, batch=6, memory=16, gamma=0.9, tau=0.25, sigma=0.5)
    _, _, (env,) = train("ddpg", Mixed, alpha=0.1, beta=0.05, **options)
    critics, actors = recorded.values()
    assert critics[0][2:] == ("Adam", [0.05]) and actors[0][2:] == ("Adam", [0.1])
    assert len(critics) == len(actors) == len(batches) == 9
    assert (batches[0][0].capacity, noises[0][0].sigma) == (16, 0.5)
    assert len({id(process) for process, _ in noises}) == len(env.seeds)  # a new one an episode
    Q, mu = ddpg.Critic(3, 2, 8), ddpg.Actor(3, 2, 8)
    load(critics[0][0], Q)
    load(actors[0][0], mu)
    slow_Q, slow_mu = copy.deepcopy((Q, mu))
    acts = lambda t: mu(torch.as_tensor(env.log[t][0])).detach().numpy() + noises[t][1]
    assert env.log[10][1] != pytest.approx(acts(10).clip(-1, 1), abs=1e-6)  # still the warm-up
    for k in range(8):
        load(actors[k][0], mu)
        assert env.log[11 + k][1] == pytest.approx(acts(11 + k).clip(-1, 1), abs=1e-6)
        s, a, r, s_next, terminated, _ = drawn(env.log, batches[k][1][0])
        y = r + 0.9 * ~terminated * slow_Q(s_next, slow_mu(s_next)).detach()
        fit = lambda Q: sum((y[j] - Q(s[j], a[j])) ** 2 for j in range(6)).float() / 6
        check(critics[k], fit, Q)
        load(critics[k + 1][0], Q)
        check(actors[k], lambda mu: -sum(Q(s[j], mu(s[j])) for j in range(6)) / 6, mu)
        for slow, steps in ((slow_Q, critics), (slow_mu, actors)):
            load(0.25 * steps[k + 1][0] + 0.75 * vector(slow.parameters()).detach(), slow)


def test_ddpg_warms_up_all_over_the_space():
    _, _, (env,) = train("ddpg", Mixed, episodes=300, warmup=900)
    actions = np.array([step[1] for step in env.log])
    assert actions.dtype == np.float32 and len(actions) == 900
    assert actions.mean(0) == pytest.approx([0, 0], abs=0.1)
    assert np.cov(actions.T) == pytest.approx(np.eye(2) / 3, abs=0.05)


def test_ddpg_noise():
    """Drift, increments, independent dimensions; in the long run 1.9 sigma."""
    process = ddpg.OrnsteinUhlenbeck(2, 0.1, np.random.default_rng(5))
    xi, N, all_N = np.random.default_rng(5).standard_normal((20_000, 2)), np.zeros(2), []
    for t in range(20_000):
        N = 0.85 * N + 0.1 * xi[t]
        all_N.append(process.sample())
        assert t > 20 or all_N[t] == pytest.approx(N, abs=1e-12)
    assert np.std(all_N, 0) == pytest.approx([0.19, 0.19], rel=0.05)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([dqn, ddpg]), st.integers(1, 6), st.integers(1, 15))
def test_dqn_ddpg_memory_is_a_ring(script, capacity, stored):
    """The last transitions, each whole; drawn with replacement, before it is full, too."""
    memory = script.ReplayMemory(capacity)
    for i in range(stored):
        memory.store(np.full(2, i), i + 0.5)
    states, numbers = memory.sample(200, np.random.default_rng(0))
    assert torch.equal(states, numbers[:, None] - torch.tensor([0.5, 0.5]))
    last = range(max(0, stored - capacity), stored)
    share = np.bincount(states[:, 0].int(), minlength=stored)[last] / 200
    assert share == pytest.approx(1 / len(last), abs=0.15)


@settings(deadline=None)
@given(st.lists(st.sampled_from("--tlb"), min_size=1, max_size=25), st.integers(1, 5))
def test_dqn_n_steps(ends, n):
    """Each transition goes in with its n-th reward, or when the episode is done."""
    memory, log = dqn.NStepMemory(100, n, 0.5), []
    for i, end in enumerate(ends):
        log.append((i, 10 + i, 100.0 + i, i + 0.5, end in "tb", end in "lb"))
        memory.store(*log[-1][:5], end != "-")
    assert list(memory.transitions.values()) == sums_of_n(log, n, 0.5)


@settings(deadline=None, max_examples=30)
@given(*[st.floats(-50, 50, width=16)] * 2, st.floats(0.125, 50, width=16), st.floats(-3, 3))
def test_boxes(low, low_2, width, action):
    """What a script calls -1 and 1 are the environment's bounds; the rest is clipped."""
    box = Box(np.float32([low, low_2]), np.float32([low + width, low_2 + 1]))
    env = envs.prepared(probe := Probe(actions=box))
    env.reset()
    env.step(np.float32([action, -action]))
    share = np.clip([action, -action], -1, 1) / 2 + 0.5
    assert probe.log[0][1] == pytest.approx(box.low + share * (box.high - box.low), abs=1e-4)
    assert box.contains(probe.log[0][1])


# --------------------------------------------------------------------- REINFORCE and actor-critic


@pytest.mark.parametrize("actions", [Discrete(3), BOX])
@pytest.mark.parametrize(
    ("baseline", "adam", "gamma", "factor"),
    [(True, True, 0.9, 0.1), (True, False, 1, 1e-3), (False, False, 0.9, 1)],
)
def test_reinforce_step(recorded, actions, baseline, adam, gamma, factor):
    """[3] and [4] for a terminal state, a time limit, and both."""
    options = dict(episodes=3, alpha=0.02, beta=0.03, gamma=gamma, baseline=baseline, adam=adam)
    make = lambda: Mixed(length=4, actions=actions)
    _, _, (env,) = train("reinforce", make, scale_rewards=factor < 1, **options)
    (steps,) = recorded.values()
    for step, log in zip(steps, episodes(env.log), strict=True):
        s, a, *_ = columns(log)

        def loss(policy, V):
            error = errors(log, V if baseline else lambda s: torch.zeros(len(s)), gamma, factor)
            return error.square().mean() - (policy(s).log_prob(a) * error.detach()).sum()

        assert step[2:] == ("Adam" if adam else "SGD", [0.02, 0.03])
        check(step, loss, reinforce.Policy((3,), actions, 8), reinforce.Value((3,), 8))


@pytest.mark.parametrize(("expected", "advantage"), [(True, True), (False, False), (False, True)])
def test_actor_critic_step(recorded, expected, advantage):
    """[e], [1] and [2], actor by actor, whose episodes end at different steps."""
    lengths, n = itertools.cycle((3, 4, 5)), 3 if advantage else 1
    options = dict(steps=12 * n, n_envs=n, gamma=0.9, alpha=0.02, beta=0.03)
    options |= dict(expected=expected, advantage=advantage, adam=advantage)
    _, _, made = train("actor_critic", lambda: DISCRETE(length=next(lengths)), **options)
    (steps,) = recorded.values()
    for step, *now in zip(steps, *(env.log for env in made), strict=True):

        def loss(actor, critic):
            total = 0
            for s, a, r, s_next, terminated, _ in zip(*columns(now), strict=True):
                with torch.no_grad():
                    Q, pi = critic(s), actor(s).softmax(0)
                    Q_next, pi_next = critic(s_next), actor(s_next).softmax(0)
                    y = r + 0.9 * ~terminated * (pi_next @ Q_next if expected else Q_next.max())
                    weight = y - pi @ Q if advantage else Q[a]
                total += (y - critic(s)[a]) ** 2 - weight * actor(s).softmax(0)[a].log()
            return total.float() / n

        assert step[2:] == ("Adam" if advantage else "SGD", [0.02, 0.03])
        check(step, loss, *[actor_critic.Network((3,), 3, 8) for _ in range(2)])


@pytest.mark.parametrize("script", ["reinforce", "actor_critic", "a3c", "ppo"])
def test_actions_are_drawn_from_pi(script):
    """As often as pi says; a first pi is almost the same in all states."""
    learned, _, made = train(script, lambda: DISCRETE(length=100), steps=1000, alpha=0.0)
    actions = np.concatenate([columns(env.log)[1] for env in made])
    outputs = learned[0](torch.zeros(1, 3))
    (pi,) = outputs.probs if script != "actor_critic" else outputs.softmax(-1)
    share = np.bincount(actions, minlength=3) / len(actions)
    assert share == pytest.approx(pi.detach().numpy(), abs=0.06)
    policy = learned[0][1] if script == "ppo" else learned[0]  # [0] standardises states
    last = policy[-1] if script == "actor_critic" else policy.layers[-1]
    assert last.weight.abs().max() <= 0.01 * 8**-0.5  # a layer's own weights, times 0.01


def test_reinforce_policy():
    """A softmax, or a Gaussian whose noise has a mean square of 1 over all n dimensions."""
    s = torch.randn(4, 3)
    pi = reinforce.Policy((3,), Discrete(5), 8)
    torch.testing.assert_close(pi(s).probs, pi.layers(s).softmax(-1))
    pi = reinforce.Policy((3,), BOX, 8)
    assert pi(s).stddev.square().sum(-1).tolist() == pytest.approx([1] * 4)
    pi.log_std.data = torch.tensor([0.5, -1.0])
    density = Normal(pi.layers(s), torch.tensor([0.5, -1.0]).exp()).log_prob(torch.tensor(0.3))
    torch.testing.assert_close(pi(s).log_prob(torch.full((4, 2), 0.3)), density.sum(-1))


def test_layers():
    """Those of a3c and ppo are reinforce's."""
    width = lambda x: f"{x.in_features} {x.out_features}" if hasattr(x, "weight") else ""
    for network, layers in (
        (dqn.QNetwork((3,), 2, 8), "3 8 ReLU 8 8 ReLU 8 2"),
        (reinforce.Policy((3,), BOX, 8).layers, "3 8 Tanh 8 2"),
        (reinforce.Value((3,), 8), "3 8 Tanh 8 1 Flatten"),
        (actor_critic.Network((3,), 2, 8), "3 8 Tanh 8 2"),
        (ddpg.Actor(3, 2, 8), "3 8 ReLU 8 8 ReLU 8 2 Tanh"),
        (ddpg.Critic(3, 2, 8), "5 8 ReLU 8 8 ReLU 8 1"),
    ):
        assert " ".join(width(x) or type(x).__name__ for x in network) == layers


# --------------------------------------------------------------------------------- A3C and PPO


@pytest.mark.parametrize(
    ("actions", "t_max", "factor"), [(Discrete(3), 3, 0.1), (BOX, 5, 1), (BOX, 9, 0.1)]
)
def test_a3c_step(monkeypatch, actions, t_max, factor):
    """[12] to [18]: turns of t_max steps, or up to the end of an episode."""
    updates, first = [], 0

    def descend(shared, d_theta, alpha, rank):
        updates.append((shared.theta.clone(), d_theta.clone(), alpha))
        shared.theta.sub_(d_theta, alpha=0.01)

    monkeypatch.setattr(a3c.Shared, "adam", descend)
    options = dict(steps=30, t_max=t_max, gamma=0.9, alpha=0.5, scale_rewards=factor < 1)
    learned, _, (env,) = train("a3c", lambda: Mixed(length=5, actions=actions), **options)
    for *step, alpha in updates:
        log = episodes(env.log[first : first + t_max])[0]
        first += len(log)
        assert alpha == pytest.approx(0.5 * max(0, 1 - first / 30))
        s, a, *_ = columns(log)

        def loss(policy, V):
            error = errors(log, V, 0.9, factor)
            return error.square().sum() - (policy(s).log_prob(a) * error.detach()).sum()

        check(step, loss, a3c.Policy((3,), actions, 8), a3c.Value((3,), 8))
    assert first == len(env.log) and 30 < first <= 30 + t_max
    theta, found = step
    weights = torch.nn.ModuleList(learned).parameters()
    torch.testing.assert_close(vector(weights), theta - 0.01 * found)


def test_a3c_adam():
    """Two workers' steps in turn are torch's Adam on the same gradients."""
    theta = torch.randn(5)
    shared, by_torch = a3c.Shared(theta, 2), theta.clone().requires_grad_()
    adam = torch.optim.Adam([by_torch])
    for k in range(6):
        by_torch.grad = 1e-6 * torch.randn(5)  # so small that Adam's 1e-8 counts
        adam.param_groups[0]["lr"] = 0.1 / (k + 1)
        adam.step()
        shared.adam(by_torch.grad, 0.1 / (k + 1), rank=k % 2)
    torch.testing.assert_close(shared.theta, by_torch.detach())


def test_a3c_second_worker(monkeypatch):
    """Another seed, a counter of its own, one step size from the steps of all."""
    updates = []

    def second(workers, report, settings):
        settings["shared"].counts[0] = 60
        a3c.worker(1, report=report, **settings)

    note = lambda shared, _, *rest: updates.append((*rest, *shared.counts.tolist()))
    monkeypatch.setattr(a3c, "in_processes", second)
    monkeypatch.setattr(a3c.Shared, "adam", note)
    options = dict(workers=2, seed=7, steps=80, t_max=9, alpha=1.0)
    (policy, _), returns, (env,) = train("a3c", DISCRETE, **options)
    assert env.seeds[0] == 1007 and set(env.seeds[1:]) == {None} and len(returns) == 7
    expected = [(pytest.approx(1 - T / 80), 1, 60, T - 60, 0) for T in range(63, 84, 3)]
    assert updates == expected[:6] + [(0, 1, 60, 21, 0)]
    torch.manual_seed(1007)
    a3c.Policy((3,), Discrete(3), 8), a3c.Value((3,), 8)  # draws, as the worker does
    acts = [policy(torch.as_tensor(step[0])).sample().item() for step in env.log]
    assert acts == [int(step[1]) for step in env.log]


def ppo_followed(recorded, actions, d_targ, normalize=False) -> tuple[list, float]:
    """Check each step of three iterations of four by the formulas [e] to [g]: two actors, whose
    episodes have different lengths. Returns beta in each iteration, and the first d."""
    lengths = itertools.cycle((3, 4))
    recorded.clear()
    options = dict(steps=56, horizon=7, epochs=3, batch=14, gamma=0.9, gae_lambda=0.8)
    options |= dict(normalize_states=normalize, normalize_rewards=normalize)
    make = lambda: Mixed(length=next(lengths), actions=actions)
    _, _, made = train("ppo", make, alpha=0.1, d_targ=d_targ, **options)
    (steps,) = recorded.values()
    policy, old, V = ppo.Policy((3,), actions, 8), ppo.Policy((3,), actions, 8), ppo.Value((3,), 8)
    means, variances, sums, betas, ds = [], [], [], [1.0], []
    load(steps[0][0], policy, V)
    for i in range(3):
        old.load_state_dict(policy.state_dict())
        parts = [columns(part) for env in made for part in episodes(env.log[7 * i :][:7])]
        s, a, *_ = map(torch.cat, zip(*parts, strict=True))
        means.append(s.mean(0))
        variances.append(s.var(0))
        mean, std = sum(means) / len(means), (sum(variances) / len(means) + 1e-5).sqrt()
        seen = lambda s: (s - mean) / std if normalize else s
        sums += [x for part in parts for x in discounted(part[2].tolist(), 0.9)]
        scale, A = np.std(sums) if normalize else 1.0, []
        for now, _, r, later, terminated, _ in parts:
            delta = r / scale + 0.9 * ~terminated * V(seen(later)) - V(seen(now))
            A += discounted(delta.tolist(), 0.9 * 0.8)
        s, A = seen(s), torch.tensor(A)
        target, pi_old = (A + V(s)).detach(), old(s)

        def loss(policy, V):
            ratio = (policy(s).log_prob(a) - pi_old.log_prob(a)).exp()
            L = ratio * A - betas[-1] * kl_divergence(pi_old, policy(s))
            return (target - V(s)).square().mean() - L.mean()

        for step in steps[3 * i : 3 * i + 3]:
            assert step[2:] == ("Adam", [pytest.approx(0.1 * (1 - i / 4))])
            check(step, loss, policy, V)
        load(steps[3 * i + 3][0], policy, V)
        ds.append(kl_divergence(pi_old, policy(s)).mean().item())
        far, near = ds[-1] > 1.5 * d_targ, ds[-1] < d_targ / 1.5
        betas.append(betas[-1] * (2 if far else 0.5 if near else 1))
    assert len(steps) == 12
    return betas, ds[0]


@pytest.mark.parametrize("actions", [Discrete(3), BOX])
def test_ppo_step(recorded, actions):
    """With normalised states and rewards; beta doubles, or halves."""
    for d_targ, factor in ((1e-9, 2), (1e9, 0.5)):
        betas, _ = ppo_followed(recorded, actions, d_targ, normalize=True)
        assert betas == [1, factor, factor**2, factor**3]


def test_ppo_beta_follows_the_divergence_from_theta_old(recorded):
    """Close to both thresholds: the other direction of the KL lies on their other side."""
    _, d = ppo_followed(recorded, Discrete(3), 0.01)
    for d_targ, factor in ((1.51 * d, 0.5), (1.49 * d, 1), (d / 1.49, 1), (d / 1.51, 2)):
        betas, _ = ppo_followed(recorded, Discrete(3), d_targ)
        assert betas[1] == factor


def test_ppo_minibatches(monkeypatch):
    """Each epoch takes every sample once, in another order."""
    seen, forward = [], ppo.Value.forward
    monkeypatch.setattr(ppo.Value, "forward", lambda V, s: seen.append(s) or forward(V, s))
    train("ppo", DISCRETE, steps=14, horizon=7, epochs=3, batch=4)
    s, _, *minibatches = seen
    assert [len(part) for part in minibatches] == [4, 4, 4, 2] * 3
    epochs = [torch.cat(minibatches[4 * k : 4 * k + 4]) for k in range(3)]
    assert all(sorted(epoch.tolist()) == sorted(s.tolist()) for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) == 3
