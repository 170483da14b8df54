"""Write docs/results.md and its three figures from the CSVs in docs/results/.

    python -m benchmark.table

The page's text is benchmark/results.md.jinja, the numbers come from here. Over seeds: the median,
and the 95 % bootstrap interval of the interquartile mean, as Agarwal et al. (2021) recommend for
few runs.
"""

import functools
import math
import sys
import tomllib
from types import SimpleNamespace

import jinja2
import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from benchmark import run
from common import plotting

PLAN = tomllib.loads((run.ROOT / "benchmark" / "plan.toml").read_text())
BLUE, ORANGE, GREEN, *_ = plotting.COLOURS
CSV = {path.stem: run.read(path) for path in run.RESULTS.glob("*.csv")}
OLD = ("solved", "median", "mean", "low", "high", "least", "most", "seconds")


def number(x: float) -> str:
    """1,234 or 12.3 or 0.71; nothing where there is no number."""
    if x is None or not math.isfinite(x):
        return ""
    digits = 0 if abs(x) >= 100 or x == round(x) else 1 if abs(x) >= 10 else 2
    return f"{round(x, digits) + 0:,.{digits}f}"


def middle(values: list[float]) -> tuple[float, float, float]:
    """The mean without the lowest and the highest quarter, and its 95 % interval."""
    mean = functools.partial(scipy.stats.trim_mean, proportiontocut=0.25)
    if len(set(values)) == 1 or not np.isfinite(values).all():
        return (values[0],) * 3 if len(set(values)) == 1 else (math.nan,) * 3
    how = dict(method="percentile", n_resamples=2_000, rng=0)
    interval = scipy.stats.bootstrap((values,), mean, **how).confidence_interval
    return float(mean(values)), float(interval.low), float(interval.high)


def measured(section: str, script: str, env: str, flags: str) -> SimpleNamespace | None:
    """What is known of all runs with these flags; None: there are none.

    Its values, by seed, are steps until solved (learn; infinite: never) or returns (zoo).
    """
    same = lambda line: (line["script"], line["env"], line["flags"]) == (script, env, flags)
    lines = sorted(filter(same, CSV[section]), key=lambda line: int(line["seed"]))
    column, none = {"learn": ("solved", "inf"), "zoo": ("return", "-inf")}[section]
    values = [float(line[column] or none) for line in lines]
    if values:
        found = SimpleNamespace(values=values, n=len(values), solved=sum(np.isfinite(values)))
        found.median, found.least, found.most = np.median(values), min(values), max(values)
        found.mean, found.low, found.high = middle(values)
        found.seconds = np.median([float(line["seconds"] or "nan") for line in lines])
        return found
    for line in filter(same, CSV["summaries"] if section == "learn" else ()):
        known = {name: float(line[name] or "nan") for name in OLD}  # not known seed by seed
        found = SimpleNamespace(values=[], n=int(line["seeds"]), **known)
        if 2 * found.solved < found.n:
            found.median = math.inf
        return found
    return None


def rows(section: str) -> list[SimpleNamespace]:
    """The plan's rows, each with what is measured of it."""
    found = []
    for plan in PLAN[section]:
        row = SimpleNamespace(**dict(off="", better="", peer="", reference=None, cleanrl=None) | plan)
        get = lambda script, flags, env=row.env: measured(section, script, env, flags)
        row.ours, row.sb3 = get(row.script, row.flags), get(row.peer, row.flags.split(" --no-")[0])
        row.tried, row.random = get(row.script, f"{row.flags} {row.better}"), get("random", "")
        row.literal = "--literal" in row.flags
        found.append(row)
    return found




def chart(labels: list[str], right: list[str], **settings):
    """A figure with a row for each label, and a text to the right of it."""
    fig = Figure(figsize=(8.5, 0.9 + 0.24 * len(labels)), layout="constrained")
    axes = fig.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set(ylim=(len(labels) - 0.4, -0.6), **settings)
    axes.grid(axis="y", lw=0.3)
    for y, text in enumerate(right):
        axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center")
    return fig, axes


def solved(found: SimpleNamespace) -> str:
    """7 of 10"""
    return f"{found.solved:.0f} of {found.n}"


def steps_figure(learn: list) -> bytes:
    """Figure 1: steps until solved, by default and to the letter."""
    shown = [row for row in learn if row.ours and (row.literal or not row.off)]
    scripts = list(dict.fromkeys(row.script for row in shown))
    shown.sort(key=lambda row: (scripts.index(row.script), row.literal))
    labels = [f"{r.script}.py{' --literal' * r.literal}   {r.env}" for r in shown]
    label, never = "environment steps until it is solved", 2e6
    right = [solved(row.ours) for row in shown]
    fig, axes = chart(labels, right, xscale="log", xlim=(4e3, 2.2e6), xlabel=label)
    for y, row in enumerate(shown):
        found, style = row.ours, dict(color=ORANGE if row.literal else BLUE)
        most = found.most if found.solved == found.n else never
        axes.plot([found.least, most], [y, y], lw=1, **style)
        axes.plot([found.low, found.high], [y, y], lw=7, alpha=0.35, **style)
        axes.plot(found.values, [y] * len(found.values), ".", ms=4, **style)
        centre = found.median if math.isnan(found.mean) else found.mean
        axes.plot(min(centre, never), y, "s" if row.literal else "o", ms=7, **style)
    axes.set_xticks([1e4, 1e5, 1e6, never], ["10,000", "100,000", "1,000,000   ", "   never"])
    return plotting.png(fig)


def departures_figure(learn: list) -> bytes:
    """Figure 2: what a departure buys, in steps and in seconds."""
    shown = [row for row in learn if row.ours and row.off]
    whole = {(r.script, r.env): r.ours for r in learn if r.ours and not (r.off or r.literal)}
    labels = [f"{row.script}.py without {row.off}   {row.env}" for row in shown]
    right, label, never = [solved(row.ours) for row in shown], "without it / with it", 16
    fig, axes = chart(labels, right, xscale="log", xlim=(0.5, 17), xlabel=label)
    axes.axvline(1, color="0.6", lw=1)
    axes.axvline(1.5, color="0.3", lw=1, ls="--")
    for y, row in enumerate(shown):
        default = whole[row.script, row.env]
        ratio = row.ours.seconds / default.seconds
        axes.plot(ratio, y, "s", color=ORANGE, mfc="none", ms=7)
        ratio = min(row.ours.median / default.median, never)
        axes.plot(ratio, y, ">" if ratio == never else "o", color=BLUE, ms=7)
    axes.plot([], [], "o", color=BLUE, label="steps until solved (median)")
    axes.plot([], [], "s", color=ORANGE, mfc="none", label="seconds, where they are known")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False)
    axes.set_xticks([0.5, 1, 1.5, 2, 3, 5, 10, never], "0.5 1 1.5 2 3 5 10 never".split())
    axes.minorticks_off()
    return plotting.png(fig)


def zoo_figure(zoo: list) -> bytes:
    """Figure 3: returns, 0 a random player's and 1 the reference."""
    shown = [row for row in zoo if row.ours and row.reference is not None]
    labels = [f"{row.script}.py   {row.env}" for row in shown]
    right = [number(row.ours.median) + f" of {number(row.reference)}" for row in shown]
    label = "return of the greedy policy: 0 a random player, 1 the reference"
    fig, axes = chart(labels, right, xlim=(-0.6, 1.3), xlabel=label)
    axes.axvline(1, color="0.3", lw=1, ls="--")
    for y, row in enumerate(shown):
        chance = row.random.median
        scaled = lambda x, r=row.reference, c=chance: np.clip((np.array(x) - c) / (r - c), -0.58, 1.28)
        axes.plot(scaled(row.ours.values), [y] * row.ours.n, "o", color=BLUE, ms=5, alpha=0.35, mew=0)
        axes.plot(scaled(row.ours.median), y, "|", color=BLUE, ms=14, mew=3)
        if row.sb3:
            axes.plot(scaled(row.sb3.median), y, "D", color=ORANGE, ms=6, mfc="none")
        if row.tried:
            axes.plot(scaled(row.tried.median), y, "^", color=GREEN, ms=7, mfc="none")
    axes.plot([], [], "o", color=BLUE, ms=5, alpha=0.35, mew=0, label="a seed")
    axes.plot([], [], "|", color=BLUE, ms=14, mew=3, label="median")
    axes.plot([], [], "^", color=GREEN, ms=7, mfc="none", label="with the flags of table 2")
    axes.plot([], [], "D", color=ORANGE, ms=6, mfc="none", label="SB3 here")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.08), ncols=4, frameon=False)
    return plotting.png(fig)
