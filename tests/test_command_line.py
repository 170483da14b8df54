"""The command line of every script: help, a tiny run, saving and loading, bad input, Ctrl-C."""

import contextlib
import csv
import functools
import importlib
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from common import plotting, runs

ROOT = Path(__file__).parent.parent
# script -> a run that takes a second or two; an environment that does not fit, and the script that
# the message has to name for it.
TINY = {
    "qlearning_table": ["--env", "Treasure-v0", "--episodes", "30"],
    "dqn": ["--env", "CartPole-v1", "--steps", "600"],
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


class Endless(gym.Env):
    """An episode that never ends. A reward of 1, or NaN from a step on."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, observations, actions, nan_after=None, render_mode=None):
        self.observation_space, self.action_space = observations, actions
        self.nan_after, self.render_mode, self.t = nan_after, render_mode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        self.t += 1
        reward = float("nan") if self.nan_after and self.t > self.nan_after else 1.0
        return self.observation_space.sample() * 0, reward, False, False, {}

    def render(self):
        return np.full((16, 16, 3), self.t % 256, np.uint8)


TWO, LINE = gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (1,))
SPACES = {"qlearning_table": (TWO, TWO), "ddpg": (LINE, LINE)}
gym.register("Nine-v0", Nine)
for _script in SCRIPTS:
    _spaces = SPACES.get(_script, (LINE, TWO))
    gym.register(f"Endless-{_script}-v0", functools.partial(Endless, *_spaces))
    gym.register(
        f"NaN-{_script}-v0",
        functools.partial(Endless, *_spaces, nan_after=500),
        max_episode_steps=20,
    )


def run(script: str, *arguments) -> int:
    """Run a script in this process, as `python script.py ...` would; returns its exit status."""
    try:
        return importlib.import_module(script).main([str(a) for a in arguments])
    except SystemExit as end:  # tyro's way to end, after --help and after what does not parse
        return end.code or 0


def keywords(script: str) -> dict:
    """The hyperparameters of a script: name -> default."""
    parameters = inspect.signature(importlib.import_module(script).train).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and not p.name.startswith("on_")
    }


def help_page(script: str, capsys, *flags) -> str:
    """The page of --help, without its frame and its line breaks."""
    assert run(script, "--help", *flags) == 0
    return " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag(script, capsys):
    page = help_page(script, capsys)
    for flag in "--env --stop-when-solved --no-save --out --load --render --record".split():
        assert f"{flag} " in page.replace(",", " ")
    assert "runs/<script>/<env>/seed<N>" in page  # the comment goes on in the next line
    source = Path(ROOT, f"{script}.py").read_text()
    for name, default in keywords(script).items():
        assert f"--{name.replace('_', '-')}" in page
        assert f"(default: {default})" in page
        # Its meaning is the comment behind it in the signature of train().
        (comment,) = re.findall(rf"^    {name}: [^#]*,  # (.*)$", source, re.M)[:1]
        assert f"{' '.join(comment.split())} (default" in page


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_number_has_an_interval(script):
    known = {name for _, names in runs.INTERVALS.values() for name in names.split()}
    for name, default in keywords(script).items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert known & {name, f"{script}.{name}"}, f"{name} is missing in runs.INTERVALS"


# ---------------------------------------------------------------------------------------- --literal


def used(folder) -> dict:
    """The hyperparameters in a saved run.json."""
    return json.loads(Path(folder, "run.json").read_text())["hyperparameters"]


def literally(script) -> dict:
    """What --literal changes; nothing in a script without departures."""
    return getattr(importlib.import_module(script), "LITERAL", {})


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_literal_shows_the_literal_values(script, capsys):
    page = help_page(script, capsys, "--literal")
    for name, value in literally(script).items():
        flag = name.replace("_", "-")
        (default,) = re.findall(rf" --{flag}[ ,].*?\(default: ([^)]*)\)", page)
        assert default == str(value)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_the_user_gives_wins_over_literal(script, finished):
    module = importlib.import_module(script)
    before, literal = keywords(script), literally(script)
    given = {a[2:].replace("-", "_") for a in TINY[script] if a.startswith("--")}
    expected = {name: literal.get(name, before[name]) for name in before} | {"literal": True}
    recorded = used(finished(script, "--literal")[0])
    assert {k: v for k, v in recorded.items() if k not in given} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in expected.items() if k not in given
    }
    for name in literal:
        default, flag = before[name], name.replace("_", "-")
        text = [f"--{flag}", str(default)]
        if isinstance(default, bool):
            text = [f"--{flag}" if default else f"--no-{flag}"]
        kinds = runs.Files, runs.World
        _, hyperparameters = runs.parse(module.train, ["--literal", *text], script, kinds)
        assert hyperparameters == expected | {name: default}


@pytest.mark.parametrize("script", SCRIPTS)
def test_literal_is_what_each_flag_turns_off(script, finished):
    """--literal, and the same values given one by one, learn the same, bit for bit."""
    flags = []
    for name, value in literally(script).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags += [f"--{flag}" if value else f"--no-{flag}"]
        else:
            flags += [f"--{flag}", str(value)]
    one, _ = finished(script, "--literal")
    assert run(script, *flags, *TINY[script], "--out", "two") == 0
    assert returns(one) == returns("two")
    assert used(one) | {"literal": False} == used("two")


# ------------------------------------------------------------------------------- saving and loading


def returns(folder) -> list[tuple]:
    """The rows of returns.csv, without the seconds."""
    with open(Path(folder, "returns.csv")) as file:
        rows = list(csv.DictReader(file))
    return [(row["episode"], row["step"], row["return"], row["length"]) for row in rows]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_tiny_run_saves_what_it_says(script, finished):
    folder, summary = finished(script, "--seed", "5")
    weights = WEIGHTS.get(script, "weights.pt")
    files = sorted(["returns.csv", "returns.png", "run.json", weights])
    assert sorted(p.name for p in folder.iterdir()) == files
    for name in ("returns.csv", "returns.png", weights):
        assert str(folder / name) in summary
    assert "steps/s" in summary and "20 episodes: mean return" in summary
    with open(folder / "returns.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["episode", "step", "seconds", "return", "length"]
    assert [int(row["episode"]) for row in rows] == list(range(1, len(rows) + 1))
    assert Image.open(folder / "returns.png").size[0] > 400


@pytest.mark.parametrize("script", SCRIPTS)
def test_default_folder_and_the_same_file_with_the_same_seed(script, finished):
    assert run(script, *TINY[script]) == 0
    found = returns(Path("runs", script, TINY[script][1], "seed0"))
    first, other = (finished(script, *seed)[0] for seed in ([], ["--seed", "5"]))
    assert found and found == returns(first) != returns(other)


@pytest.mark.parametrize("script", SCRIPTS)
def test_load_evaluates_what_was_saved(script, capsys, finished):
    def greedy(page):
        return next(line for line in page.splitlines() if line.startswith("greedy policy"))

    folder, page = finished(script)
    files = {p: p.read_bytes() for p in folder.iterdir()}
    assert run(script, "--load", folder) == 0  # --env is known from the folder
    assert greedy(capsys.readouterr().out) == greedy(page)
    assert files == {p: p.read_bytes() for p in folder.iterdir()}  # it wrote nothing
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_save_and_record_a_clip(script, capsys, monkeypatch):
    monkeypatch.setitem(runs.play.__kwdefaults__, "most_steps", 20)  # of a clip
    assert run(script, *TINY[script], "--no-save", "--record", "clip.gif") == 0
    clip = Image.open("clip.gif")
    assert clip.is_animated and clip.n_frames > 2
    assert list(Path().iterdir()) == [Path("clip.gif")]


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
    assert "try CartPole-v1" in refused(capsys, script, "--env", "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_spaces_that_do_not_fit(script, capsys):
    env, use = UNFIT[script]
    assert use in refused(capsys, script, "--env", env)


BAD_NUMBERS = {
    "seed": ["-1", "2147483648", "99999999999999999999999"],
    "steps": ["0", "-5"],
    "episodes": ["0"],
    "gamma": ["1.5", "-0.1", "nan"],
    "alpha": ["0", "-1", "inf", "nan"],
    "beta": ["-1", "nan"],
    "epsilon": ["2"],
    "memory": ["0"],
    "batch": ["0", "100000000"],
    "warmup": ["-1"],
    "train_every": ["0"],
    "n_steps": ["0"],
    "tau": ["0", "1.1"],
    "sigma": ["-1"],
    "t_max": ["0"],
    "workers": ["0"],
    "n_envs": ["0"],
    "horizon": ["0"],
    "epochs": ["0"],
    "gae_lambda": ["2"],
    "d_targ": ["0"],
    "std": ["0", "-1"],
    "clip": ["-1"],
    "hidden": ["0"],
}
BAD = [
    (script, name, value)
    for script in SCRIPTS
    for name, default in keywords(script).items()
    for value in BAD_NUMBERS.get(name, [])
    if not isinstance(default, bool)
    and ((name, value) != ("batch", "100000000") or "memory" in keywords(script))
]
BAD += [("qlearning_table", "alpha", "1.1"), ("actor_critic", "beta", "0"), ("ddpg", "beta", "0")]


@pytest.mark.parametrize(("script", "name", "value"), BAD)
def test_impossible_numbers(script, name, value, capsys):
    flag = f"--{name.replace('_', '-')}"
    assert f"{flag} {value}" in refused(capsys, script, flag, value)


@pytest.mark.parametrize("script", ["dqn", "ddpg"])
def test_a_memory_that_does_not_fit(script, capsys):
    if not Path("/proc/meminfo").exists():
        pytest.skip("the system does not say how much memory is free")
    line = refused(capsys, script, "--memory", 10**13)
    assert "--memory" in line and "GB" in line


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
def test_load_refuses_other_scripts_environments_and_damage(script, capsys, finished):
    shutil.copytree(finished(script)[0], "out")
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


def test_loading_never_executes_code(capsys, finished):
    import pickle

    class Harmful:
        def __reduce__(self):
            return (os.system, ("touch harmed",))

    shutil.copytree(finished("dqn")[0], "out")
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
    on_episode, before = runs.Progress.on_episode, signal.getsignal(signal.SIGINT)

    def press_after_two(progress, *episode):
        if len(progress.rows) == 2 and not progress.stop.value:
            signal.raise_signal(signal.SIGINT)
        return on_episode(progress, *episode)

    monkeypatch.setattr(runs.Progress, "on_episode", press_after_two)
    budget = ["--steps", "100000000", "--no-stop-when-solved"]
    assert run(script, *TINY[script][:2], *budget, "--out", "out") == 130
    page = capsys.readouterr().out
    assert "interrupted after 2 episodes" in page
    assert "interrupted after" in page and "greedy policy" in page
    assert Path("out", WEIGHTS.get(script, "weights.pt")).exists()
    assert Path("out/returns.csv").exists()
    assert signal.getsignal(signal.SIGINT) is before


# A cart-pole that leaves a file behind once a process has made 300 steps in it.
POLE = """
import os
from pathlib import Path
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class Pole(CartPoleEnv):
    made = 0

    def step(self, action):
        self.made += 1
        if self.made == 300:
            Path(__file__).with_name(f"trains-{os.getpid()}").touch()
        return super().step(action)

gym.register("Pole-v0", Pole, max_episode_steps=500)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
@pytest.mark.parametrize("script, method", [("dqn", "fork"), ("a3c", "fork"), ("a3c", "spawn")])
def test_ctrl_c_from_a_terminal(script, method, tmp_path):
    """A terminal sends SIGINT to the program and to all the processes that it has started."""
    Path("pole.py").write_text(POLE)
    workers = 2 if script == "a3c" else 1
    arguments = ["--env", "pole:Pole-v0", "--steps", "100000000", "--no-stop-when-solved"]
    arguments += ["--workers", str(workers)] if script == "a3c" else []
    arguments += ["--out", str(tmp_path / "out")]
    code = (
        f"import multiprocessing, sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n"
        f"multiprocessing.set_start_method({method!r})\n"
        f"import {script}; sys.exit({script}.main({arguments}))\n"
    )
    command = [sys.executable, "-u", "-c", code]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    try:
        end = time.monotonic() + 300
        while len(list(tmp_path.glob("trains-*"))) < workers and process.poll() is None:
            assert time.monotonic() < end, "it does not train"
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        page, errors = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert "interrupted after" in page and "greedy policy" in page
    assert "Traceback" not in errors
    assert Path("out/weights.pt").exists() and Path("out/returns.csv").exists()
    assert processes_that_name(str(tmp_path)) == []


def test_a_full_disk_loses_nothing(capsys, monkeypatch, finished):
    shutil.copytree(finished("dqn")[0], "out")
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


# ---------------------------------------------------------- environments that are not as usual


@pytest.mark.parametrize("script", SCRIPTS)
def test_episodes_that_do_not_end(script, capsys, monkeypatch):
    monkeypatch.setattr(runs, "STEPS", 300)
    if script != "qlearning_table":
        monkeypatch.setitem(runs.play.__kwdefaults__, "most_steps", 60)
    else:  # there the clip's own limit: so many images that none gets its text
        monkeypatch.setattr(plotting, "frame", lambda image, total: image)
    arguments = ["--env", f"Endless-{script}-v0", "--steps", "200", "--record", "clip.gif"]
    arguments += ["--workers", "1"] if script == "a3c" else []
    assert run(script, *arguments, "--out", "out") == 0
    page = capsys.readouterr().out
    assert re.search(r"trained for 0 episodes, [1-9]\d* steps", page)
    assert "an episode did not end: return 300.00 after 300 steps" in page
    assert "mean return" not in page
    limit = runs.WATCHED_STEPS if script == "qlearning_table" else 60
    assert limit <= Image.open("clip.gif").n_frames <= limit + 100


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_reward_that_is_nan_is_the_environments_fault(script, capsys):
    arguments = ["--env", f"NaN-{script}-v0", "--steps", "20000", "--out", "out"]
    arguments += ["--workers", "1"] if script == "a3c" else []
    assert run(script, *arguments) == 1
    errors = capsys.readouterr().err.strip()
    assert f"NaN-{script}-v0 gave the reward nan at step " in errors
    assert "alpha" not in errors and len(errors.splitlines()) == 1
    assert Path("out/returns.csv").exists() and not Path("out", "weights.pt").exists()


def test_the_table_is_printed(capsys):
    assert run("qlearning_table", *TINY["qlearning_table"], "--no-save") == 0
    table = capsys.readouterr().out.split("Q-table")[1].splitlines()
    assert table[0].split() == ["left", "right"] and len(table) == 7
    assert run("qlearning_table", "--env", "Taxi-v3", "--steps", "300", "--no-save") == 0
    assert "... and 484 more states" in capsys.readouterr().out
