"""All above main() works pasted into an empty notebook: no import of this project, no decorator."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = "qlearning_table dqn reinforce actor_critic ddpg a3c ppo".split()
ALL = [*SCRIPTS, "rlhf"]  # which has no environment; test_rlhf.py pastes it

# What a student types below the pasted script: an environment, or a function that makes one.
# test_learning.py shows how far the same train() gets.
MADE = "import gymnasium as gym\nresult = train(gym.make({!r}), steps={})\n"
MAKE = (
    "import functools, gymnasium as gym\n"
    "make_env = functools.partial(gym.make, 'CartPole-v1')\n"
    "result = train(make_env, steps={})\n"
)
PASTED = {
    "qlearning_table": MADE.format("FrozenLake-v1", 2_000),
    "dqn": MADE.format("CartPole-v1", 1_000),
    "reinforce": MADE.format("CartPole-v1", 1_000),
    "actor_critic": MADE.format("CartPole-v1", 1_000),
    "ddpg": MADE.format("Pendulum-v1", 600),
    "a3c": MAKE.format("1_000, workers=1"),
    "ppo": MAKE.format(1_000),
}


def above_main(script: str) -> str:
    """The source of a script up to its main()."""
    source, main, _ = (ROOT / f"{script}.py").read_text().partition("\ndef main(")
    assert main
    return source


def paste(script: str, below: str) -> list[float]:
    """Run a pasted script and what is typed below it in a bare Python; returns the returns."""
    Path("notebook.py").write_text(
        f"{above_main(script)}\n"
        "if __name__ == '__main__':\n"
        + "".join(f"    {line}\n" for line in below.splitlines())
        + "    import importlib.util, sys\n"
        "    assert 'common' not in sys.modules\n"
        "    assert importlib.util.find_spec('common') is None\n"
        "    print('returns', *result[-1])\n"
    )
    command = [sys.executable, "-I", "notebook.py"]  # -I: nothing but the installed packages
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [float(number) for number in done.stdout.split("returns")[1].split()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_pasted_it_trains(script):
    assert len(paste(script, PASTED[script])) >= 3


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
