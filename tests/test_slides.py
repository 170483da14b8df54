"""The line-by-line map: each line of pseudocode stands in the code once, in order, nested, above
its statement. And tools/mistakes.toml, whose entries name such lines."""

import importlib
import inspect
import io
import re
import tokenize
import tomllib

import pytest

from tools import homework, slide

SOURCES = {name: (slide.ROOT / f"{name}.py").read_text("utf-8") for name in slide.SCRIPTS}
every = pytest.mark.parametrize("script", SOURCES)
# How many lines the slide has, and how many with letters stand around them.
LINES = dict(qlearning_table=(10, 0), dqn=(13, 0), reinforce=(5, 0), actor_critic=(2, 4))
LINES |= dict(ddpg=(15, 0), a3c=(19, 0), ppo=(1, 7), rlhf=(3, 16))


@every
def test_code_follows_its_pseudocode(script):
    parsed = slide.read(slide.ROOT / f"{script}.py")
    slide.check(parsed)
    numbers = [tag.tag for tag in parsed.tags if tag.tag.isdigit()]
    assert (len(numbers), len(parsed.tags) - len(numbers)) == LINES[script]


EXAMPLE = '''"""An example.

Pseudocode

    [a] Initialise
    [b] repeat
    [1]     for each item do
    [2]         Add it
                to the total
    [c] until enough
"""


def train():
    # [a] Initialise
    total = 0
    # [b] repeat
    while True:
        # [1] for each item do
        for item in (1, 2):
            # [2] Add it
            #   to the total
            total += item
        # [c] until enough
        if total > 9:
            break
'''
A, B = "# [a] Initialise\n", "# [b] repeat\n"
WRONG = [  # what is said, and the change
    ("the docstring has the lines", "# [2] Add it\n            #   to the total\n", ""),
    ("the docstring has the lines", A, f"{A}    {A}"),
    ("are out of order", f"{A}    total = 0\n    {B}", f"{B}    total = 0\n    {A}"),
    ("are out of order", "[1]", "[9]"),
    ("are out of order", "[a] Initialise\n    [b] repeat\n", "[b] repeat\n    [a] Initialise\n"),
    ("[2] says 'Add it to a total'", "#   to the", "#   to a"),
    ("a long comment", A, A + 3 * "    # and so on\n"),
    ("no function around it", "def train()", "if True"),
    ("no code below", "    total = 0\n", ""),
    ("[1] does not stand right above its statement", "        # [1]", "    # [1]"),
    ("[2] is nested in [1], on the slide in [b]", "[2]         Add", "[2]     Add"),
    ("[c] is nested in [b], on the slide in []", "until", "then"),
]


@pytest.mark.parametrize(("says", "old", "new"), WRONG)
def test_a_broken_copy_is_refused(says, old, new):
    slide.check(slide.parse(EXAMPLE))
    assert old in EXAMPLE
    with pytest.raises(slide.SlideError, match=re.escape(says)):
        slide.check(slide.parse(EXAMPLE.replace(old, new)))


def test_a_vectorised_line_may_leave_the_nesting():
    other = EXAMPLE.replace("[2]         Add", "[2]     Add")
    slide.check(
        slide.parse(other.replace("#   to the total", "#   to the total (vectorised over i)"))
    )


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
    tags = {tag.tag: range(tag.row, tag.body.stop) for tag in slide.parse(source).tags}
    places = homework.parts(source) | tags
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
    kept, begins = set(), True  # a docstring is a string with which a statement begins
    for token in tokenize.generate_tokens(io.StringIO(SOURCES[script]).readline):
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            begins = True
        elif token.string.strip() and token.type != tokenize.COMMENT:
            if not (begins and token.type == tokenize.STRING):
                kept |= set(range(token.start[0], token.end[0] + 1))
            begins = False
    readme = (slide.ROOT / "README.md").read_text("utf-8")
    assert f"[{script}.py]({script}.py) | {len(kept)} |" in readme
