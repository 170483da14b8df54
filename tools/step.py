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
import pydoc
import re
import sys
import traceback
from collections import namedtuple
from pathlib import Path
from types import FrameType

import gymnasium as gym
import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from common import envs, runs
from tools import slide

# ------------------------------------------------------------------------------ reading a script


# A statement, or the first line of a block (`for ...:`). number: counted from the top of the file;
# another comment does not change it. tag: of the numbered line that it carries out; "" for none.
# rows: where it stands, without comments.
Statement = namedtuple("Statement", "number tag rows")


def statements(script: slide.Script) -> dict[int, Statement]:
    """Row -> the statement on it. `with` lines are left out: Python comes back to them."""
    tag_of = {row: tag.tag for tag in script.tags for row in tag.body}
    nodes = [node for node in ast.walk(ast.parse(script.source)) if isinstance(node, ast.stmt)]
    code, found = [row.strip()[:1] not in ("", "#") for row in script.source.splitlines()], {}
    for number, node in enumerate(sorted(nodes, key=lambda node: node.lineno)):
        end = node.body[0].lineno if hasattr(node, "body") else node.end_lineno + 1
        rows = [row for row in range(node.lineno, end) if code[row - 1]]
        if not isinstance(node, ast.With):
            found |= dict.fromkeys(rows, Statement(number, tag_of.get(node.lineno, ""), rows))
    return found


def load(path: Path):
    """The script as a module, under its own name.

    Raises:
        BadInput: it has no tags, or cannot be imported.
    """
    try:
        assert slide.read(path).tags, f"{path} has no tags such as `# [1] ...`"
        return pydoc.importfile(str(path))
    except Exception as error:
        raise envs.BadInput(envs.short(error, 200)) from None


# ------------------------------------------------------------------------------------- the values


def number(x) -> str:
    """A number with at most four digits."""
    x = x.item() if hasattr(x, "item") else x
    return str(x) if isinstance(x, (bool, int)) else f"{x + 0.0:.4g}"  # + 0.0: no -0


def show(term: str, values: dict) -> str:
    """A name, subscript or attribute in a few numbers; "" if it says nothing to a reader."""
    with contextlib.suppress(Exception):  # not set yet, out of range, a name from elsewhere
        value = eval(term, {"__builtins__": {}}, values)
        value = torch.as_tensor(value).numpy(force=True) if hasattr(value, "__float__") else value
        if value.ndim > 1 and value.size > 16:
            first = show("value[0]", dict(value=value))
            return f"{'×'.join(map(str, value.shape))} numbers, the first row {first}"
        if value.ndim == 1 and value.size > 4 and np.count_nonzero(value) == 1 == value.max():
            return f"one-hot {value.argmax()}"
        style = dict(separator=", ", threshold=16, formatter=dict(all=number))
        return " ".join(np.array2string(value, **style).split())
    return ""


def snapshot(value):
    """A copy of a value that the next line may change in place."""
    if isinstance(value, list):
        return list(map(snapshot, value))
    value = value.detach() if isinstance(value, torch.Tensor) else value
    kinds = torch.Tensor, np.ndarray, np.random.Generator, torch.nn.Module
    return copy.deepcopy(value) if isinstance(value, kinds) or hasattr(value, "theta") else value


# ------------------------------------------------------------------------------------- the tracer


class Stop:
    """One numbered line, carried out once. A loop inside of it gives a stop for each round.

    Attributes:
        tag: its number or letter; "" for code between the numbered lines.
        function: that it stands in.
        ran: the statements that were carried out.
        old, new: its variables before and after.
        step: environment steps so far, of all copies together; or updates.
    """

    def __init__(self, tag: str, frame: FrameType):
        self.tag, self.function, self.ran = tag, frame.f_code.co_name, []
        self.old = {name: snapshot(value) for name, value in frame.f_locals.items()}

    def moved(self) -> dict[str, float]:
        """How far what is learned has moved, if it has. Nobody reads weights."""
        far = {k: (theta(self.new.get(k)) - theta(old)).norm() for k, old in self.old.items()}
        return {name: distance.item() for name, distance in far.items() if distance}


def theta(value) -> torch.Tensor:
    """The weights of a network, or of an object that has some (shared.theta), as one vector."""
    network = isinstance(value, torch.nn.Module)
    weights = value.parameters() if network else [getattr(value, "theta", torch.zeros(0))]
    return torch.cat([torch.zeros(0), *(x.detach().ravel() for x in weights)])


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
        return result


def place(step: int, env: Watched | None) -> str:
    """Where a run is, and what the present episode has brought."""
    if not env:
        return f"update {step}"
    how = f"the episode has ended, {env.ended}: return" if env.ended else "return so far"
    return f"step {step:,}, {how} {number(env.total)}"


class Enough(BaseException):
    """Ends a training from within; no `except Exception` on the way stops it."""


class Tracer(contextlib.ExitStack):
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

    def __init__(self, path: Path, tell, wanted, whole=()):
        super().__init__()
        self.script, self.path, self.tell, self.wanted = slide.read(path), str(path), tell, wanted
        self.functions = {tag.function for tag in self.script.tags}
        self.statements, self.whole = statements(self.script), whole
        self.step, self.looks, self.envs = 0, True, []
        self.open = {}  # frame -> the stop that is being carried out

    def __enter__(self):
        make = envs.make
        envs.make = lambda *args, **given: Watched(make(*args, **given), self)
        self.callback(setattr, envs, "make", make)
        updated = lambda *_: self.envs or not self.followed() or self.count()
        self.callback(register_optimizer_step_post_hook(updated).remove)
        self.callback(sys.settrace, sys.gettrace())
        sys.settrace(self.trace)
        return self

    def follows(self, frame: FrameType) -> bool:
        """Whether this is a tagged function of the script."""
        return frame.f_code.co_filename == self.path and frame.f_code.co_name in self.functions

    def followed(self) -> bool:
        """Whether a tagged function is being carried out; an evaluation is in none."""
        return any(self.follows(frame) for frame, _ in traceback.walk_stack(sys._getframe()))

    def count(self) -> None:
        """Another step of the training: look at its lines from here on, or no longer."""
        self.step += 1
        self.looks = self.wanted(self.step)
        if not self.looks:
            self.open.clear()

    def trace(self, frame: FrameType, event: str, arg):
        """Python calls this before each function, and in those with tags before each line."""
        if self.follows(frame):
            now, stop = self.statements.get(frame.f_lineno), self.open.get(frame)
            if event in ("call", "return"):
                self.over(frame.f_back if event == "call" else frame)
            elif event == "line" and self.looks and now and not (stop and stop.ran[-1] is now):
                again = stop and now in stop.ran and stop.tag not in self.whole
                if not stop or stop.tag != now.tag or again:  # another line, another round
                    self.over(frame)
                    self.open[frame] = stop = Stop(now.tag, frame)
                if now not in stop.ran:
                    stop.ran.append(now)
            return self.trace

    def over(self, frame: FrameType) -> None:
        """The stop is over."""
        if stop := self.open.pop(frame, None):
            stop.new, stop.step = dict(frame.f_locals), self.step
            self.tell(stop)


# ---------------------------------------------------------------------------- on the command line

TERM = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*\b(?:\[[^][()]+\])?(?!\()")  # Q[S, A], not Q.max()


def printed(stop: Stop, tracer: Tracer) -> str:
    """A stop for the terminal: the numbered line, its code, below it its values, new ones with *.

    Of a number that changes both values are shown.
    """
    line = next((line.text for line in tracer.script.tags if line.tag == stop.tag), "in between")
    out = [f"[{stop.tag or ' '}] {line}   ({place(stop.step, *tracer.envs[:1] or [None])})"]
    code, told = tracer.script.source.splitlines(), {"True", "False"}
    for row in (row for ran in stop.ran for row in ran.rows):
        out += [f"{row:>5}  {code[row - 1]}".split("  #")[0], " " * 24]
        for term in TERM.findall(out[-2]):
            name = re.match(r"\w+", term)[0]  # Q of Q[S, A], which is S and A after the line
            before, now = show(term, stop.new | {name: stop.old.get(name)}), show(term, stop.new)
            if now and term not in told:
                told.add(term)
                was = f"{before} → " * (before != now and 0 < len(before) < 20)
                out[-1] += f"   {'* ' * (before != now)}{term} = {was}{now}"
    out += [f"{'':27}* {name} moved by {number(by)}" for name, by in stop.moved().items()]
    return "\n".join(filter(str.strip, out))


def span(text: str) -> list[int]:
    """ "280:300" -> [280, 300], "280" -> [280]"""
    return sorted(map(int, text.split(":")))


def step_through(argv: list[str] | None) -> int:
    """Run a script until the last step that is wanted. Returns the exit status."""
    parser = runs.Parser("python -m tools.step", usage=__doc__, allow_abbrev=False)
    parser.add_argument("script", type=Path)
    parser.add_argument("--show", type=span, default=[0, 20], help="the steps, as in 280:300")
    given, argv = parser.parse_known_args(argv)
    first, last, path, out = given.show[0], given.show[-1], given.script.resolve(), sys.stdout
    module = load(path)

    def tell(stop: Stop) -> None:
        if stop.step > last:
            raise Enough
        if stop.step >= first:
            runs.say(printed(stop, tracer), out)

    tracer = Tracer(path, tell, lambda step: step >= first - 1)
    argv += ["--workers", "1"] * ("worker" in tracer.functions)
    with contextlib.suppress(Enough), contextlib.redirect_stdout(None), tracer:
        status = module.main(argv + ["--no-save"] * ("--load" not in argv))
        if not status and tracer.step < first:
            raise envs.BadInput(f"--show {first}:{last}: the run ended at step {tracer.step}")
        return status
    runs.say("ended here; nothing is saved")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line: a script, its flags, and --show A:B. Returns the exit status."""
    return runs.explained("step", lambda: step_through(argv))


if __name__ == "__main__":
    sys.exit(main())
