"""What people look at: pictures of what was learned, comparisons, clips, windows."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import envs, plotting
from tests.test_command_line import SCRIPTS, TINY, refused, run


def returns(folder) -> list[str]:
    with open(Path(folder, "returns.csv")) as file:
        return [row["return"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_picture_of_what_was_learned(script, capsys):
    assert run(script, *TINY[script], "--out", "out", "--picture", "learned.png") == 0
    assert "learned.png" in capsys.readouterr().out
    assert Image.open("learned.png").size[0] > 400
    assert run(script, "--load", "out", "--picture", "again.png") == 0
    assert Image.open("again.png").size[0] > 400


def test_pictures_that_cannot_be_drawn(capsys):
    assert "CartPole-v1" in refused(capsys, "dqn", "--env", "Acrobot-v1", "--picture", "p.png")
    assert "p.gif" in refused(capsys, "dqn", "--picture", "p.gif")
    Path("file").write_text("not a folder")
    assert "file" in refused(capsys, "dqn", "--picture", "file/p.png")


def test_grid_shows_values_and_arrows():
    """The same cells with other values, or with other arrows, are another picture; and a cell is coloured by its value."""
    world = envs.make("Maze-v0")
    one = plotting.picture(world, act=lambda s: 0, value=lambda s: s, title="")
    assert one != plotting.picture(world, act=lambda s: 1, value=lambda s: s, title="")
    assert one != plotting.picture(world, act=lambda s: 0, value=lambda s: -s, title="")


def test_plane_spans_the_two_state_variables():
    seen = []
    plotting.picture(envs.make("Pendulum-v1"), act=lambda s: 0.0, value=lambda s: seen.append(s) or 0.0, title="")
    cosine, sine, velocity = np.array(seen).T
    assert np.allclose(cosine**2 + sine**2, 1) and cosine.min() < -0.99 < 0.99 < cosine.max()
    assert (velocity.min(), velocity.max()) == (-8, 8)


def test_compare_draws_folders_of_seeds(capsys):
    for seed in (0, 1):
        for script in ("reinforce", "ppo"):
            assert run(script, *TINY[script], "--seed", seed) == 0
    capsys.readouterr()
    assert plotting.main(["runs/reinforce/CartPole-v1", "runs/ppo/CartPole-v1", "-o", "both.png"]) == 0
    assert Image.open("both.png").size[0] > 400
    assert len(plotting.saved_runs(Path("runs/ppo/CartPole-v1"), 100)) == 2
    assert plotting.main(["runs/nothing"]) == 2
    assert "runs/nothing: no returns.csv there" in capsys.readouterr().err


def test_mean_of_runs_holds_the_last_value():
    """Of runs of different length the shorter one goes on with its last value: no jump where it ends."""
    short, long = (np.array([1, 5]), np.array([0.0, 10.0])), (np.array([1, 5, 10]), np.array([0.0, 10.0, 10.0]))
    assert plotting.compare({"a": [short, long]}, "", None, "") == plotting.compare({"a": [long, long]}, "", None, "")


def test_mp4_needs_an_encoder(capsys, monkeypatch):
    if plotting.encoder():
        frames = [(np.full((41, 61, 3), 7 * i, np.uint8), float(i)) for i in range(12)]  # odd sizes are cut to even ones
        assert b"ftyp" in plotting.clip(frames, 10, ".mp4")[:12]
    monkeypatch.setattr(plotting, "encoder", lambda: None)
    assert "pip install imageio-ffmpeg" in refused(capsys, "dqn", "--record", "clip.mp4")


# ------------------------------------------------------------------------------------------------------------------ windows


@pytest.fixture
def screen(monkeypatch):
    """A screen that nobody sees. The list fills with the images that are shown."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown, show = [], plotting.Window.show

    def record(window, image, fps, title):
        if image is not None:
            shown.append(title)
        return show(window, image, 10_000, title)  # without waiting

    monkeypatch.setattr(plotting.Window, "show", record)
    yield shown
    pygame.display.quit()


@pytest.mark.parametrize("script", ["dqn", "a3c", "ppo"])
def test_watching_changes_nothing(script, screen, capsys):
    assert run(script, *TINY[script], "--out", "alone") == 0
    assert not screen
    assert run(script, *TINY[script], "--out", "watched", "--render-every", "2") == 0
    assert returns("alone") == returns("watched")
    episodes = {int(title.split("episode ")[1].split(",")[0]) for title in screen}
    assert episodes and all(episode % 2 == 0 for episode in episodes)


def test_closing_the_window_ends_the_watching_not_the_program(screen, capsys):
    import pygame

    def close(*_):
        if len(screen) == 20:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    tick = plotting.Window.show
    plotting.Window.show = lambda *a, **k: (close(), tick(*a, **k))[1]
    try:
        assert run("reinforce", *TINY["reinforce"], "--out", "out", "--render-every", "1", "--render") == 0
    finally:
        plotting.Window.show = tick
    assert 20 <= len(screen) <= 22  # not the rest of the training, and nothing afterwards
    assert len(returns("out")) > 5
    assert "greedy policy" in capsys.readouterr().out


def test_no_screen(capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert "--record" in refused(capsys, "dqn", "--render")
    assert "--record" in refused(capsys, "dqn", "--render-every", "5")
    assert "at least 1" in refused(capsys, "dqn", "--render-every", "0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert "--workers 1" in refused(capsys, "a3c", "--workers", "2", "--render-every", "5")


def test_tables_are_kept_for_the_picture(capsys):
    train = importlib.import_module("qlearning_table").train
    kept = []
    Q, _ = train(envs.make("Treasure-v0"), episodes=5, on_table=lambda Q: kept.append(Q.copy()))
    assert len(kept) == 5 and np.array_equal(kept[-1], Q) and not np.array_equal(kept[0], Q)
