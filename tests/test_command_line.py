"""The command line of every script: help, a tiny run, saving and loading, each bad input of the contract, Ctrl-C."""

import contextlib
import csv
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
from PIL import Image

from common import runs

ROOT = Path(__file__).parent.parent
# script -> a run that takes a second or two, an environment that does not fit, and the script to name for it
TINY = {
    "qlearning_table": ["--env", "Treasure-v0", "--episodes", "30"],
    "dqn": ["--env", "CartPole-v1", "--steps", "600", "--warmup", "100"],
    "reinforce": ["--env", "CartPole-v1", "--steps", "600"],
    "actor_critic": ["--env", "CartPole-v1", "--steps", "600"],
    "ddpg": ["--env", "Pendulum-v1", "--steps", "450", "--warmup", "400"],
    "a3c": ["--env", "CartPole-v1", "--steps", "600", "--workers", "1"],
    "ppo": ["--env", "CartPole-v1", "--steps", "1000"],
}
UNFIT = {
    "qlearning_table": ("CartPole-v1", "dqn.py"),
    "dqn": ("Pendulum-v1", "ddpg.py"),
    "reinforce": ("Nine-v0", "no script"),
    "actor_critic": ("Pendulum-v1", "ddpg.py"),
    "ddpg": ("CartPole-v1", "dqn.py"),
    "a3c": ("Nine-v0", "no script"),
    "ppo": ("Nine-v0", "no script"),
}
WEIGHTS = {"qlearning_table": "q_table.npy"}
SCRIPTS = list(TINY)


class Nine(gym.Env):
    """Actions that no script takes."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.MultiBinary(9)


gym.register("Nine-v0", Nine)


def run(script: str, *arguments) -> int:
    """Run a script in this process, as `python script.py ...` would; returns its exit status."""
    try:
        return importlib.import_module(script).main([str(a) for a in arguments])
    except SystemExit as end:  # tyro's way to end, after --help and after what does not parse
        return end.code or 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag(script, capsys):
    assert run(script, "--help") == 0
    page = capsys.readouterr().out
    words = " ".join(page.replace("│", " ").split())  # without the frame and the line breaks
    for flag in ("--env ", "--stop-when-solved", "--no-save", "--out ", "--load ", "--render", "--record "):
        assert flag in words
    for name, keyword in inspect.signature(importlib.import_module(script).train).parameters.items():
        if keyword.kind is keyword.KEYWORD_ONLY and not name.startswith("on_"):  # a hyperparameter: its flag and its default
            assert f"--{name.replace('_', '-')}" in words
            assert f"(default: {keyword.default})" in words
    assert "discount of the return" in words  # gamma's meaning, from the docstring of train()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_tiny_run_saves_what_it_says(script, capsys):
    assert run(script, *TINY[script], "--seed", "3", "--out", "here/there") == 0
    summary = capsys.readouterr().out
    weights = WEIGHTS.get(script, "weights.pt")
    assert sorted(p.name for p in Path("here/there").iterdir()) == sorted(["returns.csv", "returns.png", "run.json", weights])
    for name in ("returns.csv", "returns.png", weights):
        assert str(Path("here/there", name)) in summary
    assert "steps/s" in summary and "20 episodes: mean return" in summary
    with open("here/there/returns.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["episode", "step", "seconds", "return", "length"]
    assert [int(row["episode"]) for row in rows] == list(range(1, len(rows) + 1))
    assert Image.open("here/there/returns.png").size[0] > 400


@pytest.mark.parametrize("script", SCRIPTS)
def test_default_folder_and_no_save(script, capsys):
    assert run(script, *TINY[script], "--no-save") == 0
    assert list(Path().iterdir()) == []
    assert run(script, *TINY[script]) == 0
    assert Path("runs", script, TINY[script][1], "seed0", "returns.csv").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_same_seed_same_file(script, capsys):
    def returns(seed):
        assert run(script, *TINY[script], "--seed", seed, "--out", "out") == 0
        with open("out/returns.csv") as file:
            return [(row["episode"], row["step"], row["return"], row["length"]) for row in csv.DictReader(file)]

    first = returns(5)
    assert first and first == returns(5)
    assert first != returns(6)


@pytest.mark.parametrize("script", SCRIPTS)
def test_load_evaluates_what_was_saved(script, capsys):
    def greedy(page):
        return next(line for line in page.splitlines() if line.startswith("greedy policy"))

    assert run(script, *TINY[script], "--out", "out") == 0
    before = greedy(capsys.readouterr().out)
    files = {p: p.read_bytes() for p in Path("out").iterdir()}
    assert run(script, "--load", "out") == 0  # --env is known from the folder
    assert greedy(capsys.readouterr().out) == before
    assert files == {p: p.read_bytes() for p in Path("out").iterdir()}  # nothing trained, nothing written


@pytest.mark.parametrize("script", SCRIPTS)
def test_record_a_clip(script, capsys):
    assert run(script, *TINY[script], "--no-save", "--record", "clip.gif") == 0
    clip = Image.open("clip.gif")
    assert clip.is_animated and clip.n_frames > 2


def refused(capsys, script, *arguments) -> str:
    """Run with bad input; returns the one line on standard error."""
    assert run(script, *arguments) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in err and "steps/s" not in out
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.csv"))
    return lines[0]


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_environment(script, capsys):
    assert "CartPole-v1" in refused(capsys, script, "--env", "CartPol-v1")
    assert "for example" in refused(capsys, script, "--env", "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_spaces_that_do_not_fit(script, capsys):
    env, use = UNFIT[script]
    assert use in refused(capsys, script, "--env", env)


BAD_NUMBERS = {
    "all": [("--steps", "0"), ("--steps", "-5"), ("--gamma", "1.5"), ("--gamma", "-0.1"), ("--gamma", "nan"), ("--seed", "-1")],
    "qlearning_table": [("--episodes", "0"), ("--epsilon", "2"), ("--alpha", "0"), ("--alpha", "1.1"), ("--alpha-decay", "-1")],
    "dqn": [("--episodes", "0"), ("--epsilon", "2"), ("--alpha", "0"), ("--batch", "0"), ("--batch", "200000"), ("--tau", "0"),
            ("--hidden", "0"), ("--train-every", "0"), ("--memory", "-1"), ("--n-steps", "0")],
    "reinforce": [("--episodes", "0"), ("--alpha", "-1"), ("--hidden", "0")],
    "actor_critic": [("--episodes", "0"), ("--alpha", "-1"), ("--beta", "0"), ("--batch", "0"), ("--entropy", "-1")],
    "ddpg": [("--episodes", "0"), ("--tau", "0"), ("--batch", "200000"), ("--sigma", "-1"), ("--alpha-critic", "0")],
    "a3c": [("--workers", "0"), ("--t-max", "0"), ("--alpha", "0"), ("--entropy", "-1")],
    "ppo": [("--n-envs", "0"), ("--horizon", "0"), ("--epochs", "0"), ("--gae-lambda", "2"), ("--beta", "-1"), ("--clip", "0")],
}  # fmt: skip


@pytest.mark.parametrize(("script", "flag", "value"), [(s, *bad) for s in SCRIPTS for bad in BAD_NUMBERS["all"] + BAD_NUMBERS[s]])
def test_impossible_numbers(script, flag, value, capsys):
    line = refused(capsys, script, flag, value)
    assert flag in line and value.lstrip("-").rstrip("0") in line or "memory" in line


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_that_do_not_parse_get_status_2(script, capsys):
    for arguments in (["--no-such-flag"], ["--steps", "many"], ["--gamma"]):
        assert run(script, *arguments) == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_folders_and_files_that_cannot_be_used(script, capsys):
    Path("file").write_text("not a folder")
    assert "file" in refused(capsys, script, "--out", "file")
    assert "file" in refused(capsys, script, "--out", "file/below")
    assert "clip.avi" in refused(capsys, script, "--record", "clip.avi")
    assert "run.json" in refused(capsys, script, "--load", "nowhere")
    assert "run.json" in refused(capsys, script, "--load", ".")
    assert "name=value" in refused(capsys, script, "--env-kwargs", "size")
    assert "no_such_option" in refused(capsys, script, "--env-kwargs", "no_such_option=1")


@pytest.mark.parametrize("script", SCRIPTS)
def test_load_refuses_other_scripts_environments_and_damage(script, capsys):
    assert run(script, *TINY[script], "--out", "out") == 0
    capsys.readouterr()
    assert "leave --env out" in refused(capsys, script, "--load", "out", "--env", "Maze-v0")
    weights = Path("out", WEIGHTS.get(script, "weights.pt"))
    weights.write_bytes(weights.read_bytes()[:100])
    assert weights.name in refused(capsys, script, "--load", "out")
    weights.unlink()
    assert weights.name in refused(capsys, script, "--load", "out")
    settings = json.loads(Path("out/run.json").read_text())
    Path("out/run.json").write_text(json.dumps(settings | {"script": "another"}))
    assert "another.py" in refused(capsys, script, "--load", "out")
    Path("out/run.json").write_text("{")
    assert "run.json" in refused(capsys, script, "--load", "out")


def test_loading_never_executes_code(capsys):
    import pickle

    class Harmful:
        def __reduce__(self):
            return (os.system, ("touch harmed",))

    assert run("dqn", *TINY["dqn"], "--out", "out") == 0
    capsys.readouterr()
    Path("out/weights.pt").write_bytes(pickle.dumps(Harmful()))
    refused(capsys, "dqn", "--load", "out")
    assert not Path("harmed").exists()


def processes_that_name(word: str) -> list[str]:
    """Running processes whose command line holds `word`; empty where there is no /proc."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in lines if word in line]


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_ends_the_training_not_the_program(script, capsys, monkeypatch):
    on_episode, before = runs.Run.on_episode, signal.getsignal(signal.SIGINT)

    def press_after_two(run, *episode):
        if len(run._rows) == 2:
            signal.raise_signal(signal.SIGINT)
        return on_episode(run, *episode)

    monkeypatch.setattr(runs.Run, "on_episode", press_after_two)
    assert run(script, *TINY[script][:2], "--steps", "100000000", "--no-stop-when-solved", "--out", "out") == 130
    page = capsys.readouterr().out
    assert "interrupted after" in page and "greedy policy" in page
    assert Path("out", WEIGHTS.get(script, "weights.pt")).exists() and Path("out/returns.csv").exists()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
@pytest.mark.parametrize("script", ["dqn", "a3c"])
def test_ctrl_c_from_a_terminal(script, tmp_path):
    budget = ["--steps", "100000000", "--no-stop-when-solved"]
    more = ["--workers", "2"] if script == "a3c" else []
    out = tmp_path / f"out-{script}"
    command = [sys.executable, "-u", ROOT / f"{script}.py", *TINY[script][:2], *budget, *more, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "steps/s" in process.stdout.readline()  # the first line of progress: it trains
    process.send_signal(signal.SIGINT)
    page, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted after" in page and "greedy policy" in page
    assert "Traceback" not in errors
    assert (out / WEIGHTS.get(script, "weights.pt")).exists() and (out / "returns.csv").exists()
    assert processes_that_name(str(out)) == []


def test_a_full_disk_loses_nothing(capsys, monkeypatch):
    assert run("dqn", *TINY["dqn"], "--out", "out") == 0
    capsys.readouterr()
    before = {p: p.read_bytes() for p in Path("out").iterdir()}

    def full(path, content):
        if path.name.startswith("weights"):
            raise OSError(28, "No space left on device")
        return real(path, content)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    assert run("dqn", *TINY["dqn"], "--out", "out", "--seed", "1") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in Path("out").iterdir()}
