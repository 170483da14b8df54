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


def test_what_is_run_again(tmp_path, monkeypatch):
    """A notebook whose code has changed. Comments and helpers do not count: the outputs stay."""
    ran, path = [], tmp_path / "reinforce.ipynb"
    execute = lambda book, **_: ran.append(book.cells[4].update(execution_count=7))
    monkeypatch.setattr(notebook, "FOLDER", tmp_path)
    monkeypatch.setattr(notebook.nbclient, "execute", execute)
    notebook.main(["reinforce"])
    first = path.read_text("utf-8")
    for old, new, runs in (("is small", "is", 1), ("import re", "1", 1), ("=3e-5", "=4e-5", 2)):
        path.write_text(first.replace(old, new), "utf-8")
        notebook.main(["reinforce"])
        assert path.read_text("utf-8") == first and len(ran) == runs


def test_runs_alone(tmp_path):
    """The lecture, which pastes all scripts, in an empty folder and shortened. In the maze Jupyter
    says Stop, a SIGINT: the training ends with the episode, and the next cells run."""
    book, pattern = notebook.made("lecture"), r"\b(steps|demonstrations|comparisons)( =|=|: int =)"
    for cell in book.cells:
        cell.source = re.sub(rf"{pattern} ?[\d_]+", r"\1\2 200", cell.source)
        cell.source = cell.source.replace("sleep(0.02)", "sleep(0)").replace("= 200):", "=20):")
    run = next(cell for cell in book.cells if "train_dqn(maze" in cell.source)
    run.source = f"""import os, threading
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
{run.source.replace("steps = 200", "steps = 10**8")}
assert watch.stopped and watch.returns and signal.getsignal(signal.SIGINT) != watch.stop"""
    notebook.nbclient.execute(book, cwd=tmp_path, timeout=300)
