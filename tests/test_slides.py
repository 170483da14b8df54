"""The line-by-line map: each line of pseudocode stands in the code once, in order, nested, above
its statement. And tools/mistakes.toml, whose entries name such lines."""

import ast
import importlib
import inspect
import io
import re
import tokenize
import tomllib

import pytest

from tools import slide

SOURCES = {name: (slide.ROOT / f"{name}.py").read_text("utf-8") for name in slide.SCRIPTS}
every = pytest.mark.parametrize("script", SOURCES)
# How many lines the slide has, and how many with letters stand around them.
LINES = dict(qlearning_table=(10, 0), dqn=(13, 0), reinforce=(5, 0), actor_critic=(2, 5))
LINES |= dict(ddpg=(15, 0), a3c=(19, 0), ppo=(1, 8), rlhf=(3, 16))


@every
def test_code_follows_its_pseudocode(script):
    parsed = slide.read(slide.ROOT / f"{script}.py")
    slide.check(parsed)
    numbers = [tag.tag for tag in parsed.tags if tag.tag.isdigit()]
    assert (len(numbers), len(parsed.tags) - len(numbers)) == LINES[script]


def broken(script: str, tag: slide.Line, before: slide.Line, kind: str) -> str:
    """A copy of a script in which one tag is wrong."""
    rows = SOURCES[script].splitlines()
    first, last = tag.row - 1, tag.body.start - 1 - tag.notes
    if kind == "missing":
        del rows[first:last]
    elif kind == "twice":
        rows[last:last] = rows[first:last]
    elif kind == "reworded":
        rows[last - 1] += "s"
    elif kind == "far from its statement":
        rows[last:last] = [" " * tag.level + "# and so on"] * 3
    elif kind == "in another column":
        rows[first] = rows[first][4:]
    elif kind == "out of order":
        for line, other in ((tag, before), (before, tag)):
            rows[line.row - 1] = " " * line.level + f"# [{other.tag}] {other.text}"
    return "\n".join(rows) + "\n"


KINDS = dict.fromkeys(("missing", "twice"), "the docstring has the lines")
KINDS |= {"reworded": "says", "far from its statement": "long comment"}
KINDS |= {"in another column": "right above its statement", "out of order": "out of order"}


@every
def test_a_broken_copy_is_refused(script):
    """Every tag is broken in one of these ways, in the shortest script in all of them."""
    tags, tried = slide.parse(SOURCES[script]).tags, set()
    for i, tag in enumerate(tags):
        for k, (kind, says) in enumerate(KINDS.items()):
            same_series = tag.tag.isdigit() == tags[i - 1].tag.isdigit()
            if kind == "out of order" and (not same_series or i == 0):
                continue
            if script == "qlearning_table" or i % len(KINDS) == k:
                with pytest.raises(slide.SlideError, match=says):
                    slide.check(slide.parse(broken(script, tag, tags[i - 1], kind)))
                tried.add(kind)
    assert len(tried) >= 4


EXAMPLE = '''"""An example.

Pseudocode

    [1] Initialise
    [2] repeat
    [3]     for each item do
    [4]         Add it
    [5] until enough
"""


def train():
    # [1] Initialise
    total = 0
    # [2] repeat
    while True:
        # [3] for each item do
        for item in (1, 2):
            # [4] Add it
            total += item
        # [5] until enough
        if total > 9:
            break
'''
ADD = "            # [4] Add it\n            total += item\n"
OUTSIDE = EXAMPLE.replace(ADD, "            pass\n        # [4] Add it\n        total += item\n")


def test_nesting_is_the_slides():
    slide.check(slide.parse(EXAMPLE))
    with pytest.raises(slide.SlideError, match=r"\[4\] is nested in \[2\], on the slide in \[3\]"):
        slide.check(slide.parse(OUTSIDE))
    slide.check(
        slide.parse(OUTSIDE.replace("# [4] Add it", "# [4] Add it (vectorised over items)"))
    )
    until = "        # [5] until enough\n        if total > 9:\n            break\n"
    after = EXAMPLE.replace(until, "        break\n    # [5] until enough\n    total -= 1\n")
    with pytest.raises(slide.SlideError, match=r"\[5\] is nested in \[\], on the slide in \[2\]"):
        slide.check(slide.parse(after))


@every
def test_beyond_the_slide_names_what_literal_turns_off(script):
    """Each flag with its value in LITERAL, none of them a default; the rest are constants."""
    departures = slide.parse(SOURCES[script]).departures
    flags = dict((flag.split(" ") + [""])[:2] for _, flag, _ in departures if flag)
    module = importlib.import_module(script)
    literal = dict(getattr(module, "LITERAL", {}))
    for flag, value in flags.items():
        name = flag.removeprefix("--no-").removeprefix("--").replace("-", "_")
        off = float(value) if value else False
        assert literal.pop(name) == off
        assert inspect.signature(module.train).parameters[name].default != off
    assert set(literal) <= {"gamma", "alpha", "epsilon", "batch"}


MISTAKES = tomllib.loads((slide.ROOT / "tools/mistakes.toml").read_text("utf-8"))


@pytest.mark.parametrize("script", MISTAKES)
def test_mistakes_fit(script):
    """Each `old` stands in its script once, at its tag or in its function; `new` is Python."""
    source, seen = SOURCES[script], {SOURCES[script]}
    places = {tag.tag: range(tag.row, tag.body.stop) for tag in slide.parse(source).tags}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            places[node.name] = range(node.lineno, node.end_lineno + 1)
    for mistake in MISTAKES[script]:
        assert list(mistake) == ["at", "old", "new", "sentence"]
        old, changed = mistake["old"], source.replace(mistake["old"], mistake["new"])
        assert source.count(old) == 1 and changed not in seen, old
        start = source.index(old) + len(old) - len(old.lstrip())
        assert source[:start].count("\n") + 1 in places[mistake["at"]], old
        compile(changed, script, "exec")
        assert re.fullmatch(r"\S.{9,110}[^\s.]", mistake["sentence"])
        seen.add(changed)


@every
def test_the_readme_counts_the_code_lines(script):
    """Without blank lines, comments and docstrings."""
    source, kept = SOURCES[script], set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            kept |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0]
            if ast.get_docstring(node):
                kept -= set(range(first.lineno, first.end_lineno + 1))
    readme = (slide.ROOT / "README.md").read_text("utf-8")
    assert f"[{script}.py]({script}.py) | {len(kept)} |" in readme
