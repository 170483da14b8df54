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
import hashlib
import html
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tools import slide

PAGES, HERE = slide.ROOT / "docs/html", Path(__file__).parent
PLANS = tomllib.loads((HERE / "runs.toml").read_text(encoding="utf-8"))

# --------------------------------------------------------------------------------------- formulas

GREEK = dict(alpha="α", beta="β", gamma="γ", delta="δ", epsilon="ε", eps="ε", theta="θ", phi="φ")
GREEK |= dict(pi="π", mu="μ", tau="τ", sigma="σ", Delta="Δ", grad="∇", sum="Σ") | {"lambda": "λ"}
MARKS = {"&lt;-": "←", "-&gt;": "→", "&lt;=": "≤", "&gt;=": "≥", " * ": " · ", " - ": " − "}
MARKS |= {" ~ ": " ∼ ", "^2": "²", "...": "…"}
COLOURS = dict(r="r", R="r", Q="q", V="q", y="y", v="y", A_="y", delta="y", pi="p", mu="p")
COLOURS |= dict(theta="w", phi="w", ratio="p")
PRIMES = r"(?:'(?![a-z]))*"
SCRIPT = rf"[_^](?:\{{[^{{}}]*\}}|[A-Za-z0-9]+(?:[_^][A-Za-z0-9]+)*{PRIMES})"
FORMULA = re.compile(
    r"`(?P<code>[^`]+)`|(?P<flag>--[a-z][\w-]*)|(?<!\w)\[(?P<tag>\d+|[a-z])\]"
    rf"|(?<![\w'&.])(?P<name>{'|'.join(GREEK)}|max|min|argmax|ratio|[A-Za-z])(?P<primes>{PRIMES})"
    rf"(?P<scripts>(?:{SCRIPT})*)(?!\w|\.\w)|(?P<mark>{'|'.join(map(re.escape, MARKS))})"
    r"|(?<![A-Za-z][A-Za-z])-(?=\d|log)|(?<=1)-(?=[a-z])"
)


def typeset(text: str) -> str:
    """HTML of a line of text: `y_j = r_j + gamma max_a' Q` with Greek letters and subscripts."""

    def one(match: re.Match) -> str:
        found = match.groupdict()
        name, before, after = (
            found["name"],
            match.string[: match.start()],
            match.string[match.end() :],
        )
        if code := found["code"] or found["flag"]:
            return f"<code>{code}</code>"
        if tag := found["tag"]:
            return f'<a href="#{tag}">[{tag}]</a>'
        if found["mark"]:
            return MARKS[found["mark"]]
        if not name:
            return "−"
        bare = not found["primes"] and not found["scripts"]
        alone = before[-1:] in ("", " ", "(") and after[:1] == " " and after[:4] != " in "
        alone &= name != "A" or before[-2:] in ("", ". ")
        if bare and (name in ("max", "min", "argmax", "sum", "ratio") or (name in "aA" and alone)):
            return name  # a word
        letter = GREEK.get(name, name) + "′" * len(found["primes"])
        if name not in ("max", "min", "argmax"):
            name += "_" * (name == "A" and not bare)  # an advantage and not an action
            letter = (
                f'<i class="{COLOURS[name]}">{letter}</i>'
                if name in COLOURS
                else f"<i>{letter}</i>"
            )
        for script in re.findall(SCRIPT, found["scripts"]):
            kind = "sub" if script[0] == "_" else "sup"
            inner = re.sub(' class="[rqyp]"', "", typeset(script[1:].strip("{}")))
            letter += "²" if script == "^2" else f"<{kind}>{inner}</{kind}>"
        return letter

    return FORMULA.sub(one, html.escape(text, quote=False))


def worked(text: str) -> str:
    """A stop's formula; calculation and result can be told apart."""
    lines = [f"<div>{typeset(line)}</div>" for line in text.split("\n")]
    marks = r'<span class="sum">\1</span>\2<b>\3</b>'
    return re.sub(r"⟦(.*?)⟧(.*?)⟦(.*?)⟧", marks, "".join(lines))


# ----------------------------------------------------------------------------------------- curves


def chart(lines: dict[str, list], unit: str, goal: float | None = None) -> str:
    """Curves as SVG: label -> [(step, value)]."""
    points = [point for line in lines.values() for point in line]
    last = max(x for x, _ in points) or 1
    low, high = min(y for _, y in points), max([y for _, y in points] + [goal] * (goal is not None))
    place = lambda x, y: (
        f"{44 + 250 * x / last:.0f},{110 - 100 * (y - low) / (high - low or 1):.0f}"
    )
    marks = [f'<path class="axis" d="M44 5V112H296"/><text x="40" y="14">{high:.4g}</text>']
    marks += [
        f'<text x="40" y="112">{low:.4g}</text><text x="296" y="125">{last:,.0f} {unit}</text>'
    ]
    if goal is not None:
        marks.append(f'<path class="goal" d="M{place(0, goal)}L{place(last, goal)}"/>')
    for i, (label, line) in enumerate(lines.items()):
        path = " ".join(place(*point) for point in line)
        marks.append(f'<polyline class="c{i}" points="{path}"><title>{label}</title></polyline>')
    return f'<svg class="chart" viewBox="0 0 300 130" role="img">{"".join(marks)}</svg>'


def smoothed(rows: list[tuple], window: int, most: int = 150) -> list[tuple]:
    """(step, mean of the last values), at most so many."""
    every = max(1, len(rows) // most)
    ends = [*range(every, len(rows), every), len(rows)]
    means = [[value for _, value in rows[max(0, end - window) : end]] for end in ends]
    values = [sum(mean) / len(mean) for mean in means]
    return [(rows[end - 1][0], float(f"{v:.4g}")) for end, v in zip(ends, values, strict=True)]


def told(rows: list[tuple]) -> tuple[list[tuple], str]:
    """(step, return) of each episode; if all returns are equal, (step, length)."""
    rows = sorted(rows)
    if len({value for _, value in rows}) > 1:
        return rows, "returns"
    starts = [0, *(step for step, _ in rows)]
    return [(end, end - start) for start, (end, _) in zip(starts, rows, strict=False)], "lengths"


def learning(name: str, script: slide.Script) -> list[str]:
    """Train with the first command under Try: its learning curve, and what is said below it."""
    command = script.commands[0].removesuffix(" --render")
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, *command.split()[1:], "--out", folder]
        done = subprocess.run(run, cwd=slide.ROOT, capture_output=True, text=True, check=True)
        head, *rows = (Path(folder) / "returns.csv").read_text().splitlines()
    rows = [dict(zip(head.split(","), map(float, row.split(",")), strict=True)) for row in rows]
    said = re.search(r"greedy policy, .*: mean return [-\d.]+", done.stdout)
    if not said:  # rlhf.py
        lines = {}
        for row in rows:
            lines.setdefault(f"beta {row['beta']:g}", []).append((row["step"], row["true_reward"]))
        low = [list(map(float, row)) for row in lines["beta 0"]][-1][1]
        text = f"true reward with the penalty; without it ({low:.3g} in the end), dashed"
        return [chart(lines, "words"), f"<code>{command}</code>: {text}"]
    rows, what = told([(row["step"], row["return"]) for row in rows])
    goal = re.search(r"at or above ([-\d.]+)\)", done.stdout)
    solved = re.search(r"solved .* step (\d+)", done.stdout)
    text = f"mean of the last 10 {what} of training, seed 0; {said[0]}"
    text += f"; solved at step {int(solved[1]):,}" if solved else ""
    svg = chart({what: smoothed(rows, 10)}, "steps", float(goal[1]) if goal else None)
    return [svg, f"<code>{command}</code>: {text}"]


# ---------------------------------------------------------------------------------------- records


def code_of(name: str) -> str:
    """What a learning curve depends on: the script's code without its comments."""
    source = (slide.ROOT / f"{name}.py").read_text(encoding="utf-8")
    rows = source.split('"""', 2)[2].splitlines()
    code = [row.split("  # ")[0].rstrip() for row in rows if not row.lstrip().startswith("#")]
    return digest("\n".join(filter(None, code)))


def plan_of(name: str) -> str:
    """What a record depends on, besides: what runs.toml says of it."""
    plan = PLANS[name], PLANS["worlds"].get(PLANS[name].get("world"))
    return digest(json.dumps(plan, sort_keys=True))


def digest(*texts: str) -> str:
    """A short name for texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def record(name: str, script: slide.Script, before: dict | None) -> dict:
    """Run a script, as runs.toml says, and, unless it was done before, once more to its end."""
    from tools import step

    made_of = dict(code=code_of(name), plan=plan_of(name))
    run = step.Recorder(name)
    run.go()
    strings, stops = {}, []
    put = lambda text: strings.setdefault(text, len(strings))
    for stop in run.stops:
        card = "".join(f"<dt>{typeset(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in stop["card"])
        caption, strip = typeset(stop["strip"][0]), stop["strip"][1]
        shown = worked(stop["formula"]), html.escape(stop["place"]), html.escape(stop["title"])
        shown = map(put, (*shown, card, caption, strip, stop["picture"]))
        stops.append([stop["tag"], stop["step"], stop["scene"], stop["ran"], *shown])
    ask = []
    for question, tag, words in run.plan.get("ask", ()):
        at = [i for i, s in enumerate(run.stops) if s["tag"] == tag and words in s["formula"]]
        ask.append([question, at[0], tag])
    scenes = [[title, [s[2] for s in stops].index(i)] for i, (title, _) in enumerate(run.scenes)]
    returns, settings = run.returns(), run.settings()
    rows, what = told(returns) if returns else (run.loss, "losses")
    line = smoothed(rows, 10)
    unit = "steps" if returns else "updates"
    spark = [chart({what: line}, unit), f"you are here; {what}, mean of 10"]
    options = {"env": run.plan.get("env")} | run.plan.get("options", {}) | settings
    return made_of | dict(
        strings=list(strings),
        stops=stops,
        scenes=scenes,
        ask=ask,
        spark=spark,
        last=line[-1][0],
        update=run.plan["update"],
        settings={k: str(v) for k, v in options.items() if v is not None},
        learning=before["learning"] if before else learning(name, script),
    )


def stored(name: str, plan: bool = True) -> dict | None:
    """The record of a run, if it is up to date."""
    path = PAGES / f"{name}.run.js"
    if not path.exists():
        return None
    run = json.loads(path.read_text(encoding="utf-8").removeprefix("const RUN = ").rstrip(";\n"))
    fresh = run.get("code") == code_of(name) and (not plan or run["plan"] == plan_of(name))
    return run if fresh else None


# ------------------------------------------------------------------------------------------ pages


def made_of(name: str) -> str:
    """What a page depends on; the index depends on everything."""
    names = slide.SCRIPTS if name == "index" else [name]
    paths = [slide.ROOT / f"{name}.py" for name in names]
    paths += [HERE / "page.html.jinja", *(PAGES / f"{name}.run.js" for name in names)]
    return digest(*(path.read_text(encoding="utf-8") for path in paths))


def rows_of(script: slide.Script) -> list[dict]:
    """The script's lines as HTML, each with the numbered line and the statement it belongs to."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    from tools import step

    lexer, formatter = PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)
    lines = highlight(script.source, lexer, formatter).split("\n")
    tags = {row: tag for tag in script.tags for row in range(tag.row, tag.body.stop)}
    heads = {row for tag in script.tags for row in range(tag.row, tag.body.start - tag.notes)}
    ran, found = step.statements(script), []
    for row, (line, text) in enumerate(zip(lines, script.source.splitlines(), strict=False), 1):
        indent = len(text) - len(text.lstrip())
        tag = tags[row].tag if row in tags else ""
        statement = ran[row].number if row in ran and not text.lstrip().startswith("#") else None
        line = line.replace(" " * indent, f'<span class="in">{" " * indent}</span>', bool(indent))
        found.append(dict(row=row, html=line, tag=tag, head=row in heads, statement=statement))
    return found


def headings(script: slide.Script) -> dict[str, list[str]]:
    """Tag -> what stands above this line of the pseudocode."""
    found, before = {}, 0
    for line in script.pseudocode:
        found[line.tag] = [t for row, t in script.headings.items() if before < row < line.row]
        before = line.row
    return found


def write(names: list[str]) -> None:
    """Write these pages."""
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    env = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True)
    env.filters |= dict(typeset=typeset)
    scripts = {name: slide.read(slide.ROOT / f"{name}.py") for name in slide.SCRIPTS}
    template, runs = env.get_template("page.html.jinja"), {n: stored(n) for n in scripts}
    for name in names:
        given = dict(name=name, names=slide.SCRIPTS, script=scripts.get(name), run=runs.get(name))
        given |= dict(scripts=scripts, runs=runs, made_of=made_of(name))
        if name != "index":
            given |= dict(rows=rows_of(scripts[name]), headings=headings(scripts[name]))
        (PAGES / f"{name}.html").write_text(template.render(given), encoding="utf-8")


def stale() -> list[str]:
    """The pages that are not up to date."""
    old = []
    for name in ("index", *slide.SCRIPTS):
        page = PAGES / f"{name}.html"
        fresh = name == "index" or stored(name)
        if not (fresh and page.exists() and made_of(name) in page.read_text(encoding="utf-8")):
            old.append(name)
    return old


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m tools.pages", description=__doc__, formatter_class=style
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is stale")
    parser.add_argument("--record", action="store_true", help="record all runs anew")
    given = parser.parse_args(argv)
    if given.check:
        names = ", ".join(stale())
        print(f"not up to date: {names}; run python -m tools.pages" if names else "up to date")
        return 1 if names else 0
    PAGES.mkdir(exist_ok=True)
    for name in slide.SCRIPTS:
        if given.record or not stored(name):
            print(f"recording {name}.py", flush=True)
            before = None if given.record else stored(name, plan=False)
            run = record(name, slide.read(slide.ROOT / f"{name}.py"), before)
            text = json.dumps(run, ensure_ascii=False, separators=(",", ":"))
            (PAGES / f"{name}.run.js").write_text(f"const RUN = {text};\n", encoding="utf-8")
    write(["index", *slide.SCRIPTS])
    print(f"{1 + len(slide.SCRIPTS)} pages in {PAGES}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
