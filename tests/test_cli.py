"""The command line, by what a user sees and loses."""

import csv
import errno
import importlib
import inspect
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from PIL import Image

from common import language, runs
from tests.worlds import SCRIPTS, Constant, Probe
from tools import slide

TINY = dict(  # a run of a moment
    qlearning_table="--episodes 30",
    dqn="--steps 200 --batch 8 --hidden 8",
    reinforce="--steps 200",
    actor_critic="--steps 200 --n-envs 2",
    ddpg="--env Aim-v0 --steps 60 --warmup 20 --batch 8 --hidden 8",
    a3c="--steps 200 --workers 1",
    ppo="--steps 200 --n-envs 2 --horizon 50 --epochs 2",
    rlhf="--steps 100 --demonstrations 64 --comparisons 64",
)
every = pytest.mark.parametrize("script", TINY)
WEIGHTS = "returns.csv", "returns.png", "run.json", "weights.pt"


class NaN(Probe):
    """Rewards that are no numbers any more from episode 31 on."""

    def step(self, action):
        state, _, *rest = super().step(action)
        return state, 1.0 if len(self.seeds) <= 30 else np.nan, *rest


gym.register("Aim-v0", "tests.worlds:Aim")
gym.register("Nine-v0", lambda: Probe(actions=gym.spaces.MultiBinary(9)))
gym.register("One-v0", lambda: Constant(length=1, actions=Discrete(2)), reward_threshold=1.0)
gym.register("Two-v0", lambda: Constant(length=1, actions=Discrete(2)), reward_threshold=2.0)
gym.register("NaN-v0", lambda: NaN(actions=Discrete(2)))


@pytest.fixture(autouse=True)
def _short_evaluations(monkeypatch):
    monkeypatch.setattr(runs, "EPISODES", 2)
    monkeypatch.setattr(runs, "STEPS", 300)
    monkeypatch.setattr(language, "PROMPTS", 20)
    monkeypatch.setattr(language.best_of_n, "__defaults__", (2, 4))
    monkeypatch.setitem(runs.play.__kwdefaults__, "most_steps", 20)  # of a clip


def run(script: str, *arguments) -> int:
    """`python script.py arguments`, in this process; returns the exit status."""
    words = [word for text in arguments for word in str(text).split()]
    return importlib.import_module(script).main(words)


def refused(capsys, script: str, *arguments) -> str:
    """Bad input: the one line that says so."""
    assert run(script, *arguments) == 2
    page, errors = capsys.readouterr()
    assert "mean return" not in page and errors.count("\n") == 1 and len(errors) < 400
    assert not [*Path().rglob("returns.csv")]
    return errors


def greedy(capsys) -> list[str]:
    """What was said of the policy that was learned."""
    return re.findall(r"^(?:greedy|policy) .*$", capsys.readouterr().out, re.MULTILINE)


def rows(folder) -> list[dict]:
    return [*csv.DictReader(Path(folder, "returns.csv").read_text().splitlines())]


# ------------------------------------------------------------------------ what a run leaves behind


@every
def test_a_run_saves_before_it_speaks(script, capsys, monkeypatch):
    """Also where nothing can be printed; --load finds the same policy, and writes nothing."""
    there, say = [], runs.say

    def listening(text, stream=None):
        there.extend([Path("here/weights.pt").exists()] * ("saved in" in text))
        say(text, stream)

    monkeypatch.setattr(runs, "say", listening)
    assert run(script, TINY[script], "--out here") == 0
    assert there == [True] and tuple(sorted(os.listdir("here"))) == WEIGHTS
    said, files = greedy(capsys), {p: p.read_bytes() for p in Path("here").iterdir()}
    assert said and Image.open("here/returns.png").size == (840, 480)
    saved, table = json.loads(Path("here/run.json").read_text()), rows("here")
    assert saved["script"] == script and saved["hyperparameters"]["seed"] == 0
    if script != "rlhf":
        assert list(table[0]) == ["episode", "step", "seconds", "return", "length"]
        assert [int(row["episode"]) for row in table] == [*range(1, len(table) + 1)]
    assert run(script, "--load here") == 0
    assert greedy(capsys) == said and os.listdir() == ["here"]
    assert files == {p: p.read_bytes() for p in Path("here").iterdir()}


def test_where_it_saves():
    assert run("qlearning_table", "--episodes 3 --seed 5 --env-kwargs size=4") == 0
    assert rows("runs/qlearning_table/Treasure-v0-size=4/seed5")
    assert run("qlearning_table", "--episodes 3 --env Maze --no-save") == 0  # no version
    assert os.listdir("runs/qlearning_table") == ["Treasure-v0-size=4"]


def real(command: str, **options) -> subprocess.Popen:
    """A command of bash, where `X` is the script."""
    command = command.replace("X", f"{sys.executable} {slide.ROOT}/qlearning_table.py")
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(["bash", "-c", command], **pipes, **options)


def test_ctrl_c_and_a_pipe_that_closes():
    """In processes of their own."""
    flags = "--env Maze-v0 --steps 10000000 --episodes 10000000 --no-epsilon-decay"
    pipe = real("X --episodes 30 --out closed 2>&- | head -c 1; exit ${PIPESTATUS[0]}")
    stopped = real(f"exec X --out stopped {flags}")
    assert "episode" in stopped.stdout.readline()
    stopped.send_signal(signal.SIGINT)
    page, errors = stopped.communicate()
    assert stopped.returncode == 130 and "once more" in errors and "interrupted after" in page
    assert (pipe.wait(), pipe.stderr.read()) == (0, "")
    for name in ("closed", "stopped"):
        assert tuple(sorted(os.listdir(name))) == WEIGHTS
    assert run("qlearning_table", "--load stopped") == 0


def test_output_that_nobody_takes(monkeypatch):
    """A closed pipe, a full disk."""
    end, pipe = os.pipe()
    os.close(end)
    for stream in (os.fdopen(pipe, "w"), open("/dev/full", "w")):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            assert run("qlearning_table", f"--episodes 3 --out out{stream.fileno()}") == 0
        stream.close()
    assert len([*Path().glob("out*/weights.pt")]) == 2


def test_divergence(capsys):
    """Status 1 and one line; the returns are kept, and so are an older run's weights."""
    Path("out").mkdir()
    Path("out/weights.pt").write_bytes(b"older")
    assert run("dqn", "--env NaN-v0 --out out --hidden 8") == 1
    page, errors = capsys.readouterr()
    assert errors == "dqn.py: NaN-v0 gave the reward nan; mend the environment\n"
    assert len(rows("out")) == 30 and Path("out/weights.pt").read_bytes() == b"older"


def test_a_full_disk(capsys, monkeypatch):
    """What was learned goes to the system's temporary folder, also on another file system."""
    write, replace = Path.write_bytes, Path.replace

    def full(path, content):
        if "out" in path.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    def one_file_system(path, target):
        if path.parent.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "replace", one_file_system)
    assert run("qlearning_table", "--episodes 30 --out out") == 1
    errors = capsys.readouterr().err
    (spare,) = re.findall(r"No space left on device; saved in (\S+) instead\n$", errors)
    assert run("qlearning_table", "--load", spare) == 0 and not os.listdir("out")
    shutil.rmtree(spare)


def test_a_picture_that_fails_costs_nothing(monkeypatch):
    monkeypatch.setattr(runs.plotting, "learning_curve", lambda *_: 1 / 0)
    assert run("qlearning_table", "--episodes 3 --out out") == 0 and rows("out")


# ------------------------------------------------------------------------------- the end of a run


def test_solved(capsys):
    """After 100 episodes, if their mean is the threshold; --no-stop-when-solved goes on."""
    for env, flags, expected in (
        ("One-v0", "", "trained for 100 episodes, 100 steps"),
        ("One-v0", "--no-stop-when-solved", "trained for 130 episodes, 130 steps"),
        ("Two-v0", "", "not solved (mean of 100 at or above 2)"),
        ("Two-v0", "--episodes 120", "trained for 120 episodes, 120 steps"),
    ):
        assert run("dqn", "--no-save --hidden 8 --steps 130 --env", env, flags) == 0
        page = capsys.readouterr().out
        assert expected in page and ("\nsolved" in page) == (env == "One-v0")
        assert env == "Two-v0" or "at or above 1) at episode 100, step 100," in page
        assert "mean return of the last 100 episodes of training: 1.00" in page
        assert "greedy policy, 2 episodes: mean return 1.00" in page
    assert run("dqn", "--no-save --steps 1") == 0
    assert "none has ended; give more --steps" in capsys.readouterr().out


def test_literal_and_what_is_given_wins():
    for script, module in SCRIPTS.items():
        default, signature = (
            runs.parse(module.train, [], script)[1],
            inspect.signature(module.train),
        )
        assert default == {name: signature.parameters[name].default for name in default}
        assert runs.parse(module.train, ["--literal"], script)[1] == default | module.LITERAL
        for name, value in module.LITERAL.items():
            given = [runs.flag(name), str(default[name])]
            if isinstance(value, bool):
                given = [runs.flag(name) if default[name] else runs.flag(f"no_{name}")]
            for argv in (["--literal", *given], [*given, "--literal"]):
                parsed = runs.parse(module.train, argv, script)[1]
                assert parsed == default | module.LITERAL | {name: default[name]}
    assert run("qlearning_table", "--literal --episodes 3 --alpha 0.5 --out out") == 0
    used = json.loads(Path("out/run.json").read_text())["hyperparameters"]
    assert used.items() >= dict(gamma=0.9, epsilon=0.1, epsilon_decay=False, alpha=0.5).items()


@every
def test_help(script, capsys):
    """In 80 columns, grouped, with three examples, and the comment behind each keyword."""
    with pytest.raises(SystemExit, match="0"):
        run(script, "--help")
    page = capsys.readouterr().out
    assert all(len(line) <= 80 or line.startswith("  python") for line in page.splitlines())
    titles = [page.index(f"\n{name}:\n") for name in ("what you will use first", "the algorithm")]
    assert titles == sorted(titles) and page.index("\nthe rest:\n") > titles[1]
    assert page.partition("\nexamples:\n")[2].count(f"  python {script}.py") >= 3
    module, words = importlib.import_module(script), " ".join(page.split())
    for name, parameter in inspect.signature(module.train).parameters.items():
        if type(parameter.default) in (int, float, bool):
            source, flag = inspect.getsource(module.train), runs.flag(name)
            (comment,) = re.findall(rf"^    {name}: .*,  # (.*)$", source, re.MULTILINE)
            assert f"{comment} [{parameter.default}]" in words and re.search(f" {flag}[, ]", page)
    for flag in "--out --load".split() + "--env --render --record".split() * (script != "rlhf"):
        assert re.search(f" {flag}[, ]", page)


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("dqn", "--env CartPol-v1", "try CartPole-v1"),
        ("dqn", "--env Pendulum-v1", "ddpg.py"),
        ("dqn", "--env Nine-v0", "no script takes"),
        ("ddpg", "--env CartPole-v1", "dqn.py"),
        ("ddpg", "--env MiniPong-v0", "reinforce.py or actor_critic.py or a3c.py or ppo.py"),
        ("qlearning_table", "--env CartPole-v1", "dqn.py"),
        ("dqn", "--env-kwargs size", "NAME=VALUE"),
        ("dqn", "--env-kwargs =3", "NAME=VALUE"),
        ("dqn", "--env-kwargs stop=1", "argument 'stop'"),
        ("dqn", "--env-kwargs env_id=3", "argument 'env_id'"),
        ("dqn", "--env-kwargs id=3", "'id'"),
        ("qlearning_table", "--env-kwargs size=abc", "does not open"),
        ("dqn", "--no-such-flag", "--help lists all flags"),
        ("dqn", "--step 3", "--help lists all flags"),
        ("dqn", "--steps many", "--steps"),
        ("dqn", "--gamma", "--gamma"),
        ("dqn", "--steps 0", "--steps 0: it must be at least 1"),
        ("dqn", "--gamma 1.5", "at least 0 and at most 1"),
        ("dqn", "--gamma nan", "--gamma nan"),
        ("dqn", "--alpha 0", "--alpha 0.0: it must be above 0"),
        ("dqn", "--alpha inf", "finite"),
        ("dqn", "--seed -1", "--seed -1"),
        ("dqn", "--seed 99999999999", "--seed"),
        ("dqn", "--hidden 0", "--hidden 0"),
        ("dqn", "--batch 9 --memory 8", "more than --memory 8 holds"),
        ("qlearning_table", "--alpha 1.1", "at most 1"),
        ("qlearning_table", "--alpha nan", "above 0 and at most 1"),
        ("ddpg", "--tau 2", "--tau"),
        ("ddpg", "--sigma nan", "--sigma"),
        ("ddpg", "--warmup -1", "--warmup"),
        ("a3c", "--workers 0", "--workers"),
        ("a3c", "--workers 999999999", "at most 1000"),
        ("ppo", "--gae-lambda -0.1", "--gae-lambda"),
        ("ppo", "--clip -1", "--clip"),
        ("rlhf", "--beta inf", "--beta"),
        ("rlhf", "--env CartPole-v1", "--help lists all flags"),
        ("rlhf", "--out file", "file"),
        ("dqn", "--out file", "choose another folder"),
        ("dqn", f"--out {'x' * 256}", "too long; choose another folder"),
        ("dqn", "--out file/below", "choose another folder"),
        ("dqn", "--out taken", "taken/weights.pt is a folder"),
        ("dqn", "--no-save --record taken", ".gif"),
        ("dqn", "--no-save --record taken/weights.gif", "is a folder"),
        ("dqn", "--record clip.avi", "--record takes .gif"),
        ("dqn", "--picture p.png", "Maze-v0"),
        ("dqn", "--env Maze-v0 --picture p.gif", "p.gif"),
        ("dqn", "--render", "--record clip.gif"),
        ("dqn", "--load nowhere", "run.json is missing or damaged"),
        ("rlhf", "--load nowhere", "run.json is missing or damaged"),
    ],
)
def test_bad_input(script, arguments, says, capsys, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    Path("file").write_text("no folder")
    Path("taken/weights.pt").mkdir(parents=True)
    Path("taken/weights.gif").mkdir()
    assert says in refused(capsys, script, arguments)


def test_a_folder_that_cannot_be_written(capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(runs.tempfile, "TemporaryFile", refuse)
    assert "Permission denied; choose another" in refused(capsys, "dqn", "--out out")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def damaged(weights: dict, run: dict) -> list[tuple]:
    """Pairs of weights.pt (bytes, or what is saved there) and run.json (text, or values)."""
    name, first = next(iter(weights.items()))
    hp, some = run["hyperparameters"], {k: v for k, v in weights.items() if k != name}
    files = [None, b"", b"PK\x03\x04half", pickle.dumps(Harmful()), Harmful(), [1], some]
    files += [weights | {name: first[:1]}, weights | {"other": first}]
    texts = [
        "{",
        "3",
        dict(env=5),
        dict(env_kwargs=5),
        dict(hyperparameters=[]),
        dict(script="ppo"),
    ]
    texts += [dict(hyperparameters=hp | {"steps": steps}) for steps in ("x", -1)]
    texts += [dict(env="Acrobot-v1")]
    return [(file, run) for file in files] + [
        (weights, text if isinstance(text, str) else run | text) for text in texts
    ]


def test_damaged_files(capsys):
    """One line each; nothing in a file is executed."""
    assert run("dqn", TINY["dqn"], "--out good") == 0
    settings = json.loads(Path("good/run.json").read_text())
    shutil.move("good/returns.csv", "kept.csv")
    capsys.readouterr()
    for weights, run_json in damaged(torch.load("good/weights.pt"), settings):
        folder = Path("bad")
        folder.mkdir()
        if isinstance(weights, bytes):
            Path(folder, "weights.pt").write_bytes(weights)
        elif weights is not None:
            torch.save(weights, folder / "weights.pt")
        text = run_json if isinstance(run_json, str) else json.dumps(run_json)
        Path(folder, "run.json").write_text(text)
        assert refused(capsys, "dqn", "--load", folder).startswith("dqn.py: ")
        shutil.rmtree(folder)
    assert not Path("harmed").exists()
    for flag in ("--gamma 0.5", "--env Maze-v0", "--steps 3", "--literal", "--out x", "--no-save"):
        assert "leave out " + flag.split()[0] in refused(capsys, "dqn", "--load good", flag)


# ------------------------------------------------------------------------------- what is shown


def test_pictures_and_clips(capsys):
    """--record and --picture; the loaded policy gives the same."""
    shown = "--record {0}.gif --picture {0}.png"
    assert run("dqn", TINY["dqn"], "--env Maze-v0 --out out", shown.format("one")) == 0
    assert "saved one.gif" in capsys.readouterr().out and Image.open("one.gif").size == (256, 256)
    assert Image.open("one.gif").n_frames > 1 and Image.open("one.png").size == (600, 624)
    assert run("dqn", "--load out", shown.format("two")) == 0
    for kind in ("gif", "png"):
        assert Path(f"one.{kind}").read_bytes() == Path(f"two.{kind}").read_bytes()


def test_render_as_text(capsys):
    """The first dozen episodes of the training, three of what was learned; the Q-table."""
    assert run("qlearning_table", "--episodes 100 --no-save --render") == 0
    training, watched = capsys.readouterr().out.split("trained for 100")
    assert "o----T\n-o---T\n" in training and "Episode 12: total_steps" in training
    assert "Episode 13" not in training and "Episode 3: total_steps = 5\n" in watched
    table = watched.partition("columns left, right:\n")[2]
    assert np.array(re.findall(r"\d\.\d+|\d\.", table), float).reshape(6, 2)[4, 1] > 0.5


def test_render_in_a_window(capsys, monkeypatch):
    pygame = pytest.importorskip("pygame")
    made = type(gym.make("CartPole-v1").unwrapped)
    monkeypatch.setattr(made, "metadata", made.metadata | {"render_fps": 10_000})
    assert run("dqn", TINY["dqn"], "--no-save --render") == 0
    assert "Episode 3: total_steps" in capsys.readouterr().out and not runs.window_closed()
    pygame.display.init()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert runs.window_closed()
    pygame.quit()
