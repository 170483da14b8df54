"""All above main() works pasted into an empty notebook: no import of this project, no decorator."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = "qlearning_table dqn reinforce actor_critic ddpg a3c ppo".split()
ALL = [*SCRIPTS, "rlhf"]  # which has no environment; test_rlhf.py pastes it

# What a student types below the pasted script, and what the last quarter of the returns has to
# reach: further than a learner that learns nothing gets (CartPole: 22, FrozenLake
# without ice: 0.02), and two thirds of the worst of eight seeds.
MADE = "import gymnasium as gym\nresult = train(gym.make({}), steps={})\n"
PASTED = {
    "qlearning_table": (
        MADE.format("'FrozenLake-v1', is_slippery=False", "10_000, epsilon=0.5"),
        0.3,
    ),
    "dqn": (MADE.format("'CartPole-v1'", 10_000), 100),
    "reinforce": (MADE.format("'CartPole-v1'", 10_000), 57),
    "actor_critic": (MADE.format("'CartPole-v1'", 10_000), 42),
    "ddpg": (MADE.format("'Pendulum-v1'", 600), None),  # it needs thousands; see test_learning.py
    "a3c": (MADE.format("'CartPole-v1'", "10_000, workers=1"), 100),
    "ppo": (MADE.format("'CartPole-v1'", 15_000), 70),
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
    below, reached = PASTED[script]
    returns = paste(script, below)
    assert len(returns) >= 3
    if reached is not None:
        last = returns[-len(returns) // 4 :]
        assert sum(last) / len(last) > reached


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
