"""Follow a training line by line: the values that each numbered line of the slide has computed.

    python docs/trace.py dqn.py --env Maze-v0 --steps 300 --show 280:300

runs a script, or a changed copy of one, with its usual flags. It prints the numbered lines that
are carried out from environment step 280 to step 300, and ends there. Nothing is saved. Where no
environment is, as in rlhf.py, a step is one update of an optimizer.

It works on every file whose `train()` (or another function) carries tags `# [12] ...`, and asks
nothing else of it; it follows all functions with tags. `docs/scenes.py` records the runs on the
pages with it.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import itertools
import math
import re
import shutil
import sys
import textwrap
import tokenize
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from unittest import mock

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for common

from common import runs
from common.envs import BadInput, Guard, first_line

FIRST, WHOLE = 6, 16  # entries shown of a batch; a vector or matrix up to this size is shown whole
KINDS = ("probs", "loc", "scale")  # what is shown of a distribution
NUMBERS = (bool, int, float, np.number, np.bool_, np.ndarray, torch.Tensor)
LARGEST = 20_000  # arrays of an object beyond this size are not compared: a replay memory


# ------------------------------------------------------------------------------ reading a script


@dataclass
class Statement:
    """A statement of the script, or the first line of a block (`for ...:`).

    Attributes:
        line: where it begins.
        tag: the numbered line it carries out; "" between them.
        text: the statement in one line, without comments.
        reads, writes: its terms, names and simple subscripts such as `Q[S, A]`, each compiled.
        calls: whether it calls anything, which may change an object.
        body: of a `for`: the lines that it repeats.
    """

    line: int
    tag: str
    text: str
    reads: dict[str, object]
    writes: dict[str, object]
    calls: bool
    body: range | None


class Listing:
    """A script's numbered lines and statements.

    Attributes:
        texts: tag -> the text of the numbered line.
        functions: the names of the functions that hold the tags.
        first: the line on which the first of them begins.
        statements: line -> the statement on it.
        unit: what a step is: "environment step", or "update" in a script without environment.

    Raises:
        BadInput: the file is missing, is not Python, or has no tags in a function.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path).resolve()
        try:
            self.source = self.path.read_text(encoding="utf-8")
            tree = ast.parse(self.source)
            comments = {
                token.start[0]: (token.start[1], token.string)
                for token in tokenize.generate_tokens(io.StringIO(self.source).readline)
                if token.type == tokenize.COMMENT
            }
        except SyntaxError as error:
            raise BadInput(f"{path} is not Python: line {error.lineno}: {error.msg}") from None
        except (OSError, ValueError) as error:
            raise BadInput(f"{path} cannot be read: {first_line(error)}") from None
        tags, self.texts = {}, {}  # line of the comment -> (column, tag); tag -> text
        for line, (column, comment) in comments.items():
            if match := re.fullmatch(r"# \[(\d+|[a-z])\] +(\S.*)", comment):
                tags[line], words = (column, match[1]), [match[2]]
                while (more := comments.get(line := line + 1, (0, ""))[1]).startswith("#  "):
                    words.append(more.lstrip("# "))  # a long line goes on in the next
                self.texts[match[1]] = " ".join(words)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        holds = lambda node: any(node.lineno < line <= node.end_lineno for line in tags)
        tagged = list(filter(holds, functions))
        if not tagged:
            raise BadInput(f"{path}: no function in it has comments like `# [1] Initialise ...`")
        self.functions, self.statements = [node.name for node in tagged], {}
        self.first = tagged[0].lineno
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        self.unit = "environment step" if names & {"env", "envs"} else "update"
        for node in tagged:
            self._read(node, tags)

    def _read(self, node: ast.FunctionDef, tags: dict[int, tuple[int, str]]) -> None:
        """Adds the statements of a function."""
        # A line of code carries out the last tag above it, unless the code has left its block.
        column, tag, tag_of = 0, "", {}
        for line in range(node.lineno, node.end_lineno + 1):
            row = self.source.splitlines()[line - 1]
            if line in tags:
                column, tag = tags[line]
            elif row.strip() and not row.strip().startswith("#"):
                tag = tag if len(row) - len(row.lstrip()) >= column else ""
            tag_of[line] = tag
        for part in ast.walk(node):
            if isinstance(part, ast.stmt) and part is not node:
                last = part.body[0].lineno - 1 if hasattr(part, "body") else part.end_lineno
                found = statement(part, tag_of[part.lineno])
                self.statements |= dict.fromkeys(range(part.lineno, last + 1), found)


def statement(node: ast.stmt, tag: str) -> Statement:
    """What a statement reads and writes; of a block only its first line."""
    parts = [node]
    if hasattr(node, "body"):
        parts = [getattr(node, name) for name in ("target", "iter", "test") if hasattr(node, name)]
    reads, writes = {}, {}
    for part in parts:
        for term in terms(part):
            stored = isinstance(term.ctx, ast.Store)
            text = ast.unparse(term)
            term = ast.parse(text, mode="eval")
            (writes if stored else reads)[text] = compile(term, text, "eval")
    if isinstance(node, ast.AugAssign):  # x += 1 reads x as well
        reads = writes | reads
    calls = any(isinstance(n, ast.Call) for part in parts for n in ast.walk(part))
    head = ast.unparse(node).splitlines()[0]
    loop = isinstance(node, ast.For)
    body = range(node.body[0].lineno, node.body[-1].end_lineno + 1) if loop else None
    return Statement(node.lineno, tag, head, reads, writes, calls, body)


def terms(node: ast.AST):
    """The names, attributes and simple subscripts in an expression, from left to right."""
    plain = (ast.Name, ast.Constant, ast.Slice, ast.Tuple, ast.UnaryOp, ast.Subscript)
    plain += (ast.Attribute, ast.BinOp, ast.operator, ast.expr_context, ast.unaryop)
    if isinstance(node, (ast.Lambda, ast.comprehension, ast.GeneratorExp, ast.ListComp)):
        return
    if isinstance(node, ast.Call):  # of method(x): its object and x
        parts = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        parts += [*node.args, *(given.value for given in node.keywords)]
    elif isinstance(node, ast.Name):
        yield node
        return
    elif isinstance(node, (ast.Attribute, ast.Subscript)) and all(
        isinstance(n, plain) for n in ast.walk(node)
    ):
        yield node
        parts = [node.slice] if isinstance(node, ast.Subscript) else []
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        yield ast.Name(ast.unparse(node.value), ast.Store())  # of x[f(y)] = ... the whole x
        parts = [node.slice]
    else:
        parts = ast.iter_child_nodes(node)
    for part in parts:
        yield from terms(part)


# ----------------------------------------------------------------------------- values for people


def short(value, inside: str = ""):
    """A value in a few numbers that JSON can hold; None if it says nothing to a reader.

    Args:
        value: a local variable.
        inside: the script's module; objects of its classes are shown by their numbers.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, NUMBERS) and np.ndim(value) == 0:
        return number(value.item() if hasattr(value, "item") else value)
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return None
        shape = list(value.shape)
        if shape[1:] == [1]:  # a column: its entries are numbers, not vectors of one
            value = value[:, 0]
        if value.size <= WHOLE:
            return [short(entry) for entry in value]
        return {"shape": shape, "first": [short(entry) for entry in value[:FIRST]]}
    if isinstance(value, torch.nn.Module):
        return f"{sum(p.numel() for p in value.parameters()):,} weights"
    if isinstance(value, torch.distributions.Distribution):
        value = getattr(value, "base_dist", value)
        return {name: short(getattr(value, name)) for name in KINDS if hasattr(value, name)}
    if isinstance(value, (list, tuple)):
        if all(isinstance(entry, (int, float, np.number)) for entry in value):
            return short(np.array(value)) if len(value) else []
        if isinstance(value[-1], (torch.nn.Parameter, dict)):
            return None  # weights, which the network shows, and settings
        if isinstance(value, tuple):
            return [short(entry) for entry in value[:WHOLE]]
        return {"items": len(value), "last": short(value[-1])}
    if inside and type(value).__module__ == inside and not callable(value):
        shown = {}
        for name, entry in vars(value).items():
            entry = entry.numpy() if isinstance(entry, torch.Tensor) else entry
            if isinstance(entry, NUMBERS) and np.size(entry) <= WHOLE:
                shown[name.strip("_")] = short(entry)
        return shown or None
    return None


def readable(value) -> bool:
    """Whether it is shown where it is read: numbers, but no batch of long vectors."""
    if isinstance(value, (list, torch.distributions.Distribution)):
        return short(value) is not None
    wide = getattr(value, "ndim", 0) > 1 and value.shape[-1] > 10
    return isinstance(value, NUMBERS) and not wide


def number(x: float):
    """A number of at most four digits; whole numbers stay whole."""
    if isinstance(x, int):
        return x
    if not math.isfinite(x):
        return str(x)
    x = float(f"{x:.4g}")
    return int(x) if x == int(x) else x


def text(value) -> str:
    """What short() returned, as one line; run.js writes it in the same way."""
    if isinstance(value, list):
        return f"[{row(value)}]"
    if isinstance(value, dict) and "shape" in value:
        more = ", …" if len(value["first"]) < value["shape"][0] else ""
        return f"[{row(value['first'])}{more}] {'×'.join(map(str, value['shape']))}"
    if isinstance(value, dict) and "items" in value:
        return f"{value['items']} items, the last {text(value['last'])}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {text(entry)}" for name, entry in value.items())
    if isinstance(value, float):
        small = f"{value:.10f}".rstrip("0") if 1e-6 <= abs(value) < 1e-4 else repr(value)
        return small.replace("e-0", "e-")
    return str(value)


def row(entries: list) -> str:
    """The entries of a vector; four or more equal ones in a row are written once: 0 ×12."""
    runs = [(entry, len(list(run))) for entry, run in itertools.groupby(map(text, entries))]
    return ", ".join(f"{e} ×{n}" if n > 3 else ", ".join([e] * n) for e, n in runs)


def vector(network: torch.nn.Module) -> torch.Tensor:
    """A copy of all weights in a row."""
    parts = [p.detach().flatten() for p in network.parameters()]
    return torch.cat(parts) if parts else torch.zeros(0)


# ------------------------------------------------------------------------------------- the tracer


@dataclass
class Ran:
    """A statement that was carried out.

    Attributes:
        statement: which one.
        reads: term -> its value just before.
        writes: term or changed object -> its value just after.
    """

    statement: Statement
    reads: dict[str, object]
    writes: dict[str, object] = field(default_factory=dict)


@dataclass
class Stop:
    """One numbered line, carried out once. A loop inside of it gives a stop for each round.

    Attributes:
        tag: its number or letter; "" for code between the numbered lines.
        step: environment steps so far, of all copies of the environment together; or updates.
        total: the return so far of the (first) environment's episode.
        ended: "", or "terminal" or "time limit" if its episode ended here.
        ran: the statements that were carried out.
    """

    tag: str
    step: int
    total: float = 0.0
    ended: str = ""
    ran: list[Ran] = field(default_factory=list)


class Tracer:
    """Follows the tagged functions of a script: `with Tracer(listing, tell): train(...)`.

    Environment steps are counted where all environments of `common.envs.make` pass: in Guard. If
    one tagged function calls another, the stop of the call comes twice: before and after it.

    Args:
        listing: the script.
        tell: called with each Stop and the function's frame, once the stop is over.
        wanted: step -> whether to look at the lines from here on; where not, training is fast.

    Attributes:
        step: environment steps so far; or updates.
        env: the first environment that was reset, a Guard.
        frame: that of the function that is followed.
    """

    def __init__(self, listing: Listing, tell: Callable, wanted=lambda step: True):
        self.listing, self.tell, self.wanted = listing, tell, wanted
        self.step, self.total, self.ended, self.env, self.frame = 0, 0.0, "", None, None
        self.over, self.stop, self.pending, self.known = False, None, None, {}
        self.callers = []  # of each tagged function that waits for another: frame, pending, known

    def __enter__(self):
        step, reset = Guard.step, Guard.reset

        def counted_step(env, action):
            result = step(env, action)
            self._after_step(env, *result[1:4])
            return result

        def counted_reset(env, **given):
            if not self.ended:  # a vector environment resets in the step that has ended
                self.env, self.total = self.env or env, 0.0 if env is self.env else self.total
            return reset(env, **given)

        self.undo = contextlib.ExitStack()
        self.undo.callback(sys.settrace, sys.gettrace())
        self.undo.enter_context(mock.patch.object(Guard, "step", counted_step))
        self.undo.enter_context(mock.patch.object(Guard, "reset", counted_reset))
        if self.listing.unit == "update":
            hook = register_optimizer_step_post_hook(lambda *_: self._after_update())
            self.undo.callback(hook.remove)
        sys.settrace(self._call)
        return self

    def __exit__(self, *_):
        self.undo.close()

    def _call(self, frame: FrameType, event: str, arg):
        """Python calls this for every function that begins."""
        code = frame.f_code
        if code.co_filename != str(self.listing.path) or code.co_name not in self.listing.functions:
            return None
        if self._goes_on():
            self.callers.append((self.frame, self.pending, self.known))
            self._flush()
        else:
            self.callers = []
        self.frame, self.env, self.pending, self.known = frame, None, None, {}
        if self.listing.unit != "update":
            sys.settrace(self._call if self.wanted(0) else None)
        return self._line

    def _goes_on(self) -> bool:
        """Whether the followed function is being carried out: an evaluation comes after it."""
        frame = sys._getframe()
        while frame and frame is not self.frame:
            frame = frame.f_back
        return frame is not None

    def _after_update(self) -> None:
        """Counts an update of the training."""
        self.step += self._goes_on()

    def _after_step(self, env: Guard, reward: float, terminated: bool, truncated: bool) -> None:
        """Counts a step of the training, and looks at its lines from here on, or no longer."""
        if not self._goes_on():
            return
        self.step += 1
        if self.wanted(self.step) != bool(sys.gettrace()):
            self._flush()
            self.pending, self.known = None, {}
            sys.settrace(None if sys.gettrace() else self._call)
        if env is self.env:
            self.total = float(reward) + (0.0 if self.over else self.total)
            self.ended = "terminal" if terminated else "time limit" if truncated else ""
            self.over = bool(self.ended)

    def _line(self, frame: FrameType, event: str, arg):
        """The function is about to carry out another line, or returns."""
        if self.listing.unit == "update" and event == "line" and not self.wanted(self.step):
            self._flush()
            self.pending, self.known = None, {}
            return self._line
        now = self.listing.statements.get(frame.f_lineno) if event == "line" else None
        if event == "exception" or (now and self.pending and now is self.pending.statement):
            return self._line  # a statement of several lines
        if self.pending:
            self._finish(frame)
        if event == "return":
            self._flush()
            if self.callers:  # back to the statement that has called
                self.frame, called, self.known = self.callers.pop()
                self.pending = called and Ran(called.statement, called.reads)
                self.stop = called and Stop(called.statement.tag, self.step, ran=[self.pending])
        elif now and not now.text.startswith("with "):  # Python comes back to `with` at its end
            stop = self.stop
            if stop and (now.tag != stop.tag or any(ran.statement is now for ran in stop.ran)):
                self._flush()
            self.stop = self.stop or Stop(now.tag, self.step)
            values = {term: self._value(code, frame) for term, code in now.reads.items()}
            self.pending = Ran(now, {k: short(v) for k, v in values.items() if readable(v)})
            self.stop.ran.append(self.pending)
        return self._line

    def _value(self, code, frame: FrameType):
        """A term's value, None if it has none yet."""
        try:
            return eval(code, {"__builtins__": {}}, frame.f_locals)
        except Exception:  # not set yet, out of range, a name from outside of the function
            return None

    def _finish(self, frame: FrameType) -> None:
        """Notes what the pending statement has written, and which objects its calls changed."""
        ran, self.pending = self.pending, None
        inside, here = frame.f_globals["__name__"], frame.f_locals
        if ran.statement.body and frame.f_lineno not in ran.statement.body:
            return  # a `for` that has come to its end sets nothing
        for term, code in ran.statement.writes.items():
            value = self._value(code, frame)
            shown = short(value, inside)
            if shown is not None:
                ran.writes[term] = shown
            whole = re.match(r"\w+", term)[0]  # of Q[S, A] this remembers Q
            self._changed(whole, here.get(whole), inside)
        if ran.statement.calls:
            for name, value in here.items():
                if isinstance(value, (list, torch.nn.Module)) or type(value).__module__ == inside:
                    change = self._changed(name, value, inside)
                    if change is not None and name not in ran.writes:
                        ran.writes[name] = change

    def _changed(self, name: str, value, inside: str):
        """How an object differs from when it was last seen; None if it does not."""
        parts = {"": vector(value)} if isinstance(value, torch.nn.Module) else {}
        if not parts and hasattr(value, "__dict__"):  # tensors of an object, as shared.theta
            tensors = {k: v for k, v in vars(value).items() if isinstance(v, torch.Tensor)}
            parts = {
                f"{k} ": v.detach().clone() for k, v in tensors.items() if WHOLE < len(v) < LARGEST
            }
        before = self.known.get(name)
        self.known[name] = now = (short(value, inside), parts)
        sizes = lambda parts: {k: len(v) for k, v in parts.items()}
        if before is None or sizes(before[1]) != sizes(parts):
            return None
        if now[0] == before[0] and all(torch.equal(v, before[1][k]) for k, v in parts.items()):
            return None
        moved = {k: float((v - before[1][k]).norm()) for k, v in parts.items()}
        if isinstance(value, torch.nn.Module):
            return f"moved by {text(number(moved['']))}" if moved.get("") else None
        shown = now[0] if now[0] != before[0] else {}
        for k, size in moved.items():
            if size:
                shown = {**shown, f"{k}moved by": number(size)}
        return shown or None

    def _flush(self) -> None:
        """The stop is over."""
        if self.stop and self.stop.ran:
            stop, self.stop = self.stop, None
            stop.step, stop.total, stop.ended = self.step, number(self.total), self.ended
            self.ended = ""
            self.tell(stop, self.frame)
        self.stop = None


# ---------------------------------------------------------------------------- on the command line


class Enough(BaseException):
    """Ends a training from within; no `except Exception` on the way stops it."""


def load(listing: Listing):
    """The script as a module, under its own name.

    Raises:
        BadInput: it cannot be imported, or has no train() and main().
    """
    name = listing.path.stem
    if getattr(sys.modules.get(name), "__file__", None) == str(listing.path):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, listing.path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(
            f"{listing.path.name}: {type(error).__name__}: {first_line(error)}"
        ) from None
    if not callable(getattr(module, "main", None)) or not callable(getattr(module, "train", None)):
        raise BadInput(f"{listing.path.name} has no train() and main(); give a script as dqn.py")
    return module


def lines_of(stop: Stop, listing: Listing, width: int) -> str:
    """A stop for the terminal: the numbered line, its code, and the values beside or below it."""
    over = f": {stop.ended}, return" if stop.ended else ", return so far"
    head = f"[{stop.tag}] {listing.texts[stop.tag]}" if stop.tag else "[ ] between the lines"
    if listing.unit == "update":
        head += f"   (after update {stop.step})"
    else:
        head += f"   (after step {stop.step}{over} {text(stop.total)})"
    out, rows = textwrap.wrap(head, width, subsequent_indent="    "), listing.source.splitlines()
    for ran in stop.ran:
        code = rows[ran.statement.line - 1].split("  #")[0]
        out.append(f"{ran.statement.line:>5}  {code:<52}".rstrip().ljust(60))
        values = [
            f"{term} = {text(value)}"
            for term, value in ran.reads.items()
            if term not in ran.writes and not is_matrix(value)  # that was shown when it was written
        ]
        for term, value in ran.writes.items():
            equals = " " if str(value).startswith("moved") else " = "
            values.append(f"* {term}{equals}{text(value)}{was(ran, term)}")
        for value in values:
            if len(out[-1]) + len(value) + 3 > width:
                out.append(" " * 11)
            out[-1] += "   " + value
    return "\n".join(line.rstrip() for line in out)


def is_matrix(value) -> bool:
    """Whether a short value stands for a batch of vectors."""
    return isinstance(value, dict) and len(value.get("shape", ())) > 1


def was(ran: Ran, term: str) -> str:
    """What a written term was before, if the statement has read it."""
    single = isinstance(ran.reads.get(term), (int, float))
    return f" (was {text(ran.reads[term])})" if single else ""


def main(argv: list[str] | None = None) -> int:
    """The command line: a script, its flags, and --show A:B. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(textwrap.dedent(__doc__).strip())
        return 0 if argv else 2
    try:
        first, last = 0, 20
        if "--show" in argv:
            i = argv.index("--show")
            given = (argv.pop(i), argv.pop(i) if i < len(argv) else "")[1]
            match = re.fullmatch(r"(\d+):(\d+)", given)
            if not match or int(match[1]) > int(match[2]):
                raise BadInput(f"--show {given}: write the first and the last step, as in 280:300")
            first, last = int(match[1]), int(match[2])
        listing = Listing(argv.pop(0))
        module = load(listing)
        flag = next((a for a in argv if a.startswith("--workers")), None)
        if listing.functions == ["worker"] and flag is None:
            argv += ["--workers", "1"]
        elif flag and [*flag.split("=")[1:], *argv[argv.index(flag) + 1 :]][:1] != ["1"]:
            raise BadInput("--workers: only one worker runs in this process; write --workers 1")
    except BadInput as error:
        print(f"trace: {error}", file=sys.stderr)
        return 2
    runs.tqdm = lambda **style: tqdm(**style | {"disable": True})  # no bar between the lines
    width = max(80, min(160, shutil.get_terminal_size((120, 24)).columns))

    shown = []

    def tell(stop: Stop, frame: FrameType) -> None:
        if stop.step > last:
            raise Enough
        if stop.step >= first:
            shown.append(stop.step)
            print(lines_of(stop, listing, width), flush=True)

    tracer = Tracer(listing, tell, wanted=lambda step: first - 1 <= step <= last + 1)
    try:
        with tracer:
            status = module.main([*argv, "--no-save"])
    except Enough:
        print("" if shown else f"no {listing.unit} ends between {first} and {last}")
        print("ended here; nothing is saved")
        return 0
    except BrokenPipeError:  # ... | head
        sys.stderr.close()
        return 0
    if not status and tracer.step < first:
        end = f"the run ended at {listing.unit.split()[-1]} {tracer.step}"
        print(f"trace: --show {first}:{last}: {end}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
