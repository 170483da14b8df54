"""Write docs/results.md and its three figures from the CSVs in docs/results/.

    python -m benchmark.table

The page's text is benchmark/results.md.jinja, the numbers come from here. Over seeds: the median,
and the 95 % bootstrap interval of the interquartile mean, as Agarwal et al. (2021) recommend for
few runs.
"""

import io
from types import SimpleNamespace

import jinja2
import numpy as np
import scipy.stats
from PIL import Image

from benchmark import run
from common import plotting

CSV = {path.stem: run.read(path) for path in run.RESULTS.glob("*.csv")}
OLD = ("solved", "median", "mean", "low", "high", "least", "most", "seconds")
BLUE, ORANGE, GREEN, *_ = plotting.COLOURS
MEDIAN = dict(marker="|", color=BLUE, ms=14, mew=3)
DOT, SQUARE = dict(color=BLUE, marker="o"), dict(color=ORANGE, marker="s")
SEED = dict(marker="o", color=BLUE, alpha=0.4, mew=0)
SB3, TRIED = [dict(marker=m, color=c, mfc="none") for m, c in (("D", ORANGE), ("^", GREEN))]


def number(x: float | None) -> str:
    """1,234 or 12.3 or 0.71; nothing where there is no number."""
    if x is None or not np.isfinite(x):
        return ""
    digits = 0 if abs(x) >= 100 or x == round(x) else 1 if abs(x) >= 10 else 2
    return f"{round(x, digits) + 0:,.{digits}f}"


def middle(values: list[float]) -> tuple[float, float, float]:
    """The mean without the lowest and the highest quarter, and its 95 % bootstrap interval."""
    if not np.isfinite(values).all():
        return np.nan, np.nan, np.nan
    drawn = np.random.default_rng(0).choice(values, (2_000, len(values)))
    means = scipy.stats.trim_mean(drawn, 0.25, axis=1)
    return scipy.stats.trim_mean(values, 0.25), *np.percentile(means, (2.5, 97.5))


def measured(section: str, script: str, env: str, flags: str) -> SimpleNamespace | None:
    """What is known of all runs with these flags; None: there are none.

    Its values, by seed, are steps until solved (learn; infinite: never) or returns (zoo).
    """
    same = lambda line: (line["script"], line["env"], line["flags"]) == (script, env, flags)
    lines = sorted(filter(same, CSV[section]), key=lambda line: int(line["seed"]))
    column, none = {"learn": ("solved", "inf"), "zoo": ("return", "-inf")}[section]
    if lines:
        values = [float(line[column] or none) for line in lines]
        mean, low, high = middle(values)
        found = dict(median=np.median(values), mean=mean, low=low, high=high)
        found |= dict(least=min(values), most=max(values), solved=np.isfinite(values).sum())
        found["seconds"] = np.median([float(line["seconds"] or "nan") for line in lines])
        return SimpleNamespace(values=values, n=len(values), **found)
    for line in filter(same, CSV["summaries"]):  # older runs, not known seed by seed
        found = {name: float(line[name] or "nan") for name in OLD}  # NaN: too few have solved it
        return SimpleNamespace(values=[], n=int(line["seeds"]), **found)
    return None


def rows(section: str) -> list[SimpleNamespace]:
    """The plan's rows, each with what is measured of it."""
    found = []
    none = dict.fromkeys(("off", "saves", "better", "cleanrl", "reference", "sb3", "tried"))
    for row in run.PLAN[section]:
        beside = run.beside(row).items()
        row = row | {k: measured(section, s, row["env"], flags) for k, (s, flags, _) in beside}
        found.append(SimpleNamespace(**none | row, literal="--literal" in row["flags"]))
    order = [row.script for row in found]
    return sorted(found, key=lambda row: order.index(row.script))


def solved(found: SimpleNamespace) -> str:
    """7 of 10"""
    return f"{found.solved:.0f} of {found.n}"


def chart(shown: list, label: str, right: list[str], legend: dict[str, dict], **settings):
    """A figure with a line for each row, and a text to the right of it; returns its axes."""
    figure, axes = plotting.figure(8.5, 1.1 + 0.24 * len(shown))
    axes.set_yticks(range(len(shown)), [label.format(**vars(row)) for row in shown])
    axes.set(ylim=(len(shown) - 0.4, -0.6), **settings)
    axes.grid(axis="y", lw=0.3)
    for y, text in enumerate(right):
        axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center")
    for name, style in legend.items():
        axes.plot([], [], ls="", label=name, **style)
    figure.legend(loc="outside upper center", ncols=len(legend), frameon=False)
    return axes


def steps():
    """Figure 1: steps until solved, by default and to the letter."""
    shown = [row for row in rows("learn") if row.ours and (row.literal or not row.off)]
    tasks = [(row.script, row.env) for row in shown]
    shown.sort(key=lambda row: tasks.index((row.script, row.env)))  # --literal below the default
    never, texts = 2e6, [solved(row.ours) for row in shown]  # np.fmin: also instead of NaN
    x = dict(xscale="log", xlim=(4e3, 2.2e6), xlabel="environment steps until it is solved")
    axes = chart(shown, "{script}.py   {env}", texts, {"default": DOT, "--literal": SQUARE}, **x)
    for y, row in enumerate(shown):
        found, style = row.ours, SQUARE if row.literal else DOT
        line = dict(color=style["color"], solid_capstyle="butt")
        axes.plot([found.least, np.fmin(found.most, never)], [y, y], lw=1, **line)
        axes.plot([found.low, found.high], [y, y], lw=7, alpha=0.35, **line)
        centre = found.median if np.isnan(found.mean) else found.mean
        axes.plot(np.fmin(centre, never), y, ms=7, **style)
    axes.set_xticks([1e4, 1e5, 1e6, never], ["10,000", "100,000", "1,000,000   ", "   never"])
    return axes.figure


def departures():
    """Figure 2: what a departure buys, in steps or in seconds."""
    shown = [row for row in rows("learn") if row.ours and row.off]
    default = {(r.script, r.env): r.ours for r in rows("learn") if not (r.off or r.literal)}
    never, texts, styles = 16, [solved(r.ours) for r in shown], dict(steps=DOT, seconds=SQUARE)
    x = dict(xscale="log", xlim=(0.5, 17.5), xlabel="until solved: without it / with it (medians)")
    axes = chart(shown, "{script}.py without {off}   {env}", texts, styles, **x)
    for x, dashes in ((1, "-"), (1.5, "--")):
        axes.axvline(x, color="0.5", lw=1, ls=dashes)
    for y, row in enumerate(shown):
        without, whole = row.ours, default[row.script, row.env]
        axes.plot(np.fmin(without.median / whole.median, never), y, ms=7, **DOT)
        if row.saves:
            axes.plot(without.seconds / whole.seconds, y, ms=7, **SQUARE)
    axes.set_xticks([0.5, 1, 1.5, 2, 3, 5, 10, never], "0.5 1 1.5 2 3 5 10 never".split())
    axes.minorticks_off()
    return axes.figure


def zoo():
    """Figure 3: returns; 0 is a random player's and 1 the reference."""
    shown = [row for row in rows("zoo") if row.ours and row.reference is not None]
    texts = [f"{number(row.ours.median)} of {number(row.reference)}" for row in shown]
    styles = {"one seed": SEED, "median": MEDIAN, "with other flags": TRIED, "SB3 here": SB3}
    x = dict(xlim=(-0.6, 1.3), xlabel="return: 0 a random player's, 1 the reference")
    axes = chart(shown, "{script}.py   {env}", texts, styles, **x)
    axes.axvline(1, color="0.5", lw=1, ls="--")
    for y, row in enumerate(shown):
        chance, marks = row.random.median, [(row.ours.values, SEED)]
        others = (row.ours, MEDIAN), (row.sb3, SB3), (row.tried, TRIED)
        for values, style in marks + [([found.median], style) for found, style in others if found]:
            x = np.clip((np.array(values) - chance) / (row.reference - chance), -0.58, 1.28)
            axes.plot(x, [y] * len(x), ls="", **style)
    return axes.figure


def page() -> str:
    """The text of docs/results.md."""
    how = dict(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, **how)
    environment.filters |= dict(n=number, solved=solved)
    template = environment.from_string((run.ROOT / "benchmark/results.md.jinja").read_text())
    learned, returns = rows("learn"), rows("zoo")
    at = lambda script, env: next(r for r in returns if (r.script, r.env) == (script, env))
    return template.render(learn=learned, zoo=returns, at=at, measured=measured, csv=CSV)


def main() -> None:
    """Write the page and its figures."""
    for draw in (steps, departures, zoo):
        image = Image.open(io.BytesIO(plotting.png(draw()))).convert("RGB")
        image.quantize(64).save(run.RESULTS / f"{draw.__name__}.png", optimize=True)
    (run.RESULTS.parent / "results.md").write_text(page())


if __name__ == "__main__":
    main()
