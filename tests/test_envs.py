"""The lecture's environments: what Gymnasium expects, the lecture shows and their table P says.

And make(), which opens any environment or says what to do, and Guard.
"""

import contextlib
import functools
import itertools
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
import dqn
import ppo
import qlearning_table
import reinforce
from common import envs

OURS = ["Treasure-v0", "GridWorld-v0", "Maze-v0"]


@pytest.mark.parametrize("env_id", OURS)
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


@pytest.mark.parametrize("env_id", OURS)
def test_window(env_id):
    env = envs.make(env_id, render_mode="human")  # Gymnasium makes it from "rgb_array"
    env.reset(seed=0)
    env.step(1)
    env.close()


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
        ("Nowhere/Env-v0", "try CartPole-v1"),
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
    code = "import gymnasium\ngymnasium.register('ALE/Fake-v5', 'common.envs:Maze')\n"
    Path(tmp_path, "ale_py.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
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


def test_a_memory_that_does_not_fit_is_refused():
    env = dqn.prepare(envs.make("CartPole-v1"))
    envs.check_memory(env, 100_000)
    if sys.platform == "linux":
        with pytest.raises(envs.BadInput, match=r"--memory 10+ needs 32000000.0 GB"):
            envs.check_memory(env, 10**15)


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


def test_solved_at():
    assert envs.solved_at("CartPole-v1") == (475, 100)
    assert envs.solved_at("Pendulum-v1") == (-200, 20)
    assert envs.solved_at("Taxi-v3") == (8, 100)
    assert envs.solved_at("common.envs:Maze-v0") == (None, 100)
    assert envs.solved_at("no such") == (None, 100)


@pytest.mark.parametrize("script", sorted({*envs.TAKERS["Discrete"], *envs.TAKERS["Box"]}))
def test_which_spaces_a_script_takes(script):
    """Only qlearning_table needs Discrete states; a Box of integers fits no script."""
    box = gym.spaces.Box(-1, 1, (2,))
    states = {"Discrete": gym.spaces.Discrete(3), "Box": box}
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
        fits = action in taken[script] and (state == "Discrete" or script != "qlearning_table")
        with contextlib.nullcontext() if fits else pytest.raises(envs.BadInput):
            envs.check_spaces(env, script)
