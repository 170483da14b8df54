"""Everything around rlhf.py: flags, Ctrl-C, measuring what was learned, its picture, its files.

The other scripts have common/runs.py, which wants an environment and episodes. This one has a
language and three trainings, and takes from there the flags, the checks and the writing of files.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import signal
import sys
import time
from math import log
from pathlib import Path

import numpy as np
import torch
import tyro

from common import envs, plotting, runs
from common.envs import BadInput

PROMPTS = 2_000  # fresh prompts of an evaluation
BEST_OF = (1, 2, 4, 8, 16, 32, 64)
COLUMNS = ("beta", "step", "kl", "score", "true_reward")  # of returns.csv


def flags(
    *,
    out: Path | None = None,  # folder for returns.csv, returns.png, run.json and weights.pt;
    #                           default: runs/rlhf/seed<N>
    save: bool = True,  # --no-save writes nothing
    load: Path | None = None,  # no training: take what was saved in this folder, and evaluate it
):
    """The flags beside the keywords of train()."""


def main(script, argv: list[str] | None) -> int:
    """Run the script (the module rlhf), from its command line to the summary.

    Returns:
        The exit status: 0; 1: training diverged, or the disk is full; 2: bad input; 130: Ctrl-C.
    """
    try:
        return run(script, sys.argv[1:] if argv is None else argv)
    except (BadInput, FloatingPointError, MemoryError) as error:
        print(f"rlhf.py: {envs.first_line(error)}", file=sys.stderr)
        return getattr(error, "status", 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class Watch:
    """Says which of the steps is going on, and turns the first Ctrl-C into a request to stop."""

    def __init__(self):
        self.step, self.stop, self.start = "", False, time.perf_counter()

    def on_batch(self, step: str) -> bool:
        """The trainings call this after each minibatch or iteration. True ends them."""
        if step != self.step and not self.stop:
            print(f"{time.perf_counter() - self.start:5.0f} s  {step}", flush=True)
        self.step = step
        return self.stop

    def __enter__(self):
        def ask(*_):
            self.stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        self.before = signal.signal(signal.SIGINT, ask)
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start
        signal.signal(signal.SIGINT, self.before)


def run(script, argv: list[str]) -> int:
    """main() without its error messages."""
    fields = runs.fields(flags, {}) + runs.fields(script.train, {})
    text = " ".join(script.__doc__.split("\n\n")[1].split())
    Settings = dataclasses.make_dataclass("Settings", fields)
    given = tyro.cli(Settings, prog="rlhf.py", args=argv, description=text)
    hp = {name: getattr(given, name) for name, *_ in runs.fields(script.train, {})}
    runs.check_numbers(hp, "rlhf")
    if given.load:
        policy, sft, r = load(script, given.load)
        show(script, {"pi_SFT": sft, "PPO": policy}, r, hp["seed"])
        print(report(evaluate(script, policy, sft, r, hp["seed"])))
        return 0
    out, curves = given.out or Path("runs", "rlhf", f"seed{hp['seed']}"), {}
    if given.save:
        runs.write(out, {})  # whether it can be written shows now, not after the training
    with Watch() as watch:
        policy, sft, r, curves[hp["beta"]] = script.train(**hp, on_batch=watch.on_batch)
        policies = {"pi_SFT": sft, f"PPO, beta {hp['beta']:g}": policy}
        if hp["beta"] and not watch.stop:  # the same without the penalty, to compare
            budget = dict(seed=hp["seed"], steps=hp["steps"], on_batch=watch.on_batch)
            policies["PPO, beta 0"], curves[0.0] = script.ppo(sft, r, beta=0.0, **budget)
    show(script, policies, r, hp["seed"])
    measured = evaluate(script, policy, sft, r, hp["seed"])
    print(report(measured))
    if 0.0 in curves:
        print(f"without the penalty: {over_optimised(curves[0.0])}")
    print(f"{'interrupted after' if watch.stop else 'trained for'} {watch.seconds:.0f} s")
    if given.save:
        best = best_of_n(script, sft, r, hp["seed"])
        rows = [(beta, *row) for beta, curve in curves.items() for row in curve]
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
        settings = dict(script="rlhf", hyperparameters=hp, seconds=watch.seconds)
        settings |= dict(measured=measured, best_of_n=best)
        settings["versions"] = {m.__name__: str(m.__version__) for m in (np, torch)}
        weights = io.BytesIO()
        torch.save(torch.nn.ModuleList([policy, sft, r]).state_dict(), weights)
        files = {"run.json": (json.dumps(settings, indent=2) + "\n").encode()}
        files |= {"returns.csv": table.getvalue().encode(), "weights.pt": weights.getvalue()}
        files["returns.png"] = picture(curves, best, f"rlhf.py, seed {hp['seed']}")
        print("saved  " + "  ".join(runs.write(out, files)))
    return 130 if watch.stop else 0


def load(script, folder: Path) -> tuple:
    """Policy, supervised policy and reward model of a saved run. Nothing in it is executed."""
    words = len(script.WORDS)
    nets = script.Transformer(words), script.Transformer(words), script.Transformer(1)
    try:
        saved = json.loads((folder / "run.json").read_text())["script"]
        if saved != "rlhf":
            raise BadInput(f"{saved}.py saved it; {saved}.py --load {folder}")
        state = torch.load(folder / "weights.pt", weights_only=True)
        torch.nn.ModuleList(nets).load_state_dict(state)
    except Exception as error:
        why = envs.first_line(error)
        raise BadInput(f"--load {folder}: {why}; give a folder that --out wrote") from None
    return nets


def evaluate(script, policy, sft, r, seed: int) -> dict[str, float]:
    """What a real labeller would be asked and what only we can know, on fresh prompts."""
    torch.manual_seed(seed + 1_000_000)  # not the texts that it was trained on
    rng, x = np.random.default_rng(seed + 1_000_000), script.sample_prompts(PROMPTS)
    a, b, y = (script.generate(net, x) for net in (sft, sft, policy))
    a_true, b_true, y_true = (script.true_reward(x, texts) for texts in (a, b, y))
    with torch.no_grad():
        a_score, b_score, y_score = (script.score(r, x, texts) for texts in (a, b, y))
        ratio = script.log_prob(policy, x, y) - script.log_prob(sft, x, y)
    differ = a_true != b_true
    rightly = ((a_score > b_score) == (a_true > b_true))[differ]
    label = (script.rank(x, a, b, rng)[0] == a).all(1)
    measured = dict(
        accuracy=rightly,  # pairs of unlike true reward that r orders rightly
        labels=(a_score > b_score) == label,  # all pairs: r agrees with the labeller, who errs
        labeller=(label == (a_true > b_true))[differ],  # the labeller, on the pairs of `accuracy`
        win_rate=(y_true > a_true) + 0.5 * (y_true == a_true),  # over pi_SFT on the same prompt
        label_win_rate=torch.sigmoid(y_true - a_true),  # the same, if the labeller judges
        true_reward=y_true,
        sft_true_reward=a_true,
        score=y_score,
        sft_score=a_score,
        kl=(ratio * script.until_end(y)).sum(1),
    )
    return {name: values.float().mean().item() for name, values in measured.items()}


def report(m: dict[str, float]) -> str:
    """The measured numbers in words."""
    return (
        f"reward model: {m['accuracy']:.3f} of fresh pairs ranked rightly "
        f"(the labeller: {m['labeller']:.3f})\n"
        f"policy: win rate {m['win_rate']:.3f} over pi_SFT, KL {m['kl']:.2f}\n"
        f"true reward: {m['true_reward']:.2f} (pi_SFT: {m['sft_true_reward']:.2f}), "
        f"score of the reward model: {m['score']:.2f} ({m['sft_score']:.2f})"
    )


def over_optimised(curve: list[tuple]) -> str:
    """How the true reward came and went while the score went on rising."""
    peak = max(range(len(curve)), key=lambda i: curve[i][3])
    (_, _, first, begin), (_, _, then, top), (_, _, score, end) = curve[0], curve[peak], curve[-1]
    return (
        f"true reward from {begin:.2f} to {top:.2f} and then to {end:.2f}, "
        f"while the score went from {first:.2f} to {then:.2f} and to {score:.2f}"
    )


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
            with torch.no_grad():
                points = f"score {script.score(r, *one).item():5.1f}"
            points += f", true reward {script.true_reward(*one).item():5.1f}"
            print(f"    {name:<14} {points}   {script.sentence(texts[i])}")
    print()


def best_of_n(script, sft, r, seed: int, prompts: int = 64) -> list[tuple]:
    """Of n texts of pi_SFT take the one with the best score: (n, KL, score, true reward).

    No policy is trained. Its KL is log n - (n-1)/n at most.
    """
    torch.manual_seed(seed + 3_000_000)
    most, rows = BEST_OF[-1], []
    x = script.sample_prompts(prompts).repeat_interleave(most)
    y = script.generate(sft, x)
    with torch.no_grad():
        scores = script.score(r, x, y).view(prompts, most)
    true = script.true_reward(x, y).view(prompts, most)
    for n in BEST_OF:  # groups of n among the texts of a prompt
        score, best = scores.view(-1, n).max(1, keepdim=True)
        means = score.mean().item(), true.view(-1, n).gather(1, best).mean().item()
        rows.append((n, log(n) - (n - 1) / n, *means))
    return rows


def picture(curves: dict[float, list[tuple]], best: list[tuple], title: str) -> bytes:
    """Score (solid) and true reward (dashed) against the KL from pi_SFT, as PNG."""
    figure, axes = plotting._figure()
    lines = {f"PPO, beta {beta:g}": np.array(curve)[:, 1:] for beta, curve in curves.items()}
    lines["best of n"] = np.array(best)[:, 1:]
    for (label, rows), colour in zip(lines.items(), plotting.COLOURS, strict=False):
        kl, score, true = rows.T
        # A reward model has no zero of its own: the scores are moved to begin at the true reward.
        score = score - score[0] + true[0]
        style = dict(color=colour, marker="." if label == "best of n" else None)
        axes.plot(kl, score, "-", label=f"{label}: score", **style)
        axes.plot(kl, true, "--", label=f"{label}: true reward", **style)
    axes.set(title=title, xlabel="KL[policy, pi_SFT] (nats per text)", ylabel="reward")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    return plotting._png(figure)
