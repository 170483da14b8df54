"""The line-by-line map: each line of pseudocode stands in the code once, in order, nested, exactly.

The rules that are checked (a line is `[n] text`; n a number for the slide's lines, a letter for a
loop the slide leaves out):

- the code holds the comment `# [n] text` exactly once for each docstring line, and no other tag;
- numbers ascend, and letters ascend, from top to bottom;
- the statement that carries the line out begins on the very next line, in the comment's column;
- a line nested in another on the slide stands in the body of that line's statement, one level in;
  neighbours share a column;
- an `until` line ends its loop; Python has no repeat-until, so that it is an `if ...: break` in the
  body of that loop;
- a line whose comment ends in `(vectorised over t)` is done for a whole batch at once, and may
  leave the nesting.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ["qlearning_table", "dqn", "reinforce", "actor_critic", "ddpg", "a3c", "ppo", "rlhf"]
PRESENT = [name for name in SCRIPTS if (ROOT / f"{name}.py").exists()]

TAG = re.compile(r"\[(\d+|[a-z])\]( +)(\S.*)")
VECTORISED = re.compile(r" \(vectorised over [^)]+\)$")


class MapError(AssertionError):
    """The code does not follow the pseudocode; the message says where."""


@dataclass
class Line:
    """A line of pseudocode, in the docstring (column: its level) or in the code (the comment's)."""

    tag: str
    text: str
    column: int
    row: int
    parent: Line | None = None


@functools.cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def docstring_lines(source: str) -> list[Line]:
    """The lines under the docstring's `Pseudocode` heading, each with the line it is nested in."""
    page = ast.get_docstring(parsed(source), clean=True)
    lines, inside = [], False
    for row, text in enumerate(page.splitlines()):
        if text and not text.startswith(" "):
            inside = text.startswith("Pseudocode") or (inside and TAG.match(text))
        if not inside:
            continue
        if match := TAG.fullmatch(text.strip()):
            # In steps of four, as `[19] until` begins one column behind `[2] repeat`, which is on
            # the same level.
            lines.append(Line(match[1], match[3], match.start(3) // 4, row))
        elif lines and text.startswith(" "):
            lines[-1].text += " " + text.strip()  # a long line goes on in the next
    for i, line in enumerate(lines):
        series = [before for before in lines[:i] if before.tag.isdigit() == line.tag.isdigit()]
        line.parent = next(
            (before for before in reversed(series) if before.column < line.column), None
        )
    return lines


def code_lines(source: str) -> list[Line]:
    """The tags among the code's comments."""
    lines, rows = [], source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match = (
            TAG.fullmatch(token.string[2:])
            if token.type == tokenize.COMMENT and token.string.startswith("# [")
            else None
        )
        if not match:
            continue
        row, column = token.start
        if rows[row - 1].strip() != token.string:
            raise MapError(
                f"line {row}: [{match[1]}] stands behind code; "
                "it belongs on a line of its own, above its statement"
            )
        line = Line(match[1], match[3], column, row)
        while re.match(
            r"\s*#  +\S", rows[line.row]
        ):  # a long line goes on in the next, indented behind the #
            line.text += " " + rows[line.row].strip().lstrip("# ")
            line.row += 1
        lines.append(line)
    return lines


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def check_map(source: str) -> None:
    """Raise MapError unless the code of `source` follows the pseudocode in its docstring."""
    page, code = docstring_lines(source), code_lines(source)
    if not page:
        raise MapError("the docstring has no pseudocode")
    for series in (str.isdigit, str.isalpha):
        tags = [line.tag for line in page if series(line.tag)]
        first = "1" if series is str.isdigit else "a"
        expected = [str(i + 1) if first == "1" else chr(ord("a") + i) for i in range(len(tags))]
        if tags != expected:
            raise MapError(f"the docstring numbers its lines {tags}")
        found = [line.tag for line in code if series(line.tag)]
        if found != tags:
            raise MapError(f"the docstring has the lines {tags}, the code has {found}")

    statements = {}  # row on which it begins -> statement; the outermost comes first in ast.walk
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.stmt):
            statements.setdefault(node.lineno, node)
    rows = source.splitlines()
    tagged = {line.tag: line for line in code}

    for line in page:
        comment = tagged[line.tag]
        where = f"line {comment.row}, [{line.tag}]"
        vectorised = VECTORISED.search(comment.text)
        if squeeze(VECTORISED.sub("", comment.text)) != squeeze(line.text):
            raise MapError(
                f"{where}: the comment says {comment.text!r}, the docstring {line.text!r}"
            )
        below = rows[comment.row] if comment.row < len(rows) else ""
        if not below.strip() or below.lstrip().startswith("#"):
            raise MapError(f"{where}: no statement right under it")
        if len(below) - len(below.lstrip()) != comment.column:
            raise MapError(
                f"{where}: the comment stands in column {comment.column}, its statement does not"
            )
        if vectorised:
            continue

        neighbours = [
            other
            for other in page
            if other.parent is line.parent and other.tag.isdigit() == line.tag.isdigit()
        ]
        if line.text.startswith("until"):
            loop = next(
                other for other in reversed(neighbours[: neighbours.index(line)]) if is_loop(other)
            )
            statement = statements.get(comment.row + 1)
            inside(tagged[loop.tag], comment, where, statements)
            if not isinstance(statement, ast.If) or not any(
                isinstance(s, ast.Break) for s in statement.body
            ):
                raise MapError(f"{where}: an `until` is an `if ...: break`")
        elif line.parent is not None:
            inside(tagged[line.parent.tag], comment, where, statements)
        else:
            plain = [
                n
                for n in neighbours
                if not VECTORISED.search(tagged[n.tag].text) and not n.text.startswith("until")
            ]
            if comment.column != tagged[plain[0].tag].column:
                raise MapError(f"{where}: not in the column of [{plain[0].tag}]")


def is_loop(line: Line) -> bool:
    return re.match(r"(repeat|loop|for|while)\b", line.text, re.IGNORECASE) is not None


def inside(parent: Line, child: Line, where: str, statements: dict[int, ast.stmt]) -> None:
    block = statements.get(parent.row + 1)
    if not isinstance(block, (ast.For, ast.While, ast.If, ast.With)):
        raise MapError(f"{where}: [{parent.tag}], in which it is nested, is not a block")
    if not block.body[0].lineno <= child.row + 1 <= block.end_lineno:
        raise MapError(f"{where}: outside of the body of [{parent.tag}]")
    if child.column != block.body[0].col_offset:
        raise MapError(f"{where}: not one level inside [{parent.tag}]")


# ---------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("script", PRESENT)
def test_code_follows_its_pseudocode(script):
    check_map((ROOT / f"{script}.py").read_text())


LINES = {
    "qlearning_table": 10,
    "dqn": 13,
    "reinforce": 5,
    "actor_critic": 2,
    "ddpg": 15,
    "a3c": 19,
    "ppo": 1,
    "rlhf": 3,
}
LETTERS = {"actor_critic": 4, "ppo": 7, "rlhf": 16}  # what the slide leaves out; elsewhere none


@pytest.mark.parametrize("script", PRESENT)
def test_every_line_of_the_slide_is_there(script):
    tags = [line.tag for line in docstring_lines((ROOT / f"{script}.py").read_text())]
    assert sum(tag.isdigit() for tag in tags) == LINES[script]
    assert sum(tag.isalpha() for tag in tags) == LETTERS.get(script, 0)


def comments(source: str) -> list[tuple[int, int]]:
    """First and last row (from 0) of each tag's comment."""
    return [
        (
            next(
                i
                for i in range(line.row - 1, -1, -1)
                if f"# [{line.tag}]" in source.splitlines()[i]
            ),
            line.row - 1,
        )
        for line in code_lines(source)
    ]


@pytest.mark.parametrize("script", PRESENT)
def test_a_broken_copy_fails(script):
    """Remove, repeat, reword, swap, move in and out each tag in turn: each must be refused."""
    source = (ROOT / f"{script}.py").read_text()
    rows, places = source.splitlines(), comments(source)
    broken = {}
    for i, (first, last) in enumerate(places):
        tag = rows[first].strip()
        broken[f"removed {tag}"] = rows[:first] + rows[last + 1 :]
        broken[f"repeated {tag}"] = rows[: last + 1] + rows[first:]
        words = rows[first].split(" ")
        broken[f"reworded {tag}"] = [
            *rows[:first],
            " ".join([*words[:-1], words[-1] + "s"]),
            *rows[first + 1 :],
        ]
        broken[f"separated {tag}"] = [
            *rows[: last + 1],
            rows[first].split("#")[0] + "# and so on",
            *rows[last + 1 :],
        ]
        broken[f"moved in {tag}"] = [*rows[:first], "    " + rows[first], *rows[first + 1 :]]
        broken[f"moved out {tag}"] = [
            *rows[:first],
            rows[first].removeprefix("    "),
            *rows[first + 1 :],
        ]
        before = places[i - 1][0]
        same_series = i > 0 and tag[3].isdigit() == rows[before].strip()[3].isdigit()
        if same_series and first == last and before == places[i - 1][1]:
            swapped = list(rows)
            swapped[before], swapped[first] = rows[first].strip(), rows[before].strip()
            for row, like in ((before, rows[before]), (first, rows[first])):
                swapped[row] = like[: len(like) - len(like.lstrip())] + swapped[row]
            broken[f"swapped with the line before {tag}"] = swapped
    for name, copy in broken.items():
        try:
            check_map("\n".join(copy) + "\n")
        except (MapError, SyntaxError):
            continue
        pytest.fail(f"{script}.py with a tag {name} passed the checker")


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


def test_nesting_is_that_of_the_statements():
    check_map(EXAMPLE)
    deeper = EXAMPLE.replace(
        "            # [4] Add it\n            total += item",
        "            if item:\n                # [4] Add it\n                total += item",
    )
    outside = EXAMPLE.replace(
        "            # [4] Add it\n            total += item",
        "            pass\n        # [4] Add it\n        total += item",
    )
    no_loop_end = EXAMPLE.replace("        if total > 9:\n            break", "        total -= 1")
    for wrong in (deeper, outside, no_loop_end):
        assert wrong != EXAMPLE
        with pytest.raises(MapError):
            check_map(wrong)
    batch = outside.replace("# [4] Add it", "# [4] Add it (vectorised over items)")
    check_map(batch)
