"""Step through a training line by line: the numbered lines, and the values they read and write.

    python -m tools.step dqn.py --env Maze-v0 --batch 8 --epsilon 1 --show 167:168

runs a script, or a changed copy of one, with its usual flags, prints the numbered lines that are
carried out between these two environment steps, and ends there. Nothing is saved. rlhf.py has no
environment: there a step is one update of an optimiser. a3c.py runs with one worker. `python -m
tools.pages` records the runs on the pages, which tools/runs.toml describes, with the same Tracer.
"""

import ast
import contextlib
import copy
import importlib.util
import inspect
import io
import random
import re
import shutil
import sys
import textwrap
import threading
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from unittest import mock

import gymnasium as gym
import numpy as np
import torch
from torch.nn.utils import parameters_to_vector
from torch.optim.optimizer import register_optimizer_step_post_hook

from common import envs, runs
from common.envs import BadInput
from common.language import Language
from tools import slide

# ------------------------------------------------------------------------------ reading a script


@dataclass
class Statement:
    """A statement of a function with tags, or the first line of a block (`for ...:`).

    Attributes:
        number: counted from the top of the file; another comment does not change it.
        row, tag: where it begins, and the numbered line that it carries out ("" for none).
        reads, writes: its terms, names and simple subscripts such as `Q[S, A]`.
    """

    number: int
    row: int
    tag: str
    reads: list[str]
    writes: list[str]


def statements(script: slide.Script) -> dict[int, Statement]:
    """Row -> the statement on it. `with` lines are left out: Python comes back to them."""
    tag_of = {row: tag.tag for tag in script.tags for row in tag.body}
    tagged = {tag.function for tag in script.tags}
    tops = [node for node in ast.parse(script.source).body if getattr(node, "name", "") in tagged]
    nodes = [n for top in tops for n in ast.walk(top) if isinstance(n, ast.stmt) and n is not top]
    found = {}
    for number, node in enumerate(sorted(nodes, key=lambda node: node.lineno)):
        parts, last = [node], node.end_lineno
        if hasattr(node, "body"):
            parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
            last = node.body[0].lineno - 1
        reads, writes = ([t for p in parts for t in terms(p, k)] for k in (ast.Load, ast.Store))
        reads += writes * isinstance(node, ast.AugAssign)  # x += 1 reads x as well
        ran = Statement(number, node.lineno, tag_of.get(node.lineno, ""), reads, writes)
        if not isinstance(node, ast.With):
            found |= dict.fromkeys(range(node.lineno, last + 1), ran)
    return found


def terms(node: ast.AST, kind: type):
    """The names, subscripts and attributes without a call that an expression loads or stores."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node.func = node.func.value  # of Q[S].max() the term is Q[S]
    term = isinstance(node, (ast.Name, ast.Subscript, ast.Attribute))
    if term and isinstance(node.ctx, kind) and "(" not in (text := ast.unparse(node)):
        yield text
        node = getattr(node, "slice", ast.Pass())  # of Q[S, A] also S and A, but not Q
    for child in ast.iter_child_nodes(node):
        yield from terms(child, kind)


def load(path: Path):
    """The script as a module, under its own name.

    Raises:
        BadInput: it has no tags, cannot be imported, or has no train() and main().
    """
    try:
        tags = slide.read(path).tags
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"{path}: {type(error).__name__}: {envs.first_line(error)}") from None
    if not (tags and hasattr(module, "main") and hasattr(module, "train")):
        raise BadInput(f"{path} has no train(), no main(), or no tags such as `# [1] ...`")
    return module


# ------------------------------------------------------------------------------------- the values


def number(x) -> str:
    """A number with at most four digits."""
    x = x.item() if hasattr(x, "item") else x
    return str(x) if isinstance(x, (bool, int)) else f"{x + 0.0:.4g}"  # + 0.0: no -0


def show(value) -> str:
    """A value in a few numbers; "" if it says nothing to a reader."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return number(value)
    if not isinstance(value, np.ndarray) or value.dtype == object:
        return ""
    if value.ndim > 1 and value.size > 16:
        return f"{'×'.join(map(str, value.shape))} numbers, the first row {show(value[0])}"
    if value.ndim == 1 and value.size > 4 and np.count_nonzero(value) == 1 == value.max():
        return f"one-hot {value.argmax()}"
    style = dict(separator=", ", threshold=16, max_line_width=9999, formatter=dict(all=number))
    return re.sub(r"\s+", " ", np.array2string(value, **style))


def snapshot(value):
    """A copy of a value that the next line may change in place."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, list) and value and isinstance(value[0], torch.nn.Parameter):
        return list(map(snapshot, value))
    if isinstance(value, np.random.Generator):
        return copy.deepcopy(value)
    return value.copy() if isinstance(value, (np.ndarray, list)) else value


def weights(values: dict) -> dict[str, torch.Tensor]:
    """What is learned, among some variables: networks, and parameters in an object (shared.theta).

    Each as one vector: nobody reads weights, but how far they have moved is worth a number.
    """
    found = {}
    for name, value in values.items():
        if isinstance(value, torch.nn.Module):
            found[name] = parameters_to_vector(value.parameters()).detach().clone()
        elif isinstance(theta := getattr(value, "theta", None), torch.Tensor):
            found[f"{name}.theta"] = theta.detach().clone()
    return found


# ------------------------------------------------------------------------------------- the tracer


@dataclass
class Stop:
    """One numbered line, carried out once. A loop inside of it gives a stop for each round.

    Attributes:
        tag: its number or letter; "" for code between the numbered lines.
        function: that it stands in.
        old, new: its variables before and after.
        weights: what was learned before.
        ran: the statements that were carried out.
        step: environment steps so far, of all copies together; or updates.
    """

    tag: str
    function: str
    old: dict
    weights: dict
    ran: list[Statement] = field(default_factory=list)
    new: dict = field(default_factory=dict)
    step: int = 0

    def moved(self) -> dict[str, float]:
        """How far each network has moved, if it has."""
        now = weights(self.new)
        far = {k: (now[k] - v).norm().item() for k, v in self.weights.items() if k in now}
        return {name: distance for name, distance in far.items() if distance}


class Watched(gym.Wrapper):
    """Tells the tracer of each step.

    Attributes:
        state: the present one.
        total, ended: the return so far, and how the episode has ended ("", "terminal" or "time
            limit"). Both stay until the next step.
        past: all transitions of the training: (s, a, r, s', ended).
    """

    def __init__(self, env: gym.Env, tracer: "Tracer"):
        super().__init__(env)
        self.tracer, self.total, self.ended, self.past = tracer, 0.0, "", []

    def reset(self, **given):
        self.state, info = self.env.reset(**given)
        if self.tracer.followed() and self not in self.tracer.envs:
            self.tracer.envs.append(self)
        return self.state, info

    def step(self, action):
        state, reward, terminated, truncated, _ = result = self.env.step(action)
        if frame := self.tracer.followed():
            self.total = reward + (0.0 if self.ended else self.total)
            self.ended = "terminal" if terminated else "time limit" if truncated else ""
            self.past.append((self.state, action, reward, state, self.ended))
            self.state = state
            self.tracer.count(frame)
        return result

    def story(self) -> str:
        """What the present episode has brought."""
        how = f"the episode has ended, {self.ended}: return {number(self.total)}"
        return how if self.ended else f"return so far {number(self.total)}"


class Enough(BaseException):
    """Ends a training from within; no `except Exception` on the way stops it."""


class Tracer:
    """Follows the tagged functions of a script: `with Tracer(path, tell): train(...)`.

    Environment steps are counted at the door, common.envs.make.

    Args:
        path: of the script.
        tell: called with each Stop, once it is over.
        wanted: step -> whether to look at the lines from here on; where not, training is fast.
        whole: tags whose loops are one stop.

    Attributes:
        step: environment steps so far; or updates.
        envs: the environments of the training, Watched.
    """

    def __init__(self, path: Path, tell: Callable, wanted: Callable, whole=()):
        script, self.path = slide.read(path), str(path)
        self.statements, self.functions = statements(script), {tag.function for tag in script.tags}
        self.tell, self.wanted, self.whole, self.step = tell, wanted, whole, 0
        self.envs, self.open = [], {}  # frame -> the stop that is being carried out

    def __enter__(self):
        make, self.undo = envs.make, contextlib.ExitStack()
        watched = lambda *args, **given: Watched(make(*args, **given), self)
        self.undo.enter_context(mock.patch.object(envs, "make", watched))
        updated = lambda *_: None if self.envs else self.count(self.followed())
        self.undo.callback(register_optimizer_step_post_hook(updated).remove)
        self.undo.callback(sys.settrace, sys.gettrace())
        sys.settrace(self.called)
        return self

    def __exit__(self, *_):
        self.undo.close()

    def follows(self, frame: FrameType) -> bool:
        """Whether this is a tagged function of the script."""
        return frame.f_code.co_filename == self.path and frame.f_code.co_name in self.functions

    def followed(self) -> FrameType | None:
        """The innermost tagged function that is being carried out; an evaluation is in none."""
        frame = sys._getframe()
        while frame and not self.follows(frame):
            frame = frame.f_back
        return frame

    def count(self, frame: FrameType | None) -> None:
        """Another step of the training: look at its lines from here on, or no longer."""
        self.step += frame is not None
        if frame and self.wanted(self.step) != bool(sys.gettrace()):
            self.open.pop(frame, None)
            sys.settrace(None if sys.gettrace() else self.called)
            while frame:
                frame.f_trace = self.line if self.follows(frame) else frame.f_trace
                frame = frame.f_back

    def called(self, frame: FrameType, event: str, arg):
        """Python calls this for every function that begins."""
        if self.follows(frame):
            self.close(frame.f_back)
            return self.line

    def line(self, frame: FrameType, event: str, arg):
        """The function is about to carry out another line, or returns."""
        now, stop = self.statements.get(frame.f_lineno), self.open.get(frame)
        if event == "return":
            self.close(frame)
        elif event == "line" and now and not (stop and stop.ran[-1] is now):
            again = stop and now in stop.ran and stop.tag not in self.whole
            if stop and (stop.tag != now.tag or again):  # another line, another round
                self.close(frame)
                stop = None
            if not stop:
                here = frame.f_locals
                old = {name: snapshot(value) for name, value in here.items()}
                self.open[frame] = stop = Stop(now.tag, frame.f_code.co_name, old, weights(here))
            if now not in stop.ran:
                stop.ran.append(now)
        return self.line

    def close(self, frame: FrameType) -> None:
        """The stop is over."""
        if stop := self.open.pop(frame, None):
            stop.new, stop.step = dict(frame.f_locals), self.step
            self.tell(stop)


# ---------------------------------------------------------------------------- on the command line


def printed(stop: Stop, script: slide.Script, where: str, width: int) -> str:
    """A stop for the terminal: the numbered line, its code, and the values beside or below it."""
    texts, rows = {tag.tag: tag.text for tag in script.tags}, script.source.splitlines()
    head = f"[{stop.tag or ' '}] {texts.get(stop.tag, 'between the lines')}   ({where})"
    out, told, values = textwrap.wrap(head, width, subsequent_indent="    "), set(), stop.old
    for ran in stop.ran:
        chips = [(term, "", value_of(term, values)) for term in ran.reads if term not in ran.writes]
        before = {term: value_of(term, values) for term in ran.writes if term in ran.reads}
        values = values | {name: stop.new[name] for name in ran.writes if name in stop.new}
        chips += [(term, "* ", value_of(term, stop.new)) for term in ran.writes]
        out.append(f"{ran.row:>5}  {rows[ran.row - 1].split('  #')[0]:<52}".rstrip().ljust(60))
        for term, star, value in chips:
            if value and (star or term not in told):
                told.add(term)
                was = f" (was {before.get(term)})" * bool(star and before.get(term))
                text = f"   {star}{term} = {value}{was}"
                if len(out[-1]) + len(text) > width:
                    out.append(" " * 11)
                out[-1] += text
    out += [f"{'':14}* {name} moved by {number(by)}" for name, by in stop.moved().items()]
    return "\n".join(line.rstrip() for line in out)


def value_of(term: str, values: dict) -> str:
    """A term's value; "" if it has none, or none that says something."""
    try:
        return show(eval(term, {"__builtins__": {}}, values))
    except Exception:  # not set yet, out of range, a name from outside of the function
        return ""


def step_through(argv: list[str]) -> int:
    """Run a script until the last step that is wanted. Returns the exit status."""
    parser = runs.Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("script", type=Path)
    parser.add_argument("--show", default="0:20")
    given, argv = parser.parse_known_args(argv)
    match = re.fullmatch(r"(\d+):(\d+)", given.show)
    if not match or int(match[1]) > int(match[2]):
        raise BadInput(f"--show {given.show}: write the first and the last step, as in 280:300")
    first, last = int(match[1]), int(match[2])
    path, seen, out = given.script.resolve(), [], sys.stdout
    module, script = load(path), slide.read(path)
    argv += ["--workers", "1"] * (script.tags[0].function == "worker")
    width = max(80, min(160, shutil.get_terminal_size((120, 24)).columns))

    def tell(stop: Stop) -> None:
        if stop.step > last:
            raise Enough
        if stop.step >= first:
            where = [f"step {stop.step}, {env.story()}" for env in tracer.envs[:1]]
            seen.append(stop.step)
            runs.say(printed(stop, script, *where or [f"update {stop.step}"], width), out)

    tracer = Tracer(path, tell, lambda step: step >= first - 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()), tracer:  # no progress between the lines
            status = module.main([*argv, "--no-save"])
    except Enough:
        runs.say("ended here; nothing is saved")
        return 0
    if not status and not seen:
        raise BadInput(f"--show {given.show}: the run ended at step {tracer.step}")
    return status


def main(argv: list[str] | None = None) -> int:
    """The command line: a script, its flags, and --show A:B. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(textwrap.dedent(__doc__).strip())
        return 0 if argv else 2
    return runs.explained("step", lambda: step_through(argv))


# ---------------------------------------------------------------------------- a run for the pages

PLANS = tomllib.loads((Path(__file__).parent / "runs.toml").read_text(encoding="utf-8"))
NUMBER = r"\d[\d.]*(?:e[-+]?\d+)?"
CALCULATOR = dict(max=max, min=min, exp=np.exp, log=np.log, sigma=lambda x: 1 / (1 + np.exp(-x)))


def cells(values, labels: str = "", me=(), columns: int = 0) -> str:
    """A strip of coloured cells: blue above 0, orange below; `me` are outlined.

    `labels` is a format, or a list of words; values beyond the last word are left out.
    """
    values, me = [float(v) for v in np.ravel(values)], np.ravel(me)
    words = [labels.format(v) for v in values] if isinstance(labels, str) else labels
    most, marks = max([1e-9, *map(abs, values)]), []
    for i, (value, word) in enumerate(zip(values, words, strict=False)):
        kind = ("u" if value > 0 else "d") + " me" * (i in me)
        marks.append(f'<i class="{kind}" style="--v:{100 * abs(value) / most:.0f}">{word}</i>')
    columns = columns or 32 * (len(marks) > 64)
    grid = f' style="--n:{columns}"' if columns else ""
    return f'<div class="cells"{grid}>{"".join(marks)}</div>'


def settled(line: str) -> str:
    """`text = calculation ~ result` with the sign that it deserves: = or, if it is rounded, ≈.

    Calculation and result are put between ⟦ and ⟧.

    Raises:
        ValueError: the numbers that are shown do not give the result that is shown.
    """
    if " ~ " not in line:
        return line
    left, right = line.rsplit(" ~ ", 1)
    name, equals, calculation = left.rpartition("= ")
    calculation = re.sub(rf"(?<=[-+*] )-{NUMBER}", r"(\g<0>)", calculation)
    exact = eval(calculation.replace("^", "**"), CALCULATOR)
    result = float(re.match(f"-?{NUMBER}", right)[0])
    sizes = [float(x) for x in re.findall(NUMBER, calculation)]
    if abs(exact - result) > 2e-3 * max([*sizes, abs(result)]):
        raise ValueError(f"{line}: not {right}, but {exact}")
    sign = "=" if abs(exact - result) < 1e-9 else "≈"
    return f"{name}{equals}⟦{calculation}⟧ {sign} " + re.sub(f"^-?{NUMBER}", r"⟦\g<0>⟧", right)


class Recorder:
    """A short run of a script, as its page shows it; runs.toml describes it.

    Attributes:
        stops: one for each line that is kept: what the page shows there.
        scenes: their titles, and the steps at which they begin.
        loss: (step, loss) now and then.
    """

    def __init__(self, name: str):
        self.name, self.plan, path = name, PLANS[name], slide.ROOT / f"{name}.py"
        self.module, self.stops, self.scenes, self.loss = load(path), [], [], []
        self.ahead, self.title, self.about, self.strip = [*self.plan["scenes"]], "", {}, ["", ""]
        self.world, self.turn = PLANS["worlds"].get(self.plan.get("world"), {}), threading.Lock()
        self.tracer = Tracer(path, self.tell, self.wanted, self.plan.get("whole", ()))
        words = lambda this: self.fill(self.world["words"], this)
        deed = lambda this: self.fill(self.world["deed"], this)
        each = lambda values: ", ".join(f"{deed(a)} {number(v)}" for a, v in enumerate(values))
        when = lambda flag, text: text if flag else ""
        size = lambda network: f"{len(parameters_to_vector(network.parameters())):,}"
        self.space = vars(self.module) | dict(again=copy.deepcopy, num=number, cells=cells)
        self.space |= dict(words=words, deed=deed, each=each, when=when, size=size, env=None)
        self.space |= dict(who=self.plan.get("who", 0), np=np, torch=torch)
        self.let("first")

    def fill(self, template: str | list, this=None) -> str:
        """A template with its values; `this` is a state or an action."""
        if isinstance(template, str):
            self.space["this"] = this
            return eval(f"f'''{template} '''", self.space)[:-1]
        found = []
        for i in eval(template[0], self.space):
            self.space["i"] = i
            found.append(self.fill(template[1]))
        return "\n".join(found or map(self.fill, template[2:]))

    def let(self, tag: str) -> None:
        """Computes the names that runs.toml gives for a line."""
        for name, expression in self.plan.get("let", {}).get(tag, {}).items():
            self.space[name] = eval(expression, self.space)

    def wanted(self, step: int) -> bool:
        """Whether to look at the lines from this step on."""
        if not self.ahead:
            raise Enough
        here = self.tracer.followed().f_locals
        if step % max(1, self.plan["scenes"][-1]["after"] // 150) == 0:
            loss = here.get("loss", here.get("L"))
            self.loss += [(step, loss.item())] if loss is not None else []
        look = self.opened() or step >= self.ahead[0]["after"]
        if not look:
            self.pause()
        return look

    def pause(self) -> None:
        """Of several workers another one may go on."""
        if self.turn.locked():
            self.turn.release()
            time.sleep(random.random() * 1e-3)
            self.turn.acquire()

    def opened(self) -> bool:
        """Whether a scene has begun, and has not ended."""
        return len(self.scenes) + len(self.ahead) > len(self.plan["scenes"])

    def tell(self, stop: Stop) -> None:
        """Take a stop, if a scene is going on."""
        if not self.ahead:
            raise Enough
        scene, space, plan = self.ahead[0], self.space, self.plan
        space |= stop.new | dict(old=SimpleNamespace(**stop.old), moved=stop.moved(), stop=stop)
        space |= dict(tag=stop.tag, env=stop.new.get("env"), scene=len(self.scenes))
        if space["env"] not in self.tracer.envs:
            space["env"] = self.tracer.envs[space["who"]] if self.tracer.envs else None
        if stop.tag and stop.step >= scene["after"]:
            with torch.no_grad():
                if not self.opened() and eval(scene.get("starts", "True"), space):
                    self.scenes.append([scene["title"], stop.step])
                    self.about.clear()
                    self.rounds = 0
                if self.opened():
                    self.let(stop.tag)
                    if eval(plan.get("keep", "True"), space):
                        self.stops.append(self.described(stop, space["env"]))
                        if len(self.stops) > 1 and self.same(*self.stops[-2:]):
                            self.stops.pop(-2)  # the end of a loop
                    self.rounds += bool(eval(scene["ends"], space))
                    if self.rounds == scene.get("n", 1):
                        self.ahead.pop(0)
        self.pause()

    def same(self, a: dict, b: dict) -> bool:
        """Whether two stops say the same."""
        return all(a[key] == b[key] for key in ("tag", "formula", "scene"))

    def described(self, stop: Stop, env: Watched | None) -> dict:
        """What the page shows at a stop."""
        plan, about, k, card = self.plan, self.about, 1, []
        formula = "\n".join(map(settled, self.fill(plan["lines"][stop.tag]).split("\n")))
        with contextlib.suppress(NameError):  # nothing has been made yet
            k = eval(plan["k"], self.space)
        self.space["k"] = k
        title = self.fill(plan["title"])
        if title != self.title:
            about.clear()
            self.title = title
        if stop.tag in plan["about"]:
            about[plan["about"][stop.tag][0]] = self.fill(plan["about"][stop.tag][1])
        place, picture = f"update {stop.step}", self.fill(plan.get("picture", ""))
        if env:
            s = env.state if len(env.past) == k - 1 else None
            if len(env.past) >= k:
                s, a, r, s_next, end = env.past[k - 1]
                end = self.space["words"](s_next) + f", {end}" * bool(end)
                card = [["a", self.space["deed"](a)], ["r", number(r)], ["s'", end]]
            if s is not None:
                card.insert(0, ["s", self.space["words"](s)])
            place = f"step {stop.step:,}, {env.story()}"
            for name, expression in self.world["let"].items():
                self.space[name] = eval(expression, self.space)
            picture = self.fill(self.world["picture"])
        if shown := plan["strip"].get(stop.tag, plan["strip"].get("")):
            self.strip = [shown[0], self.fill(shown[1])]
        return dict(
            tag=stop.tag,
            ran=[statement.number for statement in stop.ran],
            formula=formula,
            title=title,
            card=card + [[label, text] for label, text in about.items()],
            strip=self.strip,
            picture=picture,
            place=place,
            step=stop.step,
            scene=len(self.scenes) - 1,
        )

    def in_threads(self, workers: int, report: Callable, settings: dict) -> None:
        """Takes the place of a3c.in_processes(): one worker at a time goes on, by chance."""

        def run(rank: int) -> None:
            with self.turn, contextlib.suppress(Enough):
                sys.settrace(self.tracer.called)
                self.module.worker(rank, report=report, **settings)

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(workers)]
        for go in (threading.Thread.start, threading.Thread.join):
            list(map(go, threads))

    def settings(self) -> dict:
        """The keywords of train() that are not those of its signature."""
        literal = self.module.LITERAL if self.plan.get("literal") else {}
        return literal | self.plan.get("settings", {})

    def go(self) -> None:
        """Train until the last scene is over."""
        train, options = self.module.train, self.plan.get("options", {})
        make = lambda: envs.make(self.plan["env"], self.name == "qlearning_table", **options)
        threaded = mock.patch.object(self.module, "in_processes", self.in_threads, create=True)
        with contextlib.suppress(Enough), threaded, self.tracer:
            kind = next(iter(inspect.signature(train).parameters))
            world = {"make_env": lambda: make, "language": Language}.get(kind, make)
            train(world(), **self.settings())

    def returns(self) -> list[tuple]:
        """(step, return) of each episode."""
        found = []
        for env in self.tracer.envs:
            total = 0.0
            for i, (_, _, reward, _, end) in enumerate(env.past, 1):
                total += reward
                found += [(i * len(self.tracer.envs), total)] if end else []
                total = 0.0 if end else total
        return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
