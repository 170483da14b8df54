"""Everything around rlhf.py: its flags, measuring what was learned, its picture.

The other scripts have common/runs.py, which wants an environment and episodes. This one has a
language and three trainings, and takes from there the flags, the checks, Ctrl-C and the files.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from math import log
from pathlib import Path

import numpy as np
import torch

from common import plotting, runs

PROMPTS = 2_000  # fresh prompts of an evaluation
COLUMNS = ("beta", "step", "kl", "score", "true_reward")  # of returns.csv
REPORT = """reward model: {accuracy:.3f} of fresh pairs ranked rightly
policy (pi_SFT): win rate {win_rate:.3f}, KL {kl:.2f}, true reward {true_reward:.2f} \
({sft_true_reward:.2f}), score {score:.2f} ({sft_score:.2f})"""


def main(script, argv: list[str] | None) -> int:
    """Run the script (the module rlhf), from its command line to the summary.

    Returns:
        The exit status: 0; 1: training diverged, or the disk is full; 2: bad input; 130: Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    return runs.explained("rlhf", lambda: run(script, argv))


class Watch:
    """Says which of the steps is going on; stop.value = 1 ends it."""

    def __init__(self):
        self.step, self.stop = "", multiprocessing.RawValue("b", 0)
        self.start = time.perf_counter()

    def on_batch(self, step: str) -> bool:
        """The trainings call this after each minibatch or iteration. True ends them."""
        if step != self.step and not self.stop.value:
            print(f"{time.perf_counter() - self.start:5.0f} s  {step}", flush=True)
        self.step = step
        return bool(self.stop.value)


def run(script, argv: list[str]) -> int:
    """main() without its error messages."""
    flags, hp = runs.parse(script.train, argv, "rlhf", (runs.Files,))
    runs.check_numbers(hp, "rlhf")
    seed, watch, curves, others = hp["seed"], Watch(), {}, {}
    out, saves = flags.out or Path("runs", "rlhf", f"seed{seed}"), flags.save and not flags.load
    if saves:
        runs.write(out, {})  # whether it can be written shows now, not after the training
    if flags.load:
        hp |= runs.saved_run(flags.load, "rlhf")["hyperparameters"]
        sizes = len(script.WORDS), len(script.WORDS), 1
        policy, sft, r = runs.load(flags.load, lambda: [script.Transformer(n) for n in sizes])
    else:
        with runs.ctrl_c_sets(watch.stop):
            policy, sft, r, curves[hp["beta"]] = script.train(**hp, on_batch=watch.on_batch)
            if hp["beta"] and not watch.stop.value:  # the same without the penalty, to compare
                budget = dict(seed=seed, steps=hp["steps"], on_batch=watch.on_batch)
                others["PPO, beta 0"], curves[0.0] = script.ppo(sft, r, beta=0.0, **budget)
    seconds = time.perf_counter() - watch.start
    show(script, {"pi_SFT": sft, f"PPO, beta {hp['beta']:g}": policy} | others, r, seed)
    measured = evaluate(script, policy, sft, r, seed)
    print(REPORT.format(**measured))
    for beta, curve in curves.items():
        best, (*_, score, true) = max(curve, key=lambda row: row[3]), curve[-1]
        print(f"PPO, beta {beta:g}: at its best true reward {best[3]:.2f}, score {best[2]:.2f};")
        print(f"    at the end true reward {true:.2f}, score {score:.2f}")
    if curves:
        print(f"{'interrupted after' if watch.stop.value else 'trained for'} {seconds:.0f} s")
    if saves:
        settings = dict(script="rlhf", hyperparameters=hp, seconds=seconds, measured=measured)
        rows = [(beta, *row) for beta, curve in curves.items() for row in curve]
        files = runs.packed(settings, [COLUMNS, *rows], [policy, sft, r])
        best = best_of_n(script, sft, r, seed)
        files["returns.png"] = picture(curves, best, f"rlhf.py, seed {seed}")
        runs.write(out, files)
    return 130 if watch.stop.value else 0


def evaluate(script, policy, sft, r, seed: int) -> dict[str, float]:
    """What only we can know, since we know the true reward, on fresh prompts."""
    torch.manual_seed(seed + 1_000_000)  # not the texts that it was trained on
    x = script.sample_prompts(PROMPTS)
    texts = [script.generate(net, x) for net in (sft, sft, policy)]
    with torch.no_grad():
        a_true, b_true, y_true = (script.true_reward(x, y) for y in texts)
        a_score, b_score, y_score = (script.score(r, x, y) for y in texts)
        ratio = script.log_prob(policy, x, texts[2]) - script.log_prob(sft, x, texts[2])
    rightly = (a_score > b_score) == (a_true > b_true)
    measured = dict(
        accuracy=rightly[a_true != b_true],  # pairs of unlike true reward that r orders rightly
        win_rate=(y_true > a_true) + 0.5 * (y_true == a_true),  # over pi_SFT on the same prompt
        true_reward=y_true,
        sft_true_reward=a_true,
        score=y_score,
        sft_score=a_score,
        kl=(ratio * script.until_end(texts[2])).sum(1),
    )
    return {name: values.float().mean().item() for name, values in measured.items()}


def show(script, policies: dict, r, seed: int, prompts: int = 3) -> None:
    """Print a sentence of each stage, with its score and its true reward."""
    torch.manual_seed(seed + 2_000_000)
    x, rng = script.sample_prompts(prompts), np.random.default_rng(seed)
    stages = {"labeller": torch.tensor([script.demonstrate(script.WORDS[i], rng) for i in x])}
    stages |= {name: script.generate(policy, x) for name, policy in policies.items()}
    for i in range(prompts):
        print(f"\nabout the {script.WORDS[x[i]]}:")
        for name, texts in stages.items():
            one = x[i : i + 1], texts[i : i + 1]
            points = f"score {script.score(r, *one).item():5.1f}"
            points += f", true reward {script.true_reward(*one).item():5.1f}"
            print(f"    {name:<14} {points}   {script.sentence(texts[i])}")
    print()


def best_of_n(script, sft, r, seed: int, prompts: int = 64, most: int = 64) -> list[tuple]:
    """Of n texts of pi_SFT take the one with the best score: rows of (n, KL, score, true reward).

    No policy is trained. Its KL is log n - (n-1)/n at most.
    """
    torch.manual_seed(seed + 3_000_000)
    x, rows = script.sample_prompts(prompts).repeat_interleave(most), []
    y = script.generate(sft, x)
    with torch.no_grad():
        scores, true = script.score(r, x, y), script.true_reward(x, y)
    for n in [2**k for k in range(most.bit_length())]:  # groups of n among the texts of a prompt
        top, best = scores.view(-1, n).max(1, keepdim=True)
        chosen = true.view(-1, n).gather(1, best)
        rows.append((n, log(n) - (n - 1) / n, top.mean().item(), chosen.mean().item()))
    return rows


def picture(curves: dict[float, list[tuple]], best: list[tuple], title: str) -> bytes:
    """Score (solid) and true reward (dashed) against the KL from pi_SFT, as PNG."""
    fig, axes = plotting.figure()
    lines = {f"PPO, beta {beta:g}": curve for beta, curve in curves.items()} | {"best of n": best}
    for (label, rows), colour in zip(lines.items(), plotting.COLOURS, strict=False):
        _, kl, score, true = np.array(rows).T
        # A reward model has no zero of its own: the scores are moved to begin at the true reward.
        axes.plot(kl, score - score[0] + true[0], "-", color=colour, label=f"{label}: score")
        axes.plot(kl, true, "--", color=colour, label=f"{label}: true reward")
    labels = dict(xlabel="KL[policy, pi_SFT] (nats per text)", ylabel="reward")
    return plotting.finished(fig, axes, title=title, **labels)
