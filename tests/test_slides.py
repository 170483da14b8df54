"""The line-by-line map: each line of pseudocode stands in the code once, in order, nested, above
its statement. And tools/mistakes.toml, whose entries name such lines."""

import importlib
import re
import tomllib

import pytest

from common import runs
from tools import homework, slide

SOURCES = {name: (slide.ROOT / f"{name}.py").read_text("utf-8") for name in slide.SCRIPTS}
every = pytest.mark.parametrize("script", SOURCES)
# How many lines each script has, with numbers or letters.
LINES = dict(zip(slide.SCRIPTS, (10, 13, 5, 7, 15, 19, 9, 19), strict=True))


@every
def test_code_follows_its_pseudocode(script):
    """And the README counts its code lines: without blank lines, comments and docstrings."""
    slide.check(parsed := slide.read(slide.ROOT / f"{script}.py"))
    assert len(parsed.tags) == LINES[script]
    lines = homework.code(SOURCES[script], range(1, 9**9)).splitlines()
    readme = (slide.ROOT / "README.md").read_text("utf-8")
    assert f"[{script}.py]({script}.py) | {len(lines)} |" in readme


TABLE, FOUR = SOURCES["qlearning_table"], "        # [4] Initialize S\n"
NINE, TEN = "    [9]         S <- S'\n", "    [10]    until S is terminal\n"
CODE = "            # [9] S <- S'\n            S = S_next\n"
UNTIL = "            # [10] until S is terminal\n"
WRONG = [  # what is said, and the change in qlearning_table.py or, if it has letters, in ppo.py
    ("the docstring has the lines", FOUR, ""),
    ("the docstring has the lines", FOUR, FOUR + FOUR),
    ("are out of order", CODE + UNTIL, UNTIL + CODE),
    ("are out of order", NINE + TEN, TEN + NINE),
    ("are out of order", "[a]", "[z]"),
    ("[9] says 'S <- S', the slide", "# [9] S <- S'", "# [9] S <- S"),
    ("a long comment", FOUR, FOUR + 3 * "        # and so on\n"),
    ("no function around it", "def train(", "async def train("),
    ("no code below", "            S = S_next\n", ""),
    ("[9] does not stand right above its statement", "    # [9]", "# [9]"),
    ("[9] is nested in [5], on the slide in [3]", "[9]         S", "[9]     S"),
    ("[10] is nested in [5], on the slide in [3]", "until S", "then S"),
    ("[f] is nested in [b], on the slide in []", "    [f]     ", "    [f] "),
]


@pytest.mark.parametrize(("says", "old", "new"), WRONG)
def test_a_broken_copy_is_refused(says, old, new):
    source = TABLE if old in TABLE else SOURCES["ppo"]
    with pytest.raises(slide.BadInput, match=re.escape(says)):
        slide.check(slide.Script(source.replace(old, new)))


@every
def test_beyond_the_slide_names_what_literal_turns_off(script):
    """Each flag with its value in LITERAL, none of them a default; the rest are constants."""
    module = importlib.import_module(script)
    keywords = lambda flags: set(runs.parse(module.train, flags.split(), script)[1].items())
    flags = [flag for _, flag, _ in slide.Script(SOURCES[script]).departures if flag]
    off = set().union(*(keywords(flag) - keywords("") for flag in flags))
    literal = set(getattr(module, "LITERAL", {}).items())
    assert off <= literal and len(off) == len(flags)
    assert dict(literal - off).keys() <= {"gamma", "alpha", "epsilon", "batch"}


MISTAKES = tomllib.loads((slide.ROOT / "tools/mistakes.toml").read_text("utf-8"))


@pytest.mark.parametrize("script", MISTAKES)
def test_mistakes_fit(script):
    """Each `old` stands in its script once, at its tag or in its function; `new` is Python."""
    source = SOURCES[script]
    tags = {tag.tag: range(tag.row, tag.body.stop) for tag in slide.Script(source).tags}
    places = homework.parts(source) | tags
    for at, old, new, _ in map(dict.values, MISTAKES[script]):
        row = source.count("\n", 0, source.index(old) + len(old) - len(old.lstrip())) + 1
        assert source.count(old) == 1 and row in places[at] and old != new, old
        compile(source.replace(old, new), script, "exec")
