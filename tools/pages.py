"""Write the pages in docs/html/: the slide, the code, and a recorded run to step through.

    python -m pip install -r docs/requirements.txt
    python -m tools.pages             writes the pages; records the runs of changed scripts
    python -m tools.pages --check     only says whether the pages are up to date
    python -m tools.pages --record    records all runs anew, which takes some minutes

Everything on a page is taken from its script, from tools/runs.toml, which describes the recorded
runs, and from a training with the first command under Try. A page is up to date if its script's
text and the template are those that it was made from; a record, if the script's code is.
"""

import argparse
import contextlib
import copy
import hashlib
import html
import inspect
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector

from common import envs
from common.language import Language
from tools import slide, step

PAGES, HERE = slide.ROOT / "docs/html", Path(__file__).parent
PLANS = tomllib.loads((HERE / "runs.toml").read_text(encoding="utf-8"))

# --------------------------------------------------------------------------------------- formulas

GREEK = dict(alpha="α", beta="β", gamma="γ", delta="δ", epsilon="ε", eps="ε", theta="θ", phi="φ")
GREEK |= dict(pi="π", mu="μ", tau="τ", sigma="σ", Delta="Δ", grad="∇", sum="Σ") | {"lambda": "λ"}
MARKS = {"&lt;-": "←", "-&gt;": "→", "&lt;=": "≤", "&gt;=": "≥", " * ": " · ", " - ": " − "}
MARKS |= {" ~ ": " ∼ ", "^2": "²", "...": "…"}
# A_ is an advantage, A an action.
COLOURS = dict(r="r", R="r", Q="q", V="q", y="y", v="y", A_="y", delta="y", pi="p", mu="p")
COLOURS |= dict(theta="w", phi="w", ratio="p")
WORDS = ("max", "min", "argmax", "sum", "ratio")
PRIMES = r"(?:'(?![a-z]))*"
SCRIPT = rf"[_^](?:\{{[^{{}}]*\}}|[A-Za-z0-9]+(?:[_^][A-Za-z0-9]+)*{PRIMES})"
FORMULA = re.compile(
    r"`(?P<code>[^`]+)`|(?P<flag>--[a-z][\w-]*)|(?<!\w)\[(?P<tag>\d+|[a-z])\]"
    rf"|(?<![\w'&.])(?P<name>{'|'.join([*GREEK, *WORDS])}|[A-Za-z])(?P<primes>{PRIMES})"
    rf"(?P<scripts>(?:{SCRIPT})*)(?!\w|\.\w)|(?P<mark>{'|'.join(map(re.escape, MARKS))})"
    r"|(?<![A-Za-z][A-Za-z])-(?=\d|log|beta)|(?<=1)-(?=[a-z])"
)


def typeset(text: str) -> str:
    """HTML of a line of text: `y_j = r_j + gamma max_a' Q` with Greek letters and subscripts."""
    return FORMULA.sub(_typeset, html.escape(text, quote=False))


def _typeset(match: re.Match) -> str:
    code, flag, tag, name, primes, scripts, mark = match.groups()
    before, after = match.string[: match.start()], match.string[match.end() :]
    if not name:
        tag = f'<a href="#{tag}">[{tag}]</a>' if tag else ""
        return f"<code>{code or flag}</code>" if code or flag else tag or MARKS.get(mark, "−")
    word = re.match(r" (?!in )[A-Za-z]", after)  # a weight, but: a in s
    article = name == "a" and before[-1:] in " (" or name == "A" and before[-2:] in ("", ". ")
    if not primes + scripts and (name in WORDS or (word and article)):
        return name
    letter = GREEK.get(name, name) + "′" * len(primes)
    kind = "A_" if name == "A" and scripts else name
    colour = f' class="{COLOURS[kind]}"' if kind in COLOURS else ""
    letter = letter if name in WORDS[:3] else f"<i{colour}>{letter}</i>"
    for script in re.findall(SCRIPT, scripts):
        inner = re.sub(' class="[rqyp]"', "", typeset(script[1:].strip("{}")))
        where = "sub" if script[0] == "_" else "sup"
        letter += "²" if script == "^2" else f"<{where}>{inner}</{where}>"
    return letter


NUMBER = r"\d[\d.]*(?:e[-+]?\d+)?"
CALCULATOR = dict(max=max, min=min, exp=np.exp, log=np.log, sigma=lambda x: 1 / (1 + np.exp(-x)))


def settled(line: str) -> str:
    """`text = calculation ~ result` with the sign that it deserves: = or, if it is rounded, ≈.

    Calculation and result are put between ⟦ and ⟧.

    Raises:
        ValueError: the numbers that are shown do not give the result that is shown.
    """
    if " ~ " not in line:
        return line
    left, right = line.rsplit(" ~ ", 1)
    name, equals, calculation = left.rpartition("= ")
    calculation = re.sub(rf"(?<=[-+*] )-{NUMBER}", r"(\g<0>)", calculation)
    exact = eval(calculation.replace("^", "**"), CALCULATOR)
    result = float(re.match(f"-?{NUMBER}", right)[0])
    sizes = [float(x) for x in re.findall(NUMBER, calculation)]
    if abs(exact - result) > 2e-3 * max([*sizes, abs(result)]):
        raise ValueError(f"{line}: not {right}, but {exact}")
    sign = "=" if abs(exact - result) < 1e-9 else "≈"
    return f"{name}{equals}⟦{calculation}⟧ {sign} " + re.sub(f"^-?{NUMBER}", r"⟦\g<0>⟧", right)


def worked(text: str) -> str:
    """A stop's formula as HTML; calculation and result can be told apart."""
    lines = "".join(f"<div>{typeset(settled(line))}</div>" for line in text.split("\n"))
    return re.sub("⟦(.*?)⟧(.*?)⟦(.*?)⟧", r'<span class="sum">\1</span>\2<b>\3</b>', lines)


# ----------------------------------------------------------------------------------------- curves


def curve(rows: list[tuple], most: int = 150) -> dict:
    """Means of the last 10 of (step, value), at most so many of them."""
    every = max(1, len(rows) // most)
    ends = [*range(every, len(rows), every), len(rows)]
    means = [float(f"{np.mean([v for _, v in rows[max(0, end - 10) : end]]):.4g}") for end in ends]
    points = [(rows[end - 1][0], mean) for end, mean in zip(ends, means, strict=True)]
    return dict(points=points, low=min(means), high=max(means))


def told(rows: list[tuple]) -> tuple[list[tuple], str]:
    """(step, return) of each episode; if all returns are equal, (step, length)."""
    rows = sorted(rows)
    if len({value for _, value in rows}) > 1:
        return rows, "returns"
    return [(b, b - a) for (a, _), (b, _) in zip([(0, 0), *rows], rows, strict=False)], "lengths"


def learning(script: slide.Script) -> dict:
    """Train with the first command under Try: its learning curve, and what is said below it."""
    command = script.commands[0].removesuffix(" --render")
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, *command.split()[1:], "--out", folder]
        done = subprocess.run(run, cwd=slide.ROOT, capture_output=True, text=True, check=True)
        rows = np.genfromtxt(Path(folder) / "returns.csv", delimiter=",", names=True)
    if "beta" in rows.dtype.names:  # rlhf.py
        parts = [rows[rows["beta"] == beta] for beta in (rows["beta"].max(), 0)]
        low, high = rows["true_reward"].min(), rows["true_reward"].max()
        points = [np.stack([p["step"], p["true_reward"].round(3)], 1).tolist() for p in parts]
        text = (
            f"true reward with the penalty; without it ({points[1][-1][1]:.3g} in the end), dashed"
        )
        lines = [dict(points=p, low=float(low), high=float(high)) for p in points]
        return dict(lines=lines, unit="words", command=command, text=text)
    rows, what = told(list(zip(rows["step"].tolist(), rows["return_"].tolist(), strict=True)))
    text = f"{what} of training, mean of 10, seed 0; "
    text += re.search(r"greedy policy, .*: mean return [-\d.]+", done.stdout)[0]
    if solved := re.search(r"solved .*above ([-\d.]+)\).* step (\d+)", done.stdout):
        text += f"; solved at step {int(solved[2]):,}"
    goal = float(solved[1]) if solved else None
    return dict(lines=[curve(rows)], unit="steps", goal=goal, command=command, text=text)


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


class Recorder:
    """A short run of a script, as its page shows it; runs.toml describes it.

    Attributes:
        stops: for each line that is kept: tag, step, scene, statements, numbers of strings.
        formulas: of the stops, before they are typeset.
        strings: what the page shows -> its number.
        scenes: their titles, and the stops at which they begin.
        loss: (step, loss) now and then.
    """

    def __init__(self, name: str):
        self.name, self.plan, path = name, PLANS[name], slide.ROOT / f"{name}.py"
        self.module, self.stops, self.formulas, self.scenes = step.load(path), [], [], []
        self.loss, self.strings, self.ahead = [], {}, [*self.plan["scenes"]]
        self.title, self.about, self.strip, self.turn = "", {}, ("", ""), threading.Lock()
        self.world = PLANS["worlds"].get(self.plan.get("world"), {})
        self.tracer = step.Tracer(path, self.tell, self.wanted, self.plan.get("whole", ()))
        literal = self.module.LITERAL if self.plan.get("literal") else {}
        self.settings = literal | self.plan.get("settings", {})
        words = lambda this: self.fill(self.world["words"], this)
        deed = lambda this: self.fill(self.world["deed"], this)
        each = lambda values: ", ".join(f"{deed(a)} {step.number(v)}" for a, v in enumerate(values))
        when = lambda flag, text: text if flag else ""
        size = lambda network: f"{len(parameters_to_vector(network.parameters())):,}"
        self.space = vars(self.module) | dict(again=copy.deepcopy, num=step.number, cells=cells)
        self.space |= dict(words=words, deed=deed, each=each, when=when, size=size, env=None)
        self.space |= dict(who=self.plan.get("who", 0), k=1, np=np, torch=torch)
        self.let(self.plan.get("let", {}).get("first", {}))

    def fill(self, template: str | list, this=None) -> str:
        """A template with its values; `this` is a state or an action."""
        if isinstance(template, str):
            self.space["this"] = this
            return eval(f"f'''{template} '''", self.space)[:-1]
        found = []
        for i in eval(template[0], self.space):
            self.space["i"] = i
            found.append(self.fill(template[1]))
        return "\n".join(found or map(self.fill, template[2:]))

    def let(self, table: dict) -> None:
        """Computes names of runs.toml."""
        for name, expression in table.items():
            self.space[name] = eval(expression, self.space)

    def wanted(self, now: int) -> bool:
        """Whether to look at the lines from this step on."""
        if not self.ahead:
            raise step.Enough
        here = self.tracer.followed().f_locals
        loss = here.get("loss", here.get("L"))
        if loss is not None and now % max(1, self.plan["scenes"][-1]["after"] // 150) == 0:
            self.loss.append((now, loss.item()))
        look = self.opened() or now >= self.ahead[0]["after"]
        if not look:
            self.pause()
        return look

    def pause(self) -> None:
        """Of several workers another one may go on."""
        if self.turn.locked():
            self.turn.release()
            time.sleep(random.random() * 1e-3)
            self.turn.acquire()

    def opened(self) -> bool:
        """Whether a scene has begun, and has not ended."""
        return len(self.scenes) + len(self.ahead) > len(self.plan["scenes"])

    def tell(self, stop: step.Stop) -> None:
        """Take a stop, if a scene is going on."""
        if not self.ahead:
            raise step.Enough
        scene, space, plan = self.ahead[0], self.space, self.plan
        space |= stop.new | dict(old=SimpleNamespace(**stop.old), moved=stop.moved(), stop=stop)
        space |= dict(tag=stop.tag, env=stop.new.get("env"))
        if space["env"] not in self.tracer.envs:
            space["env"] = self.tracer.envs[space["who"]] if self.tracer.envs else None
        if stop.tag and stop.step >= scene["after"]:
            with torch.no_grad():
                if not self.opened() and eval(scene.get("starts", "True"), space):
                    self.scenes.append((scene["title"], len(self.stops)))
                    self.about.clear()
                    self.rounds = 0
                if self.opened():
                    self.let(plan.get("let", {}).get(stop.tag, {}))
                    if eval(plan.get("keep", "True"), space):
                        self.describe(stop, space["env"])
                    self.rounds += bool(eval(scene["ends"], space))
                    if self.rounds == scene.get("n", 1):
                        self.ahead.pop(0)
        self.pause()

    def describe(self, stop: step.Stop, env: step.Watched | None) -> None:
        """What the page shows at a stop."""
        plan, space, about, card = self.plan, self.space, self.about, {}
        formula = self.fill(plan["lines"][stop.tag])
        with contextlib.suppress(NameError):  # nothing has been made yet
            space["k"] = eval(plan["k"], space)
        title, place = self.fill(plan["title"]), f"update {stop.step}"
        if title != self.title:
            about.clear()
            self.title = title
        if stop.tag in plan["about"]:
            about[plan["about"][stop.tag][0]] = self.fill(plan["about"][stop.tag][1])
        picture = self.fill(plan.get("picture", ""))
        if env:
            place = f"step {stop.step:,}, {env.story()}"
            if len(env.past) >= space["k"]:
                s, a, r, s_next, end = env.past[space["k"] - 1]
                card = {"s": space["words"](s), "a": space["deed"](a), "r": step.number(r)}
                card["s'"] = space["words"](s_next) + f", {end}" * bool(end)
            elif len(env.past) == space["k"] - 1:
                card = {"s": space["words"](env.state)}
            self.let(self.world["let"])
            picture = self.fill(self.world["picture"])
        if shown := plan["strip"].get(stop.tag, plan["strip"].get("")):
            self.strip = typeset(shown[0]), self.fill(shown[1])
        rows = [
            f"<dt>{typeset(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in (card | about).items()
        ]
        strings = worked(formula), html.escape(place), title, "".join(rows), *self.strip, picture
        numbers = [self.strings.setdefault(string, len(self.strings)) for string in strings]
        ran = [statement.number for statement in stop.ran]
        new = [stop.tag, stop.step, len(self.scenes) - 1, ran, *numbers]
        if self.stops and [new[i] for i in (0, 2, 4)] == [self.stops[-1][i] for i in (0, 2, 4)]:
            self.stops.pop(), self.formulas.pop()  # the end of a loop says the same once more
        self.stops.append(new)
        self.formulas.append(formula)

    def in_threads(self, workers: int, report: Callable, settings: dict) -> None:
        """Takes the place of a3c.in_processes(): one worker at a time goes on, by chance."""

        def run(rank: int) -> None:
            with self.turn, contextlib.suppress(step.Enough):
                sys.settrace(self.tracer.called)
                self.module.worker(rank, report=report, **settings)

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(workers)]
        for go in (threading.Thread.start, threading.Thread.join):
            list(map(go, threads))

    def go(self) -> None:
        """Train until the last scene is over."""
        train, options = self.module.train, self.plan.get("options", {})
        make = lambda: envs.make(self.plan["env"], self.name == "qlearning_table", **options)
        threaded = mock.patch.object(self.module, "in_processes", self.in_threads, create=True)
        with contextlib.suppress(step.Enough), threaded, self.tracer:
            kind = next(iter(inspect.signature(train).parameters))
            world = {"make_env": lambda: make, "language": Language}.get(kind, make)
            train(world(), **self.settings)

    def answer(self, tag: str, words: str) -> int:
        """The first stop at a line whose formula contains these words.

        Raises:
            ValueError: there is none.
        """
        for i, (stop, formula) in enumerate(zip(self.stops, self.formulas, strict=True)):
            if stop[0] == tag and words in formula:
                return i
        raise ValueError(f"{self.name}: no stop at [{tag}] says {words!r}")


def record(name: str, before: dict | None = None) -> dict:
    """Run a script, as runs.toml says, and, unless it was done before, once more to its end."""
    sources, run = made_of(name), Recorder(name)
    run.go()
    rows, what = told(run.tracer.returns) if run.tracer.returns else ([], "losses")
    lines = [curve(part) for part in (rows, run.loss) if part]
    unit, options = "updates" if what == "losses" else "steps", run.plan.get("options", {})
    settings = {"env": run.plan.get("env")} | options | run.settings
    return dict(
        sources=sources,
        strings=list(run.strings),
        stops=run.stops,
        scenes=run.scenes,
        ask=[[question, run.answer(tag, words), tag] for question, tag, words in run.plan["ask"]],
        spark=dict(lines=lines, unit=unit, text=what),
        update=run.plan["update"],
        settings={k: str(v) for k, v in settings.items() if v is not None},
        learning=before["learning"] if before else learning(slide.read(slide.ROOT / f"{name}.py")),
    )


def made_of(name: str) -> list[str]:
    """What a record depends on: the script's code without comments, and the plan of the run."""
    source = (slide.ROOT / f"{name}.py").read_text(encoding="utf-8")
    rows = source.split('"""', 2)[2].splitlines()
    code = [row.split("  # ")[0].rstrip() for row in rows if not row.lstrip().startswith("#")]
    plan = PLANS[name], PLANS["worlds"].get(PLANS[name].get("world"))
    return [digest("\n".join(filter(None, code))), digest(json.dumps(plan, sort_keys=True))]


def digest(*texts: str) -> str:
    """A short name for texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def stored(name: str, plan: bool = True) -> dict | None:
    """The record of a run, if it is up to date."""
    path = PAGES / f"{name}.run.js"
    text = path.read_text(encoding="utf-8") if path.exists() else "{}"
    run = json.loads(text.removeprefix("const RUN = ").rstrip(";\n"))
    fresh = run.get("sources", [])[: 1 + plan] == made_of(name)[: 1 + plan]
    return run if fresh else None


# ------------------------------------------------------------------------------------------ pages


def sources(name: str) -> str:
    """What a page depends on; the index depends on everything."""
    names = slide.SCRIPTS if name == "index" else [name]
    paths = [HERE / "page.html.jinja", *(slide.ROOT / f"{name}.py" for name in names)]
    paths += [PAGES / f"{name}.run.js" for name in names]
    return digest(*(path.read_text(encoding="utf-8") for path in paths))


def rows_of(script: slide.Script) -> list[dict]:
    """The script's lines as HTML, each with the numbered line and the statement it belongs to."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lexer, formatter = PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)
    lines = highlight(script.source, lexer, formatter).split("\n")
    tags = {row: tag.tag for tag in script.tags for row in range(tag.row, tag.body.stop)}
    heads = {row for tag in script.tags for row in range(tag.row, tag.body.start - tag.notes)}
    ran, found = step.statements(script), []
    for row, (line, text) in enumerate(zip(lines, script.source.splitlines(), strict=False), 1):
        indent = len(text) - len(text.lstrip())
        line = line.replace(" " * indent, f'<span class="in">{" " * indent}</span>', bool(indent))
        statement = ran[row].number if row in ran and text.lstrip()[:1] != "#" else None
        found.append(dict(html=line, tag=tags.get(row), head=row in heads, statement=statement))
    return found


def write() -> None:
    """Write all pages, from the records that are there."""
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    env = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True)
    env.filters["typeset"] = typeset
    scripts = {name: slide.read(slide.ROOT / f"{name}.py") for name in slide.SCRIPTS}
    runs = {name: stored(name) for name in scripts}
    for name in ("index", *scripts):
        script, run = scripts.get(name), runs.get(name)
        given = dict(name=name, scripts=scripts, runs=runs, script=script, run=run)
        given |= dict(sources=sources(name), rows=rows_of(script) if script else [])
        page = env.get_template("page.html.jinja").render(given)
        (PAGES / f"{name}.html").write_text(page, encoding="utf-8")


def stale() -> list[str]:
    """The pages that are not up to date."""
    fresh = lambda name: name == "index" or stored(name)
    text = lambda page: page.read_text(encoding="utf-8") if page.exists() else ""
    return [
        name
        for name in ("index", *slide.SCRIPTS)
        if not (fresh(name) and sources(name) in text(PAGES / f"{name}.html"))
    ]


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser("python -m tools.pages", description="Write docs/html/.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is stale")
    parser.add_argument("--record", action="store_true", help="record all runs anew")
    given = parser.parse_args(argv)
    if given.check:
        names = ", ".join(stale())
        print(f"not up to date: {names}; run python -m tools.pages" if names else "up to date")
        return 1 if names else 0
    for name in slide.SCRIPTS:
        if given.record or not stored(name):
            print(f"recording {name}.py", flush=True)
            run = record(name, None if given.record else stored(name, plan=False))
            text = json.dumps(run, ensure_ascii=False, separators=(",", ":"))
            (PAGES / f"{name}.run.js").write_text(f"const RUN = {text};\n", encoding="utf-8")
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
