"""Homework from any numbered line: leave it out, and check by value what is handed in.

    python -m tools.homework make dqn.py --lines 6,12,13 --out hw2
    python -m tools.homework check my_dqn.py
    python -m tools.homework rate

docs/homework.md explains it. A line of the student's file takes the place of that line in the
reference script. Both scripts train in the same small random worlds, and log their variables before
each numbered line. The first difference between the logs is the verdict.
"""

import ast
import contextlib
import csv
import faulthandler
import functools
import json
import os
import random
import re
import tempfile
import textwrap
import tomllib
import traceback
from collections import ChainMap, Counter
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from common import runs
from common.language import Language
from tools import slide

# Small sizes, so that a line is reached often; all differ, so that a wrong axis shows.
SMALL = dict(steps=40, episodes=12, gamma=0.9, alpha=0.02, beta=0.1, epsilon=0.25, memory=16)
SMALL |= dict(batch=6, warmup=6, train_every=2, hidden=8, sigma=0.3, tau=0.1, n_envs=3, horizon=5)
SMALL |= dict(epochs=2, workers=1, t_max=4, demonstrations=16, comparisons=16, n_outputs=9)
VARIANTS = dict(n_steps=3), dict(clip=0.02)  # the second with LITERAL: each branch is carried out
SIZES = {6: "batch", 3: "n_envs", 5: "horizon", 9: "n_outputs", 8: "hidden", 7: "n_features"}
DRAWS = 150  # random draws, of which distributions are compared
MISTAKES, ANSWERS = slide.ROOT / "tools/mistakes.toml", slide.ROOT / "tests/right_answers.toml"


class World(gym.Env):
    """Random states and rewards. Episodes of 2 to 5 steps end in a terminal state, at a time limit,
    or in both at once."""

    def __init__(self, states: gym.Space, actions: gym.Space):
        self.observation_space, self.action_space = states, actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.end = self.np_random.integers(2, 6), self.np_random.integers(3)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample(), {}

    def step(self, action):
        self.left -= 1
        over, state = bool(self.left == 0), self.observation_space.sample()
        reward = float(np.cos(3 * action).sum() + self.np_random.normal())
        return state, reward, over and self.end != 0, over and self.end != 1, {}


VECTOR, FOUR = gym.spaces.Box(-np.inf, np.inf, (7,)), gym.spaces.Discrete(4)
SPACES = (VECTOR, FOUR), (VECTOR, gym.spaces.Box(-1, 1, (2,))), (gym.spaces.Discrete(5), FOUR)
WORLDS = *[functools.partial(World, *spaces) for spaces in SPACES], Language

# ---------------------------------------------------------------------------- the parts of a script


def parts(source: str) -> dict[str, range]:
    """The rows of a script's lines and pieces: a tag, or the name of a function or class -> rows.

    Functions with tags in them are no pieces.
    """
    tags = slide.Script(source).tags
    rows, tagged = {tag.tag: tag.body for tag in tags}, {tag.function for tag in tags} | {"main"}
    for node in ast.parse(source).body:
        if hasattr(node, "decorator_list") and node.name not in tagged:  # a definition
            first = min(n.lineno for n in [node, *node.decorator_list])
            rows[node.name] = range(first, node.end_lineno + 1)
    return rows


def text(source: str, rows: range) -> str:
    """These rows, without their indentation."""
    return textwrap.dedent("\n".join(source.splitlines()[rows.start - 1 : rows.stop - 1]))


def code(source: str, rows: range = range(1, 9**9)) -> str:
    """These rows, without comments, docstrings and empty lines."""
    bare = re.sub(r'(?ms)""".*?"""|(^|  ) *#[^\n]*', "", text(source, rows))
    return re.sub(r"\s*\n\s*\n", "\n", bare).strip()


@functools.cache
def words(source: str) -> set[str]:
    """The names in its code; those of attributes with a dot."""
    return set(re.findall(r"\.?[a-zA-Z_]\w*", code(source)))


def splice(source: str, texts: list[tuple[range, str]]) -> str:
    """The script with other code in place of some rows."""
    lines = source.splitlines()
    for rows, new in sorted(texts, key=lambda pair: -pair[0].start):
        space = re.match(" *", lines[rows.start - 1])[0]
        lines[rows.start - 1 : rows.stop - 1] = textwrap.indent(new, space).splitlines()
    return "\n".join(lines) + "\n"


class Reference:
    """A script that is right.

    Attributes:
        tags: its numbered lines.
        parts: the rows of its lines and pieces.
        own: as parts, but lines end at the first empty row: what stands below is not homework.
        program: with probes.
        mistakes: the known ones: (line or piece, sentence, the script with it).
    """

    def __init__(self, path: Path):
        script = slide.read(path)
        self.source, self.tags = script.source, {tag.tag: tag for tag in script.tags}
        self.parts = parts(self.source)
        size = lambda at: text(self.source, self.parts[at]).split("\n\n")[0].count("\n") + 1
        self.own = self.parts | {at: self.parts[at][: size(at)] for at in self.tags}
        known = tomllib.loads(MISTAKES.read_text("utf-8")).get(likely(self.source), [])
        pairs = [(m, self.source.replace(m["old"], m["new"])) for m in known]
        self.program = program(self.source)
        self.mistakes = [(m["at"], m["sentence"], s) for m, s in pairs if s != self.source]

    def put(self, at: str, new: str) -> str:
        """The script with other code for a line or a piece."""
        return splice(self.source, [(self.own[at], new)])

    def settings(self, seed: int) -> list[tuple]:
        """The trainings that the script takes: (seed, world, variant)."""
        every = [(2 * seed + v, world, v) for world in WORLDS for v in (0, 1)]
        ends = {setting: run_once(self.program, setting)[-1][0] for setting in every}
        if not (fit := [s for s in every if re.match("the end|FloatingPoint", ends[s])]):
            raise runs.BadInput(f"the script runs in no small world: {ends[every[0]]}")
        return fit


opened = functools.cache(Reference)

# --------------------------------------------------------------------------- running and comparing


@functools.cache
def program(source: str, student: str = "") -> tuple:
    """A script that calls __probe__ in place of its tags (but not before an `else`).

    Returns:
        Compiled: first the definitions of a student's file, which the script may replace.
    """
    lines = source.splitlines()
    for tag in slide.Script(source).tags:
        if space := re.match(" *+(?!else|elif)", lines[tag.body.start - 1]):
            lines[tag.row - 1] = f"{space[0]}__probe__({tag.tag!r}, locals())"
    # Not a definition, but a call such as `q_network, returns = train(env)`.
    calls = lambda n: not hasattr(n, "decorator_list") and "train(" in ast.unparse(n)
    nodes = [ast.Module([n], []) for n in ast.parse(student).body if not calls(n)]
    whole = [(node, student) for node in nodes] + [("\n".join(lines), "\n".join(lines))]
    # The source is the name of the file, too: there an error finds its statement.
    return tuple(compile(node, f"script\n{text}", "exec") for node, text in whole)


def run(codes: tuple, setting: tuple, most: int = 9**9, salt=0, free=frozenset()) -> list:
    """Train in a small world.

    All random generators get a new seed before each numbered line, so that drawing more or fewer
    numbers changes nothing after the next line.

    Args:
        codes: a program.
        setting: (seed, world, variant).
        most: entries of the log; then the training ends.
        salt: changes the seeds of the last four of them.
        free: names that are not logged.

    Returns:
        The log: ("[12]", variables) before each numbered line; at last what ended the training.
    """
    log, (seed, make, variant) = [], setting

    def probe(tag: str, values: dict) -> None:
        known = [*values.values(), *names.values()]
        spaces = [getattr(x, "action_space", None) for x in known]
        known += [space.np_random for space in spaces if isinstance(space, gym.Space)]
        generators = [x for x in known if isinstance(x, np.random.Generator)]
        drawn = [random.gauss(), torch.randn(1).item(), np.random.randn()]
        drawn += [g.integers(2**32, dtype=np.uint32) for g in generators]
        values = values | {"drawn": str(drawn)}  # differs if other numbers were drawn
        pairs = [pair for variable in values.items() for pair in leaves(*variable)]
        log.append((f"[{tag}]", {name: x for name, x in pairs if not words(name) & free}))
        if len(log) == most:
            raise SystemExit
        random.seed(f"{seed} {tag} {len(log)} {salt * (len(log) > most - 5)}")
        number = random.getrandbits(32)
        torch.default_generator.manual_seed(number)
        np.random.seed(number)
        for generator in generators:
            generator.bit_generator.state = type(generator.bit_generator)(number).state

    names = {"__name__": "homework", "__probe__": probe}
    for code in codes[:-1]:
        with contextlib.suppress(Exception, SystemExit):
            exec(code, names)
    try:
        exec(codes[-1], names)
        options = (names.get("LITERAL", {}) if variant else {}) | SMALL | VARIANTS[variant]
        options |= dict(steps=300, alpha=5e-4) if make is Language else {}  # steps: words
        for f in names.values():
            if getattr(f, "__kwdefaults__", None):
                f.__kwdefaults__ = {k: options.get(k, v) for k, v in f.__kwdefaults__.items()}
        given = make if "make" in names["train"].__code__.co_varnames[0] else make()
        returned = names["train"](given, seed=seed)
        log.append(("the end", dict(leaves("what is returned", returned))))
    except (Exception, SystemExit) as error:
        frames = [(f.f_code.co_filename, n) for f, n in traceback.walk_tb(error.__traceback__)]
        where = [f.splitlines()[n].strip() for f, n in frames if f.startswith("script\n")][-1:]
        says = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
        log.append((says, {"where": f" in: {' '.join(where)}"}))
    return log[:most]


run_once = functools.cache(run)
SKIPPED = gym.Env, gym.vector.VectorEnv, gym.Space, torch.distributions.Distribution, type(np)


def leaves(name: str, x, depth: int = 0):
    """Yield a variable's parts: the name ("y", "D.transitions[2]"), a number or a copied array."""
    flat = lambda tensors: np.concatenate([[], *[tensor.detach() for tensor in tensors]], None)
    if np.isscalar(x) or x is None:
        yield name, x
    elif torch.is_tensor(x):
        yield name, x.detach().cpu().numpy().copy()
        yield f"{name}.requires_grad", f"{x.requires_grad}"
    elif isinstance(x, np.ndarray) and x.dtype != object:
        yield name, x.copy()
    elif isinstance(x, torch.nn.Module):
        yield f"{name}.weights", flat([*x.parameters(), *x.buffers()])
    elif isinstance(x, torch.optim.Optimizer):
        yield f"{name}.exp_avg", flat([s["exp_avg"] for s in x.state.values() if "exp_avg" in s])
    elif isinstance(x, SKIPPED) or callable(x) or depth > 5:
        return
    elif hasattr(x, "__len__"):
        items = list(x.values() if isinstance(x, dict) else x)
        try:
            yield name, np.array(items, float)
        except (ValueError, TypeError, RuntimeError):  # not all alike: one by one
            if {*map(type, items)} == {tuple}:  # a memory's transitions
                items = list(zip(*items, strict=False))
            for i, v in enumerate(items):
                yield from leaves(f"{name}[{i}]", v, depth + 1)
    else:
        for k, v in getattr(x, "__dict__", {}).items():
            yield from leaves(f"{name}.{k}", v, depth + 1)


def unlike(x, y) -> str:
    """In what a value y differs from the right one x, " is 3, should be 4"; "" if they agree."""
    if np.array_equal(x, y):
        return ""
    if isinstance(x, str | None) or isinstance(y, str | None):
        return f" is {y}, should be {x}"
    if np.shape(x) != np.shape(y):
        return f" has the shape {np.shape(y)}, should have {np.shape(x)}"
    x, y = np.asarray(x, float), np.asarray(y, float)
    most = np.abs(x[np.isfinite(x)]).max(initial=0)
    far = ~np.isclose(y, x, 0, 2e-3 * most + 1e-6, equal_nan=True)
    if far.mean() <= (0.01 if x.size > 1000 else 0):  # Adam makes steps of rounding errors
        return ""
    at = tuple(np.argwhere(far)[0].tolist())
    return f"{list(at) or ''} is {y[at]:.4g}, should be {x[at]:.4g}"


def compare(right: list, log: list) -> tuple[int, str]:
    """Find the first difference from the right log.

    Returns:
        In which entry, and what differs; (-1, "") if nothing does.
    """
    for i, ((event, values), (came, others)) in enumerate(zip(right, log, strict=False)):
        if event != came:
            return i, f"after it comes {came}{others.get('where', '')}, should come {event}"
        for name in [n for n in values if n in others and n not in ("drawn", "where")]:
            if says := unlike(values[name], others[name]):
                return i, name + says
    return -1, ""


def alike(right: tuple, other: tuple, setting: tuple, i: int, free: set[str]) -> bool:
    """Whether code that draws other random numbers has the same distributions after entry i."""

    def draws(codes: tuple, many: int) -> np.ndarray:
        logs = [run(codes, setting, i + 5, salt, free)[i + 1 :] for salt in range(1, many + 1)]
        pairs = [[pair for _, values in log for pair in sorted(values.items())] for log in logs]
        rows = [[x for _, x in row if not isinstance(x, str | None)] for row in pairs]
        return np.sort(np.array([np.concatenate(row, None) for row in rows], float), 0).T

    def odd(a: np.ndarray, b: np.ndarray) -> bool:
        values, times = np.unique(a.round(5), return_counts=True)
        common = values[times > (7 if len(a) == 8 else len(a) / 20)][:, None]
        found = np.isclose(common, b, rtol=1e-3, atol=1e-5).any(1).all()
        apart = np.searchsorted(a, a, "right") - np.searchsorted(b, a, "right")
        return not found or np.abs(apart).max() > 2.2 * np.sqrt(2 * len(a))  # Kolmogorov, Smirnov

    # At first a few draws, which show most differences; all of them only if those are alike.
    tests = (zip(draws(right, n), draws(other, n), strict=True) for n in (8, DRAWS))
    with contextlib.suppress(ValueError):  # other shapes
        return not any(unlike(a, b) and (odd(a, b) or odd(b, a)) for test in tests for a, b in test)
    return False


# ------------------------------------------------------------------------------------- the judging


def changed(reference: Reference, source: str) -> set[str]:
    """The pieces that a student's file has otherwise."""
    theirs, ours = parts(source), reference.parts
    both = theirs.keys() & ours.keys() - reference.tags.keys()
    return {at for at in both if code(source, theirs[at]) != code(reference.source, ours[at])}


def judge(reference: Reference, source: str, at: str, seed: int = 0) -> str:
    """ "" if a line or a piece of a student's file is right (or `whole`), or else what is wrong."""
    theirs, ours = parts(source), reference.parts
    if at == "whole":
        return verdict(reference, program(source), at, set(), seed)
    if at not in theirs:
        return f"[{at}] is missing"
    own, right = code(source, theirs[at]), code(reference.source, ours[at])
    if own == right:
        return ""
    if "raise NotImplementedError" in own or " ...:" in own or not own:
        return "not done yet"
    free = words(right) - words(reference.put(at, "")) | words(own) - words(right)
    used = changed(reference, source) & words(own) - {at}
    for names in sorted({(at, *used), (at,)}, key=len, reverse=True):  # also with their own pieces
        new = splice(reference.source, [(ours[name], text(source, theirs[name])) for name in names])
        if not (says := verdict(reference, program(new, source), at, free, seed)):
            break
    return says


def verdict(reference, mine: tuple, at: str, free: set[str], seed: int) -> str:
    """ "" if a program with code of a student does the same, or else what differs."""
    for setting in reference.settings(seed):
        right = run_once(reference.program, setting)
        log = run(mine, setting, 2 * len(right), free=free)
        i, says = compare(right, log)
        # Other random numbers? In the language it takes too long to compare distributions.
        other = setting[1] is not Language and right[i][1].get("drawn") != log[i][1].get("drawn")
        if not says or other and i and alike(reference.program, mine, setting, i - 1, free):
            continue
        before = next((values for event, values in reversed(right[:i]) if event == f"[{at}]"), {})
        if match := re.match(r"(\w+)\[(\d+)\] is ", says):  # what the line reads at that place
            shape, k = right[i][1][match[1]].shape, int(match[2])
            read = words(text(reference.source, reference.parts.get(at, range(1)))) - {match[1]}
            same = [n for n in sorted(read & before.keys()) if np.shape(before[n]) == shape]
            near = ", ".join(f"{n}[{k}] = {float(before[n][k]):.4g}" for n in same)
            says += f" ({near})" * bool(near)
        step = before.get("step", before.get("t", f"after {right[i - 1][0]}"))
        says = f"differs {'at step ' * isinstance(step, int)}{step}: {says}"
        for sentence, wrong in [m[1:] for m in reference.mistakes if m[0] == at]:
            if not compare(log, run(program(wrong), setting, min(len(log), i + 80)))[1]:
                return f"{says}\nas if: {sentence}"
        return says
    return ""


def likely(source: str) -> str:
    """The script whose tags a file has; "" if it has none."""
    tags = lambda text: {*re.findall(r"# \[\w+\] .{9}", text)}
    shared = lambda name: len(tags(source) & tags((slide.ROOT / f"{name}.py").read_text("utf-8")))
    return max(slide.SCRIPTS, key=shared) if any(map(shared, slide.SCRIPTS)) else ""


# ------------------------------------------------------------------------------- files of students


def source_of(path: Path) -> str:
    """A file's code, of a notebook too."""
    source = path.read_text("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):  # not a notebook
        cells = [c for c in json.loads(source)["cells"] if c["cell_type"] == "code"]
        return "\n\n".join("".join(cell["source"]) for cell in cells)
    return source


def work(folder: str, against: Path, source: str, at: str, seed: int, timeout: float) -> str:
    """judge(), in a process of its own, which ends at the latest soon after the timeout."""
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    faulthandler.dump_traceback_later(timeout + 1, exit=True, file=2)
    os.chdir(folder)
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))  # bytes
    try:
        return judge(opened(against), re.sub(r"(?m)^[%!].*$", "", source), at, seed)
    except BaseException as error:  # not Python, for instance
        return f"{type(error).__name__}: {error}"


def answer(against: Path, source: str, at: str, seed: int = 0, timeout: float = 60) -> str:
    """judge() for a student's code; what hangs or crashes costs this line only."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1) as pool:
        try:
            return pool.submit(work, folder, against, source, at, seed, timeout).result(timeout)
        except TimeoutError:
            return "no answer in time: endless?"
        except BrokenExecutor:
            return "Python ended: a crash, or exit()?"


def check(flags) -> int:
    """Judge files of students; the exit status is 0 if all is right."""
    tests, how = [], dict(mode="w", buffering=1, newline="", encoding="utf-8")
    with flags.csv.open(**how) as file, flags.gradescope.open(**how) as results:
        csv.writer(file).writerow(("file", "line", "points", "says"))
        try:
            for name, at, points, says in judged(flags):
                csv.writer(file).writerow((name, at, points, says))
                tests.append(dict(name=f"{name} [{at}]", score=points, max_score=1, output=says))
        finally:  # what is known stays, after Ctrl-C, too
            json.dump(dict(tests=tests), results, indent=1)
    return int(not all(test["score"] for test in tests))


def judged(flags):
    """Print and yield what is said of each file and line: file, line, points, what is wrong."""
    for path in flags.files or [Path("FILE.py")]:
        source = source_of(path)
        against = (flags.against or slide.ROOT / f"{likely(source)}.py").resolve()
        if not against.is_file():
            raise runs.BadInput(f"{path}: which script is it? say --against dqn.py")
        reference, failing = opened(against), set()
        reference.settings(flags.seed)  # here, so that the processes have its logs
        ats = ["whole"] if flags.whole else flags.lines or [*reference.tags]
        with contextlib.suppress(Exception):  # and the pieces that the student has changed
            ats += [] if flags.whole or flags.lines else changed(reference, source)
        for at in ats:
            says = answer(against, source, at, flags.seed, min(flags.timeout, 1e6))
            yield str(path), at, int(not says), says.replace("\n", "; ")
            read = words(text(reference.source, reference.parts.get(at, range(1))))
            given = f", given the right {', '.join(failing & read)}" * bool(failing & read)
            failing |= {*re.findall(r"differs.*?: (\w+)", says)}
            page = f" docs/html/{against.stem}.html#{at}" * ("as if" in says)
            runs.say(f"{f'[{at}]':5} {says or 'ok' + given}".replace("\n", "\n      ") + page)


# ------------------------------------------------------------------------------------- assignments


def task(reference: Reference, at: str) -> str:
    """What a student finds in place of a line or a piece: an error.

    If other lines are nested in a line, its head stays above the error: `while ...:`.
    """
    rows, own = reference.own[at], text(reference.source, reference.own[at])
    error = "raise NotImplementedError({})"
    if at not in reference.tags:
        piece = ast.parse(own)
        for node in ast.walk(piece):
            if isinstance(node, ast.FunctionDef):
                says = ast.parse(error.format(f"'{node.name}()'")).body
                node.body = node.body[: bool(ast.get_docstring(node))] + says
        return ast.unparse(piece)
    log, lines = run_once(reference.program, reference.settings(0)[0]), []
    after = ChainMap(*[log[i + 1][1] for i, (tag, _) in enumerate(log) if tag == f"[{at}]"])
    stored = words(" ".join(re.findall(r"(?m)^ *([\w, ]+) [-+*/]?= ", own))) - {"_"}
    for name in sorted(stored & words(reference.put(at, ""))):
        value = after.get(name)
        shape = str(tuple(SIZES.get(n, n) for n in np.shape(value))).replace("'", "")
        kind = f", {getattr(value, 'dtype', type(value).__name__)} {shape}" * (name in after)
        lines.append(f"# to assign: {name}{kind}".removesuffix(" ()"))
    around = lambda n: isinstance(n, ast.stmt) and n.lineno in rows and n.end_lineno >= rows.stop
    heads = [n.lineno - rows.start for n in ast.walk(ast.parse(reference.source)) if around(n)]
    heads = [0] * own.startswith("else:") + heads  # from the outermost to the innermost
    head = re.compile("^( *(?:for .*? in|while|if|elif) ).*")
    lines += [head.sub(r"\1...:", own.splitlines()[row]) for row in heads]
    space = re.match(" *", lines[-1])[0] + " " * 4 if heads else ""
    says = textwrap.shorten(f"[{at}] {reference.tags[at].text}", 60, placeholder=" ...")
    return "\n".join([*lines, space + error.format(json.dumps(says))])


def notebook(source: str, ats: list[str], script: str) -> str:
    """The same as a notebook for nbgrader: a cell for each piece, and one a line that checks it."""
    from nbformat import v4, writes

    kind = dict(grade=False, solution=False, locked=False, schema_version=3, task=False)
    mark = lambda **options: dict(nbgrader=kind | options)
    cells = [v4.new_markdown_cell(f"```\n{ast.get_docstring(ast.parse(source))}\n```")]
    body = source.split('"""', 2)[-1].partition("\n\n\ndef main(")[0]
    for i, piece in enumerate(re.split(r"\n\n\n(?=def |class |@)", body)):
        undone = re.search("raise NotImplementedError|### BEGIN", piece)
        options = mark(solution=True, grade_id=f"part-{i}") if undone else {}
        cells.append(v4.new_code_cell(piece.strip(), metadata=options))
    for at in ats:
        says = f"from tools import homework\n\nhomework.grade(In, {at!r}, {script!r})"
        options = mark(grade=True, locked=True, points=1, grade_id=f"check-{at}")
        cells.append(v4.new_code_cell(says, metadata=options))
    return writes(v4.new_notebook(cells=cells))


def grade(cells: list[str], at: str, script: str) -> None:
    """A notebook's check of a line: an error that says what is wrong."""
    assert not (says := answer(slide.ROOT / script, "\n\n".join(cells), at)), says


def make(flags) -> None:
    """Write an assignment: a script and two notebooks."""
    script, *_ = flags.files or [Path("SCRIPT.py")]  # which is not there: the error says so
    reference, edits = opened(script), []
    for at in flags.lines or [""]:
        if at not in reference.parts or not flags.out:
            raise runs.BadInput(f"{script} has no line or piece {at!r}, or --out is missing")
        says = [judge(reference, m[2], at) for m in reference.mistakes if m[0] == at]
        runs.say(f"[{at}] the check catches {sum(map(bool, says))} of {len(says)} known mistakes")
        own, new = reference.own[at], task(reference, at)
        notes = reference.tags[at].notes if at in reference.tags and not flags.hints else 0
        # If other lines are nested in it, it stays as it is.
        frame = "{}" if " ...:" in new else "### BEGIN SOLUTION\n{}\n### END SOLUTION"
        solution = frame.format(text(reference.source, own))
        edits.append((range(own.start - notes, own.stop), new, solution))
    flags.out.joinpath("source", flags.out.name).mkdir(parents=True, exist_ok=True)
    blank, solved = [splice(reference.source, [(e[0], e[i]) for e in edits]) for i in (1, 2)]
    (flags.out / script.name).write_text(blank, "utf-8")
    for folder, source in ((flags.out, blank), (flags.out / "source" / flags.out.name, solved)):
        book = notebook(source, flags.lines, script.name)
        (folder / f"{script.stem}.ipynb").write_text(book, "utf-8")


def rate(flags) -> None:
    """Count how many known mistakes are caught and named, and how many right answers pass."""
    n = Counter()
    for script in [path.stem for path in flags.files] or slide.SCRIPTS:
        reference = Reference(slide.ROOT / f"{script}.py")
        answers = tomllib.loads(ANSWERS.read_text("utf-8")).get(script, [])
        right = [(a["at"], "", reference.put(a["at"], a["code"])) for a in answers]
        for at, sentence, source in reference.mistakes + right:
            says = judge(reference, source, at)
            good = says.endswith(f"as if: {sentence}") if sentence else not says
            kind = "wrong" if sentence else "right"
            n.update({kind: 1, f"{kind} said": bool(says), f"{kind} good": good})
            if not good:
                print(f"{script} {at}: {sentence or 'a right answer fails'}: {says or 'missed'}")
        caught = f"{n['wrong said']} of {n['wrong']} mistakes are caught, {n['wrong good']} named"
        passed = f"{n['right good']} of {n['right']} right answers pass"
        print(f"{script}: so far {caught}; {passed}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = runs.Parser("python -m tools.homework", usage=__doc__, allow_abbrev=False)
    flag, path = parser.add_argument, dict(type=Path)
    table = path | dict(default=os.devnull)  # without the flag it goes nowhere
    flag("command", choices=["make", "check", "rate"], help="make an assignment; check; count")
    flag("files", nargs="*", **path, help="a script (make), files of students (check)")
    flag("--lines", type=lambda text: text.split(","), help="6,12,gae: only these")
    flag("--out", **path, help="make: the folder to write to")
    flag("--hints", action="store_true", help="make: keep the explanations")
    flag("--against", **path, help="check: the script that is right")
    flag("--whole", action="store_true", help="check: run the whole file beside it")
    flag("--csv", **table, help="check: a table of file, line, points, what is wrong")
    flag("--gradescope", **table, help="check: the same as Gradescope's results.json")
    flag("--seed", type=int, default=0, help="check: another one for hidden checks")
    flag("--timeout", type=float, default=60, help="check: seconds for a line")
    torch.set_num_threads(1)
    go = lambda flags: globals()[flags.command](flags) or 0
    return runs.explained("homework", lambda: go(parser.parse_intermixed_args(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
