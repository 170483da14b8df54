"""The lecture's environments, the door that every environment comes through, and the pictures."""

import io
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Tuple
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common import envs, pixels, plotting, runs
from tests.worlds import VECTOR, Probe

GRIDS = ["Treasure-v0", "GridWorld-v0", "Maze-v0"]


@pytest.fixture
def figures(monkeypatch) -> list:
    """All figures that are drawn."""
    drawn, png = [], plotting.png
    monkeypatch.setattr(plotting, "png", lambda figure: drawn.append(figure) or png(figure))
    return drawn


# --------------------------------------------------------------------------------- the grid worlds


@pytest.mark.parametrize("env_id", [*GRIDS, "MiniPong-v0"])
def test_gymnasium_finds_nothing_to_complain_of(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", GRIDS)
def test_steps_follow_the_table(env_id):
    env = gym.make(env_id)
    for s, actions in env.unwrapped.P.items():
        for a, ((chance, *expected),) in actions.items():
            assert env.reset(options={"start": s})[0] == s
            assert [*env.step(a)[:3]] == expected and chance == 1


def test_tables_are_the_lectures():
    table = lambda env_id, **options: gym.make(env_id, **options).unwrapped.P
    there = [(1.0, 2, 0.0, True)]
    assert table("Treasure-v0", size=3) == {
        0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 1, 0.0, False)]},
        1: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 2, 1.0, True)]},
        2: {0: there, 1: there},
    }
    moves = [entries[0][1:] for entries in table("GridWorld-v0")[1].values()]
    assert moves == [(2, -1, False), (0, -1, True), (1, -1, False), (5, -1, False)]
    maze = table("Maze-v0")
    ends = {next_s: r for s in maze for ((_, next_s, r, end),) in maze[s].values() if end and r}
    assert ends == {6: -1, 9: -1, 10: 1}
    assert [maze[5][a][0][1] for a in range(4)] == [1, 9, 4, 6]  # up, down, left, right


def test_starts():
    for env_id, starts in zip(GRIDS, ({0}, set(range(1, 15)), {0}), strict=True):
        env = gym.make(env_id)
        assert {env.reset(seed=None if i else 0)[0] for i in range(200)} == starts


def test_taxi_has_its_old_name():
    old, new = gym.make("Taxi-v3"), gym.make("Taxi-v4")
    assert old.unwrapped.P == new.unwrapped.P and old.spec.reward_threshold == 8


def test_how_the_worlds_look():
    env = gym.make("Maze-v0", render_mode="ansi")
    env.reset()
    env.step(1)
    assert env.render() == "....\no.X.\n.XP.\n...."
    env = gym.make("Maze-v0", render_mode="rgb_array")
    env.reset()
    image, red, black, yellow, white = env.render(), envs.RED, envs.BLACK, envs.YELLOW, envs.WHITE
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8
    middles = [[tuple(map(int, pixel)) for pixel in row] for row in image[32::64, 32::64]]
    assert middles == [
        [red, white, white, white],
        [white, white, black, white],
        [white, black, yellow, white],
        [white] * 4,
    ]


# ----------------------------------------------------------------------------------------- MiniPong


def pong(y: int, x: int, down: int, right: int, left_paddle=2, right_paddle=2, **options):
    env = gym.make("MiniPong-v0", **options).unwrapped
    env.reset(seed=0)
    env.y, env.x, env.down, env.right = y, x, down, right
    env.top = {-1: left_paddle, 1: right_paddle}
    return env


@pytest.mark.parametrize(
    ("y", "down", "paddle", "action", "lands", "off"),
    [
        (3, 1, 3, 1, 4, -1),  # the paddle moves first, to 4: the ball meets its uppermost pixel
        (3, 1, 2, 0, 4, 1),  # to 1: its lowest
        (4, -1, 3, 0, 3, -1),  # to 2: the second of four
        (3, 1, 3, 0, 4, 1),  # the third
        (4, 1, 0, 1, 5, None),  # to 1: the ball passes below it
        (3, -1, 3, 1, 2, None),  # to 4: above it
        (0, -1, 0, 0, 1, -1),  # off the wall; the paddle cannot go beyond it either
        (7, 1, 4, 1, 6, 1),
    ],
)
def test_at_the_agents_paddle(y, down, paddle, action, lands, off):
    env = pong(y, 7, down, 1, right_paddle=paddle, skill=0.0)
    image, reward, terminated, truncated, _ = env.step(action)
    assert image[lands, 8] == 255 and not truncated
    assert (reward, terminated) == ((0, False) if off else (-1, True))
    assert not off or (env.down, env.right) == (off, -1)


def test_the_opponent():
    """With skill 1 it follows the ball; with 0 it stands still, and the agent gets the point."""
    for skill, expected in ((0.0, (1.0, True)), (1.0, (0.0, False))):
        assert pong(4, 1, 1, -1, left_paddle=1, skill=skill).step(0)[1:3] == expected
    env, moves = pong(0, 4, 1, 1, left_paddle=4), 0
    for _ in range(1000):
        env.y, env.x, env.top[-1] = 0, 4, 4
        env.step(0)
        moves += env.top[-1] == 3
    assert 450 < moves < 550


def test_a_game():
    """Who follows the ball wins every point; between the points the ball is served again."""
    env, rewards = gym.make("MiniPong-v0", points=3), []
    for game in range(20):
        env.reset(seed=None if game else 0)
        done = False
        while not done:
            pong = env.unwrapped
            _, reward, *ends, _ = env.step(int(pong.y > pong.top[1] + 1.5))
            done = any(ends)
            if reward:
                rewards.append(reward)
                assert done or (pong.x, pong.right) == (4, 1)
        assert env.unwrapped.score == {-1: 0, 1: 3} and ends == [True, False]
    assert rewards == [1.0] * 60


def test_how_it_looks():
    env = pong(1, 5, 1, 1, left_paddle=0, right_paddle=4, render_mode="ansi")
    upper = ["#........", "#....#...", "#........", "#........"]
    assert env.render().split("\n") == upper + ["........#"] * 4
    env.render_mode = "rgb_array"
    assert (env.render()[8::16, 8::16] == env._image()).all()


# ----------------------------------------------------------------------------------------- the door


class Says(Probe):
    """Shows one state and gives one reward."""

    def __init__(self, state, reward=0.0, **options):
        super().__init__(**options)
        self.said, self.reward = state, reward

    def draw(self):
        return self.said

    def step(self, action):
        state, _, *rest = super().step(action)
        return state, self.reward, *rest


def seen(space, state, table: bool = False):
    """A state as a script sees it; it has to lie in the space that the script sees."""
    env = envs.prepared(Says(state, states=space, actions=Discrete(3)), table)
    first, _ = env.reset(seed=0)
    assert env.observation_space.contains(first)
    assert np.array_equal(env.step(0)[0], first)
    return first.tolist() if isinstance(first, np.ndarray) else first


def test_states():
    pair = Tuple((Discrete(2), Discrete(3, start=5)))
    assert seen(Discrete(3, start=4), 5) == [0, 1, 0]
    assert seen(pair, (1, 7)) == [0, 1, 0, 0, 1]
    assert seen(MultiBinary(3), np.int8([1, 0, 1])) == [1, 0, 1]
    both = Dict(b=Discrete(2), a=Box(-2, 2, (2,)))
    assert seen(both, dict(b=1, a=np.float32([2, -1]))) == [0, 1, 2, -1]
    assert seen(Box(0, 255, (4, 4), np.uint8), np.full((4, 4), 9, np.uint8)) == [9] * 16
    assert seen(Discrete(3, start=4), 5, table=True) == 1
    assert seen(pair, (1, 7), table=True) == 5
    assert seen(MultiDiscrete([4, 5]), np.array([2, 3]), table=True) == 13


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.floats(-9, 9, width=32)] * 2, st.floats(0, 1)), min_size=1))
def test_small_components_are_stretched(rows):
    """What is bounded within (-1, 1) is divided by its bound, or by 0.001; the rest stays."""
    bounds, share = np.sort(np.float32(rows)[:, :2]).T, np.float32(rows)[:, 2]
    state = np.clip(bounds[0] + share * (bounds[1] - bounds[0]), *bounds)
    unit = [min(1, max(0.001, abs(low), abs(high))) for low, high in bounds.T]
    assert seen(Box(*bounds), state) == pytest.approx(state / unit, rel=1e-5)


def test_actions():
    """Counted from 0; in [-1, 1], where the box is bounded, and clipped."""
    env = envs.prepared(probe := Probe(actions=Discrete(3, start=-1)))
    env.reset()
    env.step(np.int64(2))
    assert env.action_space == Discrete(3) and probe.log[0][1] == 1
    for box, sent in (
        (Box(np.float32([-2, 0]), np.float32([4, 3])), [-0.5, 3]),
        (Box(-np.inf, np.inf, (2,), np.float32), [-0.5, 9]),
        (Box(np.float32([0, 0]), np.float32([np.inf, 5])), [0, 5]),
    ):
        env = envs.prepared(probe := Probe(actions=box))
        env.reset()
        env.step(np.float32([-0.5, 9]))
        assert probe.log[0][1] == pytest.approx(sent, abs=1e-6) and box.contains(probe.log[0][1])


def test_rewards_states_and_actions_have_to_be_numbers():
    for reward in (1, np.float32(1), np.array([1.0]), True):
        env = envs.prepared(Says(np.ones(3), reward))
        env.reset()
        assert type(env.step(np.zeros(2))[1]) is float
    for reward in (None, np.nan, np.inf, np.ones(2)):
        env = envs.prepared(Says(np.ones(3), reward))
        env.reset()
        with pytest.raises(FloatingPointError, match="Says gave the reward"):
            env.step(np.zeros(2))
    with pytest.raises(FloatingPointError, match="training diverged; lower the step sizes"):
        env.step(np.full(2, np.nan))
    for state in (np.array([1, np.nan, 1]), np.full(3, np.inf)):
        with pytest.raises(FloatingPointError, match=r"Says shows \["):
            envs.prepared(Says(state)).reset()


@pytest.mark.parametrize(
    ("states", "actions", "table", "says"),
    [
        (VECTOR, MultiBinary(2), False, r"no script takes .* actions MultiBinary\(2\)"),
        (Sequence(VECTOR), Discrete(2), False, "no script takes Sequence"),
        (VECTOR, Box(-1, 1, (2, 2)), False, "no script takes"),
        (VECTOR, Box(0, 9, (2,), np.int32), False, "no script takes"),
        (VECTOR, Box(np.float32([0, 1]), np.float32([1, 1])), False, "equal bounds"),
        (VECTOR, Discrete(2), True, "no row for each of Box.* use dqn.py"),
    ],
)
def test_spaces_that_fit_no_script(states, actions, table, says):
    with pytest.raises(envs.BadInput, match=says) as refused:
        envs.prepared(Probe(states=states, actions=actions), table)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("env_id", "options", "says"),
    [
        ("CartPol-v1", {}, "'CartPol-v1' does not open: there is none of this name; try CartPole"),
        ("Qwxyz", {}, "try CartPole-v1, Maze-v0$"),
        ("", {}, "try CartPole-v1"),
        ("CartPole-v99", {}, "CartPole"),
        ("no_such:Env-v0", {}, "pip install no_such"),
        ("ALE/Pong-v5", {}, "pip install ale-py opencv-python-headless"),
        ("MinAtar/Breakout-v1", {}, "pip install minatar"),
        ("CartPole-v1", dict(size=8), "unexpected keyword argument 'size'"),
        ("FrozenLake-v1", dict(map_name="9x9"), "9x9"),
        ("Treasure-v0", dict(size=1), "at least 2"),
        ("Maze-v0", dict(size=3), "at least 4"),
        ("MiniPong-v0", dict(skill=2), "skill in"),
    ],
)
def test_environments_that_do_not_open(env_id, options, says, monkeypatch):
    for module in ("ale_py", "minatar", "minatar.gym"):  # as if it were not installed
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(envs.BadInput, match=says) as refused:
        envs.make(env_id, **options)
    assert "\n" not in str(refused.value)


def test_who_takes_what():
    envs.check(envs.make("Pendulum-v1"), "ppo")
    for script, env_id, use in (
        ("dqn", "Pendulum-v1", r"reinforce.py or ddpg.py or a3c.py or ppo.py"),
        ("ddpg", "CartPole-v1", r"dqn.py or reinforce.py"),
    ):
        with pytest.raises(envs.BadInput, match=f"{env_id}: {script}.py does not .*; use .*{use}"):
            envs.check(envs.make(env_id), script)
    envs.check(envs.make("Pendulum-v1"), "my_copy")


# ------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3)])
@pytest.mark.parametrize("brightest", [1, 255])
def test_phi_stacks_four_images_channels_first(shape, brightest):
    """Channel c of image number t is t + c, from the left to the right."""
    n = shape[2] if len(shape) == 3 else 1
    probe = Probe(states=Box(0, brightest, shape, np.uint8), actions=Discrete(2), length=9)
    image = lambda t: np.broadcast_to(np.arange(t, t + n) % (brightest + 1), (12, 10, n))
    probe.t, probe.draw = 0, lambda: image(probe.t).reshape(shape).astype(np.uint8)
    env = envs.prepared(pixels.phi(probe))
    states = [env.reset(seed=0)[0]] + [env.step(0)[0] for _ in range(4)]
    assert envs.shows_images(env) and env.observation_space.shape == (4 * n, 12, 10)
    for t, state in enumerate(states):
        numbers = np.add.outer(np.maximum([t - 3, t - 2, t - 1, t], 0), np.arange(n)).flatten()
        expected = numbers % (brightest + 1) * (255 // brightest)
        assert (state == expected[:, None, None]).all() and env.observation_space.contains(state)


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


def lines(axes) -> dict:
    """Label -> x and y of what is drawn."""
    return {line.get_label(): np.array(line.get_data(), float).tolist() for line in axes.lines}


def test_learning_curve(figures):
    env = envs.make("CartPole-v1")
    progress = runs.Progress(env, 100, True)
    for total, step in ((3.0, 7), (-5.0, 20), (40.0, 21), (8.0, 90)):
        progress(total, 1, step)
    image = plotting.learning_curve(progress, "a title", [1.0, 4.0], window=2)
    (axes,), steps = figures[0].axes, [7, 20, 21, 90]
    expected = {"one episode": [steps, [3, -5, 40, 8]]}
    expected |= {"mean of the last 2": [steps, [3, -1, 17.5, 24]]}
    expected |= {"greedy policy: 2.5": [[90], [2.5]], "solved: 475": [[0, 1], [475, 475]]}
    assert lines(axes) == expected
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(expected)
    assert (axes.get_title(), axes.get_xlabel()) == ("a title", "environment steps")
    assert Image.open(io.BytesIO(image)).size == (840, 480)
    progress.solved = progress.rows[2]
    plotting.learning_curve(progress, "", [1.0])
    assert lines(figures[1].axes[0])["solved by the mean of 100"] == [[21], [475]]


def test_picture_of_what_was_learned(figures):
    """An arrow and a value in each cell, marks for the ends; GridWorld has the random policy's."""
    image = plotting.picture(envs.make("Maze-v0"), lambda s: (s.argmax() % 4, s.argmax()), "title")
    assert Image.open(io.BytesIO(image)).size == (600, 624)
    texts = {tuple(map(int, t.get_position())): t.get_text() for t in figures[0].axes[0].texts}
    assert len(texts) == 16 and texts[0, 0] == "↑\n0.00" and texts[1, 0] == "↓\n1.00"
    assert texts[2, 0] == "←\n2.00" and texts[3, 3] == "→\n15.00"
    assert texts[2, 1] == texts[1, 2] == "■" and texts[2, 2] == "●"
    plotting.picture(envs.make("GridWorld-v0", True), lambda s: (0, None), "")
    random, greedy = figures[1].axes
    assert random.texts[1].get_text() == plotting.ALL and greedy.texts[1].get_text() == "→"


def test_clips():
    frames = [plotting.frame(np.full((41, 61, 3), 7 * i, np.uint8), i) for i in range(13)]
    assert frames[0].shape == (82, 122, 3) and frames[0].max() == 255  # the return so far, in white
    slow, fast = (Image.open(io.BytesIO(plotting.clip(frames, fps))) for fps in (10, 60))
    assert (slow.n_frames, slow.size, slow.info["duration"]) == (13, (122, 82), 100)
    slow.seek(12)
    assert slow.info["duration"] == 1000  # it holds its end
    assert fast.n_frames == 7  # every second one, and the last
    assert plotting.frame(np.zeros((600, 900, 3), np.uint8), -12.5).shape == (320, 480, 3)
