"""Step through a training line by line: the numbered lines, and the values they read and write.

    python -m tools.step dqn.py --env Maze-v0 --batch 8 --epsilon 1 --show 167:168

runs a script, or a changed copy of one, with its usual flags, prints the numbered lines that are
carried out between these two environment steps, and ends there. Nothing is saved. rlhf.py has no
environment: there a step is one update of an optimiser. a3c.py runs with one worker. `python -m
tools.pages` records the runs on the pages, which tools/runs.toml describes, with the same Tracer.
"""

import argparse
import ast
import contextlib
import copy
import importlib.util
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest import mock

import gymnasium as gym
import numpy as np
import torch
from torch.nn.utils import parameters_to_vector
from torch.optim.optimizer import register_optimizer_step_post_hook

from common import envs, runs
from common.envs import BadInput
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
        if isinstance(value, torch.nn.Module) and [*value.parameters()]:
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
            if self.ended:
                self.tracer.returns.append((self.tracer.step, self.total))
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
        returns: (step, return) of each episode.
    """

    def __init__(self, path: Path, tell: Callable, wanted: Callable, whole=()):
        script, self.path = slide.read(path), str(path)
        self.statements, self.functions = statements(script), {tag.function for tag in script.tags}
        self.tell, self.wanted, self.whole, self.step = tell, wanted, whole, 0
        self.envs, self.returns, self.open = (
            [],
            [],
            {},
        )  # frame -> the stop that is being carried out

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


def span(text: str) -> tuple[int, int]:
    """ "280:300" -> (280, 300)"""
    first, last = sorted(map(int, text.split(":")))
    return first, last


def step_through(argv: list[str] | None) -> int:
    """Run a script until the last step that is wanted. Returns the exit status."""
    style = dict(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser = runs.Parser("python -m tools.step", allow_abbrev=False, **style)
    parser.add_argument("script", type=Path)
    parser.add_argument("--show", type=span, default=(0, 20), help="the steps, as in 280:300")
    given, argv = parser.parse_known_args(argv)
    first, last = given.show
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
        raise BadInput(f"--show {first}:{last}: the run ended at step {tracer.step}")
    return status


def main(argv: list[str] | None = None) -> int:
    """The command line: a script, its flags, and --show A:B. Returns the exit status."""
    return runs.explained("step", lambda: step_through(argv))


if __name__ == "__main__":
    sys.exit(main())
