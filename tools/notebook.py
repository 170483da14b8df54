"""`python -m tools.notebook [dqn lecture ...]`: makes docs/notebooks/ and runs what has changed.

A notebook holds what stands above main() in a script, and needs no file of this project. What else
is in it stands in tools/notebooks.toml: Jinja templates, where a line above each cell says what it
is: `# %% text`, `# %%` (code), or code that is hidden at first, `# %% folded` and `# %% helpers`.
"""

import ast
import itertools
import os
import re
import sys
import tempfile
import tomllib

import jinja2
import nbclient
import nbformat

from common import runs
from tools import pages, slide

FOLDER, NAMES = slide.ROOT / "docs/notebooks", (*slide.SCRIPTS, "lecture")
TEXTS = tomllib.loads((slide.ROOT / "tools/notebooks.toml").read_text("utf-8"))


def typeset(text: str) -> str:
    """A paragraph of a docstring as Markdown."""
    text = pages.typeset(text)
    for pattern, instead in TEXTS["marks"].items():
        text = re.sub(pattern, instead, text)
    return text


def pieces(path: str) -> list[tuple[str, str]]:
    """The statements above main(): the first name in each, and its source with what is above."""
    source = (slide.ROOT / path).read_text("utf-8").partition("\ndef main(argv")[0]
    rows, ends = source.splitlines(keepends=True), [n.end_lineno for n in ast.parse(source).body]
    texts = ["".join(rows[i:j]) for i, j in itertools.pairwise(ends)]  # all but the docstring
    return [(re.search(r"^(?:def |class |)(\w+)", text, re.M)[1], text) for text in texts]


def script(name: str) -> tuple[slide.Script, dict[str, str]]:
    """A script's docstring and tags; its cells: the imports, then each function and class."""
    cells, key = {}, "imports"
    for first, text in pieces(f"{name}.py"):
        key = first if re.search("^(def|class) ", text, re.M) else key
        cells[key] = cells.get(key, "") + text
    return slide.read(slide.ROOT / f"{name}.py"), cells


def taken(module: str, names: str) -> str:
    """Definitions of a module of common/, as one text."""
    texts = [text for name, text in pieces(f"common/{module}.py") if name in names.split()]
    return re.sub(r"^# --+.*\n|(?<![./\w])envs\.(?=\w)", "", "".join(texts), flags=re.M)


def made(name: str) -> nbformat.NotebookNode:
    """A notebook without outputs."""
    env, cells = jinja2.Environment(trim_blocks=True, lstrip_blocks=True), []
    env.filters["typeset"] = typeset
    text = env.from_string(TEXTS["frame"] + TEXTS[name]).render(script=script, taken=taken)
    for i, part in enumerate(re.split("^# %% ?", text, flags=re.M)[1:]):
        kind, _, source = part.partition("\n")
        make = nbformat.v4.new_markdown_cell if kind == "text" else nbformat.v4.new_code_cell
        cells.append(make(source.strip(), id=f"{name}-{i}", metadata=TEXTS["kinds"][kind]))
    return nbformat.v4.new_notebook(cells=cells, metadata=TEXTS["metadata"])


def main(names: list[str]) -> None:
    """Make the notebooks, and run those whose code, helpers apart, does something else now."""
    helpers = TEXTS["kinds"]["helpers"]
    does = lambda cells: [ast.dump(ast.parse(c.source)) for c in cells if c.metadata != helpers]
    os.environ["TQDM_DISABLE"] = "1"  # a progress bar is not worth keeping
    if other := {*names} - {*NAMES}:
        raise runs.BadInput(f"{' '.join(other)}: there is a notebook for each of {NAMES}")
    for name in names or NAMES:
        book, path = made(name), FOLDER / f"{name}.ipynb"
        before = nbformat.read(path, 4) if path.exists() else nbformat.v4.new_notebook()
        cells, old = ([c for c in b.cells if c.cell_type == "code"] for b in (book, before))
        if does(cells) == does(old):  # comments have changed, or the text: the outputs stay
            for cell, was in zip(cells, old, strict=True):
                cell.update(outputs=was.outputs, execution_count=was.execution_count)
        else:
            with tempfile.TemporaryDirectory() as folder:
                nbclient.execute(book, cwd=folder, record_timing=False)
        nbformat.write(book, path)


if __name__ == "__main__":
    sys.exit(runs.explained("notebook", lambda: main(sys.argv[1:])))
