"""The one parser of a script: its docstring (the slide), and the tags `# [12] ...` in its code.

The map's test, the pages, the stepper and the homework read scripts with it. It works on every file
whose docstring has a part `Pseudocode`, and whose functions have tags.
"""

import ast
import re
from collections import defaultdict, namedtuple
from itertools import pairwise
from pathlib import Path

from common.envs import BadInput

SCRIPTS = ("qlearning_table", "dqn", "reinforce", "actor_critic", "ddpg", "a3c", "ppo", "rlhf")
ROOT = Path(__file__).resolve().parent.parent
# The parts of a docstring, each up to the next one. In them stand paragraphs, from column 0 on, and
# items: from column 4 on, and further to the right below it.
PART = re.compile(r"^(Pseudocode|Beyond the slide|Try|References)\b", re.M)
PARAGRAPH = re.compile(r"^\S.*(?:\n\S.*)*", re.M)
ITEM = re.compile(r"^ {4}\S.*(?:\n {5,}\S.*)*", re.M)
LINE = re.compile(r"\[(\d+|[a-z])\] +")  # how an item begins that is a line of pseudocode
DEPARTURE = re.compile(r"(?:([^(.;:]*) \(off: (--[^)]+)\))?")  # how one begins that has a flag
# A tag in the code: its column, its number or letter, its text, the explanation below it.
TAG = re.compile(r"^( *)# \[(\d+|[a-z])\] +(\S.*(?:\n\1#   .*)*)((?:\n\1#(?! \[..?\] ).*)*)", re.M)
VECTORISED = re.compile(r" \(vectorised over [^)]+\)$")


# A line of pseudocode in the docstring:
#   tag: its number or letter.
#   text: what stands behind the tag.
#   level: of nesting, from 0.
#   heading: what stands right above it, if that is no line; otherwise "".
Line = namedtuple("Line", "tag text level heading")

# A line of pseudocode as a tag in the code:
#   tag: its number or letter.
#   text: what stands behind it, without `(vectorised over ...)`.
#   level: the column of the comment.
#   row: of the comment in the file, counted from 1.
#   notes: how many lines of explanation stand between tag and statement.
#   body: the rows of its code, a range from the first statement to the last line.
#   function: the name of the function that it stands in; "" for none.
#   vectorised: whether it is done for a whole batch at once.
Tag = namedtuple("Tag", "tag text level row notes body function vectorised")


class Script:
    """A script's docstring in parts, and its tags.

    Args:
        source: of the script.

    Attributes:
        title, place: what it is, and where in the lecture.
        idea, notes: paragraphs, before and after the pseudocode.
        origin: of the pseudocode, in brackets behind the word.
        pseudocode: its lines.
        departures: (name, flag that turns it off or "", text) of what the slide does not have.
        commands, references: under Try and References.
        tags: in the code, from top to bottom.
    """

    def __init__(self, source: str):
        self.source, tree = source, ast.parse(source)
        begin, *rest = PART.split(ast.get_docstring(tree, clean=False) or "")
        parts = defaultdict(str, zip(rest[::2], rest[1::2], strict=True))
        title, *self.idea = _found(PARAGRAPH, begin) or [""]
        self.title, _, self.place = title.partition(". ")
        self.origin = parts["Pseudocode"].partition("\n")[0].strip(" ()")
        self.pseudocode, heading = [], ""
        for item in _found(ITEM, parts["Pseudocode"]):
            if line := LINE.match(item):
                text, level = item[line.end() :], line.end() // 4 - 1
                self.pseudocode.append(Line(line[1], text, level, heading))
            heading = "" if line else item
        beyond = _found(ITEM, parts["Beyond the slide"])
        self.departures = [(*DEPARTURE.match(item).groups(""), item) for item in beyond]
        self.commands = _found(ITEM, parts["Try"])
        self.references = _found(ITEM, parts["References"])
        self.notes = _found(PARAGRAPH, "".join(rest[1::2]))
        self.tags = _tags(source, tree)


def read(path: Path | str) -> Script:
    """A script, parsed.

    Raises:
        BadInput: the file cannot be read, or is not Python.
    """
    try:
        return Script(Path(path).read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise BadInput(f"{path} is not Python: line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def _joined(text: str) -> str:
    """Several lines, of a docstring or of a comment, as one."""
    return re.sub(r"\n *(#   )?", " ", text.strip())


def _found(pattern: re.Pattern, text: str) -> list[str]:
    """All that the pattern finds, each as one line."""
    return [_joined(found) for found in pattern.findall(text)]


def _tags(source: str, tree: ast.Module) -> list[Tag]:
    """The tags in the code, from top to bottom; what stands in quotes is none."""
    rows, tags = source.splitlines(), []
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    texts = [node for node in ast.walk(tree) if isinstance(node, (ast.Constant, ast.JoinedStr))]
    quoted = {row for node in texts for row in range(node.lineno + 1, node.end_lineno + 1)}
    found = [(source.count("\n", 0, match.start()) + 1, match) for match in TAG.finditer(source)]
    found = [(row, match) for row, match in found if row not in quoted]
    for (row, match), (stop, _) in pairwise([*found, (len(rows) + 1, None)]):
        column, tag, text, notes = match.groups()
        text, vectorised = VECTORISED.subn("", _joined(text))
        start = row + match[0].count("\n") + 1
        # Its code ends above the next tag, or above what stands further to the left.
        code = [i for i in range(start, stop) if rows[i - 1].lstrip()[:1] not in ("", "#")]
        stop = next((i for i in code if not rows[i - 1].startswith(column)), stop)
        body = range(start, max((i + 1 for i in code if i < stop), default=start))
        name = "".join(f.name for f in functions if f.lineno < row <= f.end_lineno)
        tags.append(Tag(tag, text, len(column), row, notes.count("\n"), body, name, vectorised > 0))
    return tags


def _parents(lines: list[tuple[str, int, str]]) -> dict[str, str]:
    """Of lines (tag, level, function): each tag -> the tag that it is nested in, or ""."""
    found = {}
    for i, (tag, level, function) in enumerate(lines):
        around = [t for t, deep, f in lines[:i] if deep < level and f == function]
        found[tag] = around[-1] if around else ""
    return found


def check(script: Script) -> None:
    """The line-by-line map: each line of pseudocode stands in the code once, in order, nested.

    A line done for a whole batch at once ends in `(vectorised over t)`, and may leave the nesting.
    An `until` line stands at the end of the loop's body.

    Raises:
        BadInput: which line is missing, twice, reworded, out of order or wrongly nested.
    """
    lines, tags, rows = script.pseudocode, script.tags, script.source.splitlines()
    # Numbers and letters each have an order of their own.
    here, there = [sorted((line.tag for line in part), key=str.isalpha) for part in (lines, tags)]
    order = sorted(set(here), key=lambda tag: (tag.isalpha(), len(tag), tag))
    if not lines or here != order or there != order:
        found = f"the docstring has the lines {here}, the code {there}"
        raise BadInput(f"{found}: some are missing, are there twice, or are out of order")
    texts, loose = {line.tag: line.text for line in lines}, {t.tag for t in tags if t.vectorised}
    slide = _parents([(x.tag, x.level + x.text.startswith("until "), "") for x in lines])
    code = _parents([(tag.tag, tag.level, tag.function) for tag in tags])
    for tag in tags:
        where, text, parent = f"line {tag.row}: [{tag.tag}]", texts[tag.tag], slide[tag.tag]
        if tag.text != text:
            raise BadInput(f"{where} says {tag.text!r}, the slide {text!r}")
        if not tag.function or tag.notes > 2 or not tag.body:
            raise BadInput(f"{where}: no function around it, no code below, or a long comment")
        if re.match(" *", rows[tag.body.start - 1]).end() != tag.level:
            raise BadInput(f"{where} does not stand right above its statement")
        if code[tag.tag] != parent and not loose & {tag.tag, parent}:
            raise BadInput(f"{where} is nested in [{code[tag.tag]}], on the slide in [{parent}]")
