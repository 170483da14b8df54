"""The lecture's environments, the door that every environment comes through, and the pictures."""

import io
import sys
import types
import zlib

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Tuple
from PIL import Image

from common import envs, pixels, plotting
from tests.worlds import VECTOR, Probe

gym.register("Probe-v0", Probe)
GRIDS = {  # where it starts, a cell and where its actions lead, reward of a move, and at the ends
    "Treasure-v0": ({0}, 0, [0, 1], 0, {5: 1}),
    "GridWorld-v0": ({*range(1, 15)}, 1, [2, 0, 1, 5], -1, {0: -1, 15: -1}),
    "Maze-v0": ({0}, 4, [0, 8, 4, 5], 0, {6: -1, 9: -1, 10: 1}),
}


# --------------------------------------------------------------------------------- the grid worlds


@pytest.mark.parametrize("env_id", GRIDS)
def test_grids_are_the_lectures(env_id):
    """The table P, and steps that follow it."""
    starts, cell, neighbours, move, ends = GRIDS[env_id]
    env = gym.make(env_id)
    P = env.unwrapped.P
    assert {env.reset(seed=None if i else 0)[0] for i in range(200)} == starts
    assert [P[cell][a][0][1] for a in range(len(P[cell]))] == neighbours
    for s, actions in P.items():
        for a, ((chance, s_next, *expected),) in actions.items():
            there = [0, True] if s in ends else [ends.get(s_next, move), s_next in ends]
            assert expected == there and chance == 1 and (s_next == s or s not in ends)
            assert env.reset(options={"start": s})[0] == s
            assert [*env.step(a)[:3]] == [s_next, *expected]


def test_how_the_worlds_look():
    env = gym.make("Maze-v0", render_mode="ansi").unwrapped
    env.reset()
    env.step(1)
    assert env.render() == "....\no.X.\n.XP.\n...."
    env.render_mode = "rgb_array"
    assert zlib.crc32(env.render().tobytes()) == 2475105076, "another picture: is it meant?"


# ----------------------------------------------------------------------------------------- MiniPong


def test_minipong():
    """Games at random: images, rewards, ends, scores and text are as they always were."""
    rng, checksum = np.random.default_rng(0), 0
    for options in ({}, dict(points=3, skill=0.9)):
        env = gym.wrappers.Autoreset(gym.make("MiniPong-v0", render_mode="ansi", **options))
        env.reset(seed=0)
        for action in rng.integers(2, size=3000):
            image, *ends = env.step(action)[:4]
            told = str([*ends, env.unwrapped.score, env.render()])
            checksum = zlib.crc32(image.tobytes() + told.encode(), checksum)
    assert checksum == 823347058, "another game: is it meant to be one?"
    env.unwrapped.render_mode = "rgb_array"
    assert (env.render()[8::16, 8::16] == image).all()


# ----------------------------------------------------------------------------------------- the door


def showing(state, **options) -> Probe:
    """It shows one state."""
    probe = Probe(**options)
    probe.draw = lambda: state
    return probe


def seen(space, state, table: bool = False):
    """A state as a script sees it; it has to lie in the space that the script sees."""
    probe = showing(state, states=space, actions=Discrete(3, start=-1), scale=np.ones(1))
    env = envs.prepared(probe, table)
    first, _ = env.reset(seed=0)
    second, reward, *_ = env.step(np.int64(2))  # actions are counted from 0
    assert env.observation_space.contains(first) and np.array_equal(first, second)
    assert type(reward) is float and probe.log[0][1] == 1
    return first.tolist() if isinstance(first, np.ndarray) else first


def test_states():
    pair = Tuple((Discrete(2), Discrete(3, start=5)))
    assert seen(Discrete(3, start=4), 5) == [0, 1, 0]
    assert seen(pair, (1, 7)) == [0, 1, 0, 0, 1]
    assert seen(MultiBinary(3), np.int8([1, 0, 1])) == [1, 0, 1]
    both = Dict(b=Discrete(2), a=Box(-2, 2, (2,)))
    assert seen(both, dict(b=1, a=np.float32([2, -1]))) == [0, 1, 2, -1]
    assert seen(Box(0, 255, (4, 4), np.uint8), np.full((4, 4), 9, np.uint8)) == [9] * 16
    small = Box(*np.float32([[-0.5, -0.25, 0, -3], [0.25, 0.5, 1e-4, 0.5]]))  # by their bounds
    assert seen(small, np.float32([0.25, 0.25, 1e-4, 0.5])) == pytest.approx([0.5, 0.5, 0.1, 0.5])
    assert seen(Discrete(3, start=4), 5, table=True) == 1
    assert seen(pair, (1, 7), table=True) == 5
    assert seen(MultiDiscrete([4, 5]), np.array([2, 3]), table=True) == 13


def test_what_is_no_number():
    for state, scale, action, says in (
        (1, np.inf, 0, "Probe gave the reward"),
        (1, 1, np.nan, "training diverged; lower the step sizes"),
        (np.nan, 1, 0, r"Probe shows \["),
    ):
        env = envs.prepared(showing(np.array([1, state, 1]), scale=scale))
        with pytest.raises(FloatingPointError, match=says):
            env.reset()
            env.step(np.full(2, action))


REFUSED = [
    ("Probe-v0", dict(actions=MultiBinary(2)), r"no script takes .* actions MultiBinary\(2\)"),
    ("Probe-v0", dict(states=Sequence(VECTOR)), "no script takes Sequence"),
    ("Probe-v0", dict(actions=Box(-1, 1, (2, 2))), "no script takes"),
    ("Probe-v0", dict(actions=Box(0, 9, (2,), np.int32)), "no script takes"),
    ("Probe-v0", dict(actions=Box(*np.float32([[0, 1], [1, 1]]))), "no script takes"),
    ("Probe-v0", dict(actions=Box(-np.inf, np.inf, (2,))), "no script takes"),
    ("CartPol-v1", {}, "'CartPol-v1' does not open: .* Did you mean: `CartPole`?"),
    ("", {}, "Malformed environment ID"),
    ("no_such:Env-v0", {}, "No module named 'no_such'.* README.md"),
    ("ALE/Pong-v5", {}, "ale_py.* README.md"),
    ("MinAtar/Breakout-v1", {}, "minatar.* README.md"),
    ("Treasure-v0", dict(size=1), "at least 2"),
    ("Maze-v0", dict(size=3), "at least 4"),
    ("MiniPong-v0", dict(skill=2), "skill in"),
]


@pytest.mark.parametrize(("env_id", "options", "says"), REFUSED)
def test_environments_that_are_refused(env_id, options, says, monkeypatch):
    for module in ("ale_py", "minatar", "minatar.gym"):  # as if it were not installed
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(envs.BadInput, match=says) as refused:
        envs.make(env_id, **options)
    assert "\n" not in str(refused.value)


# ------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3)])
@pytest.mark.parametrize("white", [1, 255])
def test_phi_stacks_four_images_channels_first(shape, white):
    images = np.random.default_rng(0).integers(0, white, (5, *shape), np.uint8, endpoint=True)
    probe = Probe(states=Box(0, white, shape, np.uint8), actions=Discrete(2), length=9)
    probe.draw = iter(images).__next__
    env = envs.prepared(pixels.phi(probe))
    for t in range(5):
        state = env.step(0)[0] if t else env.reset()[0]
        four = images[np.maximum(range(t - 3, t + 1), 0)].reshape(4, 12, 10, -1)
        assert (state == four.transpose(0, 3, 1, 2).reshape(-1, 12, 10) * (255 // white)).all()
        assert envs.shows_images(env) and env.observation_space.contains(state)


def test_what_phi_leaves():
    for space in (Box(0, 255, (4, 9), np.uint8), Box(0, 1, (9, 9)), Box(0, 255, (9,), np.uint8)):
        assert isinstance(pixels.phi(Probe(states=space)), Probe)
    image = np.full((4, 5), 87, np.uint8)
    image[0, 0], image[1, 1], image[3, 4] = 0, 100, 236
    assert pixels.contrast(image)[[0, 1, 3, 2], [0, 1, 4, 2]].tolist() == [255, 39, 255, 0]


@pytest.mark.parametrize(("size", "features"), [(84, 2592), (42, 2592), (8, 512)])
def test_convolutions(size, features):
    """At 84x84 those of the paper of 2013: 20x20, then 9x9. Bytes count as numbers up to 1."""
    trunk, images = pixels.Convolutions((4, size, size), 7), torch.full((1, 4, size, size), 200.0)
    assert trunk[-2].in_features == features
    assert trunk(images).shape == (1, 7) and trunk(images[0]).shape == (7,)
    assert torch.equal(trunk(images), torch.nn.Sequential(*trunk)(images / 255))


# ----------------------------------------------------------------------------------------- pictures


def test_learning_curve(monkeypatch):
    monkeypatch.setattr(plotting, "png", lambda figure: figure)
    progress = types.SimpleNamespace(solved=(3, 21), window=100, goal=475)
    progress.rows = [(1, 7, 0, 3.0, 1), (2, 20, 0, -5, 1), (3, 21, 0, 40, 1), (4, 90, 0, 8, 1)]
    figure = plotting.learning_curve(progress, "a title", [1.0, 4.0], window=2)
    (axes,), steps = figure.axes, [7, 20, 21, 90]
    expected = {"one episode": [steps, [3, -5, 40, 8]]}
    expected |= {"mean of the last 2": [steps, [3, -1, 17.5, 24]]}
    expected |= {"greedy policy: 2.5": [[90], [2.5]], "solved by the mean of 100": [[21], [475]]}
    expected |= {"solved: 475": [[0, 1], [475, 475]]}
    data = {line.get_label(): np.array(line.get_data()).tolist() for line in axes.lines}
    assert data == expected and axes.get_title() == "a title"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(expected)


def test_picture_of_what_was_learned(monkeypatch):
    """An arrow and a value in each cell, marks for the ends; GridWorld has the random policy's."""
    monkeypatch.setattr(plotting, "png", lambda figure: figure)
    look = lambda s: (s.argmax() % 4, s.argmax())
    (axes,) = plotting.picture(envs.make("Maze-v0"), look, "title").axes
    texts = {tuple(map(int, t.get_position())): t.get_text() for t in axes.texts}
    assert len(texts) == 16 and texts[0, 0] == "↑\n0.00" and texts[1, 0] == "↓\n1.00"
    assert texts[2, 0] == "←\n2.00" and texts[3, 3] == "→\n15.00"
    assert texts[2, 1] == texts[1, 2] == "■" and texts[2, 2] == "●"
    figure = plotting.picture(envs.make("GridWorld-v0", True), lambda s: (0, None), "")
    assert [axes.texts[1].get_text() for axes in figure.axes] == [plotting.ALL, "→"]


def test_picture_over_two_variables(monkeypatch):
    """Of CartPole: columns are angles of the pole, rows its velocities, from below."""
    monkeypatch.setattr(plotting, "png", lambda figure: figure)
    figure = plotting.plane(envs.make("CartPole-v1"), lambda s: (s[3] > 0, s[2]), "title")
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    action, value = [image.get_array() for image in shown if image.origin == "lower"]
    assert not action[:22].any() and action[23:].all()
    assert value[0, [0, 22, 44]].tolist() == pytest.approx([-0.5, 0, 0.5], abs=0.01)


def test_clips():
    frames = [plotting.frame(np.full((41, 61, 3), 7 * i, np.uint8), i) for i in range(13)]
    assert frames[0].shape == (82, 122, 3) and frames[0].max() == 255  # the return so far, in white
    slow, fast = (Image.open(io.BytesIO(plotting.clip(frames, fps))) for fps in (10, 60))
    assert (slow.n_frames, slow.size, slow.info["duration"]) == (13, (122, 82), 100)
    slow.seek(12)
    assert slow.info["duration"] == 1000  # it holds its end
    assert (fast.n_frames, fast.info["duration"]) == (7, 30)  # every second one, and the last
    assert plotting.frame(np.zeros((600, 900, 3), np.uint8), -12.5).shape == (320, 480, 3)
