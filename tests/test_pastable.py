"""All above main() works pasted into an empty notebook: no import of this project, no decorator."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = "qlearning_table dqn reinforce actor_critic ddpg a3c ppo".split()
ALL = [*SCRIPTS, "rlhf"]

# What a student types below the pasted script.
MADE = "import gymnasium as gym\n*_, returns = train(gym.make('{}'), steps={})\n"
PASTED = {
    "qlearning_table": MADE.format("CliffWalking-v1", 5_000),
    "dqn": MADE.format("CartPole-v1", 1_500),
    "reinforce": MADE.format("CartPole-v1", 1_500),
    "actor_critic": MADE.format("CartPole-v1", 1_500),
    "ddpg": MADE.format("Pendulum-v1", 1_250),
    "a3c": MADE.format("CartPole-v1", "1_500, workers=1"),
    "ppo": MADE.format("CartPole-v1", 2_500),
    "rlhf": "sft = fine_tune(demonstrations=32)\n"  # its three steps can be called alone
    "r = reward_model(sft, comparisons=32)\n"
    "policy, returns = ppo(sft, r, steps=600, n_outputs=16, batch=16)\n"
    "assert sentence(generate(policy, sample_prompts(1))[0])\n",
}


def above_main(script: str) -> str:
    """The source of a script up to its main()."""
    source, main, _ = (ROOT / f"{script}.py").read_text().partition("\ndef main(")
    assert main
    return source


def typed_below(script: str, namespace: dict) -> list:
    """The returns of what is typed below a script of which `namespace` is full."""
    exec(PASTED[script], namespace)
    return [list(r) if isinstance(r, tuple) else r for r in namespace["returns"]]


# One Python runs them all, each in a notebook of its own: importing torch takes longest.
RUN_ALL = """
import importlib.util, json, runpy, sys, traceback
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = runpy.run_path(f"{name}.py", run_name="__main__")["returns"]
    except BaseException:
        found[name] = traceback.format_exc()
assert "common" not in sys.modules and importlib.util.find_spec("common") is None
print("found", json.dumps(found))
"""


@pytest.fixture(scope="module")
def pasted(tmp_path_factory) -> dict:
    """What each notebook returned, in a Python that has nothing but the installed packages (-I)."""
    folder = tmp_path_factory.mktemp("notebooks")
    for script in ALL:
        below = "".join(f"    {line}\n" for line in PASTED[script].splitlines())
        text = f"{above_main(script)}\nif __name__ == '__main__':\n{below}"
        (folder / f"{script}.py").write_text(text)
    command = [sys.executable, "-I", "-c", RUN_ALL, *ALL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("found ")[1])


@pytest.mark.parametrize("script", ALL)
def test_pasted_it_trains_as_the_script_does(script, pasted):
    """In an empty notebook it does, bit for bit, what it does here; that it learns is shown in
    test_learning.py and test_rlhf.py."""
    returns = pasted[script]
    assert isinstance(returns, list), returns
    assert len(returns) >= 3 and len(set(map(str, returns))) > 1
    assert returns == typed_below(script, dict(vars(importlib.import_module(script))))


@pytest.mark.parametrize("script", ALL)
def test_nothing_of_this_project_is_imported(script):
    tree = ast.parse(above_main(script))
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules = [node.module]
        for module in modules:
            first = module.partition(".")[0]
            assert first in {"numpy", "torch", "gymnasium"} | sys.stdlib_module_names, module


@pytest.mark.parametrize("script", ALL)
def test_train_is_the_signature_and_nothing_else(script):
    """No decorator; every keyword on a line of its own, with its meaning behind it."""
    source = above_main(script)
    (train,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "train"
    )
    assert train.decorator_list == []
    lines = source.splitlines()
    places = [argument.lineno for argument in train.args.kwonlyargs]
    assert len(set(places)) == len(places)
    for line in places:
        assert ",  # " in lines[line - 1], lines[line - 1]
