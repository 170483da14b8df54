"""Write the pages in docs/html/: the slide, the code, and a recorded run to step through.

    python -m pip install -r docs/requirements.txt
    python -m tools.pages             writes the pages; records the runs of changed scripts
    python -m tools.pages dqn ppo     records the runs of these scripts anew, too

Everything on a page is taken from its script, from tools/runs.toml, which describes the recorded
runs, and from a training with the first command under Try. A record is up to date if it was made
from the script's code, as it is without comments, and from its part of runs.toml.
"""

import contextlib
import hashlib
import html
import json
import re
import subprocess
import sys
import tempfile
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from common import envs, language
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
PRIMES = r"(?:'(?![a-z]))*"
SCRIPT = rf"[_^](?:\{{[^{{}}]*\}}|[A-Za-z0-9]+(?:[_^][A-Za-z0-9]+)*{PRIMES})"
FORMULA = re.compile(
    r"`([^`]+)`|(--[a-z][\w-]*)|(?<!\w)\[(\d+|[a-z])\]"  # code, a flag, a line's tag
    r"|((?:^|(?<=[ (]))a(?= (?!in )[A-Za-z])|(?:^|(?<=\. ))A(?= (?!in )[A-Za-z]))"  # an article
    rf"|(?<![\w'&.])({'|'.join(GREEK)}|max|min|argmax|ratio|[A-Za-z])({PRIMES})((?:{SCRIPT})*)"
    rf"(?!\w|\.\w)|({'|'.join(map(re.escape, MARKS))})"
    r"|(?<![A-Za-z][A-Za-z])-(?=\d|log|beta)|(?<=1)-(?=[a-z])"
)


def typeset(text: str) -> str:
    """HTML of a line of text: `y_j = r_j + gamma max_a' Q` with Greek letters and subscripts."""
    return FORMULA.sub(_typeset, html.escape(text, quote=False))


def _typeset(match: re.Match) -> str:
    code, flag, tag, article, name, primes, scripts, mark = match.groups()
    if code or flag:
        return f"<code>{code or flag}</code>"
    if not name:
        return f'<a href="#{tag}">[{tag}]</a>' if tag else article or MARKS.get(mark, "−")
    if not primes + scripts and name in ("sum", "ratio"):
        return name
    letter, kind = GREEK.get(name, name) + "′" * len(primes), name + "_" * bool(scripts)
    colour = COLOURS.get(kind, COLOURS.get(name))
    if name not in ("max", "min", "argmax"):
        letter = f'<i class="{colour}">{letter}</i>' if colour else f"<i>{letter}</i>"
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
    """
    if " ~ " not in line:
        return line
    left, right = line.rsplit(" ~ ", 1)
    name, equals, calculation = left.rpartition("= ")
    calculation = re.sub(rf"(?<=[-+*] )-{NUMBER}", r"(\g<0>)", calculation)
    result, rest = re.match(f"(-?{NUMBER})(.*)", right).groups()
    error = abs(eval(calculation.replace("^", "**"), CALCULATOR) - float(result))
    sign = "=" if error < 1e-9 else "≈"
    return f"{name}{equals}⟦{calculation}⟧ {sign} ⟦{result}⟧{rest}"


def worked(text: str) -> str:
    """A stop's formula as HTML; calculation and result can be told apart."""
    lines = "".join(f"<div>{typeset(settled(line))}</div>" for line in text.split("\n"))
    return re.sub("⟦(.*?)⟧(.*?)⟦(.*?)⟧", r'<span class="sum">\1</span>\2<b>\3</b>', lines)


# ----------------------------------------------------------------------------------------- curves


def curve(rows: list[tuple], n: int = 10) -> list[tuple]:
    """Means of the last n of (step, value), at about 150 steps."""
    every = max(1, len(rows) // 150)
    ends = [*range(every, len(rows), every), len(rows)]
    means = [float(f"{np.mean([v for _, v in rows[max(0, end - n) : end]]):.4g}") for end in ends]
    return [(rows[end - 1][0], mean) for end, mean in zip(ends, means, strict=True)]


def told(rows: list[tuple]) -> tuple[list[tuple], str]:
    """(step, return) of each (step, return, length); if all returns are equal, (step, length)."""
    if len({row[1] for row in rows}) > 1:
        return [row[:2] for row in sorted(rows)], "returns"
    return [row[::2] for row in sorted(rows)], "lengths"


def learning(script: slide.Script) -> dict:
    """Train with the first command under Try: its learning curve, and what is said below it."""
    command, unit, goal = script.commands[0].removesuffix(" --render"), "steps", None
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, *command.split()[1:], "--out", folder]
        done = subprocess.run(run, cwd=slide.ROOT, capture_output=True, text=True, check=True)
        rows = np.genfromtxt(Path(folder) / "returns.csv", delimiter=",", names=True)
    if "beta" in rows.dtype.names:  # rlhf.py
        parts = [rows[rows["beta"] == beta] for beta in (rows["beta"].max(), 0)]
        lines = [curve(part[["step", "true_reward"]].tolist(), 1) for part in parts]
        text, unit = "true reward with the penalty; without it ({:.3g} in the end), dashed", "words"
        text = text.format(lines[1][-1][1])
    else:
        episodes, what = told(rows[["step", "return_", "length"]].tolist())
        lines, text = [curve(episodes)], f"{what} of training, mean of 10, seed 0; "
        text += re.search(r"greedy policy, .*: mean return [-\d.]+", done.stdout)[0]
        if solved := re.search(r"solved .*above ([-\d.]+)\).* step (\d+)", done.stdout):
            text, goal = f"{text}; solved at step {int(solved[2]):,}", float(solved[1])
    return dict(lines=lines, unit=unit, goal=goal, command=command, text=text)


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
        strings: what the page shows -> its number.
        scenes: their titles, and the stops at which they begin.
        asked: question -> the first stop that answers it.
        loss: (step, loss) now and then.
    """

    def __init__(self, name: str):
        path, self.plan = slide.ROOT / f"{name}.py", PLANS["defaults"] | PLANS[name]
        self.module, self.world = step.load(path), PLANS["worlds"][self.plan["world"]]
        self.module.in_processes = self.in_threads
        self.tracer = step.Tracer(path, self.tell, self.wanted, self.plan["whole"])
        self.stops, self.scenes, self.loss, self.strings, self.asked = [], [], [], {}, {}
        self.ahead, self.rounds, self.turn = [*self.plan["scenes"]], 0, threading.Condition()
        self.about, self.strip = {}, ("", "")
        self.space = vars(self.module) | dict(fill=self.fill, show=self.world, cells=cells)
        self.space |= dict(num=step.number, np=np, torch=torch, who=self.plan["who"], k=1, env=None)
        self.let(PLANS["names"] | self.plan["let"].get("first", {}))

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

    def wanted(self, now: int) -> bool:
        """Whether to look at the lines from this step on."""
        here = self.tracer.followed().f_locals
        loss = here.get("loss", here.get("L"))
        if loss is not None and now % max(1, self.plan["scenes"][-1]["after"] // 150) == 0:
            self.loss.append((now, loss.item()))
        self.pause()
        return now >= self.ahead[0]["after"]

    def pause(self) -> None:
        """Of several workers another one may go on; after the last scene none."""
        with contextlib.suppress(RuntimeError):  # it is nobody's turn: there are no workers
            self.turn.wait(np.random.random() * 1e-3)
        if not self.ahead:
            raise step.Enough

    @torch.no_grad()
    def tell(self, stop: step.Stop) -> None:
        """Take a stop, if a scene is going on."""
        scene, space, plan, made = self.ahead[0], self.space, self.plan, self.tracer.envs
        space |= {f"old_{name}": value for name, value in stop.old.items()}
        space |= stop.new | dict(stop=stop, tag=stop.tag)
        if stop.new.get("env") not in made:
            space["env"] = made[plan["who"]] if made else None
        here = stop.tag and stop.step >= scene["after"]
        if here and (self.rounds or eval(scene.get("starts", "True"), space)):
            if not self.rounds:
                self.scenes.append((scene["title"], len(self.stops)))
                self.rounds = scene["n"]
            self.let(plan["let"].get(stop.tag, {}))
            if eval(plan["keep"], space):
                self.describe(stop, space["env"])
            self.rounds -= bool(eval(scene["ends"], space))
            if not self.rounds:
                self.ahead.pop(0)
        self.pause()

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
        place, new = step.place(stop.step, env), [stop.tag, stop.step, len(self.scenes) - 1]
        new.append([statement.number for statement in stop.ran])
        for string in (worked(formula), place, title, facts, *self.strip, picture):
            new.append(self.strings.setdefault(string, len(self.strings)))
        if self.stops and new[::2][:3] == self.stops[-1][::2][:3]:  # tag, scene and formula
            self.stops.pop()  # the end of a loop says the same once more
        for question, tag, answer in plan["ask"]:
            if tag == stop.tag and answer in formula:
                self.asked.setdefault(question, len(self.stops))
        self.stops.append(new)

    def in_threads(self, workers: int, report, settings: dict) -> None:
        """Takes the place of a3c.in_processes(): one worker at a time goes on, by chance."""

        def run(rank: int) -> None:
            with self.turn, contextlib.suppress(step.Enough):
                sys.settrace(self.tracer.trace)
                self.module.worker(rank, report=report, **settings)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, range(workers)))

    def record(self, before: dict | None = None) -> dict:
        """Train until the last scene is over and, unless it was done before, once more to the end.

        Returns what the page needs.
        """
        train, plan, rows = self.module.train, self.plan, []
        make = lambda: envs.make(plan["env"], plan["table"], **plan["options"])
        ended = lambda total, length, now: rows.append((now, total, length))
        with contextlib.suppress(step.Enough), self.tracer:
            if not plan["env"]:
                train(language.Language(), **plan["settings"])
            function = train.__code__.co_varnames[0] == "make_env"
            train(make if function else make(), on_episode=ended, **plan["settings"])
        rows, what = told(rows) if rows else ([], "losses")
        lines = [curve(part) for part in (rows, self.loss) if part]
        settings = {"env": plan["env"]} | plan["options"] | plan["settings"]
        return dict(
            sources=made_of(self.module.__name__),
            strings=list(self.strings),
            stops=self.stops,
            scenes=self.scenes,
            ask=[[question, self.asked[question], tag] for question, tag, _ in plan["ask"]],
            spark=dict(lines=lines, unit="steps" if rows else "updates", text=what),
            update=plan["update"],
            settings={k: str(v) for k, v in settings.items() if v != ""},
            learning=before["learning"] if before else learning(self.tracer.script),
        )


def made_of(name: str) -> list[str]:
    """What a record depends on: the script's code without comments, and the plan of the run."""
    rows = (slide.ROOT / f"{name}.py").read_text(encoding="utf-8").split('"""', 2)[2].splitlines()
    code = [row.split("  # ")[0].rstrip() for row in rows if not row.lstrip().startswith("#")]
    plan = {k: v for k, v in PLANS.items() if k == name or k not in slide.SCRIPTS}
    texts = "\n".join(filter(None, code)), json.dumps(plan, sort_keys=True)
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def stored(name: str, plan: bool = True) -> dict | None:
    """The record of a run, if it is up to date."""
    text = (PAGES / f"{name}.run.js").read_text(encoding="utf-8")
    run = json.loads(text.removeprefix("const RUN = ").rstrip(";\n"))
    return run if run["sources"][: 1 + plan] == made_of(name)[: 1 + plan] else None


# ------------------------------------------------------------------------------------------ pages


def rows_of(script: slide.Script) -> tuple:
    """The script's lines as HTML; row -> numbered line; the rows of these; row -> statement."""
    from pygments import formatters, highlight, lexers

    lexer, formatter = lexers.PythonLexer(stripnl=False), formatters.HtmlFormatter(nowrap=True)
    lines = highlight(script.source, lexer, formatter).splitlines()
    tags = {row: tag.tag for tag in script.tags for row in range(tag.row, tag.body.stop)}
    heads = {row for tag in script.tags for row in range(tag.row, tag.body.start - tag.notes)}
    lines = [re.sub("^((?:<[^>]*>)*)( +)", r'\1<span class="in">\2</span>', x) for x in lines]
    return lines, tags, heads, step.statements(script)


def rendered() -> dict[str, str]:
    """All pages, from the records that are there."""
    import jinja2

    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.filters |= dict(typeset=typeset, rows_of=rows_of)
    page = env.from_string((HERE / "page.html.jinja").read_text(encoding="utf-8"))
    scripts = {name: slide.read(slide.ROOT / f"{name}.py") for name in slide.SCRIPTS}
    runs = {name: stored(name) for name in scripts}
    return {
        name: page.render(name=name, scripts=scripts, runs=runs) for name in ("index", *scripts)
    }


def main(argv: list[str]) -> None:
    """Record the scripts that have changed, and those that are named; write all pages."""
    if {*argv} - {*slide.SCRIPTS}:
        sys.exit(__doc__)
    for name in slide.SCRIPTS:
        if name in argv or not stored(name):
            print(f"recording {name}.py", flush=True)
            run = Recorder(name).record(None if name in argv else stored(name, plan=False))
            text = json.dumps(run, ensure_ascii=False, separators=(",", ":"))
            (PAGES / f"{name}.run.js").write_text(f"const RUN = {text};\n", encoding="utf-8")
    for name, page in rendered().items():
        (PAGES / f"{name}.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
