"""The recorded runs: what a page shows is what the run did. And the tracer in the terminal."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
scenes = pytest.importorskip("scenes")
trace = scenes.trace

LIMIT = 600_000  # bytes of a page with its run


def recorded(name: str) -> dict:
    record = scenes.read(ROOT / f"docs/html/{name}.run.js")
    assert record, f"{name} has no recorded run: python docs/build.py"
    return record


def shown(record: dict):
    """(scene, stop, [(code, reads, writes)]): what stands on the page, from the record alone."""
    for number, scene in enumerate(record["scenes"]):
        known: dict = {}
        for stop in scene["stops"]:
            ran = []
            for place, change, writes in stop["ran"]:
                known[place] = known.get(place, {}) | change
                _, _, code, names = record["statements"][place]
                named = [
                    {names[int(k)]: v for k, v in part.items() if v is not None}
                    for part in (known[place], writes)
                ]
                ran.append((code, *named))
            yield number, stop, ran


# ------------------------------------------------------------------------------ are they up to date


def shape(value):
    """A value without its numbers."""
    if isinstance(value, dict) and "shape" in value:
        return tuple(value["shape"])
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    return len(value) if isinstance(value, list) else re.sub(r"\d.*", "", str(value)) * 0


def outline(record: dict, scenes: int) -> list:
    """Which lines were carried out, and the shapes of all values."""
    return [
        (stop["tag"], stop["step"], stop.get("gap"), stop.get("ended"))
        + tuple((code, shape(reads), shape(writes)) for code, reads, writes in ran)
        for number, stop, ran in shown(record)
        if number < scenes
    ]


@pytest.mark.parametrize("name", scenes.RUNS)
def test_record_is_that_of_the_script(name):
    record = recorded(name)
    assert scenes.is_fresh(name, record), "run python docs/build.py"
    assert [scene["title"] for scene in record["scenes"]] == list(scenes.TITLES[name])
    brief = name not in ("qlearning_table", "reinforce", "a3c")  # others take longer to an update
    again = scenes.record(name, late=False, brief=brief)
    before, now = (outline(each, len(again["scenes"])) for each in (record, again))
    changed = next((pair for pair in zip(before, now, strict=False) if pair[0] != pair[1]), None)
    assert before == now, f"run python docs/build.py --record; first difference: {changed}"
    page = (ROOT / f"docs/html/{name}.html").read_bytes()
    assert len(page) + (ROOT / f"docs/html/{name}.run.js").stat().st_size <= LIMIT


@pytest.mark.parametrize("name", ["qlearning_table", "reinforce", "a3c"])
def test_recording_twice_gives_the_same(name):
    first, second = (scenes.record(name, late=False) for _ in range(2))
    assert scenes.written(first) == scenes.written(second)


def test_another_comment_is_no_change_but_code_and_tags_are(tmp_path):
    source = (ROOT / "reinforce.py").read_text(encoding="utf-8")
    prints = []
    for old, new in [
        ("", ""),
        ("# Autograd", "# Torch"),
        ("gamma * later", "later"),
        ("# [3] for", "# for"),
    ]:
        assert old in source
        (tmp_path / "copy.py").write_text(source.replace(old, new), encoding="utf-8")
        prints.append(scenes.fingerprint(trace.Listing(tmp_path / "copy.py")))
    assert prints[0] == prints[1] and len(set(prints)) == 3


# ------------------------------------------------------------------------------ are the values true


def entries(value) -> list:
    """The numbers of a vector that are shown."""
    return value["first"] if isinstance(value, dict) else value


def each(*values):
    """Sample by sample: vectors are taken apart, numbers repeated."""
    vectors = [isinstance(v, (dict, list)) for v in values]
    lengths = [len(entries(v)) for v, is_vector in zip(values, vectors, strict=True) if is_vector]
    for j in range(min(lengths, default=1)):
        yield [
            entries(v)[j] if is_vector else v for v, is_vector in zip(values, vectors, strict=True)
        ]


def q_learning(r, w):
    Q, alpha, gamma = r["Q[S, A]"], r["alpha"], r["gamma"]
    future = 0 if r["terminated"] else gamma * max(r["Q[S_next]"])
    yield Q + alpha * (r["R"] + future - Q), w["Q[S, A]"]


def target(reward, terminated, gamma):
    def y(r, w):
        columns = (r[reward], r[terminated], r[gamma], r["next_value"], w["y"])
        for r_j, end, gamma_j, value, y_j in each(*columns):
            yield r_j if end else r_j + gamma_j * value, y_j

    return y


def rest(reward, following, result):
    """A return from the one after it."""
    return lambda r, w: [(r[reward] + r["gamma"] * r[following], w[result])]


def difference(first, second, result):
    return lambda r, w: ((a - b, c) for a, b, c in each(r[first], r[second], w[result]))


def mean_over_actions(r, w):
    for y, log_pi, Q, weight in each(r["y"], r["log_pi"], r["Q"], w["weight"]):
        yield y - sum(math.exp(p) * q for p, q in zip(log_pi, Q, strict=True)), weight


def gae(r, w):
    discount = r["gamma"] * r["gae_lambda"]
    later = r["later"] if isinstance(r["later"], list) else [r["later"]] * len(w["A[t]"])
    for delta, done, after, A in each(r["delta[t]"], r["done[t]"], later, w["A[t]"]):
        yield delta + discount * (1 - done) * after, A


def ratio(r, w):
    for probs, a, log_old, ratio in each(
        r["pi"]["probs"], r["a[j]"], r["log_pi_old[j]"], w["ratio"]
    ):
        yield probs[a] / math.exp(log_old), ratio


def penalty(r, w):
    for old, sft, mask, rewards in each(r["log_pi_old"], r["log_pi_sft"], r["mask"], w["rewards"]):
        for old_t, sft_t, mask_t, reward in zip(old, sft, mask, rewards, strict=True):
            yield -r["beta"] * (old_t - sft_t) * mask_t, reward


def score_at_the_last_word(r, w):
    for before, mask, score, after in each(r["rewards"], r["mask"], r["scores"], w["rewards"]):
        for t, (reward, result) in enumerate(zip(before, after, strict=True)):
            yield reward + score * (t == sum(mask) - 1), result


def gae_of_words(r, w):
    columns = each(r["delta[:, t]"], r["later"], w["A[:, t]"])
    return ((delta + r["gae_lambda"] * later, A) for delta, later, A in columns)


def clipped(r, w):
    for ratios, As, gains in each(r["ratio"], r["A[j]"], w["gain"]):
        for ratio, A, gain in zip(ratios, As, gains, strict=True):
            yield min(ratio * A, max(1 - r["clip"], min(ratio, 1 + r["clip"])) * A), gain


def bootstrap(r, w):
    yield 0 if r["terminated"] else r["values[-1]"], w["R"]


# script -> line of the slide -> how the code begins, and what its result has to be
CHECKS = {
    "qlearning_table": {"8": ("Q[S, A] +=", q_learning)},
    "dqn": {"12": ("y =", target("reward_j", "terminated_j", "gamma_j"))},
    "ddpg": {"12": ("y =", target("reward_i", "terminated_i", "gamma"))},
    "reinforce": {
        "v_t": ("v[t] = later", rest("rewards[t]", "later", "v[t]")),
        "advantage": ("weight =", difference("v", "values[:-1]", "weight")),
    },
    "actor_critic": {
        "R + gamma ...": ("y[t] =", rest("r[t]", "y[t + 1]", "y[t]")),
        "advantage": ("weight = y", mean_over_actions),
    },
    "a3c": {
        "13": ("R = 0.0", bootstrap),
        "15": ("R = rewards", rest("rewards[i]", "R", "R")),
        "advantage": ("error =", difference("targets", "values[:-1]", "error")),
    },
    "ppo": {"advantage": ("A[t] = later", gae), "ratio": ("ratio =", ratio)},
    "rlhf": {
        "penalty": ("rewards = -beta", penalty),
        "score": ("rewards[", score_at_the_last_word),
        "m": ("A[:, t] = later", gae_of_words),
        "clip": ("gain =", clipped),
    },
}


@pytest.mark.parametrize("name", CHECKS)
def test_shown_numbers_give_the_shown_results(name):
    record, found = recorded(name), Counter()
    for number, stop, ran in shown(record):
        for code, reads, writes in ran:
            for line, (begins, check) in CHECKS[name].items():
                if not code.startswith(begins):
                    continue
                size = max([1e-3, *numbers(reads.values()), *numbers(writes.values())])
                for expected, result in check(reads, writes):
                    found[number, line] += 1
                    assert math.isclose(expected, result, abs_tol=2e-3 * size), (line, stop, code)
    for line in CHECKS[name]:  # in every scene in which something is learned
        wanted = (2, 3) if name == "rlhf" else (1, 2, 3)
        assert all(found[number, line] for number in wanted), (line, found)


def numbers(values) -> list[float]:
    """All numbers in short values, without their signs."""
    found = []
    for value in values:
        if isinstance(value, dict):
            found += numbers([value["first"]] if "first" in value else value.values())
        elif isinstance(value, list):
            found += numbers(value)
        elif isinstance(value, (int, float)):
            found.append(abs(value))
    return found


@pytest.mark.parametrize("name", [name for name in scenes.RUNS if name != "rlhf"])
def test_scenes_show_what_they_say(name):
    record = recorded(name)
    first, update, end, _ = [scene["stops"] for scene in record["scenes"]]
    assert first[0]["step"] == 0 and not any(stop["step"] > 8 * 4 for stop in first)
    assert any(stop["tag"] == record["update"] for stop in update)
    assert any(stop.get("ended") for stop in end)
    tags = {stop["tag"] for scene in record["scenes"] for stop in scene["stops"]} - {""}
    listing = trace.Listing(ROOT / f"{name}.py")
    never = {"qlearning_table": set(), "reinforce": {"5"}}.get(name, set())  # after the last one
    assert set(listing.texts) - tags <= never, "these lines are in no scene"
    moved = [
        stop["picture"]
        for scene in record["scenes"]
        for stop in scene["stops"]
        if stop.get("picture")
    ]
    assert len(moved) > 10


def test_scenes_of_rlhf():
    words = trace.load(listing := trace.Listing(ROOT / "rlhf.py")).WORDS
    record, tags, ratios, penalties = recorded("rlhf"), set(), {}, {}
    lines: list[str] = []
    for number, stop, ran in shown(record):
        tags.add((number, stop["tag"]))
        lines = stop.get("picture", lines)
        for code, _, writes in ran:
            for name, value in writes.items():
                if name in ("y", "y_w", "y_l"):  # the text is that of the numbers
                    written = " ".join(words[i] for i in value["first"][0])
                    text = next(line for line in lines if line.startswith(f"{name}[0]: "))
                    assert f"{written} .".startswith(text.removeprefix(f"{name}[0]: "))
            if code.startswith("ratio ="):
                ratios.setdefault(number, []).append(numbers(writes.values()))
            if code.startswith("rewards = -beta"):
                penalties[number] = numbers(writes.values())
    assert {tag for _, tag in tags} - {""} == set(listing.texts), "these lines are in no scene"
    assert {(0, "c"), (1, "g"), (2, "o"), (3, "o")} <= tags
    for of_iteration in ratios.values():  # the policy is the old one at an iteration's beginning
        assert all(math.isclose(x, 1, abs_tol=1e-3) for x in of_iteration[0])
        assert not all(math.isclose(x, 1, abs_tol=1e-3) for x in of_iteration[-1])
    assert not any(penalties[2]) and any(penalties[3])  # and pi_SFT at the first one's


# ------------------------------------------------------------------------------------ in a browser


def chip(reads: dict, name: str, value) -> str:
    """How a value stands on the page."""
    before = reads.get(name)
    was = f" (was {trace.text(before)})" if isinstance(before, (int, float)) else ""
    return f"{name}{' ' if str(value).startswith('moved') else ' = '}{trace.text(value)}{was}"


def expected(record: dict) -> list:
    """For each position: the lit line of the slide, the values, the changed ones."""
    out = []
    for _, stop, ran in shown(record):
        values, changed, last = [], [], {}
        for i, (place, *_) in enumerate(stop["ran"]):
            last[place] = i
        for place in sorted(last, key=lambda p: record["statements"][p][0]):
            _, reads, writes = ran[last[place]]
            values += [
                f"{name} = {trace.text(value)}"
                for name, value in reads.items()
                if name not in writes and not trace.is_matrix(value)
            ]
            changed += [chip(reads, name, value) for name, value in writes.items()]
        out.append([stop["tag"], sorted(values), sorted(changed)])
    return out


LOOK = """
const look = () => [document.querySelector(".pseudocode .now")?.id ?? "",
  [...document.querySelectorAll(".values:not(.earlier) .value:not(.changed)")].map(e => e.textContent).sort(),
  [...document.querySelectorAll(".values:not(.earlier) .changed")].map(e => e.textContent).sort()];
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const forth = [], back = [];
go(arguments[0]);
for (let i = 0; i < arguments[1]; i++) { press("ArrowRight"); forth.push(look()); }
for (let i = 0; i < arguments[1]; i++) { back.unshift(look()); press("ArrowLeft"); }
return [forth, back];
"""  # noqa: E501


@pytest.mark.parametrize("name", scenes.RUNS)
def test_page_shows_the_record_forwards_and_back(browser, name):
    browser.get("about:blank")
    browser.get((ROOT / f"docs/html/{name}.html").as_uri())
    record = recorded(name)
    first = len(record["scenes"][0]["stops"])  # the scene of the first update, 30 lines of it
    wanted = expected(record)[first + 1 : first + 31]
    forth, back = browser.execute_script(LOOK, first, len(wanted))
    for i, (there, again, should) in enumerate(zip(forth, back, wanted, strict=True)):
        assert there == should, f"position {i + 1}"
        assert again == should, f"position {i + 1}, on the way back"


def test_buttons_keys_and_links(browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def at() -> int:
        return browser.execute_script("return position + 1")

    record, url = recorded("dqn"), (ROOT / "docs/html/dqn.html").as_uri()
    stops = [stop for scene in record["scenes"] for stop in scene["stops"]]
    browser.get("about:blank")
    browser.get(url)
    keys = lambda *which: ActionChains(browser).send_keys(*which).perform()
    keys(*[Keys.ARROW_RIGHT] * 20)
    assert at() == 20 and browser.current_url.endswith(f"#{stops[19]['tag']}@20")
    keys("u")
    assert stops[at() - 1]["tag"] == record["update"]
    before = at()
    keys("s")
    assert stops[at() - 1]["step"] > stops[before - 1]["step"]
    said = browser.find_element(By.CSS_SELECTOR, ".run [role=status]").get_property("textContent")
    assert said.startswith(f"[{stops[at() - 1]['tag']}]")
    for button in browser.find_elements(By.CSS_SELECTOR, ".run .scenes button"):
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
    keys("p", "p")  # plays, and pauses again
    assert not browser.execute_script("return timer")
    place = next(i for i, stop in enumerate(stops) if stop["tag"] == "12") + 1
    browser.get("about:blank")
    browser.get(f"{url}#12@{place}")
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert at() == place
    follow = browser.find_element(By.CSS_SELECTOR, ".run select")
    follow.send_keys("sample 2")
    texts = [
        e.text for e in browser.find_elements(By.CSS_SELECTOR, ".values:not(.earlier) .changed")
    ]
    y = entries(next(w["y"] for _, s, ran in shown(record) for _, _, w in ran if "y" in w))
    assert f"y[2] = {trace.text(y[2])}" in texts
    keys(Keys.ESCAPE)
    assert not browser.find_elements(By.CSS_SELECTOR, ".now, .values")


# ------------------------------------------------------------------------------------ the terminal


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = trace.main(list(argv))
    return status, *capsys.readouterr()


def vectors(out: str, name: str) -> list[float]:
    """The first vector of this name that was printed."""
    inner = re.search(rf"{name} = \[(.*?)\]", out)[1]
    runs = [entry.partition(" ×") for entry in inner.split(", ")]
    return [float(number) for number, _, n in runs for _ in range(int(n or 1))]


def test_the_terminal_shows_a_planted_bug(capsys, tmp_path):
    source = (ROOT / "dqn.py").read_text(encoding="utf-8")
    assert source.count("(1 - terminated_j)") == 1
    (tmp_path / "mine.py").write_text(source.replace("(1 - terminated_j) * ", ""), encoding="utf-8")
    flags = ("--env", "Maze-v0", "--steps", "60", "--batch", "16", "--epsilon", "1")
    flags += ("--show", "40:44")
    wrong = []
    for script in (ROOT / "dqn.py", tmp_path / "mine.py"):
        status, out, _ = run(capsys, str(script), *flags)
        assert status == 0 and "[12] Set y_j" in out
        terminal, r, y = (vectors(out, n) for n in ("terminated_j", "reward_j", r"\* y"))
        assert any(terminal)
        wrong.append([y_j != r_j for y_j, r_j, end in zip(y, r, terminal, strict=True) if end])
    assert not any(wrong[0]) and all(wrong[1])
    assert not list(tmp_path.glob("runs")), "something was saved"


def test_the_terminal_follows_a_worker(capsys):
    status, out, _ = run(capsys, str(ROOT / "a3c.py"), "--show", "1:21")
    assert status == 0 and "[15] R <- r_i + gamma R" in out and "theta moved by" in out


def test_the_terminal_follows_one_function_into_another(capsys):
    few = ("--demonstrations", "4", "--comparisons", "4", "--show", "0:6")  # 3 updates, and 3 more
    status, out, _ = run(capsys, str(ROOT / "rlhf.py"), *few)
    assert status == 0
    order = re.findall(r"^\[(\w)\]", out, re.MULTILINE)
    assert "".join(order) == "1abcbcbcb12defgfgfgf23hijkl" + "m" * 11 + "n"
    assert "* sft = 71,388 weights" in out and "(after update 6)" in out


@pytest.mark.parametrize(
    "argv, says",
    [
        (["no_such.py"], "no_such.py"),
        ([str(ROOT / "README.md")], "not Python"),
        ([str(ROOT / "common/envs.py")], "no function"),
        ([str(ROOT / "dqn.py"), "--show", "20"], "--show 20"),
        ([str(ROOT / "dqn.py"), "--show", "9:3"], "--show 9:3"),
        ([str(ROOT / "dqn.py"), "--show"], "--show"),
        ([str(ROOT / "a3c.py"), "--workers", "2"], "--workers 1"),
        ([str(ROOT / "qlearning_table.py"), "--steps", "9", "--show", "50:60"], "ended at step 9"),
        ([str(ROOT / "dqn.py"), "--env", "Pendulum-v1"], "ddpg.py"),
    ],
)
def test_bad_input_is_one_line(capsys, argv, says):
    status, _, err = run(capsys, *argv)
    assert status == 2 and says in err and err.count("\n") == 1
