"""What people look at: pictures of what was learned, comparisons, clips, watching."""

import csv
import importlib.util
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from test_command_line import SCRIPTS, TINY, refused, run

from common import envs, plotting, runs

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
import compare
import plane


def returns(folder) -> list[str]:
    with open(Path(folder, "returns.csv")) as file:
        return [row["return"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "ddpg"])
@pytest.mark.parametrize("env", ["Maze-v0", "GridWorld-v0"])
def test_picture_of_what_was_learned(script, env, capsys):
    arguments = ["--env", env, *TINY[script][2:]]
    assert run(script, *arguments, "--out", "out", "--picture", "learned.png") == 0
    assert "learned.png" in capsys.readouterr().out
    assert Image.open("learned.png").size[0] > 400
    assert run(script, "--load", "out", "--picture", "again.png") == 0
    assert Path("again.png").read_bytes() == Path("learned.png").read_bytes()


def test_pictures_that_cannot_be_drawn(capsys):
    maze = "--env", "Maze-v0"
    assert "Maze-v0" in refused(capsys, "dqn", "--env", "Acrobot-v1", "--picture", "p.png")
    assert "p.gif" in refused(capsys, "dqn", *maze, "--picture", "p.gif")
    Path("file").write_text("not a folder")
    assert "file" in refused(capsys, "dqn", *maze, "--picture", "file/p.png")


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "qlearning_table"])
def test_a_plane_of_what_was_learned(script, capsys):
    assert run(script, *TINY[script], "--out", "out", "--seed", "3") == 0
    assert plane.main(["out", "learned.png"]) == 0
    assert "learned.png" in capsys.readouterr().out
    assert Image.open("learned.png").size[0] > 400
    assert plane.main(["out", "again.png"]) == 0
    assert Path("again.png").read_bytes() == Path("learned.png").read_bytes()


def test_planes_that_cannot_be_drawn(capsys):
    assert plane.main(["out"]) == 2 and "FOLDER" in capsys.readouterr().err
    assert plane.main(["nowhere", "p.png"]) == 2 and "nowhere" in capsys.readouterr().err
    Path("other").mkdir()
    Path("other/run.json").write_text('{"script": "antigravity"}')  # a file names no module
    assert plane.main(["other", "p.png"]) == 2 and "other" in capsys.readouterr().err
    assert "antigravity" not in sys.modules
    assert run("dqn", "--env", "Acrobot-v1", "--steps", "600", "--out", "out") == 0
    assert plane.main(["out", "p.png"]) == 2 and "Acrobot-v1" in capsys.readouterr().err


def test_grid_shows_values_and_arrows():
    """Other values, or other arrows, are another picture; a cell is coloured by its value."""
    world = envs.make("Maze-v0")
    one = plotting.picture(world, lambda s: (0, s), title="")
    assert one == plotting.picture(world, lambda s: (0, s), title="")
    assert one != plotting.picture(world, lambda s: (1, s), title="")
    assert one != plotting.picture(world, lambda s: (0, -s), title="")
    assert one != plotting.picture(world, lambda s: (0, None), title="")


def test_plane_spans_the_two_state_variables():
    seen = []
    plane.plane(envs.make("Pendulum-v1"), lambda s: seen.append(s) or (0.0, 0.0))
    cosine, sine, velocity = np.array(seen).T
    assert np.allclose(cosine**2 + sine**2, 1) and cosine.min() < -0.99 < 0.99 < cosine.max()
    assert (velocity.min(), velocity.max()) == (-8, 8)


def test_pictures_see_the_environment_through_its_wrappers():
    """look_of() takes the environment's own observations and gives its own actions."""
    env = gym.wrappers.RescaleAction(envs.make("Pendulum-v1"), -1, 1)
    env = gym.wrappers.TransformObservation(env, lambda s: s * 10, env.observation_space)
    env = gym.wrappers.TransformObservation(env, lambda s: s + 1, env.observation_space)
    seen = []
    learned = (lambda state: seen.append(state.tolist()) or state[:1] * 0 + 0.5,)
    greedy = runs.Greedy(env, learned, lambda net, s: net(s), lambda net, s: net(s).sum() * 8)
    action, value = plane.look_of(greedy)(np.array([1, 2, 3], np.float32))
    assert seen == [[11, 21, 31]] * 2
    assert action.tolist() == [1.0] and value == 4.0  # half of the torque's limit, 2


def test_compare_draws_folders_of_seeds(finished, capsys):
    for seed in ("0", "5"):
        for script in ("reinforce", "ppo"):
            flags = ["--seed", seed] if seed != "0" else []
            folder, _ = finished(script, *flags)
            shutil.copytree(folder, Path("runs", script, "CartPole-v1", f"seed{seed}"))
    folders = ["runs/reinforce/CartPole-v1", "runs/ppo/CartPole-v1"]
    assert compare.main([*folders, "-o", "both.png"]) == 0
    assert Image.open("both.png").size[0] > 400
    assert len(compare.saved_runs(Path("runs/ppo/CartPole-v1"), 100)) == 2
    with pytest.raises(SystemExit, match="2"):
        compare.main(["runs/nothing"])
    assert "runs/nothing: no returns.csv there" in capsys.readouterr().err


def test_mean_of_runs_holds_the_last_value():
    """Of runs of different length the shorter one keeps its last value: no jump at its end."""
    short = np.array([1, 5]), np.array([0.0, 10.0])
    long = np.array([1, 5, 10]), np.array([0.0, 10.0, 10.0])
    mixed = compare.draw({"a": [short, long]}, "", None, "")
    assert mixed == compare.draw({"a": [long, long]}, "", None, "")


FRAMES = [np.full((41, 61, 3), 7 * i, np.uint8) for i in range(13)]


def test_gif():
    Path("a.gif").write_bytes(plotting.clip(FRAMES, 10))
    clip = Image.open("a.gif")
    assert (clip.is_animated, clip.size) == (True, (60, 40))  # .mp4 wants even sizes
    Path("b.gif").write_bytes(plotting.clip([plotting.frame(f, 7.0) for f in FRAMES], 60))
    assert Image.open("b.gif").n_frames <= clip.n_frames / 2 + 1 + 30  # every second, and the end
    with_text = plotting.frame(np.zeros((600, 900, 3), np.uint8), -12.5)
    assert with_text.shape == (320, 480, 3) and with_text.max() == 255


def test_mp4_needs_a_plugin(capsys, monkeypatch):
    if importlib.util.find_spec("imageio_ffmpeg"):
        assert b"ftyp" in plotting.clip(FRAMES, 10, ".mp4")[:12]
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "imageio.plugins.ffmpeg", raising=False)
    assert "pip install imageio[ffmpeg]" in refused(capsys, "dqn", "--record", "clip.mp4")


# --------------------------------------------------------------------------------------- watching


@pytest.fixture
def fast(monkeypatch):
    """A screen that nobody sees, without waiting."""
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for env in ("CartPole-v1", "Pendulum-v1"):
        kind = type(gym.make(env).unwrapped)
        monkeypatch.setattr(kind, "metadata", kind.metadata | {"render_fps": 10_000})


@pytest.mark.parametrize("script", SCRIPTS)
def test_watching_changes_nothing(script, fast, finished, capsys):
    assert run(script, *TINY[script], "--out", "watched", "--render") == 0
    assert returns(finished(script)[0]) == returns("watched")
    page = capsys.readouterr().out
    assert all(f"Episode {n}: total_steps = " in page for n in (1, 2, 3))


def test_the_treasure_is_watched_in_the_terminal(capsys):
    assert run("qlearning_table", "--episodes", "100", "--no-save", "--render") == 0
    page = capsys.readouterr().out
    training, watching = page.split("trained for")
    assert "o----T\n-o---T\n" in page
    assert "Episode 12: total_steps" in training and "Episode 13" not in training
    assert "Episode 3: total_steps = 5\n" in watching
    assert "Q-table" in watching and "right" in watching


def test_closing_the_window_ends_the_watching(fast):
    pygame = importlib.import_module("pygame")
    env, seen = envs.make("CartPole-v1", render_mode="human"), []

    def policy(state):
        if len(seen) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return seen.append(state) or 0

    assert not runs.window_closed()
    ((total, length, done),) = runs.play(env, policy, seed=0, watch=runs.window_closed)
    assert (total, length, done) == (4.0, 4, False)
    env.close()


def test_no_screen(capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "--record" in refused(capsys, "dqn", "--render")
    # Without a screen an environment that can be text is shown as text.
    arguments = ["--env", "Maze-v0", "--steps", "20", "--no-save", "--render"]
    assert run("qlearning_table", *arguments) == 0
    assert ".XP." in capsys.readouterr().out
