"""What stands around a training: returns.csv, "solved", the summary, run.json, the evaluation.

No algorithm runs here. train() below is told which episodes to report and what to return, and the
clock stands still until it is moved, so that every number is known beforehand.
"""

import functools
import importlib
import inspect
import json
import signal
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from common import envs, plotting, runs


class Clock:
    """Stands for the module time; it moves when it is told to."""

    def __init__(self, now: float = 1000.0):
        self.now = now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(runs, "time", clock)
    return clock


class World(gym.Env):
    """Five states, three actions; an episode lasts as many steps as its first state says.

    The reward is 10 times the state plus the action, minus 30. `resets` holds the seed and the
    first state of each episode, `moves` the states and actions, both of all such worlds together.
    """

    observation_space, action_space = gym.spaces.Discrete(5), gym.spaces.Discrete(3)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    resets, moves = [], []

    def __init__(self, observed=None, render_mode=None, size=1):
        self.render_mode, self.size, self.t = render_mode, size, 0
        self.observation_space = observed or self.observation_space

    def seen(self):
        return int(self.s) if self.observation_space is World.observation_space else self.first

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.first = self.np_random.normal(size=2).astype(np.float32)  # never twice the same
        self.s, self.t = self.np_random.integers(5), 0
        self.left = 1 + self.s
        World.resets.append((seed, tuple(self.first.tolist())))
        return self.seen(), {}

    def step(self, action):
        World.moves.append((int(self.s), int(action)))
        reward = 10.0 * self.s + int(action) - 30
        self.s, self.t, self.left = (self.s + 1) % 5, self.t + 1, self.left - 1
        # Every other episode ends by a time limit.
        end = self.left == 0
        even = len(World.resets) % 2 == 0
        return self.seen(), reward, end and even, end and not even, {}

    def render(self):
        return np.full((8, 8, 3), 20 * self.t, np.uint8)


gym.register("World-v0", World)
gym.register("Solvable-v0", World, reward_threshold=5.0)
gym.register("Vector-v0", functools.partial(World, gym.spaces.Box(-9, 9, (2,))))
EPISODES, LEARNED = [], []  # what train() reports and returns
PREPARED = []


def train(
    env,
    *,
    seed: int = 0,  # one seed
    episodes: int = 1_000,  # the budget
    steps: int = 5_000,  # the budget
    gamma: float = 0.9,  # discount
    hidden: int = 3,  # units
    literal: bool = False,  # the slide
    on_episode=lambda *_: False,
):
    """Reports EPISODES, each with a function that it calls before, and returns LEARNED."""
    returns = []
    for before, episode_return, length, step in EPISODES if steps else ():
        before()
        returns.append(episode_return)
        if on_episode(episode_return, length, step):
            break
    if isinstance(LEARNED[0], np.ndarray):
        return (LEARNED[0] if steps else np.zeros_like(LEARNED[0])), returns
    torch.manual_seed(seed)
    network = torch.nn.Linear(2, hidden)
    if steps:
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.arange(p.numel()).reshape(p.shape) * 0.1)
    return network, returns


LITERAL = dict(gamma=0.5)
Q = np.array([[0, 1, 2], [3, 1, 2], [0, 5, 1], [0, 0, 1], [-1, -3, -2]], float)


@pytest.fixture(autouse=True)
def fresh():
    World.resets.clear()
    World.moves.clear()
    EPISODES[:], LEARNED[:] = [], [Q.copy()]


def run(*arguments, env="World-v0", act=lambda Q, s: Q[s].argmax(), value=None) -> int:
    return runs.main(train, [str(a) for a in arguments], env=env, act=act, value=value)


# ------------------------------------------------------------------------------- when it is solved


def progress(env_id="CartPole-v1", until_solved=True, **budget) -> runs.Progress:
    budget = dict(steps=100_000) | budget
    return runs.Progress(env_id, budget, until_solved, bar=False)


def report(progress: runs.Progress, returns) -> list[bool]:
    """What on_episode answers to these returns, of episodes of ten steps."""
    with progress.training():
        first = len(progress.rows)
        return [progress.on_episode(r, 10, 10 * i) for i, r in enumerate(returns, first + 1)]


@pytest.mark.parametrize(
    ("env_id", "returns", "episode"),
    [
        ("CartPole-v1", [500.0] * 120, 100),  # 475 over 100 episodes, and not over fewer
        ("CartPole-v1", [500.0] * 99, None),
        ("CartPole-v1", [475.0] * 120, 100),  # at the threshold
        ("CartPole-v1", [474.99] * 300, None),
        ("CartPole-v1", [400.0] * 100 + [500.0] * 100, 175),  # 25 of 400 and 75 of 500
        ("CartPole-v1", [0.0] * 50 + [500.0] * 100, 145),  # the oldest of the last 100 count too
        ("Pendulum-v1", [-200.0] * 30, 20),  # its own rule: -200 over 20 episodes
        ("Pendulum-v1", [-100.0] * 19, None),
        ("Pendulum-v1", [-200.5] * 200, None),
        ("Pendulum-v1", [-1000.0] * 40 + [-100.0] * 40, 58),  # 2 of -1000, 18 of -100: -190
        ("Maze-v0", [1.0] * 300, None),  # has no threshold
    ],
)
def test_solved(env_id, returns, episode):
    """The mean of a full window reaches the threshold; then the training ends, unless told not
    to. The row is the first at which it was so."""
    p = progress(env_id)
    answers = report(p, returns)
    assert answers[: episode or None] == [False] * ((episode or len(returns) + 1) - 1) + (
        [True] if episode else []
    )
    assert (p.solved and p.solved[:2]) == (episode and (episode, 10 * episode))
    p = progress(env_id, until_solved=False)
    assert not any(report(p, returns)) and len(p.rows) == len(returns)
    assert (p.solved and p.solved[:2]) == (episode and (episode, 10 * episode))


def test_each_episode_is_a_row(clock):
    p = progress()
    with p.training():
        clock.now += 0.5
        assert p.on_episode(np.float32(3.5), np.int64(7), 7) is False
        clock.now += 0.25
        p.on_episode(-2, 4, 11)
    assert p.rows == [(1, 7, 0.5, 3.5, 7), (2, 11, 0.75, -2.0, 4)]
    assert [type(x) for x in p.rows[0]] == [int, int, float, float, int]


def test_lines_of_progress(clock, capsys):
    """A line after 1, 2, 4, ... seconds, and then every 30, with the mean of the last episodes."""
    p, seen = progress("Pendulum-v1"), []
    with p.training():
        for second in range(1, 140):
            clock.now = 1000.0 + second + 0.5
            p.on_episode(-float(second), 20, 20 * second)
            if page := capsys.readouterr().out:
                seen.append(second)
                if second == 31:
                    mean = np.mean(range(12, 32))  # the last 20
                    expected = f"episode 31, mean of the last 20: {-mean:.1f}, step 620, 20 steps/s"
                    assert page == expected + "\n"
    assert seen == [1, 3, 7, 15, 31, 62, 93, 124]


# -------------------------------------------------------------------------------------- the summary


def summary(p, clock, returns, seconds=4.0) -> str:
    with p.training():
        for i, r in enumerate(returns, 1):
            clock.now += seconds / len(returns)
            if p.on_episode(r, 10, 10 * i):
                break
    return p.summary()


def test_summary_of_a_solved_run(clock):
    text = summary(progress(), clock, [0.0] * 50 + [500.0] * 150, seconds=200.0)
    assert text.splitlines() == [
        "trained for 145 episodes, 1450 steps, 145.0 s (10 steps/s)",
        "mean return of the last 100 episodes: 475.00",
        "solved (mean of 100 at or above 475) at episode 145, step 1450, 145.0 s",
    ]


def test_summary_of_a_run_that_went_on(clock):
    """It was solved at episode 20; what it averages are the last 20 episodes."""
    returns = [-150.0] * 20 + [-400.0] * 10
    text = summary(progress("Pendulum-v1", until_solved=False, steps=300), clock, returns, 30.0)
    assert text.splitlines() == [
        "trained for 30 episodes, 300 steps, 30.0 s (10 steps/s)",
        "mean return of the last 20 episodes: -275.00",
        "solved (mean of 20 at or above -200) at episode 20, step 200, 20.0 s",
    ]


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (dict(steps=96), 96),  # the last six steps belong to an episode that did not end
        (dict(steps=90), 90),
        (dict(steps=80), 90),  # a3c passes its budget
        (dict(steps=5_000, episodes=9), 90),  # the budget in episodes ended it
        (dict(steps=96, episodes=10), 96),
    ],
)
def test_summary_of_a_budget_that_ran_out(clock, budget, steps):
    text = summary(progress(**budget), clock, [float(r) for r in range(9)])
    assert text.splitlines() == [
        f"trained for 9 episodes, {steps} steps, 4.0 s ({steps / 4:.0f} steps/s)",
        "mean return of the last 9 episodes: 4.00",
        "not solved (mean of 100 at or above 475)",
    ]


def test_summary_without_an_episode_or_a_threshold(clock):
    p = progress(steps=60)
    with p.training():
        clock.now += 3
    first, second = p.summary().splitlines()
    assert first == "trained for 0 episodes, 60 steps, 3.0 s (20 steps/s)"
    assert second == "no episode ended: give more --steps"
    assert "solved" not in summary(progress("Maze-v0"), clock, [1.0] * 200)


def test_ctrl_c_asks_once_and_quits_the_second_time(clock):
    """The episode that it cuts short does not count; the summary says that it was interrupted."""
    handler, p = signal.getsignal(signal.SIGINT), progress()
    with p.training():
        clock.now += 2
        assert p.on_episode(7.0, 10, 10) is False
        signal.raise_signal(signal.SIGINT)
        assert p.stop.value == 1
        assert p.on_episode(99.0, 3, 13) is True
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [row[3] for row in p.rows] == [7.0]
    assert p.summary().splitlines()[:2] == [
        "interrupted after 1 episodes, 13 steps, 2.0 s (6 steps/s)",
        "mean return of the last 1 episodes: 7.00",
    ]


# --------------------------------------------------------------------------------- the saved files


def told(clock, *episodes) -> None:
    """Let train() report these episodes: seconds, return, length, step."""
    for seconds, *episode in episodes:
        EPISODES.append((lambda s=seconds: setattr(clock, "now", 1000.0 + s), *episode))


def test_files_hold_what_was_reported(clock, capsys, monkeypatch):
    curves = []
    monkeypatch.setattr(plotting, "learning_curve", lambda *a: curves.append(a) or b"a picture")
    told(clock, (0.5, -1.25, 3, 3), (1.0, 1 / 3, 14, 17), (2.0625, 40.0, 1, 18))
    arguments = ["--seed", 4, "--gamma", 0.25, "--out", "out", "--env-kwargs", "size=2"]
    assert run(*arguments, env="Solvable-v0") == 0
    assert Path("out/returns.csv").read_text() == (
        "episode,step,seconds,return,length\n"
        "1,3,0.500,-1.25,3\n"
        f"2,17,1.000,{1 / 3},14\n"
        "3,18,2.062,40.0,1\n"
    )
    rows = [(1, 3, 0.5, -1.25, 3), (2, 17, 1.0, 1 / 3, 14), (3, 18, 2.0625, 40.0, 1)]
    title = "test_runs.py on Solvable-v0, seed 4"
    assert curves == [(rows, title, 5.0, 100, None)]
    assert Path("out/returns.png").read_bytes() == b"a picture"
    assert np.array_equal(np.load("out/q_table.npy"), Q)
    assert json.loads(Path("out/run.json").read_text()) == {
        "script": "test_runs",
        "env": "Solvable-v0",
        "env_kwargs": ["size=2"],
        "hyperparameters": dict(
            seed=4, episodes=1_000, steps=5_000, gamma=0.25, hidden=3, literal=False
        ),
        "solved": None,
        "versions": {
            "gymnasium": gym.__version__,
            "numpy": np.__version__,
            "torch": str(torch.__version__),
        },
    }
    page = capsys.readouterr().out
    progress, summary, *_ = page.splitlines()
    assert progress == "episode 3, mean of the last 3: 13.0, step 18, 9 steps/s"
    assert summary == "trained for 3 episodes, 5000 steps, 2.1 s (2424 steps/s)"
    assert "saved  out/run.json  out/returns.csv  out/q_table.npy  out/returns.png\n" in page


@pytest.mark.parametrize(
    ("flags", "gamma"),
    [
        ([], 0.9),
        (["--literal"], 0.5),
        (["--literal", "--gamma", "0.75"], 0.75),
        (["--gamma", "0.75", "--literal"], 0.75),
        (["--literal", "--no-literal"], 0.9),
        (["--no-literal", "--literal"], 0.5),
    ],
)
def test_run_json_says_what_was_used(flags, gamma, clock):
    """Also under --literal; of --literal and --no-literal the last counts."""
    told(clock, (1.0, 2.0, 3, 3))
    assert run(*flags, "--out", "out") == 0
    used = json.loads(Path("out/run.json").read_text())["hyperparameters"]
    assert used["gamma"] == gamma
    assert used["literal"] == (flags[-1:] == ["--literal"] or "--gamma" in flags)


def test_run_json_says_when_it_was_solved(clock):
    """And --stop-when-solved ends the training there, --no-stop-when-solved does not."""
    told(clock, *((i / 10, 5.0, 2, 2 * i) for i in range(1, 151)))
    assert run("--out", "one", env="Solvable-v0") == 0
    clock.now = 1000.0
    assert run("--out", "two", "--no-stop-when-solved", env="Solvable-v0") == 0
    for folder, rows in (("one", 100), ("two", 150)):
        solved = json.loads(Path(folder, "run.json").read_text())["solved"]
        assert solved.pop("seconds") == pytest.approx(10.0)
        assert solved == {"episode": 100, "step": 200, "return": 5.0, "length": 2}
        assert len(Path(folder, "returns.csv").read_text().splitlines()) == rows + 1


def test_default_folder_names_the_options(clock):
    told(clock, (1.0, 2.0, 3, 3))
    assert run("--seed", 8, "--env-kwargs", "size=2") == 0
    assert Path("runs/test_runs/World-v0-size=2/seed8/run.json").exists()


def test_options_are_python_values_or_text():
    pairs = ("size=8", "map=8x8", "slippery=False", "wind=0.5", "eq=a=b")
    expected = {"size": 8, "map": "8x8", "slippery": False, "wind": 0.5, "eq": "a=b"}
    assert runs.options(pairs) == expected


# ----------------------------------------------------------------------------------- the evaluation


def greedy_line(capsys) -> str:
    page = capsys.readouterr().out
    return next(line for line in page.splitlines() if line.startswith("greedy policy"))


def test_twenty_greedy_episodes(clock, capsys):
    """Their seed is not that of the training, each begins elsewhere, and every action is the
    greedy one; a time limit ends an episode as a terminal state does."""
    told(clock, (1.0, 2.0, 3, 3))
    assert run("--seed", 7, "--no-save") == 0
    assert [seed for seed, _ in World.resets] == [1_000_007] + [None] * 19
    firsts = [first for _, first in World.resets]
    assert len(set(firsts)) == 20
    assert World.moves and all(action == Q[s].argmax() for s, action in World.moves)
    returns, rng = [], gym.utils.seeding.np_random(1_000_007)[0]
    for _ in range(20):
        rng.normal(size=2)
        s = rng.integers(5)
        states = [(s + k) % 5 for k in range(1 + s)]
        returns.append(sum(10 * s + Q[s].argmax() - 30 for s in states))
    assert greedy_line(capsys) == (
        f"greedy policy, 20 episodes: mean return {np.mean(returns):.2f}"
        f", standard deviation {np.std(returns):.2f}"
    )


def test_evaluation_begins_elsewhere_than_the_training(capsys):
    """With a script of this project: the first states of training and evaluation differ."""
    script = importlib.import_module("qlearning_table")
    arguments = ["--env", "World-v0", "--episodes", "30", "--seed", "3", "--no-save"]
    assert script.main(arguments) == 0
    seeds = [seed for seed, _ in World.resets]
    assert seeds == [3] + [None] * 29 + [1_000_003] + [None] * 19
    assert len({first for _, first in World.resets}) == 50


def test_an_episode_that_does_not_end_is_not_averaged(clock, capsys, monkeypatch):
    """The budget of the evaluation ends inside an episode: it is told, and left out of the mean."""
    monkeypatch.setattr(runs, "STEPS", 7)
    told(clock, (1.0, 2.0, 3, 3))
    assert run("--no-save") == 0
    rewards = [10 * s + a - 30 for s, a in World.moves]
    lengths, left = [], 7
    for _, first in World.resets:
        assert first
    rng = gym.utils.seeding.np_random(1_000_000)[0]
    while left:
        rng.normal(size=2)
        length = 1 + rng.integers(5)
        lengths.append(min(length, left))
        left -= lengths[-1]
    assert sum(lengths) == len(rewards) == 7
    totals = [sum(part) for part in np.split(rewards, np.cumsum(lengths)[:-1])]
    ended = totals[:-1] if lengths[-1] < length else totals
    line = greedy_line(capsys)
    assert f"{len(ended)} episodes: mean return {np.mean(ended):.2f}," in line
    if len(ended) < len(totals):
        after = f"return {totals[-1]:.2f} after {lengths[-1]} steps"
        assert line.endswith(f"; an episode did not end: {after}")


def test_play_reports_return_length_and_end():
    env = gym.make("World-v0")
    played = runs.play(env, lambda s: 1, seed=5, episodes=4)
    World.moves[:], first = [], played
    assert runs.play(env, lambda s: 1, seed=5, episodes=4) == first  # one seed, one result
    rewards = [10 * s + a - 30 for s, a in World.moves]
    assert len(rewards) == sum(length for _, length, _ in played)
    ends = np.cumsum([length for _, length, _ in played])
    assert [total for total, *_ in played] == [sum(p) for p in np.split(rewards, ends[:-1])]
    assert all(done for *_, done in played) and len(played) == 4


@pytest.mark.parametrize("kind", ["table", "network"])
def test_load_evaluates_what_was_loaded(kind, clock, capsys):
    """Not what train() begins with; with the hyperparameters that were saved."""
    told(clock, (1.0, 2.0, 3, 3))
    seen = []
    if kind == "network":
        LEARNED[:] = [None]
        act = lambda net, s: seen.append((s, net(s))) or net(s).argmax()
        options = dict(env="Vector-v0", act=act)
    else:
        options = dict(act=lambda Q, s: seen.append((s, Q[s].copy())) or Q[s].argmax())
    arguments = ["--hidden", 2, "--gamma", 0.125, "--seed", 6, "--out", "out"]
    assert run(*arguments, **options) == 0
    before, learned_there = greedy_line(capsys), list(seen)
    for name in ("returns.csv", "returns.png"):  # the weights and run.json are enough
        Path("out", name).unlink()
    World.moves.clear()
    World.resets.clear()
    seen.clear()
    EPISODES.clear()
    LEARNED[:] = [None] if kind == "network" else [Q * 0 - 7]  # what was learned is gone
    assert run("--load", "out", "--seed", 6, **options) == 0
    assert greedy_line(capsys) == before
    assert [seed for seed, _ in World.resets] == [1_000_006] + [None] * 19
    assert len(seen) == len(learned_there) == len(World.moves)
    for (s, values), (s_before, values_before) in zip(seen, learned_there, strict=True):
        assert np.array_equal(s, s_before) and np.array_equal(values, values_before)
    if kind == "table":
        assert all(np.array_equal(values, Q[s]) for s, values in seen)
    else:  # two units, as it was trained, with the weights that train() gave it
        by_hand = lambda s: [0.1 * s[1], 0.2 * s[0] + 0.3 * s[1] + 0.1]
        assert all(np.allclose(values, by_hand(s), atol=1e-6) for s, values in seen)


def test_load_keeps_all_saved_hyperparameters_but_the_seed(clock):
    told(clock, (1.0, 2.0, 3, 3))
    saved = ["--gamma", 0.125, "--hidden", 5, "--episodes", 12, "--seed", 6]
    assert run(*saved, "--out", "out", "--env-kwargs", "size=3") == 0
    r = runs.Run("test_runs", train, ["--load", "out", "--seed", "9"], "Vector-v0", False)
    assert (r.flags.env, r.flags.env_kwargs) == ("World-v0", ["size=3"])
    assert r.open().unwrapped.size == 3 and not r.saves
    expected = dict(seed=9, episodes=12, steps=5_000, gamma=0.125, hidden=5, literal=False)
    assert r.hyperparameters == expected


def test_a_clip_shows_each_step_of_an_episode(clock, monkeypatch):
    """The first image, one after each step, at the environment's own speed; the return so far
    stands on it."""
    clips, frames = [], []
    told(clock, (1.0, 2.0, 3, 3))
    monkeypatch.setattr(plotting, "frame", lambda *a: frames.append(a) or a[0])
    monkeypatch.setattr(plotting, "clip", lambda *a: clips.append(a) or b"a clip")
    assert run("--no-save", "--record", "clip.gif", "--seed", 2) == 0
    assert Path("clip.gif").read_bytes() == b"a clip"
    (shown, fps, kind) = clips[-1]  # before it one image, to see whether it can be drawn
    assert (fps, kind) == (10, ".gif")
    moves = World.moves[-(len(shown) - 1) :]
    # Each frame is grey by 20 times the steps so far.
    assert [image[0, 0, 0] for image in shown] == [20 * t for t in range(len(moves) + 1)]
    rewards = [10 * s + a - 30 for s, a in moves]
    assert [total for _, total in frames] == [0.0, 0.0, *np.cumsum(rewards)]  # and the trial
    assert World.resets[-1][0] == 2


def test_pictures_ask_the_greedy_policy(clock, monkeypatch):
    """What --picture draws is the greedy action and its value, at the environment's states."""
    looks = []
    told(clock, (1.0, 2.0, 3, 3))
    monkeypatch.setattr(plotting, "drawable", lambda env: True)
    monkeypatch.setattr(
        plotting, "picture", lambda env, look, title: looks.append((env, look, title)) or b"drawn"
    )
    value = lambda Q, s: Q[s].max()
    assert run("--no-save", "--picture", "p.png", value=value) == 0
    ((_, look, title),) = looks
    assert title == "test_runs.py on World-v0, seed 0"
    assert [look(s) for s in range(5)] == [(int(Q[s].argmax()), Q[s].max()) for s in range(5)]


# --------------------------------------------------- what each script says is greedy, and its value


def said(script: str, monkeypatch) -> dict:
    """The keywords with which a script calls runs.main()."""
    given = {}
    monkeypatch.setattr(runs, "main", lambda *a, **k: given.update(k, arguments=a) or 5)
    module = importlib.import_module(script)
    assert module.main(["--some", "flags"]) == 5
    assert given.pop("arguments") == (module.train, ["--some", "flags"])
    return given


def test_qlearning_table_is_greedy(monkeypatch):
    given = said("qlearning_table", monkeypatch)
    assert [given["act"](Q, s) for s in range(5)] == [2, 0, 1, 2, 0]
    assert [given["value"](Q, s) for s in range(5)] == [2, 3, 5, 1, -1]


def test_dqn_is_greedy(monkeypatch):
    given = said("dqn", monkeypatch)
    network = importlib.import_module("dqn").QNetwork((3,), 4, 8)
    for state in torch.randn(20, 3, generator=torch.manual_seed(0)):
        values = network(state).tolist()
        assert given["act"](network, state) == np.argmax(values)
        assert given["value"](network, state) == max(values)


def test_actor_critic_is_greedy(monkeypatch):
    """The most likely action; the value of pi: sum_a pi(a|s) Q(s,a)."""
    given, module = said("actor_critic", monkeypatch), importlib.import_module("actor_critic")
    actor, critic = module.Network((3,), 4, 8), module.Network((3,), 4, 8)
    for state in torch.randn(20, 3, generator=torch.manual_seed(0)):
        pi = torch.distributions.Categorical(logits=actor(state)).probs
        assert given["act"](actor, critic, state) == pi.argmax()
        expected = sum((p * q).item() for p, q in zip(pi, critic(state), strict=True))
        assert given["value"](actor, critic, state).item() == pytest.approx(expected, rel=1e-4)


def test_ddpg_is_greedy(monkeypatch):
    given, module = said("ddpg", monkeypatch), importlib.import_module("ddpg")
    actor, critic = module.Actor(3, 2, 8), module.Critic(3, 2, 8)
    for state in torch.randn(5, 3, generator=torch.manual_seed(0)):
        assert torch.equal(given["act"](actor, critic, state), actor(state))
        assert given["value"](actor, critic, state) == critic(state, actor(state))


@pytest.mark.parametrize("script", ["reinforce", "a3c", "ppo"])
@pytest.mark.parametrize("continuous", [False, True])
def test_policies_are_greedy(script, continuous, monkeypatch):
    """The most likely action, which for a Gaussian is its mean; V."""
    given, module = said(script, monkeypatch), importlib.import_module(script)
    space = gym.spaces.Box(-1, 1, (2,)) if continuous else gym.spaces.Discrete(4)
    if script == "a3c":
        learned = (module.Model((3,), space, 8),)
        pi, V = learned[0].pi, learned[0].V
    else:
        pi, V = module.Policy((3,), space, 8, *[1.0] * (script == "ppo")), None
        learned = (pi,)
    if script == "ppo":
        learned = (pi, module.Value((3,), 8))
        V = lambda s: learned[1](s[None])[0]
    for state in torch.randn(10, 3, generator=torch.manual_seed(0)):
        action = given["act"](*learned, state)
        best = pi(state).mean if continuous else pi(state).probs.argmax()
        assert torch.equal(action, best)
        if V is None:
            assert given.get("value") is None
        else:
            assert given["value"](*learned, state).item() == pytest.approx(V(state).item())


ENVS = {"qlearning_table": "Treasure-v0", "ddpg": "Pendulum-v1"}


@pytest.mark.parametrize(
    "script", ["qlearning_table", "dqn", "reinforce", "actor_critic", "ddpg", "a3c", "ppo"]
)
def test_default_environment_and_who_takes_a_function(script, monkeypatch):
    given = said(script, monkeypatch)
    assert given["env"] == ENVS.get(script, "CartPole-v1")
    assert given.get("several", False) == (script in ("a3c", "ppo"))


# ------------------------------------------------------------------------------- watched as text


def test_watched_episodes_are_told(capsys):
    """The steps of each of the first dozen episodes."""
    env = runs.Shown(envs.make("Treasure-v0"))
    for _ in range(14):
        runs.play(env, lambda s: 1, seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Episode {n}: total_steps = 5" for n in range(1, 13)]


def test_the_flags_of_train_are_all_there():
    """The keywords of train() reach it: none is lost on the way, none is taken for another."""
    _, hyperparameters = runs.parse(train, [], "test_runs", (runs.Files, runs.World))
    keywords = inspect.signature(train).parameters.values()
    expected = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY}
    assert hyperparameters == {k: v for k, v in expected.items() if k != "on_episode"}


# ---------------------------------------------------------------------------------------- watching


def test_three_other_episodes_are_watched(monkeypatch):
    """Each from a seed of its own, which is not that of the evaluation, until the window closes."""
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    seen = []

    def play(env, policy, *, seed, watch=None, **_):
        seen.append((env.unwrapped.render_mode, seed, watch is runs.window_closed))
        return [(1.0, 1, True)]

    monkeypatch.setattr(runs, "play", play)
    assert run("--seed", 7, "--no-save", "--render") == 0
    evaluated, *watched = seen
    assert evaluated == (None, 1_000_007, False)
    assert [entry[1:] for entry in watched] == [(8, True), (9, True), (10, True)]


@pytest.mark.parametrize("flag", [["--render"], ["--record", "clip.gif"]])
def test_what_cannot_be_drawn_is_refused_before_training(flag, monkeypatch, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(World, "render", lambda world: None)
    EPISODES[:] = [(lambda: pytest.fail("it trained"), 1.0, 1, 1)]
    assert run(*flag) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flag[0] in line and "World-v0" in line and not Path("runs").exists()


@pytest.mark.parametrize("env_id, lines", [("Treasure-v0", 1), ("Maze-v0", 4)])
def test_on_a_terminal_a_state_is_drawn_over_the_one_before(env_id, lines, monkeypatch, capsys):
    shown = runs.Shown(envs.make(env_id, render_mode="ansi"))
    monkeypatch.setattr(runs.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown.reset(seed=0)
    text = shown.render()
    assert len(text.splitlines()) == lines
    assert capsys.readouterr().out == f"{text}\n\x1b[{lines}A\x1b[J"
    shown.step(1)
    assert capsys.readouterr().out == f"{shown.render()}\n\x1b[{lines}A\x1b[J"


# -------------------------------------------------------------------------------------- the device


@pytest.mark.parametrize(
    ("flags", "cuda"),
    [
        ("ppo --env MiniPong-v0", True),
        ("dqn --env MiniPong-v0", True),
        ("ppo --env MiniPong-v0 --device cpu", False),
        ("ppo --env CartPole-v1", False),
        ("ppo --env CartPole-v1 --device cuda", True),
        ("a3c --env MiniPong-v0", False),
        ("qlearning_table --env Maze-v0", False),
    ],
)
def test_auto_takes_a_gpu_for_images(monkeypatch, flags, cuda):
    """A pretended one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    script, *argv = flags.split()
    train = importlib.import_module(script).train
    run = runs.Run(script, train, [*argv, "--no-save"], "CartPole-v1", script in ("a3c", "ppo"))
    assert run.cuda == cuda


@pytest.mark.parametrize("script", ["ppo", "a3c", "ddpg"])
def test_a_gpu_that_is_not_there(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: script != "ppo")
    argv = ["--device", "cuda"] + ["--env", "Pendulum-v1"] * (script == "ddpg")
    assert importlib.import_module(script).main(argv) == 2
    assert f"--device cuda: not with {script}.py" in capsys.readouterr().err
