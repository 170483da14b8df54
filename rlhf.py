"""Reinforcement learning from human feedback (RLHF). Lecture part 5, "RLHF".

What people want from a text is hard to write down as a reward, but easy to judge. So a labeller
ranks outputs of a language model, a reward model r_phi(x, y) learns from the rankings, and PPO
trains the language model to earn that reward. The text is an episode: the state is the prompt x
with the words so far, the action is the next word y_t, and the reward comes with the last word. The
reward model is right only near the texts that it was trained on. A penalty for the distance from
the supervised policy pi_SFT keeps the new policy there.

Pseudocode ([1] to [3] are the slide's steps; [a] to [p] carry them out; Ouyang et al., 2022)

    [1] Collect demonstration data, and train a supervised policy
    [2] Collect comparison data, and train a reward model
    [3] Optimize a policy against the reward model using PPO

    Step [1], fine_tune()
    [a] A labeller demonstrates an output y for each prompt x
    [b] for minibatch = 1, 2, ... do
    [c]     minimize over theta: E_t[ -log pi_theta(y_t|x, y_1, ..., y_{t-1}) ]
    Step [2], reward_model()
    [d] A prompt x and two outputs of the supervised policy are sampled
    [e] A labeller ranks the outputs: y_w is better than y_l
    [f] for minibatch = 1, 2, ... do
    [g]     minimize over phi: E[ -log sigma(r_phi(x, y_w) - r_phi(x, y_l)) ]
    Step [3], ppo()
    [h] for iteration = 1, 2, ... do
    [i]     New prompts x are sampled
    [j]     The policy pi_theta_old generates an output y for each
    [k]     The reward model calculates a reward r_phi(x, y)
    [l]     The rewards add up to r_phi(x, y) - beta log(pi_theta_old(y|x) / pi_SFT(y|x))
    [m]     Compute advantage estimates A_1, ..., A_T (GAE, lambda)
    [n]     The reward updates the policy using PPO, with K epochs and minibatch size M
    [o]         maximize over theta: E_t[ min(ratio_t A_t, clip(ratio_t, 1-eps, 1+eps) A_t) ]
                with ratio_t = pi_theta(y_t|x, ...) / pi_theta_old(y_t|x, ...)
    [p]     theta_old <- theta

Where the slide is loose: it shows the three steps as pictures. The formulas are the paper's, and so
are three choices: the penalty is paid word by word, the reward model begins as the supervised
policy, and V begins as the reward model. Two distances are kept apart: the penalty in [l] is, on
average, beta KL[pi_theta_old, pi_SFT] and keeps the policy near the supervised one for the whole
training; the clip in [o] keeps it near pi_theta_old for one iteration, which is what the slide on
PPO has its KL for (ppo.py).

Beyond the slide

    The language has 28 words, one of them the full stop, and the labeller is a rule with random
        mistakes (common/language.py), so we can see what the reward model gets wrong. Two outputs
        are ranked; in the paper it is four to nine. A text without a full stop ends after T words.
    r_phi(x, y) is a sum over the words, where part t has read the words up to y_t, so every word
        takes part when r_phi is trained. PPO still gets the sum as one reward, with the last word.
    Adam; gamma = 1; V learns by the squared error beside [o], which has the paper's clip instead of
        the slide's KL. There is no pretraining (pi_SFT has read the demonstrations only), and no
        pretraining loss in [o].

Try

    python rlhf.py
    python rlhf.py --beta 2
    python rlhf.py --comparisons 500
    python rlhf.py --load runs/rlhf/seed0

The command line trains a second time, without the penalty (beta 0): there the true reward first
rises, from -2 to about 4, and then falls, while the score goes on rising.

References

    Ouyang et al., Training language models to follow instructions with human feedback, 2022.
    Stiennon et al., Learning to summarize from human feedback, 2020.
    Ziegler et al., Fine-Tuning Language Models from Human Preferences, 2019.
    Gao et al., Scaling Laws for Reward Model Overoptimization, 2022.
    Schulman et al., Proximal Policy Optimization Algorithms, 2017.
    Bradley and Terry, Rank Analysis of Incomplete Block Designs, 1952.
"""

import copy
import sys

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn.functional import logsigmoid

END = 0  # the number of the word that ends a text


def train(
    language,  # the labeller and the words: an object of common/language.py
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    steps: int = 50_000,  # words that ppo() generates, in whole iterations
    beta: float = 0.5,  # weight of the KL penalty; with 0 nothing keeps the policy near pi_SFT
    demonstrations: int = 6_000,  # how many sentences the labeller writes
    comparisons: int = 5_000,  # how many pairs of sentences the labeller ranks
    on_batch=None,  # called with the name of the part, 1 to 3; may return True to stop
) -> tuple["Transformer", "Transformer", "Transformer", list[tuple]]:
    """Returns the policy, pi_SFT, the reward model, and what ppo() has measured."""
    # [1] Collect demonstration data, and train a supervised policy
    # It learns to write sentences on a topic, kind and cruel ones alike.
    pi_sft = fine_tune(language, seed=seed, demonstrations=demonstrations, on_batch=on_batch)
    # [2] Collect comparison data, and train a reward model
    # It learns what the labeller likes; step [3] sees this model only, not the true reward.
    r_phi = reward_model(language, pi_sft, seed=seed, comparisons=comparisons, on_batch=on_batch)
    # [3] Optimize a policy against the reward model using PPO
    # The policy begins as the supervised one.
    policy, curve = ppo(
        language, pi_sft, r_phi, seed=seed, steps=steps, beta=beta, on_batch=on_batch
    )
    return policy, pi_sft, r_phi, curve


def fine_tune(
    language, *, seed=0, demonstrations=6_000, epochs=3, batch=64, alpha=3e-3, on_batch=None
) -> "Transformer":
    """Step [1]: from demonstrations, over which it passes `epochs` times, to pi_SFT."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # a second thread only costs time in small networks
    n_words = len(language.words)
    policy = Transformer(n_words, language.length, n_words)
    optimizer = torch.optim.Adam(policy.parameters(), lr=alpha, fused=True)
    # [a] A labeller demonstrates an output y for each prompt x
    # x: (demonstrations,), the number of a word; y: (demonstrations, T), padded with END.
    x = language.sample_prompts(demonstrations)
    y = language.demonstrate(x, np.random.default_rng(seed))
    # [b] for minibatch = 1, 2, ... do
    for j in minibatches(demonstrations, batch, epochs):
        # [c] minimize over theta: E_t[ -log pi_theta(y_t|x, y_1, ..., y_{t-1}) ]
        # One pass of the network gives the losses of all words. Padding does not count: no word
        # was chosen there.
        loss = -log_prob(policy, x[j], y[j])[until_end(y[j])].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_batch and on_batch("1 supervised policy"):
            break
    return policy


def reward_model(
    language, pi_sft, *, seed=0, comparisons=5_000, epochs=3, batch=64, alpha=2e-3, on_batch=None
) -> "Transformer":
    """Step [2]: from ranked pairs of outputs, `epochs` passes over them, to the reward model."""
    torch.manual_seed(seed)
    # A copy of the supervised policy knows the language; its last layer becomes a single output.
    r_phi = copy.deepcopy(pi_sft)
    r_phi.head = nn.Linear(r_phi.head.in_features, 1)
    optimizer = torch.optim.Adam(r_phi.parameters(), lr=alpha, fused=True)
    # [d] A prompt x and two outputs of the supervised policy are sampled
    #   (vectorised over comparisons)
    # x: (comparisons,); y_1, y_2: (comparisons, T).
    x = language.sample_prompts(comparisons)
    y_1 = generate(pi_sft, x, language.length)
    y_2 = generate(pi_sft, x, language.length)
    # [e] A labeller ranks the outputs: y_w is better than y_l (vectorised over comparisons)
    # Of two that are about as good either may win.
    y_w, y_l = language.rank(x, y_1, y_2, np.random.default_rng(seed))
    # [f] for minibatch = 1, 2, ... do
    for j in minibatches(comparisons, batch, epochs):
        # [g] minimize over phi: E[ -log sigma(r_phi(x, y_w) - r_phi(x, y_l)) ]
        # sigma, the logistic function, of the difference: the chance that y_w wins (Bradley-Terry).
        # Only outputs of one prompt are compared, so r_phi(x, .) is known up to a constant.
        score_w = score(r_phi, x[j], y_w[j])  # (batch,)
        score_l = score(r_phi, x[j], y_l[j])
        loss = -logsigmoid(score_w - score_l).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_batch and on_batch("2 reward model"):
            break
    return r_phi


def ppo(
    language,
    pi_sft: "Transformer",
    r_phi: "Transformer",
    *,
    seed: int = 0,
    steps: int = 50_000,  # words to generate, in whole iterations
    beta: float = 0.5,  # weight of the KL penalty; with 0 nothing keeps the policy near pi_SFT
    n_outputs: int = 256,  # N, the prompts of an iteration, with one output each
    epochs: int = 2,  # K, number of passes over the outputs
    batch: int = 64,  # M, the outputs of a minibatch
    gae_lambda: float = 0.95,  # lambda of the advantage: 0 looks one word ahead, 1 to the end
    alpha: float = 6e-4,  # step size of Adam
    clip: float = 0.2,  # eps of the clipped surrogate
    on_batch=None,
) -> tuple["Transformer", list[tuple]]:
    """Step [3]. Returns the policy, and (step, KL, score, true reward) of each iteration."""
    torch.manual_seed(seed)
    policy = copy.deepcopy(pi_sft)
    policy_old = copy.deepcopy(pi_sft)
    V = copy.deepcopy(r_phi)  # V begins as the reward model
    optimizer = torch.optim.Adam([*policy.parameters(), *V.parameters()], lr=alpha, fused=True)
    curve = []
    step = 0

    # [h] for iteration = 1, 2, ... do
    while step < steps:
        # [i] New prompts x are sampled
        x = language.sample_prompts(n_outputs)  # (N,)
        # [j] The policy pi_theta_old generates an output y for each
        # Positions after END are padding: no word was chosen there, so they do not count.
        y = generate(policy_old, x, language.length)  # (N, T)
        mask = until_end(y)  # (N, T)
        step += int(mask.sum())
        # [k] The reward model calculates a reward r_phi(x, y)
        # It replaces the environment, and is not trained further.
        scores = score(r_phi, x, y).detach()  # (N,); detach: [k] to [m] are constants for [o]
        # [l] The rewards add up to r_phi(x, y) - beta log(pi_theta_old(y|x) / pi_SFT(y|x))
        # Each word has its own part of the penalty. The score judges the whole text and comes
        # with its last word.
        log_pi_old = log_prob(policy_old, x, y).detach()  # (N, T)
        log_pi_sft = log_prob(pi_sft, x, y).detach()
        last = torch.arange(language.length) == mask.sum(1, keepdim=True) - 1  # (N, T), last word
        rewards = -beta * (log_pi_old - log_pi_sft) * mask + last * scores[:, None]
        # [m] Compute advantage estimates A_1, ..., A_T (GAE, lambda) (vectorised over outputs)
        # gae() wants time in rows: (N, T) -> (T, N) and back. gamma = 1, since a text is short.
        values = (V(before(x, y)).squeeze(-1) * mask).detach()  # (N, T), 0 after END
        next_values = torch.cat([values[:, 1:], torch.zeros(n_outputs, 1)], 1)
        end = last.float().T  # (T, N); a text ends in a terminal state, never in a time limit
        A = gae(rewards.T, values.T, next_values.T, end, end, 1.0, gae_lambda).T
        target = A + values  # the return that V should predict

        # [n] The reward updates the policy using PPO, with K epochs and minibatch size M
        for j in minibatches(n_outputs, batch, epochs):
            # [o] maximize over theta: E_t[ min(ratio_t A_t, clip(ratio_t, 1-eps, 1+eps) A_t) ]
            #   with ratio_t = pi_theta(y_t|x, ...) / pi_theta_old(y_t|x, ...)
            # Beyond 1 +- eps a word gains nothing more: theta stays near theta_old.
            ratio = (log_prob(policy, x[j], y[j]) - log_pi_old[j]).exp()  # (M, T)
            gain = torch.minimum(ratio * A[j], ratio.clamp(1 - clip, 1 + clip) * A[j])
            L = gain[mask[j]].mean()
            error = target[j] - V(before(x[j], y[j])).squeeze(-1)
            V_loss = error[mask[j]].square().mean()  # beyond the slide
            loss = V_loss - L  # minus: the optimiser descends, [o] climbs
            if not loss.isfinite():
                raise FloatingPointError(f"loss {loss:g} at step {step}: lower beta")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # [p] theta_old <- theta
        policy_old.load_state_dict(policy.state_dict())

        # For the report only: training never sees the true reward. kl is the penalty without beta.
        kl = ((log_pi_old - log_pi_sft) * mask).sum(1).mean().item()
        true_reward = language.true_reward(x, y).mean().item()
        curve.append((step, kl, scores.mean().item(), true_reward))
        if on_batch and on_batch(f"3 PPO with beta {beta:g}"):
            break
    return policy, curve


class Transformer(nn.Module):
    """pi(y_t|x, y_1, ..., y_{t-1}) with an output for each word; V or r_phi with a single one."""

    def __init__(self, n_words: int, length: int, outputs: int, width: int = 64, layers: int = 2):
        super().__init__()
        self.word = nn.Embedding(n_words, width)
        self.place = nn.Embedding(length + 1, width)
        options = dict(dim_feedforward=2 * width, dropout=0.0, batch_first=True, norm_first=True)
        layer = nn.TransformerEncoderLayer(width, 2, **options)
        norm = nn.LayerNorm(width)
        self.layers = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Words (batch, T) -> (batch, T, outputs); output t has read the words 0 to t."""
        T = words.shape[1]
        # Without the causal mask the network would read the word that it has to predict.
        causal = nn.Transformer.generate_square_subsequent_mask(T)
        h = self.word(words) + self.place.weight[:T]
        return self.head(self.layers(h, causal, is_causal=True))


def generate(policy: Transformer, x: torch.Tensor, length: int) -> torch.Tensor:
    """Prompts (N,) -> outputs (N, T), drawn from the policy word by word, padded with END."""
    words = x[:, None]
    for _ in range(length):
        with torch.inference_mode():
            word = Categorical(logits=policy(words)[:, -1], validate_args=False).sample()
        words = torch.cat([words, word[:, None]], 1)
    y = words[:, 1:]
    return y.where(until_end(y), END)  # words drawn after END are replaced


def before(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What the network reads to choose each word: x, y_1, ..., y_{T-1}; (N, T)."""
    return torch.cat([x[:, None], y[:, :-1]], 1)


def log_prob(policy: Transformer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """log pi(y_t|x, y_1, ..., y_{t-1}) of prompts (N,) and outputs (N, T); (N, T)."""
    return Categorical(logits=policy(before(x, y)), validate_args=False).log_prob(y)


def score(r_phi: Transformer, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """r_phi(x, y), (N,): a sum over the words of y; part t has read x, y_1, ..., y_t."""
    parts = r_phi(torch.cat([x[:, None], y], 1))[:, 1:, 0]  # (N, T)
    return (parts * until_end(y)).sum(1)


def until_end(y: torch.Tensor) -> torch.Tensor:
    """Outputs (N, T) -> (N, T): True for all words up to the first END, and for that one."""
    is_end = (y == END).int()  # for the words a b END END: 0 0 1 1
    return is_end.cumsum(1) - is_end == 0  # 0 0 0 1 == 0: all but the last one


def minibatches(n: int, batch: int, epochs: int) -> list[torch.Tensor]:
    """Indices: every epoch goes through all n in a new random order."""
    return [j for _ in range(epochs) for j in torch.randperm(n).split(batch)]


def gae(rewards, values, next_values, terminated, done, gamma: float, gae_lambda: float):
    """Advantages by generalised advantage estimation; arrays or tensors, (T, N) each.

    values are V(s_t), next_values V(s_{t+1}). delta_t = r_t + gamma V(s_{t+1}) - V(s_t) is the
    error of V in one step, and A_t = delta_t + gamma lambda A_{t+1} the discounted sum of this and
    all later errors. lambda = 0 has little variance but V's bias, lambda = 1 more variance and less
    bias. After a terminal state the value is 0, after a time limit V(s_{t+1}); both end the sum.
    """
    A = rewards + gamma * (1 - terminated) * next_values - values  # delta_t; the loop adds the rest
    for t in reversed(range(len(A) - 1)):
        A[t] += gamma * gae_lambda * (1 - done[t]) * A[t + 1]
    return A


def main(argv: list[str] | None = None) -> int:
    """The command line: `python rlhf.py --help`. Returns the exit status."""
    from common import language

    return language.main(sys.modules[__name__], argv)


if __name__ == "__main__":
    raise SystemExit(main())
