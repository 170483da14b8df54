"""Pasted into a notebook: all above main() alone, two scripts one after another, single pieces."""

import ast
import functools
import importlib
import sys
import types

import pytest
import torch
from gymnasium.spaces import Discrete

from common import envs
from common.language import Language
from tests import worlds
from tools import slide

above = lambda name: (slide.ROOT / f"{name}.py").read_text("utf-8").partition("\ndef main(")[0]
ABOVE = {name: above(name) for name in slide.SCRIPTS}


def typed(script: str, train) -> list[bytes]:
    """What a student types below a script, and what comes of it."""
    if script == "rlhf":
        *learned, curve = train(Language(), demonstrations=32, comparisons=32, steps=300)
        return worlds.as_bytes(learned, curve)
    found = []
    for actions in (Discrete(3), worlds.BOX):
        if script in envs.TAKERS[type(actions)]:
            make = functools.partial(worlds.Mixed, **worlds.fitting(script) | dict(actions=actions))
            *learned, returns = train(worlds.given(script, make), steps=40, **worlds.SMALL[script])
            found += worlds.as_bytes(learned, returns)
    return found


@functools.cache
def expected(script: str) -> list[bytes]:
    """What the script itself returns."""
    return typed(script, importlib.import_module(script).train)


@pytest.fixture
def notebook(monkeypatch) -> types.ModuleType:
    """An empty one: a module without a file."""
    module = types.ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)
    return module


@pytest.mark.parametrize("script", ABOVE)
def test_it_needs_nothing_of_this_project(script):
    nodes = [node for node in ast.walk(ast.parse(ABOVE[script])) if "Import" in type(node).__name__]
    modules = {getattr(node, "module", node.names[0].name).partition(".")[0] for node in nodes}
    assert modules <= {"numpy", "torch", "gymnasium", *sys.stdlib_module_names}


@pytest.mark.parametrize("scripts", [*zip(ABOVE), [*ABOVE], [*ABOVE][::-1]], ids="-".join)
def test_in_an_empty_notebook(scripts, notebook):
    """Alone; or each after the others have been pasted below it, or above: the script's results."""
    trains = {}
    for script in scripts:
        exec(ABOVE[script], vars(notebook))
        trains[script] = notebook.train
    for script, train in trains.items():
        assert typed(script, train) == expected(script)


def test_a3c_says_what_to_do_where_processes_cannot_be_started(notebook, monkeypatch):
    """A process that does not begin as a copy cannot import a notebook."""
    exec(ABOVE["a3c"], vars(notebook))
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda: "spawn")
    with pytest.raises(RuntimeError, match="a3c.py and import it, or take workers=1"):
        notebook.train(functools.partial(worlds.Mixed, **worlds.fitting("a3c")), workers=2)
