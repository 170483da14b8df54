"""rlhf.py: its three losses once more, word by word; the end of a text; the labeller; learning."""

import operator
import re

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector as vector

import rlhf
from common import language as around
from tests.test_formulas import check, discounted, load, recorders, spied  # noqa: F401 (a fixture)
from tests.worlds import as_bytes

LANGUAGE = around.Language()
WORDS, LENGTH = LANGUAGE.words, LANGUAGE.length
TINY = dict(demonstrations=32, comparisons=32, steps=200)


def net(outputs: int = len(WORDS), seed: int = 0) -> rlhf.Transformer:
    torch.manual_seed(seed)
    return rlhf.Transformer(len(WORDS), LENGTH, outputs)


def texts(*sentences: str) -> torch.Tensor:
    """Sentences -> (N, T)."""
    rows = [sentence.split() + ["."] * LENGTH for sentence in sentences]
    return torch.tensor([[WORDS.index(word) for word in row[:LENGTH]] for row in rows])


DOG = torch.tensor([WORDS.index("dog")])

# ---------------------------------------------------------------------- the losses, word by word


def length(y: torch.Tensor) -> int:
    """The words of one text, with its end."""
    return [*y.tolist(), rlhf.END].index(rlhf.END) + 1 if rlhf.END in y[:-1] else LENGTH


def read(network, x, y, t: int) -> torch.Tensor:
    """What a network says when it has read x and t words of y."""
    return network(torch.cat([x.view(1), y[:t]])[None])[0, -1]


def log_pi(policy, x, y, t: int) -> torch.Tensor:
    """log pi of word t, which counts from 0."""
    return read(policy, x, y, t).log_softmax(-1)[y[t]]


def r_of(r_phi, x, y) -> torch.Tensor:
    return sum(read(r_phi, x, y, t + 1)[0] for t in range(length(y)))


def test_fine_tune(recorders, monkeypatch):  # noqa: F811
    """[c]: the mean over all words of all texts, their ends with them."""
    prompts = spied(monkeypatch, around.Language, "sample_prompts")
    written = spied(monkeypatch, around.Language, "demonstrate")
    rlhf.fine_tune(LANGUAGE, demonstrations=3, epochs=2, batch=3, alpha=0.1)
    ((_, x),), ((_, y),) = prompts, written
    n = [length(text) for text in y]

    def loss(policy):
        return -sum(log_pi(policy, x[i], y[i], t) for i in range(3) for t in range(n[i])) / sum(n)

    assert len(recorders[0].steps) == 2 and recorders[0].steps[0][2] == [0.1]
    for step in recorders[0].steps:
        check(step, loss, net())


def test_reward_model(recorders, monkeypatch):  # noqa: F811
    """[e] to [g]: -log sigma(d) = log(1 + exp(-d)), d the winner's score less the loser's."""
    prompts = spied(monkeypatch, around.Language, "sample_prompts")
    ranked = spied(monkeypatch, around.Language, "rank")
    sft = net()
    rlhf.reward_model(LANGUAGE, sft, comparisons=3, epochs=2, batch=3, alpha=0.1)
    ((_, x),), ((_, (y_w, y_l)),) = prompts, ranked

    def loss(r):
        margins = [r_of(r, x[i], y_w[i]) - r_of(r, x[i], y_l[i]) for i in range(3)]
        return sum((-d).exp().log1p() for d in margins) / 3

    body = vector([*sft.parameters()][:-2])  # it begins as pi_SFT, but for its last layer
    assert torch.equal(recorders[0].steps[0][0][: len(body)], body)
    for step in recorders[0].steps:
        check(step, loss, net(1))


def test_ppo(recorders, monkeypatch):  # noqa: F811
    """[j] to [p]. In the second iteration the policy has left pi_SFT, so the penalty is not 0."""
    beta, lam, eps, n, cases = 0.7, 0.9, 0.02, 4, set()
    prompts, made = spied(monkeypatch, around.Language, "sample_prompts"), []
    generate = rlhf.generate
    monkeypatch.setattr(rlhf, "generate", lambda *a: made.append(generate(*a)) or made[-1])
    sft, r = net(), net(1, seed=1)
    options = dict(beta=beta, gae_lambda=lam, clip=eps, n_outputs=n, batch=n, epochs=3, alpha=0.1)
    _, curve = rlhf.ppo(LANGUAGE, sft, r, steps=41, **options)
    (recorder,), old, V, policy = recorders, net(), net(1), net()
    words = np.cumsum([sum(map(length, y)) for y in made])
    assert [row[0] for row in curve] == list(words) and words[-2] < 41 <= words[-1]
    for k in range(2):
        x, y = prompts[k][1], made[k]
        load(recorder.steps[3 * k][0], old, V)
        places, A, target, log_old, kl = [], [], [], [], 0.0
        with torch.no_grad():
            scores = [r_of(r, x[i], y[i]) for i in range(n)]
            for i in range(n):
                T = length(y[i])
                before = [log_pi(old, x[i], y[i], t) for t in range(T)]
                ratios = [before[t] - log_pi(sft, x[i], y[i], t) for t in range(T)]
                v = [read(V, x[i], y[i], t)[0] for t in range(T)] + [0.0]
                delta = [-beta * ratios[t] + v[t + 1] - v[t] for t in range(T)]
                delta[-1] = delta[-1] + scores[i]
                gains = discounted(delta, lam)
                A, log_old = A + gains, log_old + before
                target += [gains[t] + v[t] for t in range(T)]
                places += [(x[i], y[i], t) for t in range(T)]
                kl += sum(ratios).item() / n
        true = LANGUAGE.true_reward(x, y).mean().item()
        assert curve[k][1:] == pytest.approx((kl, sum(scores).item() / n, true), abs=1e-3)
        assert (k == 0) == (abs(kl) < 1e-6)

        def loss(policy, V):
            total = 0
            for place, advantage, goal, log_pi_old in zip(places, A, target, log_old, strict=True):  # noqa: B023
                ratio = (log_pi(policy, *place) - log_pi_old).exp()
                clipped = ratio.clamp(1 - eps, 1 + eps)
                cases.add((advantage.sign().item(), (ratio - clipped).sign().item()))
                total -= torch.minimum(ratio * advantage, clipped * advantage)
                total += (goal - read(V, *place)[0]) ** 2
            return total / len(places)  # noqa: B023

        for step in recorder.steps[3 * k : 3 * k + 3]:
            check(step, loss, policy, V)
    assert len(cases) == 6  # two signs; below, within and above the clip


# --------------------------------------------------------------------- the end of a text, drawing


def test_outputs_are_drawn_from_the_policy():
    """Each word as often as the policy says, up to the end; 1,500 texts on one topic."""
    policy, x = net(), DOG.expand(1_500)
    with torch.no_grad():
        policy.head.bias[rlhf.END] += 2.0  # most texts end early
    y = rlhf.generate(policy, x, LENGTH)
    assert y.shape == (1_500, LENGTH) and not y[~rlhf.until_end(y)].any()
    with torch.no_grad():
        for prefix in ([], [WORDS.index("the")]):
            rows = y[(y[:, : len(prefix)] == torch.tensor(prefix)).all(1)] if prefix else y
            pi = read(policy, x[0], torch.tensor([*prefix, 0]), len(prefix)).softmax(-1)
            share = rows[:, len(prefix)].bincount(minlength=len(WORDS)) / len(rows)
            torch.testing.assert_close(share, pi, rtol=0, atol=5 * (0.25 / len(rows)) ** 0.5)


def test_minibatches_take_each_index_once_an_epoch():
    parts = rlhf.minibatches(10, 4, 3)
    assert [len(part) for part in parts] == [4, 4, 2] * 3
    orders = [torch.cat(parts[3 * k : 3 * k + 3]).tolist() for k in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders) and orders[0] != orders[1]


# ------------------------------------------------------------------------------------ the labeller


@pytest.mark.parametrize(
    ("topic", "text", "points"),
    [
        ("dog", "the dog sees the cat .", 0),
        ("dog", "the dog sees the cat . gentle dog", 0),  # no word counts after the end
        ("dog", "the brave gentle dog helps the cat .", 3),
        ("dog", "the stupid dog hits the cat .", -2),
        ("fish", "the dog sees the cat .", -2),  # leaves the topic
        ("dog", "the brave brave dog sees the cat .", 1),  # two kind words, a repetition
        ("dog", "the dog the cat .", -2),  # no verb
        ("dog", "the dog sees the cat the old the old the", -3),  # no end, a repetition
    ],
)
def test_true_reward(topic, text, points):
    x, y = torch.tensor([WORDS.index(topic)]), texts(text)
    assert LANGUAGE.true_reward(x, y).item() == 2 * points
    assert LANGUAGE.sentence(y[0]) == text.removesuffix(" gentle dog")


def test_demonstrations_are_sentences_on_the_topic():
    x = LANGUAGE.sample_prompts(200)
    kinds = set()
    for topic, text in zip(x, LANGUAGE.demonstrate(x, np.random.default_rng(0)), strict=True):
        words = LANGUAGE.sentence(text).split()
        kinds.add("".join(around.CLASS[word] for word in words))
        assert WORDS[topic] in words and text[-1] == rlhf.END
    assert all(re.fullmatch("DA?A?NVDA?A?NE", kind) for kind in kinds) and len(kinds) == 9


def test_the_labeller_prefers_by_bradley_and_terry():
    """One point is worth sigma(2)."""
    better, worse = texts("the old dog sees the cat .", "the ugly dog sees the cat .")
    x, y_1, y_2 = DOG.expand(2_000), better.expand(2_000, -1), worse.expand(2_000, -1)
    for pair in ((y_1, y_2), (y_2, y_1)):
        y_w, y_l = LANGUAGE.rank(x, *pair, np.random.default_rng(0))
        won = (y_w == better).all(1)
        assert won.float().mean().item() == pytest.approx(1 / (1 + np.exp(-2)), abs=0.03)
        assert torch.equal((y_l == worse).all(1), won)


# ---------------------------------------------------------------------------------------- a run


def test_one_run(monkeypatch):
    """Its arguments reach each step, which leaves what was learned before as it is."""
    made = spied(monkeypatch, around.Language, "sample_prompts")
    *first, _ = rlhf.train(LANGUAGE, seed=3, beta=0.1, **TINY | dict(comparisons=16))
    assert [len(x) for _, x in made[:3]] == [32, 16, 256]
    other = rlhf.train(LANGUAGE, seed=4, **TINY)[:-1]
    assert not any(map(operator.eq, as_bytes(first), as_bytes(other)[:3]))
    _, sft, r = first
    alone = rlhf.fine_tune(LANGUAGE, seed=3, demonstrations=32)
    assert as_bytes([alone]) == as_bytes([sft])
    before, options = as_bytes([sft, r]), dict(seed=3, n_outputs=16, batch=16, alpha=0.01)
    with_penalty, curve = rlhf.ppo(LANGUAGE, sft, r, steps=200, beta=9.0, **options)
    assert as_bytes([sft, r]) == before and len(curve) > 1
    without, _ = rlhf.ppo(LANGUAGE, sft, r, steps=200, beta=0.0, **options)
    assert as_bytes([with_penalty]) != as_bytes([without])


def test_on_batch_ends_each_step():
    calls = []
    stop = lambda step: calls.append(step) or True
    *_, curve = rlhf.train(LANGUAGE, **TINY | dict(steps=10_000), on_batch=stop)
    assert [step[0] for step in calls] == ["1", "2", "3"] and len(curve) == 1


def test_divergence_is_told():
    with pytest.raises(FloatingPointError, match="lower beta"):
        rlhf.ppo(LANGUAGE, net(), net(1), beta=float("nan"), n_outputs=8, steps=20)


def test_learning_all_three_steps():
    """A tenth of a run: fresh pairs are ranked rightly, and the true reward rises."""
    sft = rlhf.fine_tune(LANGUAGE, demonstrations=1_500, batch=32)
    r = rlhf.reward_model(LANGUAGE, sft, comparisons=500, epochs=4, batch=32)
    policy, _ = rlhf.ppo(LANGUAGE, sft, r, steps=5_000, n_outputs=128)
    torch.manual_seed(1)
    x = LANGUAGE.sample_prompts(500)
    texts = [rlhf.generate(one, x, LENGTH) for one in (sft, sft, policy)]
    score, score_2, learned = (rlhf.score(r, x, y).detach() for y in texts)
    true, true_2, true_learned = (LANGUAGE.true_reward(x, y) for y in texts)
    rightly = ((score > score_2) == (true > true_2))[true != true_2].float().mean()
    assert rightly > 0.65  # chance: 0.5, with a standard error of 0.03
    gain = true_learned.mean() - true.mean()  # with a standard error of 0.25
    assert learned.mean() > score.mean() and gain > 1


def test_beta_reaches_ppo():
    """In the second iteration: in the first one pi_theta_old is pi_SFT, and no penalty is due."""
    small = dict(demonstrations=32, comparisons=32, steps=3_000)
    policies = [rlhf.train(LANGUAGE, beta=beta, **small)[0] for beta in (0.0, 5.0)]
    weights = [vector(policy.parameters()) for policy in policies]
    assert not torch.equal(*weights)
