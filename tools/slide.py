"""The one parser of a script: its docstring (the slide), and the tags `# [12] ...` in its code.

The map's test, the pages, the stepper and the homework read scripts with it. It works on every file
whose docstring has a part `Pseudocode`, and whose functions have tags.
"""

import ast
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = ("qlearning_table", "dqn", "reinforce", "actor_critic", "ddpg", "a3c", "ppo", "rlhf")
ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"\[(\d+|[a-z])\]( +)(\S.*)")
VECTORISED = re.compile(r" \(vectorised over [^)]+\)$")


class SlideError(ValueError):
    """The script does not hold what it should; the message is one line and says where."""


@dataclass
class Line:
    """A line of pseudocode: in the docstring (level: of nesting), or as a tag in the code.

    Attributes:
        tag: its number or letter.
        text: without the tag; of a tag also without `(vectorised over ...)`.
        level: of nesting; of a tag the column of its comment.
        row: of its first line in the file, counted from 1.
        body: the rows of its code, from the first statement to the last line; of a tag only.
        notes: how many lines of explanation stand between tag and statement.
        function: the name of the function that it stands in.
        vectorised: whether it is done for a whole batch at once.
    """

    tag: str
    text: str
    level: int
    row: int
    body: range = range(0)
    notes: int = 0
    function: str = ""
    vectorised: bool = False


@dataclass
class Script:
    """A script's docstring in parts, and its tags.

    Attributes:
        title, place: what it is, and where in the lecture.
        idea, notes: paragraphs, before and after the pseudocode.
        origin: of the pseudocode, in brackets behind the word.
        pseudocode: its lines; headings: row -> text of what stands between them.
        departures: (name, flag that turns it off or "", text) of what the slide does not have.
        commands, references: under Try and References.
        tags: in the code, from top to bottom.
    """

    source: str
    title: str = ""
    place: str = ""
    origin: str = ""
    idea: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pseudocode: list[Line] = field(default_factory=list)
    headings: dict[int, str] = field(default_factory=dict)
    departures: list[tuple[str, str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    tags: list[Line] = field(default_factory=list)


def read(path: Path | str) -> Script:
    """A script, parsed.

    Raises:
        SlideError: the file cannot be read, or is not Python.
    """
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise SlideError(f"{path} is not Python: line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise SlideError(f"{path} cannot be read: {error}") from None


def parse(source: str) -> Script:
    """As read(), of a source."""
    tree, script = ast.parse(source), Script(source)
    _docstring(script, ast.get_docstring(tree, clean=False) or "")
    _tags(script, tree)
    return script


def _docstring(script: Script, text: str) -> None:
    part, lines = "", text.splitlines()
    for row, line in enumerate(lines, 1):
        words, column = line.strip(), len(line) - len(line.lstrip())
        if not words:
            part = "idea" if part == "title" else part
        elif row == 1 or part == "title":
            part, script.title = "title", f"{script.title} {words}".strip()
        elif not column and re.match(r"(Pseudocode|Beyond the slide|Try|References)\b", words):
            part = words.split()[0]
            script.origin += words.removeprefix("Pseudocode").strip(" ()") * (part == "Pseudocode")
        elif not column:  # a paragraph
            paragraphs = script.idea if part == "idea" else script.notes
            part = part if part == "idea" else "notes"
            if lines[row - 2].strip():
                paragraphs[-1] += f" {words}"
            else:
                paragraphs.append(words)
        elif part == "Pseudocode" and (match := LINE.match(words)):
            level = (match.start(3) - 4) // 4
            script.pseudocode.append(Line(match[1], match[3], level, row))
        elif part == "Pseudocode" and column > 4:
            script.pseudocode[-1].text += f" {words}"
        elif part == "Pseudocode":
            script.headings[row] = words
        elif part == "Beyond" and column == 4:
            match = re.match(r"([^(.;:]*) \(off: (--[^)]+)\)", words)
            script.departures.append((*(match.groups() if match else ("", "")), words))
        elif part == "Beyond":
            name, flag, before = script.departures[-1]
            script.departures[-1] = name, flag, f"{before} {words}"
        elif part in ("Try", "notes", "References"):
            (script.references if part == "References" else script.commands).append(words)
    script.title, _, script.place = script.title.partition(". ")


def _tags(script: Script, tree: ast.Module) -> None:
    rows = script.source.splitlines()
    readline = iter([f"{row}\n" for row in rows] + [""]).__next__
    comments = {
        token.start[0]: (token.start[1], token.string)
        for token in tokenize.generate_tokens(readline)
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
    }
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for row, (column, comment) in comments.items():
        match = LINE.fullmatch(comment.removeprefix("# "))
        if not match:
            continue
        text, end = match[3], row + 1
        while comments.get(end, (0, ""))[1].startswith("#   "):  # a long line goes on
            text, end = f"{text} {comments[end][1][4:]}", end + 1
        first = end
        while comments.get(end, (-1, ""))[0] == column and not LINE.fullmatch(comments[end][1][2:]):
            end += 1
        bare = VECTORISED.sub("", text)
        inside = [f.name for f in functions if f.lineno < row <= f.end_lineno]
        tag = Line(match[1], bare, column, row, notes=end - first, vectorised=bare != text)
        tag.function, tag.body = "".join(inside), range(end, end)
        script.tags.append(tag)
    for i, tag in enumerate(script.tags):
        stop = script.tags[i + 1].row if i + 1 < len(script.tags) else len(rows) + 1
        last = tag.body.start
        for row in range(last, stop):
            text = rows[row - 1]
            if text.strip() and len(text) - len(text.lstrip()) < tag.level:
                break
            last = row + 1 if text.strip() and row not in comments else last
        tag.body = range(tag.body.start, last)


def check(script: Script) -> None:
    """The line-by-line map: each line of pseudocode stands in the code once, in order, nested.

    A line done for a whole batch at once ends in `(vectorised over t)`, and may leave the nesting.
    An `until` line stands at the end of the loop's body.

    Raises:
        SlideError: which line is missing, twice, reworded, out of order or wrongly nested.
    """
    lines, tags = script.pseudocode, script.tags
    here, there = [line.tag for line in lines], [tag.tag for tag in tags]
    if not lines or sorted(here) != sorted(there) or len(set(here)) < len(here):
        raise SlideError(f"the docstring has the lines {here}, the code {there}")
    for names in (here, there):
        for kind in (str.isdigit, str.isalpha):
            found = list(filter(kind, names))
            if found != sorted(found, key=lambda name: (len(name), name)):
                raise SlideError(f"{found} are out of order")
    rows, by_tag = script.source.splitlines(), {line.tag: line for line in lines}
    parents, open_lines = {}, []
    for line in lines:
        open_lines = [above for above in open_lines if above.level < line.level]
        parents[line.tag] = open_lines[-1].tag if open_lines else ""
        if line.text.startswith("until "):  # it belongs to the loop of its own level
            above = [o for o in lines[: lines.index(line)] if o.level == line.level]
            loops = [o.tag for o in above if re.match("Loop|repeat", o.text)]
            parents[line.tag] = loops[-1]
        open_lines.append(line)
    loose = {tag.tag for tag in tags if tag.vectorised}
    open_tags = []
    for tag in tags:
        where, line = f"line {tag.row}: [{tag.tag}]", by_tag[tag.tag]
        if tag.text != line.text:
            raise SlideError(f"{where} says {tag.text!r}, the slide {line.text!r}")
        if not tag.function or tag.notes > 2 or not len(tag.body):
            raise SlideError(f"{where}: no function around it, no code below, or a long comment")
        code = rows[tag.body.start - 1]
        if len(code) - len(code.lstrip()) != tag.level:
            raise SlideError(f"{where} does not stand right above its statement")
        open_tags = [t for t in open_tags if t.level < tag.level and t.function == tag.function]
        parent = open_tags[-1].tag if open_tags else ""
        if tag.tag not in loose and parents[tag.tag] not in loose and parent != parents[tag.tag]:
            slide = parents[tag.tag]
            raise SlideError(f"{where} is nested in [{parent}], on the slide in [{slide}]")
        open_tags.append(tag)
