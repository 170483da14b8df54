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
        tag: of the numbered line that it carries out; "" for none.
        node: itself, without the block below it.
    """

    number: int
    tag: str
    node: ast.stmt

    def terms(self) -> list[tuple[str, bool]]:
        """What it reads, then what it writes: (`x` or `Q[S, A]`, whether it is written)."""
        nodes = list(ast.walk(self.node))
        found = [n for n in nodes if isinstance(n, (ast.Name, ast.Subscript, ast.Attribute))]
        # Of Q[S, A] also S and A, but not Q; of Q[S].max() also Q[S].
        parts = {node.func for node in nodes if isinstance(node, ast.Call)}
        parts |= {node.value for node in found if hasattr(node, "value") and node not in parts}
        place = lambda node: (isinstance(node.ctx, ast.Store), node.lineno, node.col_offset)
        found = [(ast.unparse(n), place(n)[0]) for n in sorted({*found} - parts, key=place)]
        if isinstance(self.node, ast.AugAssign):  # x += 1 reads x as well
            found.insert(0, (found[-1][0], False))
        return [(text, written) for text, written in found if "(" not in text]


def statements(script: slide.Script) -> dict[int, Statement]:
    """Row -> the statement on it. `with` lines are left out: Python comes back to them."""
    tag_of = {row: tag.tag for tag in script.tags for row in tag.body}
    tagged = {tag.function for tag in script.tags}
    tops = [node for node in ast.parse(script.source).body if getattr(node, "name", "") in tagged]
    nodes = [n for top in tops for n in ast.walk(top) if isinstance(n, ast.stmt) and n is not top]
    found = {}
    for number, node in enumerate(sorted(nodes, key=lambda node: node.lineno)):
        last = node.end_lineno
        if hasattr(node, "body"):
            last, node.body, node.orelse = node.body[0].lineno - 1, [], []
        if not isinstance(node, ast.With):
            ran = Statement(number, tag_of.get(node.lineno, ""), node)
            found |= dict.fromkeys(range(node.lineno, last + 1), ran)
    return found


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
    if isinstance(value, list):
        return list(map(snapshot, value))
    return copy.deepcopy(value) if isinstance(value, (np.ndarray, np.random.Generator)) else value


def weights(values: dict) -> dict[str, torch.Tensor]:
    """What is learned, among some variables: networks, and parameters in an object (shared.theta).

    Each as one vector: nobody reads weights, but how far they have moved is worth a number.
    """
    found = {}
    for name, value in values.items():
        if isinstance(value, torch.nn.Module) and [*value.parameters()]:
            found[name] = snapshot(parameters_to_vector(value.parameters()))
        elif isinstance(theta := getattr(value, "theta", None), torch.Tensor):
            found[f"{name}.theta"] = snapshot(theta)
    return found


# ------------------------------------------------------------------------------------- the tracer


@dataclass
class Stop:
    """One numbered line, carried out once. A loop inside of it gives a stop for each round.

    Attributes:
        tag: its number or letter; "" for code between the numbered lines.
        function: that it stands in.
        weights: what was learned before.
        ran, old: the statements that were carried out, and the variables before each.
        new: the variables after the last.
        step: environment steps so far, of all copies together; or updates.
    """

    tag: str
    function: str
    weights: dict
    ran: list[Statement] = field(default_factory=list)
    old: list[dict] = field(default_factory=list)
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
        if self.tracer.followed():
            self.total = reward + (0.0 if self.ended else self.total)
            self.ended = "terminal" if terminated else "time limit" if truncated else ""
            self.past.append((self.state, action, reward, state, self.ended))
            self.state = state
            self.tracer.count()
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
        self.envs, self.returns, self.looks = [], [], wanted(0)
        self.open = {}  # frame -> the stop that is being carried out

    def __enter__(self):
        make, self.undo = envs.make, contextlib.ExitStack()
        watched = lambda *args, **given: Watched(make(*args, **given), self)
        self.undo.enter_context(mock.patch.object(envs, "make", watched))
        updated = lambda *_: None if self.envs else self.count()
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

    def count(self) -> None:
        """Another step of the training: look at its lines from here on, or no longer."""
        if frame := self.followed():
            self.step += 1
            self.looks = self.wanted(self.step)
            if not self.looks:
                self.open.pop(frame, None)

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
        elif event == "line" and self.looks and now and not (stop and stop.ran[-1] is now):
            again = stop and now in stop.ran and stop.tag not in self.whole
            if stop and (stop.tag != now.tag or again):  # another line, another round
                self.close(frame)
            here = frame.f_locals
            if frame not in self.open:
                self.open[frame] = Stop(now.tag, frame.f_code.co_name, weights(here))
            stop = self.open[frame]
            if now not in stop.ran:
                stop.ran.append(now)
                stop.old.append({name: snapshot(value) for name, value in here.items()})
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
    out, told = [textwrap.fill(head, width, subsequent_indent="    ")], set()
    for ran, old, new in zip(stop.ran, stop.old, [*stop.old[1:], stop.new], strict=True):
        row = ran.node.lineno
        out.append(f"{row:>5}  {rows[row - 1].split('  #')[0]:<52} ")
        for term, written in ran.terms():
            value = value_of(term, new if written else old)
            if value and (written or term not in told):
                told.add(term)
                text = f"   {'* ' * written}{term} = {value}"
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
    (first, last), path, seen, out = given.show, given.script.resolve(), [], sys.stdout
    module, script = load(path), slide.read(path)
    argv += ["--workers", "1"] * (script.tags[0].function == "worker")
    width = max(80, min(160, shutil.get_terminal_size((120, 24)).columns))

    def tell(stop: Stop) -> None:
        if stop.step > last:
            raise Enough
        if stop.step >= first:
            story = tracer.envs[0].story() if tracer.envs else "of an optimiser"
            seen.append(stop)
            runs.say(printed(stop, script, f"step {stop.step}, {story}", width), out)

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
