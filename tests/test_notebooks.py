"""The notebooks: made from the scripts as they are now, and each runs without this project."""

import re

import pytest

WHY = "no nbclient, nbformat, ipykernel: see docs/requirements.txt; the notebooks were not tried"
notebook = pytest.importorskip("tools.notebook", reason=WHY, exc_type=ImportError)


@pytest.mark.parametrize("name", notebook.NAMES)
def test_stored_is_what_would_be_made_now(name):
    """Otherwise: python -m tools.notebook. It has run without an error, and is small."""
    path = notebook.FOLDER / f"{name}.ipynb"
    stored, made = notebook.nbformat.read(path, 4), notebook.made(name)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in made.cells]
    kinds = [output.output_type for cell in stored.cells for output in cell.get("outputs", [])]
    assert len(kinds) > 3 and "error" not in kinds and path.stat().st_size < 1_000_000


def short(name: str, budget: int):
    """A notebook whose trainings take `budget` steps."""
    book = notebook.made(name)
    for cell in book.cells:
        pattern = r"\b(steps|demonstrations|comparisons)( = |=|: int = )[\d_]+"
        cell.source = re.sub(pattern, rf"\1\g<2>{budget}", cell.source)
    return book


def test_runs_alone(tmp_path):
    """In an empty folder: the lecture, which pastes all scripts. The stored ones have run, too."""
    notebook.nbclient.execute(short("lecture", 300), cwd=tmp_path, timeout=300)


def test_stop_leaves_what_was_learned(tmp_path):
    """Jupyter's Stop sends a SIGINT: the training ends with the episode, and the next cells run."""
    book = short("dqn", 10**8)
    run = next(cell for cell in book.cells if "with Watch" in cell.source)
    run.source = f"""import os, threading
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
{run.source}
assert watch.stopped and returns and signal.getsignal(signal.SIGINT) != watch.stop"""
    book.cells = book.cells[: book.cells.index(run) + 4]
    notebook.nbclient.execute(book, cwd=tmp_path, timeout=120)
