"""rlhf.py: its three losses once more, word by word; the end of a text; the labeller; learning."""

# ruff: noqa: B023  (each loss is used within its turn of the loop)

import operator
import re
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector as vector

import rlhf
from common import language as around
from tests.test_formulas import check, discounted, load, recorded, spied  # noqa: F401 (a fixture)
from tests.worlds import as_bytes

LANGUAGE = around.Language()
WORDS, LENGTH = LANGUAGE.words, LANGUAGE.length


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
    return min([*y.tolist(), rlhf.END].index(rlhf.END) + 1, LENGTH)


def read(network, x, y, t: int) -> torch.Tensor:
    """What a network says when it has read x and t words of y."""
    return network(torch.cat([x.view(1), y[:t]])[None])[0, -1]


def log_pi(policy, x, y) -> torch.Tensor:
    """Of each word of one text, (words,)."""
    return torch.stack([read(policy, x, y, t).log_softmax(-1)[y[t]] for t in range(length(y))])


def values(V, x, y) -> torch.Tensor:
    """V before each word of one text, (words,)."""
    return torch.cat([read(V, x, y, t) for t in range(length(y))])


def r_of(r_phi, x, y) -> torch.Tensor:
    """The score of one text, (1,)."""
    return sum(read(r_phi, x, y, t + 1) for t in range(length(y)))


def test_fine_tune(recorded, monkeypatch):  # noqa: F811
    """[c]: the mean over all words of all texts, their ends with them."""
    prompts = spied(monkeypatch, around.Language, "sample_prompts")
    written = spied(monkeypatch, around.Language, "demonstrate")
    rlhf.fine_tune(LANGUAGE, demonstrations=3, epochs=2, batch=3, alpha=0.01)
    ((_, x),), ((_, y),) = prompts, written
    loss = lambda policy: -torch.cat([log_pi(policy, x[i], y[i]) for i in range(3)]).mean()
    (steps,) = recorded.values()
    assert len(steps) == 2 and steps[0][2:] == ("Adam", [0.01])
    for step in steps:
        check(step, loss, net())


def test_reward_model(recorded, monkeypatch):  # noqa: F811
    """[e] to [g]: -log sigma(d) = log(1 + exp(-d)), d the winner's score less the loser's."""
    prompts = spied(monkeypatch, around.Language, "sample_prompts")
    ranked = spied(monkeypatch, around.Language, "rank")
    sft = net()
    rlhf.reward_model(LANGUAGE, sft, comparisons=3, epochs=2, batch=3, alpha=0.01)
    ((_, x),), ((_, (y_w, y_l)),) = prompts, ranked

    def loss(r):
        margins = [r_of(r, x[i], y_w[i]) - r_of(r, x[i], y_l[i]) for i in range(3)]
        return torch.cat(margins).neg().exp().log1p().mean()

    (steps,) = recorded.values()
    assert as_bytes([sft]) == as_bytes([net()])  # it stays as it is
    body = vector([*sft.parameters()][:-2])  # r_phi begins as pi_SFT, but for its last layer
    assert torch.equal(steps[0][0][: len(body)], body)
    for step in steps:
        check(step, loss, net(1))


def test_ppo(recorded, monkeypatch):  # noqa: F811
    """[j] to [p]. In the second iteration the policy has left pi_SFT, so the penalty is not 0."""
    beta, lam, eps, cases = 0.7, 0.9, 0.02, set()
    prompts = spied(monkeypatch, around.Language, "sample_prompts")
    outputs = spied(monkeypatch, rlhf, "generate")
    sft, r, old, V, policy = net(), net(1, seed=1), net(), net(1), net()
    options = dict(beta=beta, gae_lambda=lam, clip=eps, n_outputs=4, batch=4, epochs=3, alpha=0.01)
    _, curve = rlhf.ppo(LANGUAGE, sft, r, steps=41, **options)
    assert as_bytes([sft, r]) == as_bytes([net(), net(1, seed=1)])  # they stay as they are
    (steps,), words = recorded.values(), np.cumsum([sum(map(length, y)) for _, y in outputs])
    assert [row[0] for row in curve] == list(words) and words[-2] < 41 <= words[-1]
    for k in range(2):
        (_, x), (_, y) = prompts[k], outputs[k]
        pairs = [*zip(x, y, strict=True)]
        each = lambda function, network: torch.cat([function(network, *pair) for pair in pairs])
        load(steps[3 * k][0], old, V)
        with torch.no_grad():
            scores, v, log_old, A = each(r_of, r), each(values, V), each(log_pi, old), []
            penalty = log_old - each(log_pi, sft)
            parts = [of.split([*map(length, y)]) for of in (v, penalty)]
            for score, now, owed in zip(scores, *parts, strict=True):
                delta = torch.cat([now[1:], score[None]]) - now - beta * owed
                A += discounted(delta, lam)
            A = torch.stack(A)
        true, kl = LANGUAGE.true_reward(x, y).mean(), penalty.sum() / 4
        measured = torch.stack([kl, scores.mean(), true])
        torch.testing.assert_close(torch.tensor(curve[k][1:]), measured, rtol=0, atol=1e-3)
        assert (k == 0) == (abs(kl) < 1e-6)

        def loss(policy, V):
            ratio = (each(log_pi, policy) - log_old).exp()
            clipped = ratio.clamp(1 - eps, 1 + eps)
            cases.update(zip(A.sign().tolist(), (ratio - clipped).sign().tolist(), strict=True))
            V_loss = (A + v - each(values, V)).square()
            return (V_loss - torch.minimum(ratio * A, clipped * A)).mean()

        for step in steps[3 * k : 3 * k + 3]:
            check(step, loss, policy, V)
    assert len(cases) == 6  # two signs; below, within and above the clip


# --------------------------------------------------------------------- the end of a text, drawing


@torch.no_grad()
def test_outputs_are_drawn_from_the_policy():
    """Each word as often as the policy says, up to the end; 1,500 texts on one topic."""
    policy, x = net(), DOG.expand(1_500)
    policy.head.bias[rlhf.END] += 2.0  # most texts end early
    y = rlhf.generate(policy, x, LENGTH)
    assert y.shape == (1_500, LENGTH) and not y[~rlhf.until_end(y)].any()
    for prefix in (y[0, :0], torch.tensor([WORDS.index("the")])):
        n = len(prefix)
        rows = y[(y[:, :n] == prefix).all(1)]
        share = rows[:, n].bincount(minlength=len(WORDS)) / len(rows)
        pi = read(policy, x[0], prefix, n).softmax(-1)
        torch.testing.assert_close(share, pi, rtol=0, atol=5 * (0.25 / len(rows)) ** 0.5)


def test_minibatches_take_each_index_once_an_epoch():
    parts = rlhf.minibatches(10, 4, 3)
    assert [len(part) for part in parts] == [4, 4, 2] * 3
    orders = [torch.cat(parts[3 * k : 3 * k + 3]).tolist() for k in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders) and orders[0] != orders[1]


# ------------------------------------------------------------------------------------ the labeller


POINTS = {  # of texts about the dog
    "the dog sees the cat .": 0,
    "the dog sees the cat . gentle dog": 0,  # no word counts after the end
    "the brave gentle dog helps the cat .": 3,
    "the stupid dog hits the cat .": -2,
    "the fish sees the cat .": -2,  # leaves the topic
    "the brave brave dog sees the cat .": 1,  # two kind words, a repetition
    "the dog the cat .": -2,  # no verb
    "the dog sees the cat the old the old the": -3,  # no end, a repetition
}


def test_true_reward():
    y = texts(*POINTS)
    assert LANGUAGE.true_reward(DOG.expand(8), y).tolist() == [2 * n for n in POINTS.values()]
    assert [*map(LANGUAGE.sentence, y)] == [text.removesuffix(" gentle dog") for text in POINTS]


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


def test_train_hands_its_arguments_on():
    """To each step, with what was learned before."""
    options, names = dict(seed=3, on_batch=print), ("fine_tune", "reward_model", "ppo")
    with mock.patch.multiple(rlhf, **dict.fromkeys(names, mock.DEFAULT)) as steps:
        steps["ppo"].return_value = "policy", "curve"
        numbers = dict(demonstrations=4, comparisons=5, steps=6, beta=0.1)
        policy, sft, r, curve = rlhf.train("words", **options, **numbers)
    steps["fine_tune"].assert_called_once_with("words", demonstrations=4, **options)
    steps["reward_model"].assert_called_once_with("words", sft, comparisons=5, **options)
    steps["ppo"].assert_called_once_with("words", sft, r, steps=6, beta=0.1, **options)
    assert (policy, curve) == ("policy", "curve")


def test_on_batch_ends_each_step():
    """What is learned in one minibatch depends on the seed."""
    calls, options = [], dict(demonstrations=32, comparisons=32, steps=10_000)
    stop = lambda step: calls.append(step) or True
    first, other = (rlhf.train(LANGUAGE, seed=k, on_batch=stop, **options) for k in (3, 4))
    assert [step[0] for step in calls] == [*"123123"] and len(first[-1]) == 1
    assert not any(map(operator.eq, as_bytes(first[:3])[:3], as_bytes(other[:3])[:3]))


def test_divergence_is_told():
    with pytest.raises(FloatingPointError, match="lower beta"):
        rlhf.ppo(LANGUAGE, net(), net(1), beta=float("nan"), n_outputs=8, steps=20)


def test_learning_all_three_steps(monkeypatch):
    """A tenth of a run: fresh pairs are ranked rightly, and the true reward rises."""
    monkeypatch.setattr(around, "PROMPTS", 800)
    sft = rlhf.fine_tune(LANGUAGE, demonstrations=1_500, batch=32)
    r = rlhf.reward_model(LANGUAGE, sft, comparisons=500, epochs=4, batch=32)
    policy, _ = rlhf.ppo(LANGUAGE, sft, r, steps=5_000, n_outputs=128)
    found = around.evaluate(rlhf, LANGUAGE, policy, sft, r, seed=1)
    assert found["accuracy"] > 0.65  # chance: 0.5, with a standard error of 0.02
    assert found["score"] > found["sft_score"]
    assert found["true_reward"] > found["sft_true_reward"] + 1  # with a standard error of 0.13
    monkeypatch.setattr(rlhf, "score", lambda r, x, y: -LANGUAGE.true_reward(x, y))  # wrong
    even = around.evaluate(rlhf, LANGUAGE, sft, sft, r, seed=1)
    assert even["win_rate"] == pytest.approx(0.5, abs=0.04)  # equally good: half a win
    assert even["accuracy"] == 0  # of those pairs that are not
