"""Reinforcement learning from human feedback (RLHF). Lecture, last slide, "RLHF".

What people want from a text is hard to write down as a reward, but easy to judge. So a labeller
ranks outputs of a language model, a reward model r(x, y) learns from the rankings, and PPO trains
the language model to earn that reward. The text is an episode: the state is the prompt x with the
words so far, the action is the next word y_t, and the reward comes with the last word. The reward
model is right only near the texts that it was trained on. A penalty for the distance from the
supervised policy pi_SFT keeps the new policy there.

Pseudocode ([1] to [3] are the slide's steps; [a] to [p] their parts; Ouyang et al., 2022)

    [1] Collect demonstration data, and train a supervised policy
    [a]     A labeller demonstrates an output y for each prompt x
    [b]     for minibatch = 1, 2, ... do
    [c]         minimize over theta: E_t[ -log pi_theta(y_t|x, y_1, ..., y_{t-1}) ]
    [2] Collect comparison data, and train a reward model
    [d]     A prompt x and two outputs of the supervised policy are sampled
    [e]     A labeller ranks the outputs: y_w is better than y_l
    [f]     for minibatch = 1, 2, ... do
    [g]         minimize over phi: E[ -log sigma(r_phi(x, y_w) - r_phi(x, y_l)) ]
    [3] Optimize a policy against the reward model using PPO
    [h]     for iteration = 1, 2, ... do
    [i]         New prompts x are sampled
    [j]         The policy pi_theta_old generates an output y for each
    [k]         The reward model calculates a reward r(x, y)
    [l]         The sum of the rewards is r(x, y) - beta log(pi_theta_old(y|x) / pi_SFT(y|x))
    [m]         Compute advantage estimates A_1, ..., A_T (GAE, lambda)
    [n]         The reward updates the policy using PPO, with K epochs and minibatch size M
    [o]             maximize over theta: E_t[ min(r_t A_t, clip(r_t, 1-eps, 1+eps) A_t) ] with
                    r_t = pi_theta(y_t|x, ...) / pi_theta_old(y_t|x, ...)
    [p]         theta_old <- theta

Where the slide is loose: it shows the three steps as pictures; the formulas are the papers'.
Replicated are the losses [c], [g] and [o], the penalty that is paid word by word, the reward model
that begins as the supervised policy, and V that begins as the reward model. Only alike are the
language (28 words, one of them the full stop), the labeller (a rule and chance, so that we can see
what the reward model gets wrong), two outputs to rank in place of four to nine, and r(x, y): a sum
over the words, which learns from fewer comparisons than one number at the last word. The
supervised policy has read nothing but the demonstrations, and [o] has no pretraining gradient.

Try

    python rlhf.py
    python rlhf.py --beta 2
    python rlhf.py --comparisons 500
    python rlhf.py --load runs/rlhf/seed0

References

    Ouyang et al., Training language models to follow instructions with human feedback, 2022.
    Stiennon et al., Learning to summarize from human feedback, 2020.
    Ziegler et al., Fine-Tuning Language Models from Human Preferences, 2019.
    Gao et al., Scaling Laws for Reward Model Overoptimization, 2022.
    Schulman et al., Proximal Policy Optimization Algorithms, 2017.
    Bradley and Terry, Rank Analysis of Incomplete Block Designs, 1952.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn.functional import logsigmoid


def train(
    *,
    seed: int = 0,  # one seed, one result
    steps: int = 50_000,  # the budget of PPO in time steps, which are words
    beta: float = 0.5,  # weight of the KL penalty; with 0 nothing keeps the policy near pi_SFT
    demonstrations: int = 6_000,  # how many sentences the labeller writes
    comparisons: int = 5_000,  # how many pairs of sentences the labeller ranks
    on_batch: Callable[[str], bool] = lambda step: False,  # True ends the training
) -> tuple[Transformer, Transformer, Transformer, list[tuple]]:
    """The three steps; returns policy, supervised policy, reward model and what ppo() measured."""
    # The supervised policy learns to write sentences on a topic, kind and cruel ones alike.
    # [1] Collect demonstration data, and train a supervised policy
    sft = fine_tune(seed=seed, demonstrations=demonstrations, on_batch=on_batch)
    # The reward model learns what the labeller likes. Step [3] knows the true reward only from it.
    # [2] Collect comparison data, and train a reward model
    r = reward_model(sft, seed=seed, comparisons=comparisons, on_batch=on_batch)
    # The policy begins as the supervised one, and is paid by the reward model for what it writes.
    # [3] Optimize a policy against the reward model using PPO
    policy, returns = ppo(sft, r, seed=seed, steps=steps, beta=beta, on_batch=on_batch)
    return policy, sft, r, returns


def fine_tune(
    *,
    seed: int = 0,  # one seed, one result
    demonstrations: int = 6_000,  # how many sentences the labeller writes
    epochs: int = 3,  # how often each is used
    batch: int = 64,  # the size of a minibatch
    alpha: float = 3e-3,  # step size of Adam
    on_batch: Callable[[str], bool] = lambda step: False,  # True ends the training
) -> Transformer:
    """Step 1: from demonstrations to the supervised policy pi_SFT."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for networks this small a second thread costs more than it gains
    policy, rng = Transformer(len(WORDS)), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=alpha, fused=True)
    # [a] A labeller demonstrates an output y for each prompt x
    x = sample_prompts(demonstrations)  # (demonstrations,)
    y = torch.tensor([demonstrate(WORDS[i], rng) for i in x])  # (demonstrations, LENGTH)
    # The logarithm of the chance of a text is a sum over its words, so that one pass of the network
    # gives the loss of all words. No word after the end counts (the mask): the policy would else
    # learn mostly to repeat the end.
    # [b] for minibatch = 1, 2, ... do
    for j in minibatches(demonstrations, batch, epochs):
        # [c] minimize over theta: E_t[ -log pi_theta(y_t|x, y_1, ..., y_{t-1}) ]
        loss = -log_prob(policy, x[j], y[j])[until_end(y[j])].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_batch("1 supervised policy"):
            break
    return policy


def reward_model(
    sft: Transformer,
    *,
    seed: int = 0,  # one seed, one result
    comparisons: int = 5_000,  # how many pairs of sentences the labeller ranks
    epochs: int = 3,  # how often each is used
    batch: int = 64,  # the size of a minibatch
    alpha: float = 2e-3,  # step size of Adam
    on_batch: Callable[[str], bool] = lambda step: False,  # True ends the training
) -> Transformer:
    """Step 2: from ranked pairs of outputs to the reward model r."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    # A copy of the supervised policy knows the language already. Its last layer is exchanged for
    # one with a single output.
    r = copy.deepcopy(sft)
    r.head = nn.Linear(r.head.in_features, 1)
    optimizer = torch.optim.Adam(r.parameters(), lr=alpha, fused=True)
    # [d] A prompt x and two outputs of the supervised policy are sampled
    x = sample_prompts(comparisons)
    pair = generate(sft, x), generate(sft, x)  # each (comparisons, LENGTH)
    # [e] A labeller ranks the outputs: y_w is better than y_l
    y_w, y_l = rank(x, *pair, rng)
    # [f] for minibatch = 1, 2, ... do
    for j in minibatches(comparisons, batch, epochs):
        # Bradley and Terry: sigma of the difference is the chance that y_w wins, so that this is
        # the cross-entropy of the rankings. Only differences count: r has no natural zero.
        # [g] minimize over phi: E[ -log sigma(r_phi(x, y_w) - r_phi(x, y_l)) ]
        loss = -logsigmoid(score(r, x[j], y_w[j]) - score(r, x[j], y_l[j])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_batch("2 reward model"):
            break
    return r


def ppo(
    sft: Transformer,
    r: Transformer,
    *,
    seed: int = 0,  # one seed, one result
    steps: int = 50_000,  # the budget in time steps, which are words
    beta: float = 0.5,  # weight of the KL penalty; with 0 nothing keeps the policy near pi_SFT
    n_outputs: int = 256,  # N, the prompts of an iteration, with one output each
    epochs: int = 2,  # K, how often an iteration goes through its outputs
    batch: int = 64,  # M, the outputs of a minibatch
    gae_lambda: float = 0.95,  # lambda of the advantage: 0 looks one word ahead, 1 to the end
    alpha: float = 6e-4,  # step size of Adam
    clip: float = 0.2,  # eps of the clipped surrogate
    on_batch: Callable[[str], bool] = lambda step: False,  # True ends the training
) -> tuple[Transformer, list[tuple]]:
    """Step 3. Returns the policy, and of each iteration (step, KL, score of r, true reward)."""
    torch.manual_seed(seed)
    policy, old, V = copy.deepcopy(sft), copy.deepcopy(sft), copy.deepcopy(r)
    optimizer = torch.optim.Adam([*policy.parameters(), *V.parameters()], lr=alpha, fused=True)
    returns, step = [], 0

    # [h] for iteration = 1, 2, ... do
    while step < steps:
        # [i] New prompts x are sampled
        x = sample_prompts(n_outputs)  # (N,)
        # [j] The policy pi_theta_old generates an output y for each
        y = generate(old, x)  # (N, T), and T is LENGTH
        mask = until_end(y)  # (N, T): behind the end no word was chosen, so none may count
        # [k] The reward model calculates a reward r(x, y)
        with torch.no_grad():  # r takes the environment's place and learns no more
            scores = score(r, x, y)  # (N,)
            # Constants for [o], each (N, T).
            log_pi_old, log_pi_sft = log_prob(old, x, y), log_prob(sft, x, y)
            values = V(before(x, y)).squeeze(-1) * mask  # 0 behind the end: nothing follows
        # Each word pays for its own part of the logarithm. On average the parts of a text add up to
        # KL[pi_theta_old, pi_SFT]. The score judges the whole text and comes with its last word.
        # [l] The sum of the rewards is r(x, y) - beta log(pi_theta_old(y|x) / pi_SFT(y|x))
        rewards = -beta * (log_pi_old - log_pi_sft) * mask
        rewards[torch.arange(n_outputs), mask.sum(1) - 1] += scores
        # As in ppo.py, with gamma = 1: a text is short, and a kind word late in it is as good.
        next_values = torch.cat([values[:, 1:], torch.zeros(n_outputs, 1)], 1)
        delta = rewards + next_values - values
        # [m] Compute advantage estimates A_1, ..., A_T (GAE, lambda)
        A, later = torch.zeros_like(delta), 0.0
        for t in reversed(range(LENGTH)):  # A_t = delta_t + lambda A_{t+1}
            A[:, t] = later = delta[:, t] + gae_lambda * later
        target = A + values  # what V should have said

        # [n] The reward updates the policy using PPO, with K epochs and minibatch size M
        for j in minibatches(n_outputs, batch, epochs):
            # 1 at the first step: there [o] has the plain policy gradient's gradient.
            ratio = (log_prob(policy, x[j], y[j]) - log_pi_old[j]).exp()  # (M, T)
            gain = torch.minimum(ratio * A[j], ratio.clamp(1 - clip, 1 + clip) * A[j])
            # Beyond 1 +- eps a word gains nothing more: this batch no longer describes the policy.
            # [o] maximize over theta: E_t[ min(r_t A_t, clip(r_t, 1-eps, 1+eps) A_t) ] with
            #     r_t = pi_theta(y_t|x, ...) / pi_theta_old(y_t|x, ...)
            L = gain[mask[j]].mean()
            # V learns beside the policy and shares no weight with it. Minus: Adam descends.
            errors = target[j] - V(before(x[j], y[j])).squeeze(-1)  # (M, T)
            loss = errors[mask[j]].square().mean() - L
            if not loss.isfinite():
                raise FloatingPointError(f"loss {loss.item()} at step {step}: try a smaller beta")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # [p] theta_old <- theta
        old.load_state_dict(policy.state_dict())

        # For our eyes only: neither the true reward nor the KL as a number enters the training.
        step += int(mask.sum())
        kl = ((log_pi_old - log_pi_sft) * mask).sum(1).mean().item()
        returns.append((step, kl, scores.mean().item(), true_reward(x, y).mean().item()))
        if on_batch(f"3 PPO with beta {beta:g}"):
            break
    return policy, returns


class Transformer(nn.Module):
    """pi(y_t|x, y_1, ..., y_{t-1}) with one output for each word; V or r with a single output."""

    def __init__(self, outputs: int, width: int = 64, layers: int = 2):
        super().__init__()
        self.word, self.place = nn.Embedding(len(WORDS), width), nn.Embedding(LENGTH + 1, width)
        options = dict(dim_feedforward=2 * width, dropout=0.0, batch_first=True, norm_first=True)
        layer, norm = nn.TransformerEncoderLayer(width, 2, **options), nn.LayerNorm(width)
        self.layers = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Words (batch, T) -> (batch, T, outputs); output t has read the words 0 to t."""
        T = words.shape[1]
        # Without the causal mask the network would read the word that it has to predict.
        causal = nn.Transformer.generate_square_subsequent_mask(T)
        h = self.word(words) + self.place.weight[:T]
        return self.head(self.layers(h, causal, is_causal=True))


def before(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What has been read when y_t is chosen, one word further on: x, y_1, ..., y_{T-1}; (N, T)."""
    return torch.cat([x[:, None], y[:, :-1]], 1)


def log_prob(policy: Transformer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """log pi(y_t|x, y_1, ..., y_{t-1}) of prompts (N,) and outputs (N, T); (N, T)."""
    return Categorical(logits=policy(before(x, y)), validate_args=False).log_prob(y)


def score(r: Transformer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """r(x, y), (N,): the sum over the words of y, each judged by what stands before it."""
    return (r(torch.cat([x[:, None], y], 1))[:, 1:, 0] * until_end(y)).sum(1)


def until_end(y: torch.Tensor) -> torch.Tensor:
    """Outputs (N, T) -> True for the words up to the first end, and for that one; (N, T)."""
    end = (y == END).int()
    return end.cumsum(1) == end


def generate(policy: Transformer, x: torch.Tensor) -> torch.Tensor:
    """Prompts (N,) -> outputs (N, T) drawn from the policy word by word, filled up with ends."""
    words = x[:, None]
    for _ in range(LENGTH):
        with torch.inference_mode():  # writing needs no gradient
            word = Categorical(logits=policy(words)[:, -1], validate_args=False).sample()
        words = torch.cat([words, word[:, None]], 1)
    return words[:, 1:].where(until_end(words[:, 1:]), END)


def minibatches(n: int, batch: int, epochs: int) -> list[torch.Tensor]:
    """Indices: every epoch goes through all n in another order."""
    return [j for _ in range(epochs) for j in torch.randperm(n).split(batch)]


# The language: "the brave cat helps the old dog ." has the word classes DANVDANE.
LENGTH, GRAMMAR = 10, "DA?A?NVDA?A?NE"  # A? is an adjective or none
CLASSES = dict(
    E=".",
    D="the",
    N="cat dog horse bird fish robot",  # a prompt is one of these: the topic
    A="gentle brave clever old young tall quiet small nasty stupid ugly",
    V="helps thanks praises sees meets follows hits mocks hates",
)
CLASS = {word: name for name, words in CLASSES.items() for word in words.split()}
WORDS = list(CLASS)
END, TOPICS = WORDS.index("."), [WORDS.index(word) for word in CLASSES["N"].split()]
KIND, CRUEL = "gentle brave clever helps thanks praises", "nasty stupid ugly hits mocks hates"


def sample_prompts(n: int) -> torch.Tensor:
    """n topics, (n,)."""
    return torch.tensor(TOPICS)[torch.randint(len(TOPICS), (n,))]


def demonstrate(topic: str, rng: np.random.Generator) -> list[int]:
    """The labeller writes a sentence with the topic in it, of kind, plain and cruel words alike."""
    phrases = [["D", *["A"] * rng.integers(3), "N"] for _ in range(2)]
    words = [str(rng.choice(CLASSES[name].split())) for name in [*phrases[0], "V", *phrases[1]]]
    if topic not in words:
        words[rng.choice([len(phrases[0]) - 1, len(words) - 1])] = topic
    return [WORDS.index(word) for word in words] + [END] * (LENGTH - len(words))


def true_reward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What the labeller really likes, (N,). No network sees it, only rankings made from it."""
    rewards = []
    for topic, words in zip(x, y, strict=True):
        words = sentence(words).split()
        telling = [word for word in words if CLASS[word] in "NAV"]
        points = sum((word in KIND.split()) - (word in CRUEL.split()) for word in words)
        points -= len(telling) - len(set(telling))  # repetitions
        points -= 2 * (WORDS[topic] not in words)
        points -= 2 * (re.fullmatch(GRAMMAR, "".join(CLASS[word] for word in words)) is None)
        rewards.append(2.0 * points)
    return torch.tensor(rewards)


def rank(x: torch.Tensor, y_1: torch.Tensor, y_2: torch.Tensor, rng: np.random.Generator) -> tuple:
    """The labeller prefers y_1 with the chance sigma(R_1 - R_2); returns y_w, y_l."""
    chance = torch.sigmoid(true_reward(x, y_1) - true_reward(x, y_2))
    first = (torch.from_numpy(rng.random(len(x))) < chance)[:, None]
    return y_1.where(first, y_2), y_2.where(first, y_1)


def sentence(words: torch.Tensor) -> str:
    """An output (T,) as text, up to its end."""
    return " ".join(WORDS[i] for i in words[until_end(words[None])[0]])


def main(argv: list[str] | None = None) -> int:
    """The command line: `python rlhf.py --help`. Returns the exit status."""
    from common import language

    return language.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    raise SystemExit(main())
