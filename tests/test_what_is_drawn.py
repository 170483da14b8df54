"""Pictures by what is drawn in them: lines by their data, arrows by where they point on the page.

The figure is caught before it becomes a PNG.
"""

import io
import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.quiver import Quiver
from PIL import Image

from common import envs, plotting

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
import compare as compare_saved
import plane


@pytest.fixture(autouse=True)
def figures(monkeypatch) -> list:
    """All figures that were drawn."""
    drawn, png = [], plotting.png
    monkeypatch.setattr(plotting, "png", lambda figure: drawn.append(figure) or png(figure))
    return drawn


def lines(axes) -> dict:
    """Label -> x and y of the line."""
    return {line.get_label(): np.array(line.get_data(), float) for line in axes.lines}


# --------------------------------------------------------------------------------- learning curves


def naive_mean(returns, window) -> list[float]:
    return [np.mean(returns[max(0, i + 1 - window) : i + 1]) for i in range(len(returns))]


@pytest.mark.parametrize("window", [1, 3, 20])
def test_running_mean(window):
    returns = np.random.default_rng(0).normal(size=11).tolist()
    assert plotting.running_mean(returns, window) == pytest.approx(naive_mean(returns, window))


ROWS = [(1, 7, 0.1, 3.0, 7), (2, 20, 0.2, -5.0, 13), (3, 21, 0.3, 40.0, 1), (4, 90, 0.4, 8.0, 69)]


def test_learning_curve(figures):
    """Each episode and the running mean over environment steps, the threshold, the star."""
    image = plotting.learning_curve(ROWS, "a title", 9.5, 2, ROWS[2])
    (axes,) = figures[0].axes
    assert (axes.get_title(), axes.get_xlabel()) == ("a title", "environment steps")
    assert axes.get_ylabel() == "return of the episode"
    found, steps, returns = lines(axes), [7, 20, 21, 90], [3.0, -5.0, 40.0, 8.0]
    assert list(found) == ["one episode", "mean of the last 2", "episode 3, step 21", "solved: 9.5"]
    assert found["one episode"].tolist() == [steps, returns]
    assert found["mean of the last 2"].tolist() == [steps, [3.0, -1.0, 17.5, 24.0]]
    assert found["episode 3, step 21"].tolist() == [[21], [9.5]]
    assert found["solved: 9.5"][1].tolist() == [9.5, 9.5]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(found)
    assert Image.open(io.BytesIO(image)).size == (840, 480)
    low, high = axes.get_ylim()
    assert low < -5 and high > 40  # up is more


def test_learning_curve_without_a_threshold(figures):
    plotting.learning_curve(ROWS, "", None, 100, None)
    assert list(lines(figures[0].axes[0])) == ["one episode", "mean of the last 100"]


def test_comparison_of_runs(figures):
    """At each step the interquartile mean over runs of the last value that each had by then, and
    its interval; from where every run has a value to the end of the longest."""
    rng = np.random.default_rng(0)
    runs = {
        "short ones": [
            (np.array([10, 30, 31, 60]), rng.normal(size=4)),
            (np.array([25, 70]), rng.normal(size=2)),
            (np.array([5, 6, 7, 40]), rng.normal(size=4)),
        ],
        "a long one": [(np.array([3, 50, 100]), np.array([1.0, 3.0, 2.0]))],
    }
    compare_saved.draw(runs, "a title", 2.5, "mean return")
    (axes,) = figures[0].axes
    assert (axes.get_title(), axes.get_ylabel()) == ("a title", "mean return")
    found, bands = lines(axes), [c for c in axes.collections if isinstance(c, PolyCollection)]
    assert found.pop("solved: 2.5")[1].tolist() == [2.5, 2.5]
    assert list(found) == list(runs) and len(bands) == 2
    colours = [line.get_color() for line in axes.lines[:2]]
    assert colours[0] != colours[1]
    for (label, pairs), band, colour in zip(runs.items(), bands, colours, strict=True):
        x, y = found[label]
        start = max(steps[0] for steps, _ in pairs)
        end = max(steps[-1] for steps, _ in pairs)
        grid = np.linspace(0, 100, 400)
        assert x == pytest.approx([g for g in grid if start <= g <= end])
        values = [[mean[steps <= at][-1] for steps, mean in pairs] for at in x]
        assert y == pytest.approx([scipy.stats.trim_mean(v, 0.25) for v in values])
        assert to_hex(band.get_facecolor()[0]) == colour
        edges = band.get_paths()[0].vertices
        for at, v in zip(x, values, strict=True):
            height = edges[np.isclose(edges[:, 0], at), 1]
            _, low, high = compare_saved.middle(v)
            assert (height.min(), height.max()) == pytest.approx((low, high))


def test_interquartile_mean_and_interval():
    # Of two values: a half of the resamples holds one of them only.
    assert compare_saved.middle([1.0, 2.0]) == (1.5, 1, 2)
    values = [-1000.0, -1000.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1000.0, 1000.0]
    assert compare_saved.middle(values)[0] == 5.5
    assert compare_saved.middle([5.0] * 10) == (5, 5, 5)
    assert compare_saved.middle([2.0]) == (2, 2, 2)
    mean, low, high = compare_saved.middle(list(np.random.default_rng(0).normal(size=1_000)))
    # The spread of a mean trimmed by a quarter on both sides is 1.092 / sqrt(n) for normal values.
    assert (high - low) / 2 == pytest.approx(1.96 * 1.092 / np.sqrt(1_000), rel=0.15)
    assert low < mean < high


def saved(folder, rows, env="CartPole-v1") -> None:
    Path(folder).mkdir(parents=True)
    lines = [",".join(map(str, row)) for row in rows]
    Path(folder, "returns.csv").write_text(
        "\n".join(["episode,step,seconds,return,length", *lines])
    )
    Path(folder, "run.json").write_text(json.dumps(dict(env=env)))


def test_comparison_of_folders(figures, capsys, monkeypatch):
    """Steps and running means of each seed; the window and the threshold of the environment."""
    rows = [(i, 10 * i, 0.5, float(i % 7), 10 + i) for i in range(1, 41)]
    saved("one/seed0", rows, "Pendulum-v1")
    saved("one/seed1", rows[:30], "Pendulum-v1")
    saved("two", [(1, 12, 0, 1.0, 12), (2, 9, 0, 4.0, 9), (3, 30, 0, 2.0, 9)], "Pendulum-v1")
    given, draw = [], compare_saved.draw
    monkeypatch.setattr(compare_saved, "draw", lambda *a: given.append(a) or draw(*a))
    assert compare_saved.main(["one", "two", "-o", "p.png"]) == 0
    ((runs, title, goal, ylabel),) = given
    assert (title, goal) == ("Pendulum-v1", -200)
    assert ylabel == "mean of the last 20 returns"
    assert list(runs) == ["one (2 seeds)", "two (1 seed)"]
    assert [len(steps) for steps, _ in runs["one (2 seeds)"]] == [40, 30]
    steps, means = runs["one (2 seeds)"][0]
    assert steps.tolist() == [10 * i for i in range(1, 41)]
    assert means == pytest.approx(naive_mean([row[3] for row in rows], 20))
    ((steps, means),) = runs["two (1 seed)"]  # with two workers steps are only nearly sorted
    assert steps.tolist() == [12, 12, 30] and means == pytest.approx([1, 2.5, 7 / 3])
    assert capsys.readouterr().out == "p.png\n"


def test_comparison_of_two_environments_has_no_threshold(monkeypatch):
    saved("one", ROWS, "Pendulum-v1")
    saved("two", ROWS, "CartPole-v1")
    given, draw = [], compare_saved.draw
    monkeypatch.setattr(compare_saved, "draw", lambda *a: given.append(a) or draw(*a))
    assert compare_saved.main(["one", "two"]) == 0
    assert given[0][1:3] == ("Pendulum-v1, CartPole-v1", None)
    assert Path("compare.png").exists()
    with pytest.raises(SystemExit, match="2"):
        compare_saved.main(["one", "-o", "no/such/folder.png"])


# -------------------------------------------------------------------------------------- grid worlds

TOWARDS = {"up": (0, 1), "down": (0, -1), "left": (-1, 0), "right": (1, 0)}  # on the page


def arrows(figure, axes) -> dict[tuple, set]:
    """Where each arrow of a panel stands and where it points, as seen on the page: its column and
    row, counted from the top left -> the directions."""
    figure.draw_without_rendering()
    (quiver,) = [c for c in axes.collections if isinstance(c, Quiver)]
    assert quiver.angles == quiver.scale_units == "xy"
    found = {}
    left, bottom, width, height = axes.get_window_extent().bounds
    n_columns, n_rows = len(axes.get_xticks()) - 1, len(axes.get_yticks()) - 1
    for (x, y), u, v in zip(quiver.XY, quiver.U, quiver.V, strict=True):
        start, end = axes.transData.transform([(x, y), (x + u / 3, y + v / 3)])
        column = int((start[0] - left) / width * n_columns)
        row = n_rows - 1 - int((start[1] - bottom) / height * n_rows)
        way = tuple(np.sign(np.round(end - start, 3)).astype(int))
        (name,) = [name for name, step in TOWARDS.items() if step == way]
        found.setdefault((column, row), set()).add(name)
    return found


@pytest.mark.parametrize("env_id", ["Maze-v0", "Treasure-v0", "GridWorld-v0"])
def test_arrows_point_where_the_action_leads(figures, env_id):
    """In each cell the name of the greedy action, up being up on the page; its value beside it."""
    env = envs.make(env_id)
    world = env.unwrapped
    rows, columns = world.shape
    choose = lambda s: (7 * s + s // 3) % world.action_space.n
    plotting.picture(env, lambda s: (np.int64(choose(s)), 1.5 * s), "a title")
    assert figures[0].get_suptitle() == "a title"
    axes = figures[0].axes[-1]
    assert axes.get_title() == "greedy policy"
    inner = [s for s in world.P if s not in world.terminals]
    expected = {(s % columns, s // columns): {world.action_names[choose(s)]} for s in inner}
    assert arrows(figures[0], axes) == expected
    # The values: coloured in the cell, and printed below the arrow.
    (image,) = axes.images
    shown = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
    assert image.origin == "upper" and shown.shape == (rows, columns)
    for s in world.P:
        value = shown[s // columns, s % columns]
        assert np.isnan(value) if s in world.terminals else value == 1.5 * s
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert set(texts) == {f"{1.5 * s:.2f}" for s in inner}
    for s in inner:
        x, y = texts[f"{1.5 * s:.2f}"]
        assert x == s % columns and 0 < y - s // columns < 0.5
    # The terminal cells look as they do in the environment.
    marks = {tuple(np.ravel(line.get_data()).astype(int)): line for line in axes.lines}
    assert set(marks) == {(s % columns, s // columns) for s in world.terminals}
    for s in world.terminals:
        _, shape, colour = world.look(s)
        mark = marks[s % columns, s // columns]
        assert mark.get_marker() == {"square": "s", "circle": "o"}[shape]
        assert to_hex(mark.get_color()) == "#{:02x}{:02x}{:02x}".format(*colour)


def test_gridworld_shows_the_random_policy_beside_it(figures):
    """As on the lecture's slide: on the left all four arrows in each cell."""
    env = envs.make("GridWorld-v0")
    plotting.picture(env, lambda s: (0, None), "")
    left, right = figures[0].axes
    assert [axes.get_title() for axes in (left, right)] == ["random policy", "greedy policy"]
    assert set(map(frozenset, arrows(figures[0], left).values())) == {frozenset(TOWARDS)}
    assert set(map(frozenset, arrows(figures[0], right).values())) == {frozenset({"right"})}
    assert len(arrows(figures[0], left)) == 14
    assert not any(text.get_text() for text in right.texts)  # no values, none printed


def test_actions_lead_where_their_names_say():
    """Up is a row less, right a column more: names, moves and the table agree."""
    for env_id in ("Maze-v0", "Treasure-v0", "GridWorld-v0"):
        world = envs.make(env_id).unwrapped
        rows, columns = world.shape
        for s in world.P:
            if s in world.terminals:
                continue
            for a, name in enumerate(world.action_names):
                x, y = TOWARDS[name]
                row, column = s // columns - y, s % columns + x
                inside = 0 <= row < rows and 0 <= column < columns
                ((_, found, _, _),) = world.P[s][a]
                assert found == (row * columns + column if inside else s)


@pytest.mark.parametrize("env_id", ["Maze-v0", "GridWorld-v0", "Treasure-v0"])
def test_images_show_the_cell_where_it_is(env_id):
    """The explorer is drawn in its row and column, and nowhere else, also as text."""
    env, text = (envs.make(env_id, render_mode=mode) for mode in ("rgb_array", "ansi"))
    n, columns = env.unwrapped.cell_pixels, env.unwrapped.shape[1]
    for s in env.unwrapped.P:
        for e in (env, text):
            e.reset()
            e.unwrapped.s = s
        red = np.argwhere((env.render() == envs.RED).all(axis=-1)) // n
        assert {tuple(cell) for cell in red} == {divmod(s, columns)}
        assert text.render().replace("\n", "").index("o") == s
        assert text.render().count("o") == 1


# ------------------------------------------------------------------------------------------- planes

PLANES = {
    "CartPole-v1": lambda x, y: [0, 0, np.radians(x), y],
    "Pendulum-v1": lambda x, y: [np.cos(np.radians(x)), np.sin(np.radians(x)), y],
    "MountainCar-v0": lambda x, y: [x, y],
}
RANGES = {
    "CartPole-v1": ((-12, 12), (-3, 3)),
    "Pendulum-v1": ((-180, 180), (-8, 8)),
    "MountainCar-v0": ((-1.2, 0.6), (-0.07, 0.07)),
}
TICKS = {"CartPole-v1": ["left", "right"], "MountainCar-v0": ["left", "none", "right"]}


@pytest.mark.parametrize("env_id", PLANES)
def test_planes_show_value_and_action_at_their_state(env_id):
    """At x, y stands what look() says about the observation that x and y mean."""
    env = envs.make(env_id)
    n = getattr(env.action_space, "n", None)

    def look(observation):
        number = float(observation @ np.arange(1, len(observation) + 1))
        assert observation.dtype == np.float32
        return (round(37 * number) % n if n else np.array([np.sin(number)])), number

    figure = plane.plane(env, look)
    value, action = figure.axes[:2]
    assert [value.get_title(), action.get_title()] == ["value", "greedy action"]
    (x_range, y_range), names = RANGES[env_id], plane.plane_of(env)[0]
    for axes, which in ((value, 1), (action, 0)):
        assert (axes.get_xlabel(), axes.get_ylabel()) == names
        (mesh,) = [c for c in axes.collections if isinstance(c, QuadMesh)]
        numbers, corners = mesh.get_array().reshape(45, 45), mesh.get_coordinates()
        assert corners[0, 0, 0] < corners[0, -1, 0] and corners[0, 0, 1] < corners[-1, 0, 1]
        x, y = np.linspace(*x_range, 45), np.linspace(*y_range, 45)
        middles = (corners[1:, 1:] + corners[:-1, :-1]) / 2
        np.testing.assert_allclose(middles[0, :, 0], x, atol=1e-6)
        np.testing.assert_allclose(middles[:, 0, 1], y, atol=1e-6)
        for row in range(0, 45, 4):
            for column in range(0, 45, 4):
                state = np.array(PLANES[env_id](x[column], y[row]), np.float32)
                # Where rounding decides between two actions, both are right.
                around = [np.ravel(look(state + d)[which])[0] for d in np.float32([-1e-5, 0, 1e-5])]
                assert np.abs(numbers[row, column] - around).min() < 1e-4
    figure.draw_without_rendering()
    if n:
        labels = [text.get_text() for text in figure.axes[-1].get_yticklabels()]
        assert labels == TICKS[env_id]
        assert mesh.get_clim() == (-0.5, n - 0.5)


def test_a_plane_without_values():
    figure = plane.plane(envs.make("Pendulum-v1"), lambda s: (0.5, None))
    assert [axes.get_title() for axes in figure.axes][:1] == ["greedy action"]
    assert "value" not in [axes.get_title() for axes in figure.axes]


class Other(gym.Env):
    def __init__(self, *shape):
        self.observation_space = gym.spaces.Box(-1, 2, shape)
        self.action_space = gym.spaces.Discrete(5)


def test_what_can_be_drawn():
    for env in (Other(3), envs.make("Acrobot-v1")):
        assert not plotting.drawable(env) and plane.plane_of(env) is None
    for env in (envs.make(env_id) for env_id in ("Maze-v0", "Treasure-v0", "GridWorld-v0")):
        assert plotting.drawable(env) and plane.plane_of(env) is None
    for env in (Other(2), *map(envs.make, PLANES)):
        assert plane.plane_of(env) and not plotting.drawable(env)
    figure = plane.plane(Other(2), lambda s: (4, 0.0))
    assert figure.axes[0].get_xlabel() == "number 1"
    figure.draw_without_rendering()
    labels = [text.get_text() for text in figure.axes[-1].get_yticklabels()]
    assert labels == list("01234")


# ------------------------------------------------------------------------------------------- clips


def shown(clip: bytes) -> list[tuple[int, float]]:
    """The images of a .gif: its grey, and for how long it is shown, in milliseconds."""
    image, found = Image.open(io.BytesIO(clip)), []
    for i in range(image.n_frames):
        image.seek(i)
        grey = int(np.asarray(image.convert("RGB"))[3, 3, 0])
        if found and found[-1][0] == grey:
            found[-1] = grey, found[-1][1] + image.info["duration"]
        else:
            found.append((grey, image.info["duration"]))
    return found


@pytest.mark.parametrize(("fps", "every"), [(10, 1), (30, 1), (60, 2), (90, 3)])
def test_a_clip_keeps_order_and_speed(fps, every):
    """Every image (of a fast clip every second or third), in order, at the environment's speed;
    the last one stays for a second."""
    frames = [np.full((8, 8, 3), 40 * i, np.uint8) for i in range(7)]
    found = shown(plotting.clip(frames, fps))
    greys = [40 * i for i in [*range(0, 6, every), 6]]
    assert [grey for grey, _ in found] == pytest.approx(greys, abs=8)
    for _, duration in found[:-1]:
        assert duration == pytest.approx(1000 * every / fps, abs=7)  # in hundredths of a second
    assert found[-1][1] == pytest.approx(1000, rel=0.15)


def test_a_frame_is_the_image_and_the_return():
    image = np.zeros((300, 200, 3), np.uint8)
    image[150:, :, 1] = 200
    one, two = plotting.frame(image, 1.0), plotting.frame(image, -123456.0)
    assert one.shape == (300, 200, 3)
    assert np.array_equal(one[30:], image[30:]) and not np.array_equal(one[:30], image[:30])
    assert not np.array_equal(one, two)
    assert np.array_equal(plotting.frame(image, 0.00001 + 5), plotting.frame(image, 5.0))
    large = np.zeros((1000, 500, 3), np.uint8)
    large[:, 250:] = 255
    small = plotting.frame(large, 0.0)
    assert small.shape == (480, 240, 3)
    assert small[-1, 20].tolist() == [0, 0, 0] and small[-1, -20].tolist() == [255, 255, 255]


def test_small_images_are_enlarged_and_numbers_from_0_to_1_are_colours():
    image = np.zeros((10, 8, 3))
    image[9, 7] = 1.0
    shown = plotting.frame(image, 0.0)
    assert shown.shape == (160, 128, 3) and shown.dtype == np.uint8
    assert (shown[-16:, -16:] == 255).all() and (shown[-32:-16] == 0).all()
