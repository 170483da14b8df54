"""Write the pages in docs/html/: the slide, the code, and a recorded run to step through.

    python -m pip install -r docs/requirements.txt
    python -m tools.pages             writes the pages; records the runs of changed scripts
    python -m tools.pages dqn ppo     records the runs of these scripts anew, too

Everything on a page is taken from its script, and from tools/runs.toml, which describes the
recorded runs. A record is up to date if it was made from the script's code, as it is without
comments, and from its part of runs.toml.
"""

import contextlib
import hashlib
import html
import json
import re
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor

import jinja2
import numpy as np
import torch
from pygments import formatters, highlight, lexers

from common import envs, language, plotting, runs
from tools import slide, step

PAGES, TOOLS = slide.ROOT / "docs/html", slide.ROOT / "tools"
PLANS = tomllib.loads((TOOLS / "runs.toml").read_text(encoding="utf-8"))

# --------------------------------------------------------------------------------------- formulas

GREEK = dict(alpha="α", beta="β", gamma="γ", delta="δ", epsilon="ε", eps="ε", theta="θ", phi="φ")
GREEK |= dict(pi="π", mu="μ", tau="τ", sigma="σ", Delta="Δ", grad="∇", sum="Σ") | {"lambda": "λ"}
MARKS = {"&lt;-": "←", "-&gt;": "→", "&lt;=": "≤", "&gt;=": "≥", " * ": " · ", " - ": " − "}
MARKS |= {" ~ ": " ∼ ", "^2": "²", "...": "…", "-": "−"}
# A_ is an advantage, A an action.
COLOURS = dict(r="r", R="r", Q="q", V="q", y="y", v="y", A_="y", delta="y", pi="p", mu="p")
COLOURS |= dict(theta="w", phi="w", ratio="p")
PRIMES = r"(?:'(?![a-z]))*"
SCRIPT = rf"[_^](?:\{{[^{{}}]*\}}|[A-Za-z0-9]+(?:[_^][A-Za-z0-9]+)*{PRIMES})"
FORMULA = re.compile(
    r"(`[^`]+`|--[a-z][\w-]*)|(?<!\w)\[(\d+|[a-z])\]"  # code, a flag, a line's tag
    r"|(?:^|(?<=[ (]))a(?= (?!in )[A-Za-z])|(?:^|(?<=\. ))A(?= (?!in )[A-Za-z])"  # an article
    rf"|(?<![\w'&.])({'|'.join(GREEK)}|max|min|argmax|ratio|[A-Za-z])({PRIMES})((?:{SCRIPT})*)"
    rf"(?!\w|\.\w)|(?:{'|'.join(map(re.escape, [*MARKS][:-1]))})"
    r"|(?<![A-Za-z][A-Za-z])-(?=\d|log|beta)|(?<=1)-(?=[a-z])"
)


def typeset(text: str) -> str:
    """HTML of a line of text: `y_j = r_j + gamma max_a' Q` with Greek letters and subscripts."""
    return FORMULA.sub(_typeset, html.escape(text, quote=False))


def _typeset(match: re.Match) -> str:
    code, tag, name, primes, scripts = match.groups()
    if code:
        return f"<code>{code.strip('`')}</code>"
    if tag:
        return f'<a href="#{tag}">[{tag}]</a>'
    if not name or name in ("sum", "ratio") and not primes + scripts:
        return MARKS.get(match[0], match[0])
    letter = GREEK.get(name, name) + "′" * len(primes)
    if name not in ("max", "min", "argmax"):
        colour = COLOURS.get(name + "_" * bool(scripts), COLOURS.get(name))
        letter = f'<i class="{colour}">{letter}</i>' if colour else f"<i>{letter}</i>"
    for script in re.findall(SCRIPT, scripts):
        inner = re.sub(' class="[rqyp]"', "", typeset(script[1:].strip("{}")))
        where = "sub" if script[0] == "_" else "sup"
        letter += "²" if script == "^2" else f"<{where}>{inner}</{where}>"
    return letter


NUMBER = r"\d[\d.]*(?:e[-+]?\d+)?"
ROUNDED = re.compile(rf"(.*= )?(.+) ~ (-?{NUMBER})")
CALCULATOR = dict(max=max, min=min, exp=np.exp, log=np.log, sigma=lambda x: 1 / (1 + np.exp(-x)))


def settled(match: re.Match) -> str:
    """`text = calculation ~ result` with the sign that it deserves: = or, if it is rounded, ≈.

    Calculation and result are put between ⟦ and ⟧.
    """
    calculation = re.sub(rf"(?<=[-+*] )-{NUMBER}", r"(\g<0>)", match[2])
    error = abs(eval(calculation.replace("^", "**"), CALCULATOR) - float(match[3]))
    return f"{match[1] or ''}⟦{calculation}⟧ {'=' if error < 1e-9 else '≈'} ⟦{match[3]}⟧"


def worked(text: str) -> str:
    """A stop's formula as HTML; calculation and result can be told apart."""
    lines = (f"<div>{typeset(line)}</div>" for line in ROUNDED.sub(settled, text).split("\n"))
    return re.sub("⟦(.*?)⟧(.*?)⟦(.*?)⟧", r'<span class="sum">\1</span>\2<b>\3</b>', "".join(lines))


# ---------------------------------------------------------------------------------------- records


def cells(values, labels: str = "", me=(), columns: int = 0) -> str:
    """A strip of coloured cells: blue above 0, orange below; `me` are outlined.

    `labels` is a format, or a list of words; values beyond the last word are left out.
    """
    values, me = [float(v) for v in np.ravel(values)], np.ravel(me)
    words = [labels.format(v) for v in values] if isinstance(labels, str) else labels
    most, marks = max([1e-9, *map(abs, values)]), []
    for i, (value, word) in enumerate(zip(values, words, strict=False)):
        kind = ("u" if value > 0 else "d") + " me" * (i in me)
        marks.append(f'<i class="{kind}" style="--v:{100 * abs(value) / most:.0f}">{word}</i>')
    columns = columns or (32 if len(marks) > 64 else 16)
    return f'<div class="cells" style="--n:{columns}">{"".join(marks)}</div>'


def curve(rows: list[tuple[int, float]]) -> list[tuple[int, str]]:
    """Means of the last ten of (step, value), at about 150 steps."""
    steps, values = zip(*rows, strict=True)
    means = map(float, map(step.number, plotting.running_mean(values, 10)))
    return list(zip(steps, means, strict=True))[:: -max(1, len(rows) // 150)][::-1]


class Recorder(step.Tracer):
    """A short run of a script, as its page shows it; runs.toml describes it.

    Attributes:
        stops: for each line that is kept: tag, step, scene, statements, numbers of strings.
        strings: what the page shows -> its number.
        scenes: their titles, and the stops at which they begin.
        asked: question -> the first stop that answers it.
    """

    def __init__(self, name: str):
        path, plan = slide.ROOT / f"{name}.py", PLANS["defaults"] | PLANS[name]
        super().__init__(path, self.take, self.pause, plan["whole"])
        self.plan, self.module, self.world = plan, step.load(path), PLANS["worlds"][plan["world"]]
        self.module.in_processes = self.in_threads
        self.stops, self.scenes, self.strip = [], [], ("", "")
        self.strings, self.asked, self.about, self.rounds = {}, {}, {}, 0
        self.ahead, self.turn = [*plan["scenes"], dict(after=np.inf)], threading.Condition()
        self.space = vars(self.module) | dict(fill=self.fill, show=self.world, cells=cells, k=1)
        self.space |= dict(num=step.number, np=np, torch=torch, who=plan["who"], env=None)
        self.let(PLANS["names"] | plan["let"].get("first", {}))

    def fill(self, template: str | list, **names) -> str:
        """A template with its values."""
        self.space |= names
        if isinstance(template, str):
            return eval(f"f'''{template} '''", self.space)[:-1]
        found = [self.fill(template[1], i=i) for i in eval(template[0], self.space)]
        return "\n".join(found or map(self.fill, template[2:]))

    def let(self, table: dict) -> None:
        """Computes names of runs.toml."""
        for name, expression in table.items():
            self.space[name] = eval(expression, self.space)

    def pause(self, now: int) -> bool:
        """Of several workers another one may go on; after the last scene none.

        Returns whether to look at the lines from this step on.
        """
        with contextlib.suppress(RuntimeError):  # it is nobody's turn: there are no workers
            self.turn.wait(np.random.random() * 1e-3)
        if not self.ahead[1:] and self.envs:
            raise step.Enough
        return now >= self.ahead[0]["after"]

    @torch.no_grad()
    def take(self, stop: step.Stop) -> None:
        """Take a stop, if a scene is going on."""
        scene, space, plan = self.ahead[0], self.space, self.plan
        space |= {f"old_{name}": value for name, value in stop.old.items()}
        space |= stop.new | dict(stop=stop, tag=stop.tag)
        if stop.new.get("env") not in self.envs:
            space["env"] = self.envs[plan["who"]] if self.envs else None
        here = stop.tag and stop.step >= scene["after"]
        if here and (self.rounds or eval(scene.get("starts", "True"), space)):
            if not self.rounds:
                self.scenes.append((scene["title"], len(self.stops)))
                self.rounds, self.strip = scene["n"], ("", "")
            self.let(plan["let"].get(stop.tag, {}))
            if eval(plan["keep"], space):
                self.describe(stop, space["env"])
            self.rounds -= bool(eval(scene["ends"], space))
            if not self.rounds:
                self.ahead.pop(0)
        self.pause(stop.step)

    def describe(self, stop: step.Stop, env: step.Watched | None) -> None:
        """What the page shows at a stop."""
        plan, space, card, words = self.plan, self.space, {}, self.space["words"]
        formula = self.fill(plan["lines"][stop.tag])
        with contextlib.suppress(NameError):  # nothing has been made yet
            space["k"] = eval(plan["k"], space)
        title, picture = self.fill(plan["title"]), self.fill(plan["picture"])
        about = self.about.setdefault((len(self.scenes), title), {})
        about |= {k: self.fill(v) for k, v in plan["about"].get(stop.tag, {}).items()}
        if env:
            for s, a, r, s_next, end in env.past[space["k"] - 1 : space["k"]]:
                card = {"s": words(s), "a": space["deed"](a), "r": step.number(r)}
                card["s'"] = words(s_next) + f", {end}" * bool(end)
            if len(env.past) == space["k"] - 1:
                card = {"s": words(env.state)}
            self.let(self.world["let"])
            picture = self.fill(self.world["picture"])
        if shown := plan["strip"].get(stop.tag, plan["strip"].get("")):
            self.strip = typeset(shown[0]), self.fill(shown[1])
        facts = (card | about).items()
        facts = "".join(f"<dt>{typeset(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts)
        shown = worked(formula), step.place(stop.step, env), title, facts, *self.strip, picture
        new = [stop.tag, stop.step, len(self.scenes) - 1, [ran.number for ran in stop.ran]]
        new += [self.strings.setdefault(string, len(self.strings)) for string in shown]
        if self.stops and new[::2][:3] == self.stops[-1][::2][:3]:  # tag, scene and formula
            self.stops.pop()  # the end of a loop says the same once more
        asked = [text for text, tag, part in plan["ask"] if tag == stop.tag and part in formula]
        self.asked = dict.fromkeys(asked, len(self.stops)) | self.asked
        self.stops.append(new)

    def in_threads(self, workers: int, report, settings: dict) -> None:
        """Takes the place of a3c.in_processes(): one worker at a time goes on, by chance."""

        def run(rank: int) -> None:
            with self.turn, contextlib.suppress(step.Enough):
                sys.settrace(self.trace)
                self.module.worker(rank, report=report, **settings)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, range(workers)))

    def record(self) -> dict:
        """Train until the last scene is over. Returns what the page needs."""
        train, plan, settings, rows = self.module.train, self.plan, self.plan["settings"], []
        make = lambda: envs.make(plan["env"], plan["table"], **plan["options"])
        # In a table's world each way to the treasure brings as much.
        ended = lambda total, length, now: rows.append((now, length if plan["table"] else total))
        with contextlib.suppress(step.Enough), self:
            if plan["env"]:
                first = make if "make_env" in train.__code__.co_varnames else make()
                train(first, on_episode=ended, **settings)
            else:
                rows += [(row[0], row[3]) for row in train(language.Language(), **settings)[-1]]
        shown = "episode lengths" if plan["table"] else "returns" if plan["env"] else "true rewards"
        run = dict(stops=self.stops, strings=list(self.strings), scenes=self.scenes)
        run["spark"] = dict(lines=[curve(sorted(rows))], text=shown)
        run["ask"] = [[typeset(text), self.asked[text], tag] for text, tag, _ in plan["ask"]]
        run["settings"] = {"env": plan["env"] or "language"} | plan["options"] | settings
        return run | dict(update=plan["update"], sources=made_of(self.module.__name__))


def made_of(name: str) -> list[str]:
    """What a record depends on: the script's code without comments, and the plan of the run."""
    rows = (slide.ROOT / f"{name}.py").read_text(encoding="utf-8").split('"""', 2)[2].splitlines()
    code = [row.split("  # ")[0].rstrip() for row in rows if not row.lstrip().startswith("#")]
    plan = {k: v for k, v in PLANS.items() if k == name or k not in slide.SCRIPTS}
    texts = "\n".join(filter(None, code)), json.dumps(plan, sort_keys=True)
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def stored(name: str) -> dict | None:
    """The record of a run, if it is up to date."""
    text = (PAGES / f"{name}.run.js").read_text(encoding="utf-8")
    run = json.loads(text.removeprefix("const RUN = ").rstrip(";\n"))
    return run if run["sources"] == made_of(name) else None


# ------------------------------------------------------------------------------------------ pages


def rows_of(script: slide.Script) -> list[tuple]:
    """Each row below the docstring: its number, numbered line, statement and HTML."""
    text = highlight(script.source, lexers.PythonLexer(), formatters.HtmlFormatter(nowrap=True))
    text = re.sub("^((?:<[^>]*>)*)( +)", r'\1<span class="in">\2</span>', text, flags=re.M)
    tags = {row: tag for tag in script.tags for row in range(tag.row, tag.body.stop)}
    rows, ran = enumerate(text.splitlines(), 1), step.statements(script)
    end = script.source.split('"""')[1].count("\n") + 1
    return [(row, tags.get(row), ran.get(row), line) for row, line in rows if row > end]


def rendered() -> dict[str, str]:
    """All pages, from the records that are there."""
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.filters |= dict(typeset=typeset, rows_of=rows_of)
    page = env.from_string((TOOLS / "page.html.jinja").read_text(encoding="utf-8"))
    scripts = {name: slide.read(slide.ROOT / f"{name}.py") for name in slide.SCRIPTS}
    given = dict(scripts=scripts, runs={name: stored(name) for name in scripts})
    return {name: page.render(name=name, **given) for name in ("index", *scripts)}


def main(argv: list[str]) -> None:
    """Record the scripts that have changed, and those that are named; write all pages."""
    if other := {*argv} - {*slide.SCRIPTS}:
        raise runs.BadInput(f"{' '.join(other)}: there is a page for each of {slide.SCRIPTS}")
    for name in slide.SCRIPTS:
        if name in argv or not stored(name):
            print(f"recording {name}.py", flush=True)
            text = json.dumps(Recorder(name).record(), ensure_ascii=False, separators=(",", ":"))
            (PAGES / f"{name}.run.js").write_text(f"const RUN = {text};\n", encoding="utf-8")
    for name, page in rendered().items():
        (PAGES / f"{name}.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(runs.explained("pages", lambda: main(sys.argv[1:])))
