"""Record the runs that the pages step through: docs/html/<script>.run.js, one for each script.

A run is recorded by docs/trace.py on the script's own environment. Of its thousands of numbered
lines four scenes are kept: the first steps, the first update, an episode's end, after learning. A
loop that goes round and round is kept at its beginning and its end. rlhf.py has no environment and
three trainings; its scenes are the beginning of each, and a later iteration of PPO.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import json
import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for common

import trace  # noqa: E402  (docs/trace.py)

from common import envs  # noqa: E402

# script -> environment, settings beside the defaults, the numbered line (or lines) that changes
# what is learned, and the step (in rlhf.py the iteration) from which it has learned enough
RUNS = {
    "qlearning_table": ("Treasure-v0", {}, "8", 10_000),
    "dqn": ("Maze-v0", {"gamma": 0.9}, "13", 12_000),
    "reinforce": ("CartPole-v1", {}, "4", 40_000),
    "actor_critic": ("CartPole-v1", {}, "2", 50_000),
    "ddpg": ("Pendulum-v1", {}, "14", 4_000),
    "a3c": ("CartPole-v1", {"workers": 1}, "18", 40_000),
    "ppo": ("CartPole-v1", {}, "1", 60_000),
    "rlhf": ("", {"demonstrations": 1_280, "comparisons": 640}, "c g o", 3),  # of few, to be quick
}
TITLES = dict.fromkeys(
    RUNS, ("The first steps", "The first update", "An episode's end", "After learning")
) | {"rlhf": ("Demonstrations", "Comparisons", "PPO, first iteration", "PPO, third iteration")}


def fingerprint(listing: trace.Listing) -> str:
    """Changes with the script's code and its tags, not with its other comments and docstrings."""
    tree = ast.parse(listing.source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(
            node
        ):
            node.body[0].value.value = ""
    tags = [(s.line - listing.first, s.tag) for s in statements(listing)]
    return hashlib.sha256(f"{ast.dump(tree)} {tags}".encode()).hexdigest()[:16]


def statements(listing: trace.Listing) -> list[trace.Statement]:
    """The statements of the traced function, from top to bottom."""
    return sorted({s.line: s for s in listing.statements.values()}.values(), key=lambda s: s.line)


# ----------------------------------------------------------------------------- what is on a page


def world(env: gym.Env) -> dict:
    """What does not move in an environment's picture."""
    env = env.unwrapped
    if isinstance(env, envs.FiniteMDP):
        cells = "".join(env.look(s)[0] for s in env.P)
        return {"kind": "grid", "shape": env.shape, "cells": cells, "actions": env.action_names}
    return {"kind": type(env).__name__}


def picture(env: gym.Env) -> list[float]:
    """What moves in it."""
    env = env.unwrapped
    if isinstance(env, envs.FiniteMDP):
        return [int(env.s)]
    if hasattr(env, "last_u"):  # the pendulum: its angle from the top, and the torque
        return [round(float(env.state[0]), 3), round(float(env.last_u or 0), 3)]
    return [round(float(env.state[i]), 3) for i in (0, 2)]  # the cart's place, the pole's angle


# -------------------------------------------------------------------------------------- recording


def is_update(name: str, moment: dict) -> bool:
    """Whether this line changes what is learned; a table of zeros has not learned anything yet."""
    return moment["stop"].tag in RUNS[name][2].split() and any(moment.get("Q", [1]))


def moments(
    name: str, late: bool = True, brief: bool = False
) -> tuple[trace.Listing, dict, list[dict]]:
    """All numbered lines of a run's beginning and, if `late`, of an episode after learning.

    `brief`: only those of the first steps.

    Returns:
        The listing, the picture's fixed part, and a dict for each stop: the `stop`, `late`, the
        `picture`, the index `t` of a loop, and for a table `Q` and the `cell` that was changed.
    """
    env_id, settings, _, learned = RUNS[name]
    listing = trace.Listing(ROOT / f"{name}.py")
    found, fixed = [], {}
    # What the recording waits for; each of them, and then one more environment step.
    ahead = [*("update", "end", "update", "step", "step"), *("end", "update", "step") * late]

    ahead = ["step"] * 3 if brief else ahead

    def tell(stop: trace.Stop, frame) -> None:
        here, env, early = frame.f_locals, tracer.env, len(ahead) > 3 or not late
        if not early and stop.step < learned:
            return  # the rest of the last early step
        t = len(here.get("transitions", ())) - 1  # the place in a batch that is being filled
        now = {"stop": stop, "late": not early, "t": here.get("t") if t < 0 else t, "picture": []}
        if env is not None and env.unwrapped.np_random is not None and stop.step + stop.total:
            fixed.update(fixed or world(env))
        if env is not None:
            now["picture"] = picture(env)
        if isinstance(here.get("Q"), np.ndarray):
            now["Q"] = [trace.number(q) for q in here["Q"].ravel().tolist()]
            if any(term == "Q[S, A]" for ran in stop.ran for term in ran.writes):
                now["cell"] = [int(here["S"]), int(here["A"])]
        moved = bool(found) and stop.step > found[-1]["stop"].step
        found.append(now)
        if {"update": is_update(name, now), "end": stop.ended, "step": moved}[ahead[0]]:
            del ahead[0]
        if not ahead:
            raise trace.Enough

    train, make = trace.load(listing).train, partial(envs.make, env_id)
    warmup = inspect.signature(train).parameters.get("warmup")  # steps without learning

    def wanted(step: int) -> bool:
        if len(ahead) > 3 or not late:
            return not warmup or not 8 < step < warmup.default - 2
        return step >= learned

    tracer = trace.Tracer(listing, tell, wanted)
    with contextlib.suppress(trace.Enough), tracer:
        train(make if name in ("a3c", "ppo") else make(), seed=0, **settings)
    return listing, fixed, found


def sentences(name: str, brief: bool) -> tuple[trace.Listing, dict, list[dict]]:
    """As moments(), of rlhf.py: each stop knows its `scene`, and the picture is a text."""
    _, settings, updates, last = RUNS[name]
    listing = trace.Listing(ROOT / f"{name}.py")
    script, found, begun, over, iterations = trace.load(listing), [], [], set(), []

    def picture(here: dict) -> list[str]:
        """The first prompt of the batch, and what has been written."""
        texts = {key: script.sentence(here[key][0]) for key in ("y", "y_w", "y_l") if key in here}
        lines = [f"{key}[0]: {text}" for key, text in texts.items()]
        return [f"x[0]: about the {script.WORDS[here['x'][0]]}", *lines] if lines else []

    def tell(stop: trace.Stop, frame) -> None:
        training = frame.f_code.co_name
        if training in over:
            return
        if training != "train" and training not in begun:
            begun.append(training)
        iterations.extend(["h"] * (stop.tag == "h"))
        scene = len(begun) - (training != "train") + (len(iterations) == last)
        if scene and brief or len(iterations) > last:
            raise trace.Enough
        if len(iterations) not in (0, 1, last):
            return
        drawn = [] if stop.tag in ("h", "i") else picture(frame.f_locals)  # y is of other prompts
        found.append({"stop": stop, "scene": scene, "t": None, "picture": drawn})
        learned = [m["scene"] for m in found if m["stop"].tag in updates.split()]
        if training in ("fine_tune", "reward_model") and learned.count(scene) == 2:
            over.add(training)
            if brief:
                raise trace.Enough

    tracer = trace.Tracer(listing, tell, lambda step: tracer.frame.f_code.co_name not in over)
    with contextlib.suppress(trace.Enough), tracer:
        script.train(seed=0, **settings)
    return listing, {"kind": "text"}, found


def scenes(name: str, found: list[dict], brief: bool) -> list[list[dict]]:
    """The stops of each scene."""
    if name == "rlhf":
        numbers = range(found[-1]["scene"] + 1)
        return [compressed([m for m in found if m["scene"] == number]) for number in numbers]
    step = lambda i: found[i]["stop"].step

    def back(i: int, steps: int) -> int:
        """From i back over some environment steps."""
        while i > 0 and steps and found[i - 1]["late"] == found[i]["late"]:
            i, steps = i - 1, steps - (step(i) > step(i - 1))
        return i

    def forth(i: int, steps: int) -> int:
        """From i on over some environment steps."""
        while i + 1 < len(found) and steps and found[i]["late"] == found[i + 1]["late"]:
            i, steps = i + 1, steps - (step(i + 1) > step(i))
        return i + (not steps)

    def update(start: int) -> int:
        """The next update."""
        return next(i for i in range(start, len(found)) if is_update(name, found[i]))

    def end(start: int) -> int:
        """The next end of an episode."""
        return next(i for i in range(start, len(found)) if found[i]["stop"].ended)

    def around(ends: int, before: int) -> list[range]:
        """The steps around an episode's end, and those around the next update."""
        learns = update(ends)
        first = range(back(ends, before), forth(ends, 2))
        second = range(max(first.stop, back(learns, 2)), forth(learns, 1))
        return [first, second]

    if brief:
        return [compressed(found[: forth(0, 2)])]
    learns = update(0)
    parts = [[range(forth(0, 2))], [range(back(learns, 1), forth(learns, 1))]]
    parts += [around(end(learns + 1), 3)]
    late = [i for i, moment in enumerate(found) if moment["late"]]
    parts += [around(end(late[0]), 7)] if late else []
    told = []
    for part in parts:
        told.append([])
        for before, stretch in zip([None, *part], part, strict=False):
            stops = compressed([found[i] for i in stretch])
            if stops and before and stretch.start > before.stop:
                stops[0] = stops[0] | {"gap": stretch.start - before.stop}
            told[-1] += stops
    return told


def compressed(stops: list[dict]) -> list[dict]:
    """Without the middle of long loops: the stop after a gap says in `gap` how many are missing."""
    over = next((m for m in stops if m["stop"].ended), {"t": None})  # the end it is about
    near = lambda m: None not in (over["t"], m["t"]) and abs(m["t"] - over["t"]) < 2
    kept = [
        m | {"like": (m["stop"].tag, m["stop"].ran[0].statement.line, m is over, near(m))}
        for m in stops
    ]
    return without_rounds(without_rounds(kept, range(1, 9), 3, 2), range(9, 41), 1, 1)


def without_rounds(stops: list[dict], periods: range, head: int, tail: int) -> list[dict]:
    """Of a loop of so many stops a round, the first `head` rounds and the last `tail`."""
    pattern = [(m["like"], "gap" in m) for m in stops]
    kept, i = [], 0
    while i < len(stops):
        for period in periods:
            rounds = 1
            while pattern[i : i + period] == pattern[(j := i + rounds * period) : j + period]:
                rounds += 1
            if rounds > head + tail + 1:
                first, last = i + head * period, i + (rounds - tail) * period
                missing = sum(1 + m.get("gap", 0) for m in stops[first:last])
                kept += stops[i:first]
                kept.append(stops[last] | {"gap": missing + stops[last].get("gap", 0)})
                i = last + 1
                break
        else:
            kept.append(stops[i])
            i += 1
    return kept


def record(name: str, late: bool = True, brief: bool = False) -> dict:
    """A script's scenes as the page gets them. `late`: with the last one, which needs training.
    `brief`: with the first one only.

    `statements`: line after the first, rows, text, terms. A stop: `tag`, `step`, `total`, `ended`,
    `gap`, `picture`, `Q`, `cell` (each only if there is one, or it is another one than before) and
    `ran`: statement, reads, writes. A value that was read is there if it is another one than when
    this statement read it last in this scene.
    """
    listing, fixed, found = sentences(name, brief) if name == "rlhf" else moments(name, late, brief)
    places = {s.line: i for i, s in enumerate(statements(listing))}
    rows = [s.line for s in listing.statements.values()]
    terms = [[] for _ in places]
    told = []
    for stops in scenes(name, found, brief):
        out, before, known = [], {}, {}
        for moment in stops:
            stop = moment["stop"]
            entry = {"tag": stop.tag, "step": stop.step, "total": stop.total}
            entry |= {"ended": stop.ended} if stop.ended else {}
            entry |= {key: moment[key] for key in ("gap", "cell") if key in moment}
            for key in ("picture", "Q"):
                if key in moment and moment[key] != before.get(key):
                    entry[key] = before[key] = moment[key]
            entry["ran"] = []
            for ran in stop.ran:
                place = places[ran.statement.line]
                index = lambda term, own=terms[place]: (
                    own.index(term) if term in own else own.append(term) or len(own) - 1
                )
                reads = {index(term): value for term, value in ran.reads.items()}
                last = known.setdefault(place, {})
                change = {k: v for k, v in reads.items() if k not in last or last[k] != v}
                change |= {k: None for k in last if k not in reads and last[k] is not None}
                last.update(change)
                writes = {index(term): value for term, value in ran.writes.items()}
                entry["ran"].append([place, change, writes])
            out.append(entry)
        told.append(out)
    env_id, settings, update, _ = RUNS[name]
    told = [
        {"title": title, "stops": stops} for title, stops in zip(TITLES[name], told, strict=False)
    ]
    lines = [
        [s.line - listing.first, rows.count(s.line), s.text, own]
        for s, own in zip(statements(listing), terms, strict=True)
    ]
    return {
        "script": name,
        "env": env_id,
        "settings": settings,
        "code": fingerprint(listing),
        "update": update,
        "world": fixed,
        "statements": lines,
        "scenes": told,
    }


def written(record: dict) -> str:
    """A record as the file that the page loads; a line for each stop.

    Raises:
        ValueError: a value is not finite.
    """
    compact = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
    head = {key: value for key, value in record.items() if key != "scenes"}
    told = [
        f'{{"title":{compact(scene["title"])},"stops":[\n'
        + ",\n".join(map(compact, scene["stops"]))
        + "]}"
        for scene in record["scenes"]
    ]
    return f'const RUN = {compact(head)[:-1]},"scenes":[{",".join(told)}]}};\n'


def read(path: Path) -> dict | None:
    """The record in a file; None if there is none."""
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8").removeprefix("const RUN = ")[:-2])


def is_fresh(name: str, record: dict | None) -> bool:
    """Whether a record is one of the script as it stands."""
    env_id, settings, update, _ = RUNS[name]
    now = env_id, settings, update, fingerprint(trace.Listing(ROOT / f"{name}.py"))
    return bool(record) and now == tuple(record[k] for k in ("env", "settings", "update", "code"))
