"""Write the pages in docs/html/: a script's idea and pseudocode on the left, its code on the right.

    python -m pip install -r docs/requirements.txt
    python docs/build.py              writes docs/html/
    python docs/build.py --check      only says whether the pages there are up to date
    python docs/build.py --record     records all runs anew, also those of unchanged scripts

Everything on a page is taken from the script: its docstring, the tags `# [12] ...` in its comments,
the flags under "Beyond the slide". A tag without a partner, or a flag that the code does not use,
ends the build with an error. The recorded runs come from docs/scenes.py; a run is recorded when
the script's code or its tags have changed, which takes some seconds.
"""

from __future__ import annotations

import argparse
import ast
import html
import re
import sys
import textwrap
import trace  # docs/trace.py
from dataclasses import dataclass, field
from pathlib import Path

import scenes
from mathml import inline
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
SCRIPTS = (
    "qlearning_table",
    "dqn",
    "reinforce",
    "actor_critic",
    "ddpg",
    "a3c",
    "ppo",
    "rlhf",
)  # in the lecture's order
TAG = re.compile(r"\[(\d+|[a-z])\] +(\S.*)")


class BuildError(Exception):
    """A script does not hold what its page needs; the message is one line."""


# --------------------------------------------------------------------------------- reading a script


@dataclass
class Page:
    """A script's docstring, in parts."""

    title: str = ""
    place: str = ""  # in the lecture
    idea: list[str] = field(default_factory=list)
    source: str = ""  # of the pseudocode
    pseudocode: list[tuple[str, int, str]] = field(default_factory=list)  # tag, level, text
    notes: list[str] = field(default_factory=list)
    departures: list[tuple[str, str]] = field(default_factory=list)  # flag, what it turns off
    commands: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)


def read_docstring(text: str) -> Page:
    """The parts of a script's docstring, as the project's contract lays them out."""
    page, part = Page(), "idea"
    first, *paragraphs = text.split("\n\n")
    page.title, _, page.place = first.replace("\n", " ").partition(". ")
    for paragraph in paragraphs:
        lines = paragraph.splitlines()
        joined = " ".join(line.strip() for line in lines)
        if joined.startswith("Pseudocode"):
            part, page.source = (
                "pseudocode",
                joined.removeprefix("Pseudocode").strip().removeprefix("(").removesuffix(")"),
            )
        elif joined.startswith("Beyond the slide"):
            part = "departures"
            if joined.startswith("Beyond the slide:"):  # nothing, and why
                page.notes.append(joined)
        elif joined in ("Try", "References"):
            part = joined
        elif part == "Try" and not lines[0].startswith("    python"):  # prose, or lines of Python
            code = lines[0].startswith(" ")
            page.commands.append("\n".join(x.strip() for x in lines) if code else "# " + joined)
        elif not lines[0].startswith(" "):
            (page.idea if part == "idea" else page.notes).append(joined)
        elif part == "pseudocode":
            for line in lines:
                if match := TAG.fullmatch(line.strip()):
                    page.pseudocode.append(
                        (match[1], (line.index(match[2], line.index("]")) - 8) // 4, match[2])
                    )
                else:
                    tag, level, before = page.pseudocode[-1]
                    page.pseudocode[-1] = tag, level, before + "\n" + line.strip()
        elif part == "departures":
            for line in lines:
                if match := re.fullmatch(r" {4}(--\S+(?: [\d.]+)?) +([A-Z].*)", line):
                    page.departures.append((match[1], match[2]))
                else:
                    flag, before = page.departures[-1]
                    page.departures[-1] = flag, before + " " + line.strip()
        elif part == "Try":
            page.commands += [line.strip() for line in lines]
        elif part == "References":
            page.references += [line.strip() for line in lines]
    return page


def keyword(flag: str) -> str:
    """The keyword of train() that a flag sets: --no-adam -> adam, --n-steps 1 -> n_steps."""
    return flag.split()[0].removeprefix("--").removeprefix("no-").replace("-", "_")


@dataclass
class Block:
    """The lines of code, both included, that carry out one line of pseudocode."""

    tag: str
    first: int
    last: int
    comment: range  # the lines of the comment that holds the tag


def blocks(source: str) -> list[Block]:
    """From the comments above a tag to the line before the next tag's, or to its level's end."""
    rows = source.splitlines()
    found = []
    for i, row in enumerate(rows):
        match = (
            TAG.fullmatch(row.strip().removeprefix("# ")) if row.strip().startswith("# [") else None
        )
        if not match:
            continue
        column = len(row) - len(row.lstrip())
        first, end = i, i + 1
        while rows[first - 1].startswith(" " * column + "# ") and not TAG.match(
            rows[first - 1].strip()[2:]
        ):
            first -= 1  # the comment above belongs to it
        while re.match(r"\s*#  +\S", rows[end]):
            end += 1  # a long line goes on in the next
        last = end
        while last + 1 < len(rows) and (
            not rows[last + 1].strip() or rows[last + 1].startswith(" " * column)
        ):
            last += 1
        found.append(Block(match[1], first + 1, last + 1, range(i + 1, end + 1)))
    for block, following in zip(found, found[1:], strict=False):
        block.last = min(block.last, following.first - 1)
    for block in found:
        while not rows[block.last - 1].strip():
            block.last -= 1
    return found


def departure_lines(tree: ast.Module, names: set[str]) -> dict[int, set[str]]:
    """Line -> the departures at work there: keywords of train() used, and not just handed on."""
    used: dict[int, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):  # adam=adam hands it on
            for given in node.keywords:
                if isinstance(given.value, ast.Name) and given.arg == given.value.id:
                    given.value.id = ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
            used.setdefault(node.lineno, set()).add(node.id)
    return used


@dataclass
class Chunk:
    """A piece of the script that is copied as a whole: imports, a class, a function, a constant."""

    name: str
    first: int
    last: int
    needs: set[int] = field(default_factory=set)  # indices of other chunks
    imports: set[int] = field(default_factory=set)  # lines


def chunks(source: str, tree: ast.Module) -> list[Chunk]:
    """The script in pieces, and what each needs to run: the imports and pieces that it names."""
    found, bound, imported, constants = [], {}, {}, False
    rows = source.splitlines()
    for node in tree.body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        while rows[first - 2].startswith("# "):
            first -= 1
        if isinstance(node, ast.Expr):
            found.append(Chunk("docstring", 1, node.end_lineno))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if found[-1].name != "imports":
                found.append(Chunk("imports", first, first))
            for alias in node.names:
                imported[(alias.asname or alias.name).split(".")[0]] = node.lineno
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            bound[node.name] = len(found)
            found.append(
                Chunk(
                    ("class " if isinstance(node, ast.ClassDef) else "") + node.name, first, first
                )
            )
        elif isinstance(node, ast.Assign):  # LITERAL = ..., and train = literally(train, LITERAL)
            names = [n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)]
            name, again = ", ".join(names), names[0] in bound
            if constants and not again:  # constants that stand together are one piece
                found[-1].name += f", {name}"
            else:
                label = f"{name}, with --literal" if again else name
                found.append(Chunk(label, first, first))
            if again:  # the function is whole only with what becomes of it
                found[bound[name]].needs.add(len(found) - 1)
            for name in names:
                bound.setdefault(name, len(found) - 1)
        else:
            found.append(Chunk("start", first, first))
        found[-1].last, constants = node.end_lineno, isinstance(node, ast.Assign)
    for chunk, following in zip(found, found[1:], strict=False):
        chunk.last = following.first - 1  # the empty lines between them
    for node in tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            chunk = next(c for c in found if c.first <= node.lineno <= c.last)
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            chunk.needs |= {
                bound[name] for name in names if name in bound and found[bound[name]] is not chunk
            }
            names.add("annotations")  # from __future__, where a script has it
            chunk.imports |= {imported[name] for name in names if name in imported}
    for _ in found:  # what is needed by what is needed
        for chunk in found:
            for i in list(chunk.needs):
                chunk.needs |= {j for j in found[i].needs if found[j] is not chunk}
                chunk.imports |= found[i].imports
    return found


# ----------------------------------------------------------------------------------- writing a page


def highlighted(source: str) -> list[str]:
    """The script line by line as HTML, every token in a span of Pygments' short class names."""
    lines = [""]
    for kind, text in PythonLexer(stripnl=False).get_tokens(source):
        name = STANDARD_TYPES[kind]
        for i, piece in enumerate(text.split("\n")):
            if i:
                lines.append("")
            if piece:
                escaped = html.escape(piece, quote=False)
                lines[-1] += (
                    f'<span class="{name}">{escaped}</span>' if name and piece.strip() else escaped
                )
    return lines


def code_html(name: str, source: str, page: Page) -> str:
    """The right side: the whole script."""
    tree = ast.parse(source)
    flags = {keyword(flag): flag for flag, _ in page.departures}
    departures = departure_lines(ast.parse(source), set(flags))
    for missing in set(flags) - {n for names in departures.values() for n in names}:
        raise BuildError(
            f"{name}.py: {flags[missing]} is listed under Beyond the slide, "
            f"but no line uses {missing!r}"
        )
    starts = {block.first: block for block in blocks(source)}
    ends = {block.last for block in starts.values()}
    tagged = {i: block.tag for block in starts.values() for i in block.comment}
    lines, out = highlighted(source), []
    pieces = chunks(source, tree)
    for i, chunk in enumerate(pieces):
        label = {"docstring": "the docstring, which stands on the left", "start": "start"}.get(
            chunk.name, chunk.name
        )
        head = f"<h3>{html.escape(label)}</h3>"
        if chunk.name not in ("docstring", "start"):
            needs = " ".join(str(j) for j in sorted(chunk.needs))
            imports = " ".join(str(j) for j in sorted(chunk.imports))
            head += (
                f'<button class="copy" data-chunk="{i}" data-needs="{needs}" '
                f'data-imports="{imports}" '
                f'aria-label="copy {html.escape(label)} with all it needs">copy</button>'
            )
        inner = []
        for number in range(chunk.first, chunk.last + 1):
            if number in starts:
                tag = starts[number].tag
                inner.append(f'<div class="block" id="code-{tag}" data-line="{tag}">')
            names = sorted(departures.get(number, ()))
            marks = "".join(
                f'<a class="flag" href="#{n}" data-flag="{n}">{html.escape(flags[n])}</a>'
                for n in names
            )
            text = lines[number - 1]
            if number in tagged:
                words = text.lstrip()
                text = (
                    text.removesuffix(words)
                    + f'<a class="tag" href="#{tagged[number]}">{words}</a>'
                )
            if text:  # a long line is folded behind its indentation
                row = source.splitlines()[number - 1]
                text = f'<code style="--indent:{len(row) - len(row.lstrip())}">{text}</code>'
            else:
                text = "<code></code>"
            attribute = f' data-flags="{" ".join(names)}"' if names else ""
            inner.append(
                f'<div class="l" id="L{number}"{attribute}><span class="m">{marks}</span>'
                f'<a class="no" href="#L{number}" tabindex="-1" aria-hidden="true">{number}</a>'
                f"{text}</div>"
            )
            if number in ends:
                inner.append("</div>")
        body = f'<div class="lines">{"".join(inner)}</div>'
        if chunk.name in ("docstring", "imports"):  # folded: the page opens with the algorithm
            out.append(
                f'<details class="chunk" id="chunk-{i}"><summary>{head}</summary>{body}</details>'
            )
        else:
            out.append(
                f'<section class="chunk" id="chunk-{i}" aria-label="{html.escape(label)}">'
                f"<header>{head}</header>{body}</section>"
            )
    return "\n".join(out)


def slide_html(name: str, page: Page) -> str:
    """The left side: the slide."""
    out = [f"<h1>{inline(page.title)}</h1>", f'<p class="place">{inline(page.place)}</p>']
    out += [f"<p>{inline(text)}</p>" for text in page.idea]
    out += [
        "<h2>Pseudocode</h2>",
        f'<p class="source">{inline(page.source)}</p>',
        '<ol class="pseudocode">',
    ]
    for tag, level, text in page.pseudocode:
        typeset = "<br>".join(inline(line) for line in text.splitlines())
        out.append(
            f'<li id="{tag}" data-line="{tag}" style="--level:{level}">'
            f'<a href="#{tag}"><span class="n">{tag}</span>'
            f'<span class="t">{typeset}</span></a></li>'
        )
    out += ["</ol>", *(f"<p>{inline(text)}</p>" for text in page.notes)]
    if page.departures:
        out += [
            "<h2>Beyond the slide</h2>",
            "<p>Each is off with its flag, and all of them with <code>--literal</code>.</p>",
            "<ul class=flags>",
        ]
    for flag, text in page.departures:
        key = keyword(flag)
        out.append(
            f'<li id="{key}" data-flag="{key}">'
            f'<a class="flag" href="#{key}">{html.escape(flag)}</a> {inline(text)}</li>'
        )
    out += ["</ul>"] if page.departures else []
    out += ["<h2>Try</h2>", '<ul class="try">']
    out += [
        f"<li>{inline(c.removeprefix('# '))}</li>"
        if c.startswith("# ")
        else f"<li><code>{html.escape(c)}</code> "
        '<button class="copy" aria-label="copy the command">copy</button></li>'
        for c in page.commands
    ]
    out += [
        "</ul>",
        "<h2>References</h2>",
        '<ul class="references">',
        *(f"<li>{html.escape(r)}</li>" for r in page.references),
        "</ul>",
    ]
    if (DOCS / "results" / f"{name}.png").exists():
        what = "with its defaults and with --literal: mean over seeds"
        what = what if page.departures else "with the KL penalty and without"
        alt = f"Learning curve of {name}.py, {what}"
        out.append(f'<h2>What it learns</h2><p><img src="../results/{name}.png" alt="{alt}"></p>')
    return "\n".join(out)


def run_html(name: str, source: str) -> str:
    """Under the slide: the buttons that step through the recorded run, and what it looked like."""
    if name not in scenes.RUNS:
        return ""
    buttons = "".join(
        f'<button data-do="{action}" title="{title}" aria-keyshortcuts="{key}">{text}</button>'
        for action, key, text, title in (
            ("back", "ArrowLeft", "← back", "one line back (key ←)"),
            ("forward", "ArrowRight", "line →", "one line forward (key →)"),
            ("step", "s", "step <kbd>s</kbd>", "to the next environment step (key s)"),
            ("update", "u", "update <kbd>u</kbd>", "to the next update (key u)"),
            ("play", "p", "play <kbd>p</kbd>", "play or pause (key p)"),
        )
        if action != "step" or scenes.RUNS[name][0]  # rlhf.py has no environment
    )
    titles = "".join(
        f'<button data-scene="{i}" aria-pressed="false">{title}</button>'
        for i, title in enumerate(scenes.TITLES[name])
    )
    samples = "".join(f'<option value="{i}">sample {i}</option>' for i in range(trace.FIRST))
    follow = (
        '<label>of a batch: <select><option value="">the first entries</option>'
        f"{samples}</select></label>"
    )
    return (
        '<section class="run" aria-label="the recorded run">\n'
        f'<div class="buttons">{buttons}<span class="place"></span></div>\n'
        '<input type="range" min="-1" value="-1" aria-label="position in the run">\n'
        f'<div class="scenes">{titles}{follow if "torch" in source else ""}</div>\n'
        '<div class="line" aria-hidden="true"></div>\n'
        '<div class="view"><div class="stage"></div><div class="facts"></div></div>\n'
        '<p class="live" role="status" aria-live="polite"></p>\n</section>\n'
        f'<script src="{name}.run.js" defer></script>\n<script src="run.js" defer></script>'
    )


def document(title: str, body: str, kind: str) -> str:
    """A whole HTML file; page.css and page.js lie beside it, so that it opens from the disk."""
    script = '<script src="page.js" defer></script>\n' if kind == "script" else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n"
        f'<link rel="stylesheet" href="page.css">\n{script}</head>\n'
        f'<body class="{kind}">\n{body}\n</body>\n</html>\n'
    )


def check(name: str, source: str, page: Page) -> None:
    """Raise BuildError if a line of pseudocode has no code, or a tag in the code no such line."""
    lines, tags = [tag for tag, _, _ in page.pseudocode], [block.tag for block in blocks(source)]
    for tag in lines:
        if tags.count(tag) != 1:
            raise BuildError(
                f"{name}.py: [{tag}] of the docstring stands {tags.count(tag)} times in the code"
            )
    for tag in tags:
        if tag not in lines:
            raise BuildError(f"{name}.py: [{tag}] stands in the code, but not in the docstring")


def script_page(name: str, source: str) -> str:
    """The page of one script."""
    page = read_docstring(ast.get_docstring(ast.parse(source)))
    check(name, source, page)
    i, tagged = SCRIPTS.index(name), blocks(source)[0].first
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    first = next(f.lineno for f in functions if f.end_lineno > tagged)  # the recorded function
    links = ['<a href="index.html">all scripts</a>']
    links += [f'<a rel="prev" href="{SCRIPTS[i - 1]}.html">← {SCRIPTS[i - 1]}.py</a>'] if i else []
    links += (
        [f'<a rel="next" href="{SCRIPTS[i + 1]}.html">{SCRIPTS[i + 1]}.py →</a>']
        if i + 1 < len(SCRIPTS)
        else []
    )
    body = (
        f'<nav aria-label="scripts">{" ".join(links)}</nav>\n<main>\n'
        '<section class="slide" aria-label="the slide" tabindex="0">\n'
        f"{slide_html(name, page)}\n</section>\n{run_html(name, source)}\n"
        f'<section class="code" aria-label="the code" tabindex="0" data-first="{first}">\n'
        f'<header class="file"><h2>{name}.py</h2>'
        '<button class="copy whole" aria-label="copy the whole script">copy all</button></header>\n'
        f"{code_html(name, source, page)}\n</section>\n</main>"
    )
    return document(f"{name}.py: {page.title}", body, "script")


def index_page(sources: dict[str, str]) -> str:
    """All scripts in the lecture's order, under the README's heading and first words."""
    readme = (ROOT / "README.md").read_text().split("\n\n")
    out = [
        f"<main><h1>{html.escape(readme[0].removeprefix('# '))}</h1>",
        f"<p>{inline(' '.join(readme[1].split()))}</p>",
        "<ol>",
    ]
    for name, source in sources.items():
        page = read_docstring(ast.get_docstring(ast.parse(source)))
        out.append(
            f'<li><h2><a href="{name}.html">{inline(page.title)}</a></h2>'
            f'<p class="place">{inline(page.place)} '
            f"<code>{name}.py</code></p><p>{inline(page.idea[0])}</p></li>"
        )
    return document(readme[0].removeprefix("# "), "\n".join([*out, "</ol></main>"]), "index")


def build() -> dict[str, str]:
    """All pages: file name -> content."""
    sources = {name: (ROOT / f"{name}.py").read_text() for name in SCRIPTS}
    return {"index.html": index_page(sources)} | {
        f"{name}.html": script_page(name, source) for name, source in sources.items()
    }


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=textwrap.dedent(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit status 1 if a page is not up to date",
    )
    parser.add_argument("--record", action="store_true", help="record all runs anew")
    args = parser.parse_args()
    folder = DOCS / "html"
    try:
        pages = build()
        for name in scenes.RUNS:
            record = scenes.read(folder / f"{name}.run.js")
            if args.check:
                fresh = scenes.is_fresh(name, record)
                pages[f"{name}.run.js"] = scenes.written(record) if fresh else ""
            elif args.record or not scenes.is_fresh(name, record):
                print(f"recording {name}.py", flush=True)
                written = scenes.written(scenes.record(name))
                (folder / f"{name}.run.js").write_text(written)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    if args.check:
        stale = [
            name
            for name, page in pages.items()
            if not (folder / name).exists() or (folder / name).read_text() != page
        ]
        print(
            f"not up to date: {', '.join(stale)}; run python docs/build.py"
            if stale
            else "all pages are up to date"
        )
        return 1 if stale else 0
    folder.mkdir(exist_ok=True)
    for name, page in pages.items():
        (folder / name).write_text(page)
    print(f"{len(SCRIPTS) + 1} pages in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
