"""rlhf.py's environment, a language of 28 words with its labeller, and all that surrounds a run.

"the brave cat helps the old dog ." has the word classes DANVDANE. A prompt is a noun, the topic.
"""

import re
import time

import numpy as np
import torch

from common import plotting, runs

PROMPTS = 2_000  # fresh prompts of an evaluation
COLUMNS = ("beta", "step", "kl", "score", "true_reward")  # of returns.csv
REPORT = """reward model: {accuracy:.3f} of fresh pairs ranked rightly
policy (pi_SFT): win rate {win_rate:.3f}, KL {kl:.2f}, true reward {true_reward:.2f} \
({sft_true_reward:.2f}), score {score:.2f} ({sft_score:.2f})"""
CURVE = """PPO, beta {:g}: at its best true reward {:.2f}, score {:.2f};
    at the end true reward {:.2f}, score {:.2f}"""
GRAMMAR = "DA?A?NVDA?A?NE"  # of a sentence; A? is an adjective or none
CLASSES = {"E": ["."], "D": ["the"], "N": "cat dog horse bird fish robot".split()}
CLASSES["A"] = "gentle brave clever old young tall quiet small nasty stupid ugly".split()
CLASSES["V"] = "helps thanks praises sees meets follows hits mocks hates".split()
CLASS = {word: name for name, words in CLASSES.items() for word in words}
KIND, CRUEL = "gentle brave clever helps thanks praises", "nasty stupid ugly hits mocks hates"


class Language:
    """Words are numbers, texts are padded with the number of the full stop, which is 0.

    Attributes:
        words: the word of each number.
        length: T, how many words a text has at most.
    """

    words, length = list(CLASS), 10

    def sample_prompts(self, n: int) -> torch.Tensor:
        """n topics, (n,)."""
        topics = torch.tensor([self.words.index(word) for word in CLASSES["N"]])
        return topics[torch.randint(len(topics), (n,))]

    def demonstrate(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """The labeller writes a sentence on each topic, of kind, plain and cruel words alike.

        Topics (N,) -> texts (N, T).
        """
        texts = torch.zeros(len(x), self.length, dtype=torch.int64)
        for text, topic in zip(texts, x, strict=True):
            phrases = [["D", *["A"] * rng.integers(3), "N"] for _ in range(2)]
            classes = [*phrases[0], "V", *phrases[1]]
            words = [self.words.index(rng.choice(CLASSES[name])) for name in classes]
            if topic not in words:
                words[rng.choice([len(phrases[0]) - 1, -1])] = int(topic)  # one of the two nouns
            text[: len(words)] = torch.tensor(words)
        return texts

    def true_reward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the labeller really likes, (N,). No network sees it, only rankings made from it."""
        rewards = []
        for topic, text in zip(x, y, strict=True):
            words = self.sentence(text).split()
            telling = [word for word in words if CLASS[word] in "NAV"]
            points = sum((word in KIND.split()) - (word in CRUEL.split()) for word in words)
            points -= len(telling) - len(set(telling))  # repetitions
            points -= 2 * (self.words[topic] not in words)
            points -= 2 * (re.fullmatch(GRAMMAR, "".join(CLASS[word] for word in words)) is None)
            rewards.append(2.0 * points)  # 2: how sure the labeller is when he ranks
        return torch.tensor(rewards)

    def rank(self, x, y_1, y_2, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The labeller prefers y_1 with the chance sigma(R_1 - R_2); returns y_w, y_l."""
        chance = torch.sigmoid(self.true_reward(x, y_1) - self.true_reward(x, y_2))
        first = (torch.from_numpy(rng.random(len(x))) < chance)[:, None]
        return y_1.where(first, y_2), y_2.where(first, y_1)

    def sentence(self, text: torch.Tensor) -> str:
        """A text (T,) as words, up to its end."""
        words = [self.words[i] for i in text]
        return " ".join(words[: words.index(".") + 1] if "." in words else words)


# ------------------------------------------------------------------------------------ around a run


def main(script, argv: list[str] | None = None) -> int:
    """Run the script (the module rlhf), from its command line to the summary.

    Returns:
        The exit status: 0; 1: training diverged, or the disk is full; 2: bad input; 130: Ctrl-C.
    """
    return runs.explained("rlhf", lambda: run(script, argv))


class Watch:
    """Says which of the steps is going on; `stopped` ends it."""

    step, stopped = "", False

    def __call__(self, step: str) -> bool:
        """The trainings call this after each minibatch or iteration. True ends them."""
        if step != self.step and not self.stopped:
            runs.say(f"step {step}")
        self.step = step
        return self.stopped


def run(script, argv: list[str] | None) -> int:
    """main() without its error messages."""
    job = runs.Job("rlhf", script.train, argv, "load", "out", "save")
    job.choose_folder()
    language, watch, curves, policies = Language(), Watch(), {}, {}

    def save() -> None:
        rows = [(beta, *row) for beta, curve in curves.items() for row in curve]
        job.save([COLUMNS, *rows], [policy, sft, r])

    seed, beta, start = job.seed, job.hp["beta"], time.time()
    if job.flags.load:
        n = len(language.words)
        nets = [script.Transformer(n, language.length, outputs) for outputs in (n, n, 1)]
        policy, sft, r = job.filled(nets)
    else:
        with runs.ctrl_c(watch):
            policy, sft, r, curves[beta] = script.train(language, **job.hp, on_batch=watch)
            save()
            if beta and not watch.stopped:  # without the penalty, to compare
                same = dict(beta=0.0, seed=seed, steps=job.hp["steps"], on_batch=watch)
                policies["PPO, beta 0"], curves[0.0] = script.ppo(language, sft, r, **same)
                save()
        end = "interrupted after" if watch.stopped else "trained for"
        runs.say(f"{end} {time.time() - start:.0f} s" + f"\nsaved in {job.out}" * job.saves)
    show(script, language, {"pi_SFT": sft, f"PPO, beta {beta:g}": policy} | policies, r, seed)
    runs.say("\n" + REPORT.format(**evaluate(script, language, policy, sft, r, seed)))
    for beta, curve in curves.items():
        (*_, score, true), (*_, last_score, last) = max(curve, key=lambda row: row[3]), curve[-1]
        runs.say(CURVE.format(beta, true, score, last, last_score))
    job.save_picture(lambda: picture(curves, best_of_n(script, language, sft, r, seed), seed))
    return 130 if watch.stopped else 0


def evaluate(script, language, policy, sft, r, seed: int) -> dict[str, float]:
    """Measured with the true reward, on fresh prompts."""
    torch.manual_seed(seed + 1_000_000)  # not the texts that it was trained on
    x = language.sample_prompts(PROMPTS)
    texts = [script.generate(net, x, language.length) for net in (sft, sft, policy)]
    with torch.no_grad():
        a, b, y = (language.true_reward(x, text) for text in texts)
        a_score, b_score, y_score = (script.score(r, x, text) for text in texts)
        ratio = script.log_prob(policy, x, texts[2]) - script.log_prob(sft, x, texts[2])
    accuracy = ((a_score > b_score) == (a > b))[a != b]  # pairs that r orders rightly
    win_rate, kl = (y > a) + 0.5 * (y == a), (ratio * script.until_end(texts[2])).sum(1)
    found = dict(accuracy=accuracy, win_rate=win_rate, kl=kl, true_reward=y, sft_true_reward=a)
    found |= dict(score=y_score, sft_score=a_score)
    return {name: values.float().mean().item() for name, values in found.items()}


def show(script, language, policies: dict, r, seed: int, prompts: int = 3) -> None:
    """Print a sentence of each stage, with its score and its true reward."""
    torch.manual_seed(seed + 2_000_000)
    x = language.sample_prompts(prompts)
    stages = {"labeller": language.demonstrate(x, np.random.default_rng(seed))}
    stages |= {name: script.generate(p, x, language.length) for name, p in policies.items()}
    for i in range(prompts):
        runs.say(f"\nabout the {language.words[x[i]]}:")
        for name, texts in stages.items():
            one = x[i : i + 1], texts[i : i + 1]
            points = script.score(r, *one).item(), language.true_reward(*one).item()
            line = "    {:14} score {:5.1f}, true reward {:5.1f}   ".format(name, *points)
            runs.say(line + language.sentence(texts[i]))


def best_of_n(script, language, sft, r, seed: int, prompts=64, most=64) -> list[tuple]:
    """Of n texts of pi_SFT take the one with the best score: rows of (n, KL, score, true reward).

    No policy is trained. Its KL is log n - (n-1)/n at most.
    """
    torch.manual_seed(seed + 3_000_000)
    x, rows = language.sample_prompts(prompts).repeat_interleave(most), []
    y = script.generate(sft, x, language.length)
    with torch.no_grad():
        scores, true = script.score(r, x, y), language.true_reward(x, y)
    for n in [2**k for k in range(most.bit_length())]:  # groups of n among the texts of a prompt
        top, best = scores.view(-1, n).max(1, keepdim=True)
        chosen = true.view(-1, n).gather(1, best)
        rows.append((n, np.log(n) - (n - 1) / n, top.mean().item(), chosen.mean().item()))
    return rows


def picture(curves: dict[float, list[tuple]], best: list[tuple], seed: int) -> bytes:
    """Score (solid) and true reward (dashed) against the KL from pi_SFT, as PNG."""
    fig, axes = plotting.figure()
    lines = {f"PPO, beta {beta:g}": curve for beta, curve in curves.items()} | {"best of n": best}
    for (label, rows), colour in zip(lines.items(), plotting.COLOURS, strict=False):
        _, kl, score, true = np.array(rows).T
        shifted = score - score[0] + true[0]  # a reward model has no zero of its own
        axes.plot(kl, shifted, "-", color=colour, label=f"{label}: score, shifted to begin there")
        axes.plot(kl, true, "--", color=colour, label=f"{label}: true reward")
    labels = dict(xlabel="KL[policy, pi_SFT] (nats per text)", ylabel="reward")
    return plotting.finished(fig, axes, title=f"rlhf.py, seed {seed}", **labels)
