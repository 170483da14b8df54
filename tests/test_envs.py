"""The lecture's environments: what Gymnasium expects, the lecture shows and their table P says.

And make(), which opens any environment or says what to do, and Guard.
"""

import contextlib
import functools
import itertools
import math
import multiprocessing
import subprocess
import sys
import warnings
from collections import deque
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import a3c
import actor_critic
import ddpg
import dqn
import ppo
import qlearning_table
import reinforce
from common import envs

OURS = ["Treasure-v0", "GridWorld-v0", "Maze-v0"]


@pytest.mark.parametrize("env_id", [*OURS, "MiniPong-v0"])
def test_gymnasium_finds_nothing_to_complain_of(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id).unwrapped)


def test_reachable_from_outside():
    code = 'import gymnasium; print(gymnasium.make("common.envs:Maze-v0").observation_space.n)'
    root = Path(__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert result.stdout == "16\n", result.stderr


@pytest.mark.parametrize("env_id", OURS)
def test_steps_follow_the_table(env_id):
    env = gym.make(env_id)
    rng = np.random.default_rng(0)
    state, _ = env.reset(seed=0)
    for _ in range(500):
        action = int(rng.integers(env.action_space.n))
        entries = env.unwrapped.P[state][action]
        assert sum(entry[0] for entry in entries) == 1
        next_state, reward, terminated, truncated, _ = env.step(action)
        assert (1.0, next_state, reward, terminated) in entries
        state = env.reset()[0] if terminated or truncated else next_state


@pytest.mark.parametrize("env_id", OURS)
def test_nothing_leaves_a_terminal_state(env_id):
    P = gym.make(env_id).unwrapped.P
    terminal = {s2 for s in P for a in P[s] for _, s2, _, end in P[s][a] if end}
    assert terminal
    for s in terminal:
        assert all(P[s][a] == [(1.0, s, 0.0, True)] for a in P[s])


def moves_to_the_best_end(env: gym.Env, start: int) -> int:
    """Fewest moves from `start` to an end of positive reward, breadth first through P."""
    P, distance, queue = env.unwrapped.P, {start: 0}, deque([start])
    while queue:
        s = queue.popleft()
        for a in P[s]:
            _, s2, reward, terminated = P[s][a][0]
            if terminated and reward > 0:
                return distance[s] + 1
            if not terminated and s2 not in distance:
                distance[s2] = distance[s] + 1
                queue.append(s2)
    raise AssertionError("no way")


@pytest.mark.parametrize(
    ("env_id", "options", "moves"),
    [
        ("Treasure-v0", {}, 5),
        ("Treasure-v0", {"size": 12}, 11),
        ("Maze-v0", {}, 6),
        ("Maze-v0", {"size": 7}, 12),
    ],
)
def test_length_of_the_way(env_id, options, moves):
    env = gym.make(env_id, **options)
    assert moves_to_the_best_end(env, env.reset(seed=0)[0]) == moves


def test_maze_is_the_lectures():
    maze = gym.make("Maze-v0").unwrapped
    assert maze.terminals == {1 * 4 + 2: -1.0, 2 * 4 + 1: -1.0, 2 * 4 + 2: 1.0}
    assert maze.reset(seed=0)[0] == 0


def test_gridworld_starts_in_every_other_cell():
    env = gym.make("GridWorld-v0")
    starts = {env.reset(seed=0 if i == 0 else None)[0] for i in range(500)}
    assert starts == set(range(1, 15))
    assert all(P[2] == -1.0 for s in range(1, 15) for (P,) in env.unwrapped.P[s].values())


def test_an_episode_starts_where_it_is_told_to():
    env = gym.make("GridWorld-v0")
    assert [env.reset(options={"start": s})[0] for s in (14, 3, 7)] == [14, 3, 7]


def test_treasure_in_text():
    env = gym.make("Treasure-v0", render_mode="ansi")
    env.reset()
    assert env.render() == "o----T"
    env.step(1)
    assert env.render() == "-o---T"
    for _ in range(4):
        env.step(1)
    assert env.render() == "-----o"


def test_maze_in_colours():
    env = gym.make("Maze-v0", render_mode="rgb_array")
    env.reset()
    image = env.render()
    size = envs.FiniteMDP.cell_pixels
    middles = image[size // 2 :: size, size // 2 :: size]

    def middle(row, column):
        return tuple(middles[row, column])

    assert image.shape == (4 * size, 4 * size, 3)
    assert middle(0, 0) == envs.RED
    assert middle(1, 2) == middle(2, 1) == envs.BLACK
    assert middle(2, 2) == envs.YELLOW
    assert middle(3, 3) == envs.WHITE


@pytest.mark.parametrize("env_id", [*OURS, "MiniPong-v0"])
def test_window(env_id):
    env = envs.make(env_id, render_mode="human")  # Gymnasium makes it from "rgb_array"
    env.reset(seed=0)
    env.step(1)
    env.close()


def pong(**options) -> envs.MiniPong:
    env = gym.make("MiniPong-v0", **options).unwrapped
    env.reset(seed=0)
    return env


def test_minipong_looks_as_it_stands():
    env = pong(render_mode="ansi")
    env.y, env.x, env.top = 1, 5, {-1: 0, 1: 4}
    upper = ["#........", "#....#...", "#........", "#........"]
    assert env.render().split("\n") == upper + ["........#"] * 4
    env.render_mode = "rgb_array"
    image = env.render()
    assert image.shape == (8 * 16, 9 * 16, 3)
    assert (image[8::16, 8::16, 0] == env._image()[..., 0]).all()


@pytest.mark.parametrize(
    ("y", "down", "top", "action", "lands", "returns"),
    [
        (3, 1, 3, 1, 4, -1),  # the paddle moves first, to 4: the ball meets its uppermost pixel
        (3, 1, 2, 0, 4, 1),  # to 1: its lowest
        (3, 1, 3, 0, 4, 1),  # to 2: the third of four
        (4, 1, 0, 1, 5, None),  # to 1: it ends above the ball
        (3, -1, 3, 1, 2, None),  # to 4: it begins below the ball
        (0, -1, 0, 0, 1, -1),  # off the wall; the paddle cannot go beyond it either
        (7, 1, 4, 1, 6, 1),
    ],
)
def test_minipong_at_the_agents_paddle(y, down, top, action, lands, returns):
    env = pong(skill=0.0)
    env.y, env.x, env.down, env.right, env.top[1] = y, 7, down, 1, top
    image, reward, terminated, truncated, _ = env.step(action)
    assert (env.y, env.x) == (lands, 8) and image[lands, 8] == 255
    assert (reward, terminated) == ((0.0, False) if returns else (-1.0, True))
    assert not truncated
    if returns:
        assert (env.down, env.right) == (returns, -1)
        env.step(action)
        assert env.x == 7


def test_minipong_at_the_opponents_paddle():
    env = pong(skill=0.0)
    env.y, env.x, env.down, env.right, env.top[-1] = 4, 1, 1, -1, 0
    assert env.step(0)[1:3] == (1.0, True)
    env = pong(skill=1.0)  # it follows the ball
    env.y, env.x, env.down, env.right, env.top[-1] = 4, 1, 1, -1, 1
    assert env.step(0)[1:3] == (0.0, False)
    assert (env.top[-1], env.right) == (2, 1)


def test_minipong_counts_points():
    env = pong(points=3, skill=0.0)
    rewards, done = [], False
    while not done:
        _, reward, done, _, _ = env.step(0)
        rewards.append(reward)
        if reward and not done:
            assert env.x == 4 and env.right == 1  # served again
    assert max(rewards.count(1.0), rewards.count(-1.0)) == 3 == max(env.score.values())


def share_won(policy, games=400) -> float:
    env, rng, won = pong(), np.random.default_rng(0), 0
    for _ in range(games):
        env.reset()
        done, t = False, 0
        while not done and t < 1000:
            _, reward, done, _, _ = env.step(policy(env, rng, t))
            t += 1
        won += reward > 0
    return won / games


def test_minipong_is_won_by_following_the_ball_and_not_by_standing_still():
    assert share_won(lambda env, rng, t: env.y > env.top[1] + 1.5) == 1
    assert share_won(lambda env, rng, t: t % 2) < 0.4
    assert share_won(lambda env, rng, t: rng.integers(2)) < 0.4
    assert max(share_won(lambda env, rng, t: a) for a in (0, 1)) < 0.3  # noqa: B023


@pytest.mark.parametrize("options", [{"points": 0}, {"skill": 1.5}])
def test_impossible_pong(options):
    with pytest.raises(envs.BadInput, match="at least 1 point"):
        envs.make("MiniPong-v0", **options)


# ------------------------------------------------------------------------------------------- phi


class Pictures(gym.Env):
    """Image number t is filled with t (or, bool, with t odd), channel c with t + c."""

    def __init__(self, shape, dtype):
        high = 1 if dtype is bool else 255
        self.observation_space = gym.spaces.Box(0, high, shape, dtype)
        self.action_space = gym.spaces.Discrete(2)

    def picture(self):
        space = self.observation_space
        channels = np.arange(space.shape[2] if len(space.shape) == 3 else 1).squeeze()
        numbers = self.t + np.broadcast_to(channels, space.shape)
        return (numbers % 2 if space.dtype == bool else numbers).astype(space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 1
        return self.picture(), {}

    def step(self, action):
        self.t += 1
        return self.picture(), 0.0, False, False, {}


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_phi_stacks_four_images_channels_first(shape, dtype):
    env = envs.phi(Pictures(shape, dtype))
    channels = shape[2] if len(shape) == 3 else 1
    assert env.observation_space == gym.spaces.Box(0, 255, (4 * channels, 12, 10), np.uint8)
    states = [env.reset(seed=0)[0]] + [env.step(0)[0] for _ in range(4)]
    for t, state in enumerate(states, 1):
        assert env.observation_space.contains(state)
        numbers = np.add.outer(np.maximum([t - 3, t - 2, t - 1, t], 1), np.arange(channels))
        expected = 255 * (numbers % 2) if dtype is bool else numbers
        assert (state == expected.reshape(-1, 1, 1)).all()


@pytest.mark.parametrize("shape, dtype", [((4, 4), np.uint8), ((8, 8), np.float32)])
def test_phi_leaves_what_is_no_image(shape, dtype):
    env = Pictures(shape, dtype)
    assert envs.phi(env) is env
    assert dqn.prepare(env).observation_space == gym.spaces.Box(
        0, 255, (np.prod(shape),), np.float32
    )


@pytest.mark.parametrize("script", [dqn, reinforce, actor_critic, a3c, ppo])
def test_images_reach_the_network_as_bytes(script):
    env = script.prepare(envs.make("MiniPong-v0"))
    assert env.observation_space == gym.spaces.Box(0, 255, (4, 8, 9), np.uint8)


@pytest.mark.parametrize("script", [dqn, reinforce, actor_critic, a3c, ppo])
@pytest.mark.parametrize("shape", [(210, 160, 3), (12, 10, 1), (4, 4, 3), (12, 10)])
def test_images_without_phi_are_vectors(script, shape):
    """Channels last, too small, or one channel: as ever."""
    env = script.prepare(Pictures(shape, np.uint8))
    assert env.observation_space.shape == (math.prod(shape),)
    assert env.observation_space.dtype == np.float32


def test_the_brightest_pixel_becomes_255():
    env = Pictures((6, 7), np.uint8)
    env.observation_space = gym.spaces.Box(0, 2, (6, 7), np.uint8)
    assert (envs.phi(env).reset()[0] == 127).all()


@pytest.mark.parametrize(("game", "shape"), [("Breakout", (16, 10, 10)), ("Freeway", (28, 10, 10))])
def test_minatar(game, shape):
    pytest.importorskip("minatar")
    env = envs.make(f"MinAtar/{game}-v1")
    assert env.observation_space.shape == shape
    assert set(np.unique(env.reset(seed=0)[0])) == {0, 255}


def test_contrast_shows_what_is_not_background():
    image = np.full((4, 5), 87, np.uint8)
    image[0, 0], image[1, 1], image[3, 4] = 0, 100, 236
    expected = np.zeros((4, 5))
    expected[0, 0], expected[1, 1], expected[3, 4] = 255, 39, 255
    seen = envs.contrast(image)
    assert (seen == expected).all() and seen.dtype == np.uint8


def test_small_atari_images_have_contrast():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    env = envs.make("ALE/Pong-v5", screen_size=42)
    assert env.observation_space == gym.spaces.Box(0, 255, (4, 42, 42), np.uint8)
    state, _ = env.reset(seed=0)
    assert np.median(state) == 0 and state.max() == 255


def test_atari():
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    env = envs.make("ALE/Pong-v5")
    assert env.observation_space == gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    state, info = env.reset(seed=0)
    assert (state == state[0]).all() and np.median(state) > 0
    assert env.step(0)[4]["episode_frame_number"] - info["episode_frame_number"] == 4


@pytest.mark.parametrize("size", [0, 1, -3])
def test_impossible_sizes(size):
    for env_id in ("Treasure-v0", "Maze-v0"):
        with pytest.raises(envs.BadInput, match="at least"):
            envs.make(env_id, size=size)


class NoBox2D:
    """Stands for an environment of gymnasium.envs.box2d where Box2D is not installed."""

    def __call__(self, **kwargs):
        raise gym.error.DependencyNotInstalled('no Box2D, run `pip install "gymnasium[box2d]"`')


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("CartPole-v99", "CartPole-v1"),
        ("Qwxyz-v0", "try CartPole-v1"),
        ("", "try CartPole-v1"),
        ("no_such_module:Env-v0", "no_such_module"),
        ("Nowhere/Env-v0", "none of this name; try "),
        ("ALE/Pong-v5", "pip install ale_py"),
        ("NeedsBox-v0", 'pip install "gymnasium[box2d]"'),
    ],
)
def test_make_says_what_to_do(env_id, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)  # not there, whether it is installed or not
    for other in [i for i in gym.registry if i.startswith("ALE/")]:
        monkeypatch.delitem(gym.registry, other)
    spec = gym.envs.registration.EnvSpec("NeedsBox-v0", entry_point=NoBox2D())
    monkeypatch.setitem(gym.registry, "NeedsBox-v0", spec)
    monkeypatch.setitem(sys.modules, "ale_py", None)  # as if it were not installed
    with pytest.raises(envs.BadInput) as error:
        envs.make(env_id)
    message = str(error.value)
    assert says in message
    assert "\n" not in message


def test_options_that_an_environment_refuses():
    with pytest.raises(envs.BadInput, match="no_such_option"):
        envs.make("CartPole-v1", no_such_option=1)
    with pytest.raises(envs.BadInput, match="9x9"):
        envs.make("FrozenLake-v1", map_name="9x9")


def test_atari_is_found_where_ale_py_is_installed(tmp_path, monkeypatch):
    for other in [i for i in gym.registry if i.startswith("ALE/")]:  # of an ale_py that is there
        monkeypatch.delitem(gym.registry, other)
    monkeypatch.delitem(sys.modules, "ale_py", raising=False)
    code = (
        "from common.envs import gym, Maze\nmake = lambda frameskip, **options: Maze(**options)\n"
    )
    code += "gym.register('ALE/Fake-v5', make)\n"
    Path(tmp_path, "ale_py.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ale_py", raising=False)
    try:
        assert envs.make("ALE/Fake-v5").observation_space.n == 16
        with pytest.raises(envs.BadInput, match="try ALE/Fake-v5"):
            envs.make("ALE/Fak-v5")
    finally:
        gym.registry.pop("ALE/Fake-v5", None)
        sys.modules.pop("ale_py", None)


# --------------------------------------------------------------------------- what Guard looks after


class FromFive(gym.Env):
    """Two states, two actions, both counted from five on."""

    observation_space = gym.spaces.Discrete(2, start=5)
    action_space = gym.spaces.Discrete(2, start=5)

    def __init__(self, reward=0.0):
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 5, {}

    def step(self, action):
        assert self.action_space.contains(action)
        return action, self.reward, False, False, {}


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), np.float32("nan")])
def test_a_reward_that_is_not_finite_is_the_environments_fault(reward):
    env = envs.Guard(FromFive(reward))
    env.reset(seed=0)
    with pytest.raises(FloatingPointError, match="FromFive gave the reward .* at step 1"):
        env.step(5)


def test_stop_ends_the_running_episode():
    stop = multiprocessing.RawValue("b", 0)
    env = envs.make("Maze-v0", stop=stop)
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    stop.value = 1
    assert env.step(0)[2:4] == (False, True)


def _ends_at_once(make_env, pipe) -> None:
    env = make_env()
    env.reset(seed=0)
    pipe.send(env.step(0)[3])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_stop_reaches_other_processes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("not on this system")
    context, stop = multiprocessing.get_context(method), multiprocessing.RawValue("b", 0)
    stop.value = 1
    reader, writer = context.Pipe(duplex=False)
    make_env = functools.partial(envs.make, "Maze-v0", stop=stop)
    process = context.Process(target=_ends_at_once, args=(make_env, writer))
    process.start()
    assert reader.poll(300) and reader.recv() is True
    process.join()


@pytest.mark.parametrize("script", [qlearning_table, dqn, reinforce, actor_critic, a3c, ppo])
def test_spaces_that_are_not_counted_from_zero(script):
    env = script.prepare(FromFive())
    env.reset(seed=0)
    assert env.action_space == gym.spaces.Discrete(2)
    for action in (0, 1):
        state = env.step(action)[0]
        assert (state == action) if isinstance(state, int | np.integer) else (state[action] == 1)


class Bounded(gym.Env):
    """Shows the upper or the lower bounds of its observations, in turn."""

    low = np.array([-0.002, -0.1, 0.2, 0, -1, -3, -np.inf, -0.5, 0], np.float64)
    high = np.array([0.002, 0.5, 0.25, 1, 1, 0.6, 0.5, np.inf, 0], np.float64)
    widest = np.array([0.002, 0.5, 0.25, 1, 1, 1, 1, 1, 1], np.float32)  # 1: left as it is

    def __init__(self, actions):
        self.observation_space = gym.spaces.Box(self.low, self.high, dtype=np.float64)
        self.action_space = actions

    def reset(self, *, seed=None, options=None):
        return self.low, {}

    def step(self, action):
        return self.high, 0.0, False, False, {}


@pytest.mark.parametrize("script", [dqn, reinforce, actor_critic, ddpg, a3c, ppo])
def test_small_observations_are_stretched(script):
    """What is bounded within (-1, 1) fills it; all else stays, to the last bit."""
    actions = gym.spaces.Box(-1, 1, (2,)) if script is ddpg else gym.spaces.Discrete(2)
    env = script.prepare(Bounded(actions))
    with np.errstate(all="raise"):
        first, then = env.reset()[0], env.step(env.action_space.sample())[0]
    assert first.dtype == then.dtype == np.float32
    np.testing.assert_allclose(first, np.float32(Bounded.low) / Bounded.widest, rtol=1e-6)
    np.testing.assert_allclose(then, np.float32(Bounded.high) / Bounded.widest, rtol=1e-6)
    same = Bounded.widest == 1
    assert (first[same] == np.float32(Bounded.low)[same]).all()
    assert env.observation_space == gym.spaces.Box(
        *np.float32((Bounded.low, Bounded.high)) / Bounded.widest
    )


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Tuple([gym.spaces.Discrete(n, start=start) for n, start in ((2, 0), (4, 7))]),
        gym.spaces.MultiDiscrete([3, 2, 4], start=[5, -1, 0]),
        gym.make("Blackjack-v1").observation_space,
    ],
)
def test_qlearning_numbers_states_of_several_parts(space):
    """In the order of itertools.product: the last part counts fastest."""
    env = gym.Env()
    env.observation_space, env.action_space = space, gym.spaces.Discrete(2)
    prepared = qlearning_table.prepare(env)
    observations = list(itertools.product(*(range(p.start, p.start + p.n) for p in space)))
    if isinstance(space, gym.spaces.MultiDiscrete):
        observations = list(map(np.array, observations))
    assert all(map(space.contains, observations))
    numbers = []
    for observation in observations:
        env.reset = lambda seed=None, options=None, first=observation: (first, {})
        numbers.append(prepared.reset()[0])
    assert numbers == list(range(len(observations)))
    assert prepared.observation_space == gym.spaces.Discrete(len(observations))


def test_qlearning_on_blackjack():
    env = envs.make("Blackjack-v1")
    envs.check_spaces(env, "qlearning_table")
    Q, returns = qlearning_table.train(env, episodes=200)
    assert Q.shape == (32 * 11 * 2, 2) and len(returns) == 200 and set(returns) == {-1, 0, 1}
    assert 20 < (Q != 0).any(axis=1).sum() < 200


def test_a_memory_that_does_not_fit_is_refused():
    env = dqn.prepare(envs.make("CartPole-v1"))
    envs.check_memory(env, 100_000)
    if sys.platform == "linux":
        with pytest.raises(envs.BadInput, match=r"--memory 10+ needs 782000.0 GB"):
            envs.check_memory(env, 10**12)


@pytest.mark.skipif(sys.platform != "linux", reason="the free memory is read on Linux only")
def test_the_memory_that_is_suggested_fits():
    env = dqn.prepare(envs.make("CartPole-v1"))
    with pytest.raises(envs.BadInput, match="try --memory") as error:
        envs.check_memory(env, 10**12)
    envs.check_memory(env, int(str(error.value).split("try --memory ")[1].split()[0]))


def test_shapes_stand_in_the_middle_of_their_cells():
    """Each looks the same from all sides, and leaves the corners of its cell to the ground."""
    env = gym.make("Maze-v0", render_mode="rgb_array")
    env.reset(seed=0)
    n, image = 64, env.render()
    for row, column in [(0, 0), (1, 2), (2, 1), (2, 2)]:  # the explorer, two hells, paradise
        cell = image[row * n :, column * n :][1 : n - 1, 1 : n - 1]  # without the grid's lines
        assert np.array_equal(cell, cell[::-1]) and np.array_equal(cell, cell[:, ::-1])
        assert (cell[0, 0] == envs.WHITE).all() and not (cell[n // 2, n // 2] == envs.WHITE).all()


def test_a_memory_of_images_counts_bytes_once(monkeypatch):
    env = Pictures((84, 84), np.uint8)
    prepared = dqn.prepare(envs.phi(env))
    free = "MemAvailable: 2829493 kB\n"  # 100,000 tensors of 4 x 84 x 84 bytes
    monkeypatch.setattr(envs.Path, "read_text", lambda path: free)
    envs.check_memory(prepared, 100_000)
    with pytest.raises(envs.BadInput, match="--memory 100001 needs 2.9 GB"):
        envs.check_memory(prepared, 100_001)


def test_solved_at():
    assert envs.solved_at("MiniPong-v0") == (0.8, 100)
    assert envs.solved_at("CartPole-v1") == (475, 100)
    assert envs.solved_at("Pendulum-v1") == (-200, 20)
    assert envs.solved_at("Taxi-v3") == (8, 100)
    assert envs.solved_at("common.envs:Maze-v0") == (None, 100)
    assert envs.solved_at("no such") == (None, 100)


@pytest.mark.parametrize("script", sorted({*envs.TAKERS["Discrete"], *envs.TAKERS["Box"]}))
def test_which_spaces_a_script_takes(script):
    """Only qlearning_table needs finitely many states; a Box of integers fits no script."""
    box, three = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3)
    states = {
        "Discrete": three,
        "Tuple": gym.spaces.Tuple([three, three]),
        "MultiDiscrete": gym.spaces.MultiDiscrete([2, 3]),
        "Box": box,
        "Tuple with a Box": gym.spaces.Tuple([three, box]),
        "Tuple of Tuples": gym.spaces.Tuple([gym.spaces.Tuple([three, three])]),
        "table of 10**20 rows": gym.spaces.MultiDiscrete([10] * 20),
    }
    finite = ("Discrete", "Tuple", "MultiDiscrete")
    actions = {
        "Discrete": gym.spaces.Discrete(2),
        "Box": box,
        "float64": gym.spaces.Box(-1, 1, (2,), np.float64),
        "integers": gym.spaces.Box(0, 3, (2,), np.int64),
        "MultiBinary": gym.spaces.MultiBinary(2),
    }
    discrete, continuous = {"Discrete"}, {"Box", "float64"}
    taken = dict.fromkeys(("qlearning_table", "dqn", "actor_critic"), discrete)
    taken |= dict.fromkeys(("reinforce", "a3c", "ppo"), discrete | continuous)
    taken |= {"ddpg": continuous}
    for state, action in itertools.product(states, actions):
        env = gym.Env()
        env.observation_space, env.action_space = states[state], actions[action]
        fits = action in taken[script] and (state in finite or script != "qlearning_table")
        with contextlib.nullcontext() if fits else pytest.raises(envs.BadInput):
            envs.check_spaces(env, script)
