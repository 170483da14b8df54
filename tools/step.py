"""Step through a training line by line: the numbered lines, and the values they read and write.

    python -m tools.step dqn.py --env Maze-v0 --batch 8 --epsilon 1 --show 167:168

runs a script, or a changed copy of one, with its usual flags, prints the numbered lines that are
carried out between these two environment steps, and ends there. Nothing is saved. rlhf.py has no
environment: there a step is one update of an optimiser. `python -m tools.pages` records the runs
on the pages with the same Tracer.
"""

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
from types import FrameType, SimpleNamespace
from unittest import mock

import gymnasium as gym
import numpy as np
import torch
from torch.nn.utils import parameters_to_vector
from torch.optim.optimizer import register_optimizer_step_post_hook

from common import envs
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
        if not slide.read(path).tags:
            raise BadInput(f"{path}: no function in it has comments like `# [1] Initialize ...`")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except slide.SlideError as error:
        raise BadInput(str(error)) from None
    except Exception as error:
        name = "" if isinstance(error, BadInput) else f"{path}: {type(error).__name__}: "
        raise BadInput(f"{name}{envs.first_line(error)}") from None
    if not hasattr(module, "main") or not hasattr(module, "train"):
        raise BadInput(f"{path} has no train() and main(); give a script such as dqn.py")
    return module


# ------------------------------------------------------------------------------------- the values


def number(x: float) -> str:
    """A number with at most four digits."""
    return str(x) if isinstance(x, (bool, int, np.bool_, np.integer)) else f"{float(x):.4g}"


def show(value) -> str:
    """A value in a few numbers; "" if it says nothing to a reader."""
    if isinstance(value, torch.distributions.Distribution):
        value = getattr(value, "base_dist", value)
        return show(value.probs if hasattr(value, "probs") else value.mean)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)) and value and not isinstance(value[-1], (dict, str)):
        last = show(value[-1]) if isinstance(value[-1], (int, float)) else ""
        return f"{len(value)} items" + f", the last {last}" * bool(last)
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return number(value)
    if not isinstance(value, np.ndarray) or value.dtype == object:
        return ""
    if value.ndim == 0:
        return number(value[()])
    if value.ndim == 1 and len(value) > 4 and (value == 0).sum() == len(value) - 1 == sum(value < 1):
        return f"one-hot {value.argmax()}"
    few = 16 if value.size <= 16 else 6
    inner = [show(entry) for entry in (value if value.size <= 16 else value[:6])]
    if value.ndim > 1 and value.size > 16:
        return f"{'×'.join(map(str, value.shape))} numbers, the first row {show(value[0])}"
    more = f", … {len(value)} numbers" * (len(value) > few)
    return f"[{', '.join(inner)}{more}]"


def snapshot(value):
    """A copy of a value that the next line may change in place."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (np.ndarray, np.random.Generator, list)):
        return copy.deepcopy(value) if isinstance(value, np.random.Generator) else value.copy()
    return value


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
        frame: of the function.
        old, new: its variables before and after.
        weights: what was learned before.
        ran: the statements that were carried out.
        step: environment steps so far, of all copies together; or updates.
    """

    tag: str
    frame: FrameType
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
        total, ended: the return so far, and how the episode has ended ("", "terminal" or "time
            limit"). Both stay until the line after the end, where a vector environment has long
            begun another episode.
        past: all transitions of the training: (s, a, r, s', ended).
    """

    def __init__(self, env: gym.Env, tracer: "Tracer"):
        super().__init__(env)
        self.tracer, self.total, self.ended, self.over, self.past = tracer, 0.0, "", -1, []

    def reset(self, **given):
        self.state, info = self.env.reset(**given)
        if self.over != self.tracer.lines:
            self.total, self.ended = 0.0, ""
        return self.state, info

    def step(self, action):
        result = self.env.step(action)
        if frame := self.tracer.followed():
            if self not in self.tracer.envs:
                self.tracer.envs.append(self)
            state, reward, terminated, truncated, _ = result
            self.total = reward + (0.0 if self.ended else self.total)
            self.ended = "terminal" if terminated else "time limit" if truncated else ""
            self.over = self.tracer.lines if self.ended else -1
            self.past.append((self.state, action, reward, state, self.ended))
            self.state = state
            self.tracer.count(frame)
        return result


class Tracer:
    """Follows the tagged functions of a script: `with Tracer(path, tell): train(...)`.

    Environment steps are counted at the door, common.envs.make.

    Args:
        path: of the script.
        tell: called with each Stop, once it is over.
        wanted: step -> whether to look at the lines from here on; where not, training is fast.

    Attributes:
        step: environment steps so far; or updates.
        envs: the environments of the training, Watched.
        lines: how many lines were carried out.
    """

    def __init__(self, path: Path, tell: Callable, wanted: Callable = lambda step: True):
        script, self.path = slide.read(path), str(path)
        self.statements, self.functions = statements(script), {tag.function for tag in script.tags}
        self.tell, self.wanted, self.step, self.lines = tell, wanted, 0, 0
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
            if stop and (stop.tag != now.tag or now in stop.ran):  # another line, another round
                self.close(frame)
                stop = None
            if not stop:
                here = frame.f_locals
                old = {name: snapshot(value) for name, value in here.items()}
                self.open[frame] = stop = Stop(now.tag, frame, old, weights(here))
            self.lines += 1
            stop.ran.append(now)
        return self.line

    def close(self, frame: FrameType) -> None:
        """The stop is over."""
        if stop := self.open.pop(frame, None):
            stop.new, stop.step = dict(frame.f_locals), self.step
            self.tell(stop)


# ---------------------------------------------------------------------------- on the command line


class Enough(BaseException):
    """Ends a training from within; no `except Exception` on the way stops it."""


def printed(stop: Stop, script: slide.Script, where: str, width: int) -> str:
    """A stop for the terminal: the numbered line, its code, and the values beside or below it."""
    texts, rows = {tag.tag: tag.text for tag in script.tags}, script.source.splitlines()
    head = f"[{stop.tag or ' '}] {texts.get(stop.tag, 'between the lines')}   ({where})"
    out, told = textwrap.wrap(head, width, subsequent_indent="    "), set()
    for ran in stop.ran:
        chips = [(term, "", stop.old) for term in ran.reads if term not in ran.writes]
        chips += [(term, "* ", stop.new) for term in ran.writes]
        out.append(f"{ran.row:>5}  {rows[ran.row - 1].split('  #')[0]:<52}".rstrip().ljust(60))
        for term, star, values in chips:
            text, before = value_of(term, values), value_of(term, stop.old)
            if not text or (term in told and not star):
                continue
            told.add(term)
            text = f"{star}{term} = {text}"
            if star and term in ran.reads and before and before != text:
                text += f" (was {before})"
            if len(out[-1]) + len(text) + 3 > width:
                out.append(" " * 11)
            out[-1] += f"   {text}"
    out += [f"{'':11}   * {name} moved by {number(by)}" for name, by in stop.moved().items()]
    return "\n".join(line.rstrip() for line in out)


def value_of(term: str, values: dict) -> str:
    """A term's value; "" if it has none, or none that says something."""
    try:
        return show(eval(term, {"__builtins__": {}}, values))
    except Exception:  # not set yet, out of range, a name from outside of the function
        return ""


def step_through(argv: list[str]) -> int:
    """main() without its error messages."""
    first, last = 0, 20
    if "--show" in argv:
        i = argv.index("--show")
        given = (argv.pop(i), argv.pop(i) if i < len(argv) else "")[1]
        match = re.fullmatch(r"(\d+):(\d+)", given)
        if not match or int(match[1]) > int(match[2]):
            raise BadInput(f"--show {given}: write the first and the last step, as in 280:300")
        first, last = int(match[1]), int(match[2])
    path, seen = Path(argv.pop(0)).resolve(), []
    module, script = load(path), slide.read(path)
    if script.tags[0].function == "worker":  # a3c.py
        if "--workers" in argv and argv[argv.index("--workers") + 1 :][:1] != ["1"]:
            raise BadInput("--workers: only one worker runs in this process; write --workers 1")
        argv += ["--workers", "1"]
    width = max(80, min(160, shutil.get_terminal_size((120, 24)).columns))

    def tell(stop: Stop) -> None:
        if stop.step > last:
            raise Enough
        if stop.step >= first:
            where = f"update {stop.step}"
            for env in tracer.envs[:1]:
                what = f"{env.ended}: return" if env.ended else "return so far"
                where = f"step {stop.step}, {what} {number(env.total)}"
            seen.append(stop.step)
            print(printed(stop, script, where, width), file=out, flush=True)

    out = sys.stdout
    try:
        tracer = Tracer(path, tell, lambda step: first - 1 <= step <= last + 1)
        with contextlib.redirect_stdout(io.StringIO()), tracer:  # no progress between the lines
            status = module.main([*argv, "--no-save"])
    except Enough:
        print("ended here; nothing is saved")
        return 0
    if not status and not seen:
        raise BadInput(f"--show {first}:{last}: the run ended at step {tracer.step}")
    return status


def main(argv: list[str] | None = None) -> int:
    """The command line: a script, its flags, and --show A:B. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(textwrap.dedent(__doc__).strip())
        return 0 if argv else 2
    try:
        return step_through(argv)
    except BadInput as error:
        print(f"step: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # ... | head
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
