"""The command line, by what a user sees and loses."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from PIL import Image

from common import language, runs
from tests.worlds import SCRIPTS, SMALL, Constant, Probe
from tools import slide

flags = lambda options: " ".join(f"{runs.flag(name)} {x}" for name, x in options.items())
TINY = {script: f"--steps 200 {flags(options)}" for script, options in SMALL.items()}
TINY["ddpg"] += " --env Aim-v0"
TINY["rlhf"] = "--steps 100 --demonstrations 64 --comparisons 64"
every = pytest.mark.parametrize("script", TINY)
COLUMNS = tomllib.loads((slide.ROOT / "benchmark/plan.toml").read_text())["columns"]
FILES = ["returns.csv", "returns.png", "run.json", "weights.pt"]


def nan() -> gym.Env:
    """Rewards that are no numbers any more from episode 31 on."""
    env = Probe(actions=Discrete(2))
    return gym.wrappers.TransformReward(env, lambda r: r if len(env.seeds) <= 30 else np.nan)


gym.register("Aim-v0", "tests.worlds:Aim")
gym.register("Photo-v0", lambda: Probe(states=Box(0, 255, (9, 9), np.uint8)))
gym.register("One-v0", lambda: Constant(length=1, actions=Discrete(2)), reward_threshold=1.0)
gym.register("Two-v0", lambda: Constant(length=1, actions=Discrete(2)), reward_threshold=2.0)
gym.register("NaN-v0", nan)


@pytest.fixture(autouse=True)
def _short_evaluations(monkeypatch):
    monkeypatch.setattr(runs, "STEPS", 300)
    monkeypatch.setattr(language, "PROMPTS", 20)
    monkeypatch.setattr(language.best_of_n, "__defaults__", (2, 4))
    monkeypatch.setitem(runs.play.__kwdefaults__, "most_steps", 20)  # of a clip


def run(*texts) -> int:
    """`python script.py flags`, in this process; returns the exit status."""
    script, *words = " ".join(map(str, texts)).split()
    return importlib.import_module(script).main(words)


def refused(capsys, *texts) -> str:
    """Bad input: the one line that says so."""
    assert run(*texts) == 2
    page, errors = capsys.readouterr()
    assert "mean return" not in page and errors.count("\n") == 1 and len(errors) < 400
    return errors


def test_a_second_ctrl_c_quits(capsys):
    watch = language.Watch()
    with pytest.raises(KeyboardInterrupt), runs.ctrl_c(watch):
        signal.raise_signal(signal.SIGINT)
        assert watch.stopped and "once more to quit" in capsys.readouterr().err
        signal.raise_signal(signal.SIGINT)


# ------------------------------------------------------------------------ what a run leaves behind


@every
def test_a_run_and_its_files(script, capsys):
    """--load finds the same policy, and writes nothing. benchmark/ finds what it looks for."""
    assert run(script, TINY[script], "--out here") == 0 and sorted(os.listdir("here")) == FILES
    page, files = capsys.readouterr().out, {p: p.read_bytes() for p in Path("here").iterdir()}
    for said in COLUMNS["rlhf" if script == "rlhf" else "zoo"].values():
        assert re.search(said, page, re.MULTILINE)
    assert Image.open("here/returns.png").size == (840, 480)
    assert run(script, "--load here") == 0 and os.listdir() == ["here"]
    evaluated = lambda page: re.findall(r"^(?:greedy|policy) .*$", page, re.MULTILINE)
    assert evaluated(page) == evaluated(capsys.readouterr().out) != []
    assert files == {p: p.read_bytes() for p in Path("here").iterdir()}


def test_where_it_saves(monkeypatch):
    """Also where no picture can be drawn. Evaluations play other episodes than the training."""
    monkeypatch.setattr(runs.plotting, "learning_curve", lambda *_: 1 / 0)
    lake = "--env FrozenLake-v1 --env-kwargs map_name=8x8 --env-kwargs is_slippery=False"
    assert run("qlearning_table --literal --alpha 0.5 --episodes 3", lake) == 0
    assert run("ddpg --steps 200 --hidden 8 --no-save --picture pendulum.png") == 0
    assert Image.open("pendulum.png").size == (1104, 480)
    with mock.patch.object(runs, "play", wraps=runs.play) as play:
        assert run("qlearning_table --episodes 3 --env Maze --seed 5") == 0  # no version
        assert run("qlearning_table --seed 6 --load runs/qlearning_table/Maze-v0/seed5") == 0
    assert [call.kwargs["seed"] for call in play.mock_calls] == [1_000_005, 1_000_006]
    one, two = sorted(Path("runs/qlearning_table").glob("*/*/run.json"))
    assert one.parent.parts[2:] == ("FrozenLake-v1-map_name=8x8-is_slippery=False", "seed0")
    assert two.parent.parts[2:] == ("Maze-v0", "seed5")
    used = json.loads(one.read_text())["hyperparameters"]
    assert used.items() >= dict(gamma=0.9, epsilon=0.1, epsilon_decay=False, alpha=0.5).items()


def test_episodes_of_an_evaluation_and_of_a_goal():
    """Each begins otherwise. Of Pendulum's the last 20 count."""
    world, how = gym.make("CartPole-v1"), dict(seed=0, episodes=20, most_steps=999)
    assert len({*runs.play(world, lambda state: 0, **how)}) > 1
    progress = runs.Progress(gym.make("Pendulum-v1"), steps=1, until_solved=True)
    assert (progress.goal, progress.window) == (-200, 20)


def test_ctrl_c_and_output_that_nobody_takes():
    """Or that an old terminal has no letters for."""
    python = f"exec {sys.executable} {SCRIPTS['qlearning_table'].__file__} --out"
    pipes = dict(shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    silent = subprocess.Popen(f"{python} silent --episodes 30 >/dev/full 2>&-", **pipes)
    flags = "--env Maze-v0 --steps 10000000 --episodes 10000000"
    stopped = subprocess.Popen(f"PYTHONIOENCODING=ascii {python} stöpped {flags}", **pipes)
    assert "episode" in stopped.stdout.readline()
    stopped.send_signal(signal.SIGINT)
    page, errors = stopped.communicate()
    assert stopped.returncode == 130 and "once more" in errors and "interrupted after" in page
    assert silent.wait() == 0
    assert sorted(os.listdir("silent")) == sorted(os.listdir("stöpped")) == FILES


@pytest.mark.parametrize("script", ["dqn", "a3c --workers 2"])
def test_divergence(script, capsys):
    """Status 1 and one line; the returns are kept, and so are an older run's weights."""
    Path("weights.pt").write_bytes(b"older")
    assert run(script, "--env NaN-v0 --out . --hidden 8") == 1
    assert re.fullmatch(r"\w+.py: NaN-v0 .* nan.*\n", capsys.readouterr().err)
    names, *rows = Path("returns.csv").read_text().splitlines()
    assert names == "episode,step,seconds,return,length" and len(rows) == 30 or script != "dqn"
    assert Path("weights.pt").read_bytes() == b"older"


def test_a_full_disk(capsys, monkeypatch):
    """What was learned goes to the system's temporary folder, also on another file system."""

    def full(path, target):
        assert path.parent.parent == target.parent
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", os.getcwd())
    monkeypatch.setattr(Path, "replace", full)
    assert run("qlearning_table --episodes 30 --out out") == 1 and not os.listdir("out")
    (spare,) = re.findall(r"No space left .* saved in (\S+) instead\n$", capsys.readouterr().err)
    assert run("qlearning_table --load", spare) == 0


# ------------------------------------------------------------------------------- the end of a run


def test_solved(capsys):
    """After 100 episodes, if their mean is the threshold; --no-stop-when-solved goes on."""
    lengths = {"One-v0": 100, "One-v0 --no-stop-when-solved": 130, "Two-v0 --episodes 120": 120}
    for flags, episodes in lengths.items():
        assert run("dqn --no-save --hidden 8 --steps 130 --env", flags) == 0
        page = capsys.readouterr().out
        assert f"for {episodes} episodes, {episodes} steps" in page
        assert ("at episode 100, step 100," in page) == ("One" in flags)
        assert "of training: 1.00\n" in page and "greedy policy, 20 episodes: mean return 1" in page
    assert run("dqn --no-save --steps 1") == 0 and "more --steps" in capsys.readouterr().out


def test_literal_and_what_is_given_wins():
    """Also where a default is given, and whichever comes first."""
    parsed = lambda text: runs.parse(SCRIPTS["dqn"].train, text.split(), "dqn")[1]
    literal, given = parsed("") | SCRIPTS["dqn"].LITERAL, "--batch 128 --alpha 5e-4 --scale-rewards"
    assert parsed("--literal") == literal
    expected = literal | dict(batch=128, alpha=5e-4, scale_rewards=True)
    assert parsed(f"--literal {given}") == parsed(f"{given} --literal") == expected


@every
def test_help(script, capsys):
    """In 80 columns, grouped, with three examples, and the comment behind each keyword."""
    with pytest.raises(SystemExit, match="0"):
        run(script, "--help")
    page, train = capsys.readouterr().out, importlib.import_module(script).train
    assert all(len(line) <= 80 or line.startswith("  python") for line in page.splitlines())
    assert re.search(r"\nwhat .*\nthe algorithm:\n.*\nthe rest:\n", page, re.DOTALL)
    assert page.partition("\nexamples:\n")[2].count(f"  python {script}.py") >= 3
    for _, default, comment in runs.keywords(train).values():
        assert comment and f"{comment} [{default}]" in " ".join(page.split())


# ------------------------------------------------------------------------------------ bad input

BAD_INPUT = tomllib.loads((slide.ROOT / "tests/bad_input.toml").read_text("utf-8"))
COMMANDS = [(command, says) for says, text in BAD_INPUT.items() for command in text.split(" | ")]


@pytest.mark.parametrize(("command", "says"), COMMANDS)
def test_bad_input(command, says, capsys, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "environ", {})  # no screen
    if not command.startswith("tools."):
        monkeypatch.setattr(runs, "ctrl_c", lambda watch: pytest.fail("it trains"))
    Path("file").write_text("no folder, no (Python")
    Path("mine.py").write_text((slide.ROOT / "qlearning_table.py").read_text("utf-8"))
    Path("tagless.py").write_text("x = 1")
    Path("taken.gif/weights.pt").mkdir(parents=True)
    assert says in refused(capsys, command)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_saved_files(capsys):
    """The loaded policy gives the same pictures. Damaged files: one line; nothing is executed."""
    shown = "--record {0}.gif --picture {0}.png"
    assert run("dqn --env Maze-v0 --out good", TINY["dqn"], shown.format("one")) == 0
    assert Image.open("one.gif").n_frames > 1 and Image.open("one.png").size == (600, 624)
    assert run("dqn --load good", shown.format("two")) == 0
    assert Path("one.gif").read_bytes() == Path("two.gif").read_bytes()
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    capsys.readouterr()
    for flag in ("--gamma 0.5", "--env Maze-v0", "--steps 3", "--literal", "--out x", "--no-save"):
        assert "leave out " + flag.split()[0] in refused(capsys, "dqn --load good", flag)
    run_json, weights = Path("good/run.json"), Path("good/weights.pt")
    settings = json.loads(run_json.read_text())
    damages = [dict(env=5), dict(env="Acrobot-v1"), dict(env_kwargs=5), dict(script="ppo")]
    damages += [dict(hyperparameters=wrong) for wrong in ([], dict(steps="x"), dict(steps=-1))]
    for damage in damages:
        run_json.write_text(json.dumps(settings | damage))
        assert "dqn.py: " in refused(capsys, "dqn --load good")
    run_json.write_text(json.dumps(settings))
    layers, nan = [*torch.load(weights).items()], lambda layer: (layer[0], layer[1] * np.nan)
    for wrong in (Harmful(), [1], dict(layers[1:]), dict(map(nan, layers))):
        torch.save(wrong, weights)
        assert "weights.pt does not fit" in refused(capsys, "dqn --load good")
    assert not Path("harmed").exists()


# ------------------------------------------------------------------------------- what is shown


def test_render_as_text(capsys):
    """The first dozen episodes of the training, three of what was learned; the Q-table."""
    assert run("qlearning_table --episodes 100 --no-save --render") == 0
    training, watched = capsys.readouterr().out.split("trained for 100")
    assert "o----T\n-o---T\n" in training and "Episode 12: total_steps" in training
    assert "Episode 13" not in training and "Episode 3: total_steps = 5\n" in watched
    table = watched.partition("columns left, right:\n")[2]
    assert np.array(re.findall(r"\d\.\d+|\d\.", table), float).reshape(6, 2)[4, 1] > 0.5


def test_render_in_a_window(capsys):
    pygame = pytest.importorskip("pygame")
    assert run("dqn", TINY["dqn"], "--no-save --render") == 0
    assert "Episode 3: total_steps" in capsys.readouterr().out and not runs.window_closed()
    pygame.display.init()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert runs.window_closed()
    pygame.quit()
