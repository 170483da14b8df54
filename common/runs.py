"""Everything around a training: flags, progress, files, evaluation. No algorithm needs this file.

A script's `main()` reads:

    from common import runs

    return runs.main(train, argv, env="CartPole-v1", act=..., value=...)

rlhf.py, which has a language instead of an environment, takes from here what common/language.py
needs: flags, Ctrl-C, files.
"""

import argparse
import ast
import contextlib
import functools
import inspect
import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from common import envs, pixels, plotting
from common.envs import BadInput

EPISODES, STEPS = 20, 50_000  # of an evaluation, whichever ends first: some episodes never end
WATCHED_STEPS = 2_000  # of an episode in a window or a clip
logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # when it ends workers
COLUMNS = ("episode", "step", "seconds", "return", "length")  # of returns.csv
FILES = ("weights.pt", "run.json", "returns.csv", "returns.png")


def main(train: Callable, argv=None, *, env: str, act: Callable, value=None, table=False) -> int:
    """Run a script, from its command line to the summary.

    Args:
        train: the script's train(). If its first parameter is make_env, it gets a function that
            makes an environment instead of an environment. Its module may have LITERAL.
        argv: the command line after the script's name; None takes sys.argv.
        env: the default of --env.
        act: (*learned, state) -> the greedy action; the state as a tensor (an int for a table).
        value: (*learned, state) -> the value of the state; None if no value was learned.
        table: train() learns a Q-table, an array, and states are numbers.

    Returns:
        The exit status: 0; 1: training diverged, or the disk is full; 2: bad input; 130: Ctrl-C.
    """
    script = Path(inspect.getfile(train)).stem
    return explained(script, lambda: Run(script, train, argv, env, act, value, table).go())


def explained(script: str, run: Callable[[], int]) -> int:
    """The exit status of run(). What goes wrong in it becomes one line on standard error."""
    try:
        return run()
    except KeyboardInterrupt:
        line, status = "interrupted", 130
    except (BadInput, FloatingPointError, MemoryError, OSError) as error:
        line, status = envs.first_line(error), getattr(error, "status", 1)
    except Exception as error:  # of a worker of a3c.py, or PyTorch's lack of memory
        expected = r"FloatingPointError: (.+)|.*allocate memory.*|process \d+ terminated with .*"
        if not (found := re.search(expected, str(error))):
            raise
        line, status = found[1] or found[0], 1
    say(f"{script}.py: {line}", sys.stderr)
    return status


def say(text: str, stream=None) -> None:
    """Print. Where that fails (a closed pipe, a full disk), the run goes on in silence."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except (OSError, UnicodeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# -------------------------------------------------------------------------------------- the flags


@dataclass
class Flags:
    """The runner's flags; the comment behind each is its help."""

    env: str = None  # any Gymnasium id, or ours: Treasure-v0, GridWorld-v0, Maze-v0, MiniPong-v0
    literal: bool = False  # the slide: turns off what it does not have; a value beside it wins
    render: bool = False  # watch what was learned, in a window or as text in the terminal
    record: Path = None  # save a clip of what was learned: .gif, or .mp4 with imageio-ffmpeg
    picture: Path = None  # draw what was learned, as .png: Treasure-v0, GridWorld-v0, Maze-v0
    env_kwargs: list = None  # the environment's own options, as in size=8
    stop_when_solved: bool = True  # end once the mean of 100 returns reaches the threshold
    load: Path = None  # evaluate what was saved there; no training
    out: Path = None  # where to save; otherwise runs/SCRIPT/ENV/seedN
    save: bool = True  # save what was learned


class Parser(argparse.ArgumentParser):
    """Errors become BadInput; a page of help that nobody reads to its end is no error."""

    def error(self, message: str):
        raise BadInput(f"{message}; --help lists all flags")

    def _print_message(self, message: str, file=None):
        say(message.rstrip())


def assignment(text: str) -> tuple:
    """ "size=8" -> ("size", 8), "map_name=8x8" -> ("map_name", "8x8")"""
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    with contextlib.suppress(Exception):
        value = ast.literal_eval(value)
    return name, value


FIRST = {"env", "seed", "steps", "episodes", "literal", "render", "record"}
STYLES = {  # type of a flag's value -> what argparse needs to know
    bool: dict(action=argparse.BooleanOptionalAction),
    int: dict(type=int, metavar="N"),
    float: dict(type=float, metavar="X"),
    str: dict(metavar="ID"),
    Path: dict(type=Path, metavar="PATH"),
    list: dict(type=assignment, metavar="NAME=VALUE", nargs="+", action="extend"),
}


def keywords(source) -> dict[str, tuple]:
    """The flags that a function or a class has: name -> type, default, the comment behind it."""
    comments = dict(re.findall(r"^ +(\w+): .*?  # (.*)$", inspect.getsource(source), re.MULTILINE))
    found = [k for k in inspect.signature(source).parameters.values() if k.annotation in STYLES]
    return {k.name: (k.annotation, k.default, comments.get(k.name, "")) for k in found}


def parse(train: Callable, argv: list[str] | None, script: str, *names: str) -> tuple:
    """The command line.

    Args:
        train: its keywords that are numbers or truth values are flags, too.
        argv: the command line after the script's name.
        script: the script's name.
        names: of Flags that the script has; none: all of them.

    Returns:
        An object with all flags; the keywords of train() with their values; which flags were given.

    Raises:
        BadInput: a flag is unknown, or its value cannot be.
    """
    module, argv = sys.modules[train.__module__], sys.argv[1:] if argv is None else argv
    title, *page = (module.__doc__ or "").split("\n\n")
    examples = page[page.index("Try") + 1].replace("    ", "  ") if "Try" in page else ""
    text = dict(usage=f"python {script}.py [flags]", description=textwrap.fill(title, 80))
    text["epilog"] = f"examples:\n{examples}"
    layout = dict(max_help_position=27, width=80)
    text["formatter_class"] = lambda prog: argparse.RawDescriptionHelpFormatter(prog, **layout)
    parser = Parser(allow_abbrev=False, add_help=False, **text)
    titles = "what you will use first", "the algorithm", "the rest"
    first, algorithm, rest = map(parser.add_argument_group, titles)
    first.add_argument("--help", "-h", action="help", help="show this and end")
    hp, flags = keywords(train), keywords(Flags)
    flags = {name: flags[name] for name in names or flags} | hp
    for name, (kind, _, meaning) in flags.items():
        group = first if name in FIRST else algorithm if name in hp else rest
        meaning = meaning.replace("%", "%%") + " [%(default)s]" * (name in hp or kind is bool)
        group.add_argument(flag(name), help=meaning, **STYLES[kind])
    parser.set_defaults(**{name: default for name, (_, default, _) in flags.items()})
    if "literal" in flags and "--literal" in argv:
        parser.set_defaults(**module.LITERAL)
    args, given = parser.parse_args(argv), {a.split("=")[0] for a in argv if a.startswith("--")}
    return args, {name: getattr(args, name) for name in hp}, given


def flag(name: str) -> str:
    """ "n_steps" -> "--n-steps" """
    return f"--{name.replace('_', '-')}"


def check(hp: dict, table: bool = False) -> None:
    """Refuse a hyperparameter that cannot be.

    Raises:
        BadInput: a count below 1, a negative or infinite number, or a share outside of [0, 1].
    """
    for name, x in hp.items():
        share = name in ("gamma", "gae_lambda", "epsilon", "tau") or (table and name == "alpha")
        least, most = 0, 1 if share else inf
        if type(x) is int:
            least, most = int(name not in ("seed", "warmup")), 2**31 - 1
            most = 1000 if name in ("workers", "n_envs") else most  # before they fill the memory
        if not least <= x <= most or x == inf or (name == "alpha" and x == 0):
            interval = f"{'above' if name == 'alpha' else 'at least'} {least}"
            interval += f" and at most {most}" if most < inf else ", and finite"
            raise BadInput(f"{flag(name)} {x}: it must be {interval}")
    if hp.get("batch", 0) > hp.get("memory", inf):
        raise BadInput(f"--batch {hp['batch']}: more than --memory {hp['memory']} holds")


# -------------------------------------------------------------------------------- during training


@contextlib.contextmanager
def ctrl_c(watch):
    """The first Ctrl-C sets watch.stopped, which ends the training in good order.

    A second one quits. Forked workers leave it to this process.
    """
    process = os.getpid()

    def handler(*_):
        if os.getpid() == process:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            watch.stopped = True
            say("stopping; once more to quit without saving", sys.stderr)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """Counts and shows the episodes of a training, from now on: progress is train()'s on_episode.

    Attributes:
        rows: one (episode, step, seconds, return, length) for each episode.
        solved: the row at which the goal was reached, or None.
        stopped: whether Ctrl-C was pressed.

    Args:
        env: the environment, for its goal.
        steps: the budget.
        until_solved: whether solving it ends the training.
    """

    def __init__(self, env: gym.Env, steps: int, until_solved: bool):
        self.goal, self.window = envs.solved_at(env)
        self.steps, self.until_solved = steps, until_solved
        self.rows, self.solved, self.stopped = [], None, False
        self.start, self.shown_next = time.perf_counter(), 1

    def __call__(self, episode_return: float, length: int, step: int) -> bool:
        """Take one episode; True ends the training: solved, or Ctrl-C."""
        seconds = time.perf_counter() - self.start
        row = len(self.rows) + 1, step, round(seconds, 3), float(episode_return), int(length)
        self.rows.append(row)
        mean, n = self.mean()
        if self.goal is not None and n == self.window and mean >= self.goal:
            self.solved = self.solved or row
        if seconds > self.shown_next:  # after 1, 2, 4, 8 seconds, then every 10
            self.shown_next = seconds + min(seconds, 10)
            line = f"episode {len(self.rows)}, step {step} of {self.steps}, mean return of the last"
            say(f"{line} {n}: {mean:.1f}, {step / seconds:.0f} steps/s")
        return self.stopped or bool(self.solved and self.until_solved)

    def mean(self) -> tuple[float, int]:
        """The mean of the last returns, and of how many."""
        last = [row[3] for row in self.rows[-self.window :]]
        return sum(last) / len(last), len(last)

    def summary(self) -> str:
        """Lines for the end of the training, which is now."""
        seconds = time.perf_counter() - self.start
        text = f"{'interrupted after' if self.stopped else 'trained for'} {len(self.rows)} episodes"
        if not self.rows:
            return f"{text}: none has ended; give more --steps"
        text += ", {1} steps, {0:.1f} s\nmean return of the last {3} episodes of training: {2:.2f}"
        text = text.format(seconds, self.rows[-1][1], *self.mean())
        if self.goal is not None:
            text += "\nsolved" if self.solved else "\nnot solved"
            text += f" (mean of {self.window} at or above {self.goal:g})"
        if self.solved:
            text += " at episode {}, step {}, {:.1f} s".format(*self.solved[:3])
        return text


class Shown(gym.Wrapper):
    """Shows the first dozen episodes in the terminal, step by step, as the lecture's demo does."""

    episode, over = 0, ""

    def reset(self, **kwargs):
        self.episode, self.steps = self.episode + 1, 0
        return self.show(self.env.reset(**kwargs))

    def step(self, action):
        self.steps += 1
        return self.show(self.env.step(action))

    def show(self, result: tuple) -> tuple:
        """Print the present state, on a terminal over the one before it; returns the result."""
        if self.episode <= 12 and self.env.render_mode == "ansi":
            text = self.env.render().rstrip("\n")
            say(self.over + text)
            if sys.stdout and sys.stdout.isatty():
                time.sleep(0.05)
                self.over = f"\x1b[{text.count(chr(10)) + 1}A\x1b[J"
        if self.episode <= 12 and any(result[2:4]):
            say(f"{self.over}Episode {self.episode}: total_steps = {self.steps}")
            self.over = ""
        return result


# ---------------------------------------------------------------------------------------- the run


class Run:
    """One run of a script. Making it checks every flag, before training and not an hour later.

    Args:
        script: the script's name, "dqn"; the others as main().

    Raises:
        BadInput: a flag, the environment or a file cannot work.
    """

    def __init__(self, script, train, argv, env, act, value, table):
        self.script, self.train, self.act, self.value, self.table = script, train, act, value, table
        self.flags, self.hp, given = parse(train, argv, script)
        env_id = env if self.flags.env is None else self.flags.env
        self.env_kwargs = dict(self.flags.env_kwargs or [])
        if self.flags.load:
            env_id, self.env_kwargs, self.hp = loaded(self.flags.load, script, self.hp, given)
        check(self.hp, table)
        self.open = functools.partial(envs.make, env_id, table, **self.env_kwargs)
        one, parameters = self.open(), inspect.signature(train).parameters
        envs.check(one, script)
        self.env_id = "".join(env_id.rpartition(":")[:2]) + envs.name_of(one)  # with its version
        images, self.takes_function = envs.shows_images(one), "make_env" in parameters
        if images and "trunk" not in parameters:
            raise BadInput(f"{env_id}: {script}.py does not take images; use ppo.py")
        self.trunk = dict(trunk=pixels.Convolutions) if images else {}
        self.gpu = images and torch.cuda.is_available() and "workers" not in self.hp
        self.title = f"{script}.py on {self.env_id}, seed {self.hp['seed']}"
        label = "-".join([self.env_id, *(f"{k}={v}" for k, v in self.env_kwargs.items())])
        label = Path("runs", script, re.sub("[/:]", "-", label), f"seed{self.hp['seed']}")
        self.out, self.saves = self.flags.out or label, self.flags.save and not self.flags.load
        self.progress = Progress(one, self.hp["steps"], self.flags.stop_when_solved)
        self.check_files(one)

    def check_files(self, env: gym.Env) -> None:
        """Check --out, --record, --picture and --render."""
        flags, modes = self.flags, env.metadata.get("render_modes", [])
        drawable = isinstance(env.unwrapped, envs.FiniteMDP)
        if flags.picture and not (drawable and flags.picture.suffix == ".png"):
            worlds = "a .png of Treasure-v0, GridWorld-v0 or Maze-v0"
            raise BadInput(f"--picture {flags.picture}: it can only be {worlds}")
        displays = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        screen = sys.platform in ("win32", "darwin") or any(map(os.environ.get, displays))
        self.text = flags.render and "ansi" in modes and (modes[0] == "ansi" or not screen)
        if flags.render and not (self.text or screen):
            raise BadInput("--render: there is no screen here; use --record clip.gif")
        if flags.record or (flags.render and not self.text):
            kind = flags.record.suffix if flags.record else ".gif"
            try:  # a clip of one image, so that a missing package shows now
                with contextlib.closing(self.open(render_mode="rgb_array")) as world:
                    world.reset()
                    plotting.clip([plotting.frame(world.render(), 0.0)], 30, kind)
            except Exception as error:
                why = f"{self.env_id} cannot be drawn: {envs.first_line(error)}"
                raise BadInput(f"{why} (--record takes .gif, .mp4 with imageio-ffmpeg)") from error
        files = [self.out / name for name in FILES if self.saves]
        check_writable(*filter(None, [flags.record, flags.picture, *files]))

    def go(self) -> int:
        """Train or load, evaluate, save, show. Returns the exit status."""
        with torch.device("cuda") if self.gpu else contextlib.nullcontext():  # of new tensors
            self.learned = self.load() if self.flags.load else self.learn()
            greedy = self.evaluate()
            if self.saves:
                with contextlib.suppress(Exception):  # a picture that fails costs nothing else
                    image = plotting.learning_curve(self.progress, self.title, greedy)
                    write(self.out, {"returns.png": image})
            self.show()
        return 130 if self.progress.stopped else 0

    def trained(self, watched: bool = False, **keywords) -> list:
        """What train() learns with the run's flags and these keywords."""
        make = self.open
        if not self.takes_function:
            make = Shown(self.open(render_mode="ansi")) if watched else self.open()
        return list(self.train(make, **self.hp | self.trunk | keywords)[:-1])

    def learn(self) -> list:
        """What was learned. It is saved at once, before anything else can go wrong."""
        learned, self.progress.start = [], time.perf_counter()
        with ctrl_c(self.progress):
            try:
                learned = self.trained(self.text, on_episode=self.progress)
            finally:  # where it diverged, the returns are worth a look; older weights stay there
                summary = self.progress.summary()
                settings = dict(script=self.script, env=self.env_id, env_kwargs=self.env_kwargs)
                settings |= dict(hyperparameters=self.hp, solved=self.progress.solved)
                if self.saves:
                    write(self.out, packed(settings, [COLUMNS, *self.progress.rows], learned))
        say(summary + f"\nsaved in {self.out}" * self.saves)
        return learned

    def load(self) -> list:
        """What was learned, from the files of a saved run. Nothing in them is executed.

        Raises:
            BadInput: the file is missing, damaged, or of another shape.
        """
        none = {name: n for name, n in dict(steps=0, workers=1).items() if name in self.hp}
        return load_weights(self.flags.load, self.trained(**none))  # of the same shapes

    # ------------------------------------------------------------------------------- afterwards

    def ask(self, function: Callable, state):
        """What act or value says about a state."""
        with torch.inference_mode():
            return function(*self.learned, state if self.table else torch.as_tensor(state))

    def greedy(self, state):
        """The greedy action in a state."""
        action = self.ask(self.act, state)
        return int(action) if np.ndim(action) == 0 else action.cpu().numpy()

    def evaluate(self) -> list[float]:
        """Play the greedy policy, and print its mean return; returns the returns."""
        seed = self.hp["seed"] + 1_000_000  # not the episodes it was trained on
        played = play(self.open(), self.greedy, seed=seed, episodes=EPISODES, most_steps=STEPS)
        returns, (_, length, ended) = [total for total, _, _ in played], played[-1]
        line = f"greedy policy, {len(played)} episodes: mean return {np.mean(returns):.2f}"
        line += f", standard deviation {np.std(returns):.2f}"
        say(line if ended else f"{line}; the last one was cut off after {length} steps")
        return returns

    def show(self) -> None:
        """--picture, --record, --render, and the table."""
        flags, seed = self.flags, self.hp["seed"]
        if flags.picture:
            look = lambda s: (self.greedy(s), self.value and float(self.ask(self.value, s)))
            self.draw(flags.picture, plotting.picture(self.open(), look, self.title))
        if flags.record:
            world, frames = self.open(render_mode="rgb_array"), []
            take = lambda total: frames.append(plotting.frame(world.render(), total))
            play(world, self.greedy, seed=seed, watch=take)
            fps = world.metadata.get("render_fps", 30)
            self.draw(flags.record, plotting.clip(frames, fps, flags.record.suffix))
        if flags.render:
            world = Shown(self.open(render_mode="ansi" if self.text else "human"))
            for episode in range(1, 4):
                play(world, self.greedy, seed=seed + episode, watch=window_closed)
            world.close()
        if self.table:
            table = np.array2string(self.learned[0], precision=4, suppress_small=True)
            names = ", ".join(getattr(self.open().unwrapped, "action_names", ["a = 0, 1, ..."]))
            say(f"Q-table, a row for each state, columns {names}:\n{table}")

    def draw(self, path: Path, content: bytes) -> None:
        """Save a picture or a clip, and say where."""
        write(path.parent, {path.name: content})
        say(f"saved {path}")


def play(env, policy, *, seed, episodes=1, most_steps=WATCHED_STEPS, watch=lambda total: False):
    """Play episodes.

    Args:
        env: the environment.
        policy: state -> action.
        seed: of the first reset.
        episodes: how many.
        most_steps: the budget of all together.
        watch: called with the return so far after each reset and step; a true result ends it.

    Returns:
        A list of (return, length, whether it ended); the last episode may not have ended.
    """
    played, budget = [], most_steps
    while len(played) < episodes and budget > 0:
        state, _ = env.reset(seed=None if played else seed)
        total, length, done, closed = 0.0, 0, False, watch(0.0)
        while not (done or closed or length == budget):
            state, reward, terminated, truncated, _ = env.step(policy(state))
            total, length, done = total + reward, length + 1, terminated or truncated
            closed = watch(total)
        played.append((total, length, done))
        budget = 0 if closed else budget - length
    return played


def window_closed(total: float = 0.0) -> bool:
    """Whether the user has closed the window that Gymnasium opened with pygame."""
    pygame = sys.modules.get("pygame")
    return bool(pygame and pygame.display.get_init() and pygame.event.peek(pygame.QUIT))


# --------------------------------------------------------------------------------------- the files


def packed(settings: dict, rows: list[tuple], learned: list) -> dict[str, bytes]:
    """A run's files, name -> content: returns.csv, and run.json with what was learned, if it was.

    Args:
        settings: for run.json.
        rows: of returns.csv, the names first.
        learned: a table or networks, or nothing.
    """
    files, content = {}, io.BytesIO()
    if learned:
        weights = modules(learned).state_dict()
        torch.save({name: weight.cpu() for name, weight in weights.items()}, content)
        versions = {module.__name__: str(module.__version__) for module in (gym, np, torch)}
        run = json.dumps(settings | dict(versions=versions), indent=2, default=str) + "\n"
        files = {"weights.pt": content.getvalue(), "run.json": run.encode()}
    table = "".join(",".join(map(str, row)) + "\n" for row in rows)
    return files | {"returns.csv": table.encode()}


def modules(learned: list) -> torch.nn.ModuleList:
    """Networks, and tables as if they were networks: both are saved and loaded alike."""
    table = lambda x: torch.nn.ParameterList([torch.from_numpy(x)])  # it shares the array's memory
    return torch.nn.ModuleList([table(x) if isinstance(x, np.ndarray) else x for x in learned])


def load_weights(folder: Path, learned: list) -> list:
    """Fill a table or networks of the right shapes from a saved run's file.

    Raises:
        BadInput: the file is missing, damaged, or of other shapes.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
        modules(learned).load_state_dict(weights)
        return learned
    except Exception as error:
        why = textwrap.shorten(str(error) or type(error).__name__, 120, placeholder=" ...")
        raise BadInput(f"--load {folder}: weights.pt does not fit; train again ({why})") from None


def loaded(folder: Path, script: str, hp: dict, given: set[str]) -> tuple[str, dict, dict]:
    """Environment, its options and hyperparameters of a saved run.

    Raises:
        BadInput: run.json is missing or damaged, of another script, or the command line says
            something else.
    """
    try:
        run = json.loads((folder / "run.json").read_text())
        origin, env_id, options = str(run["script"]), str(run["env"]), dict(run["env_kwargs"])
        saved = {name: type(x)(run["hyperparameters"].get(name, x)) for name, x in hp.items()}
    except Exception as error:  # whatever stands there instead
        why = f"run.json is missing or damaged ({type(error).__name__})"
        raise BadInput(f"--load {folder}: {why}; give a folder that --out wrote") from None
    if origin != script:
        raise BadInput(f"--load {folder}: saved by {origin}.py; use that script")
    if other := given - {"--load", "--seed", "--render", "--record", "--picture"}:
        flags = " ".join(sorted(other))
        raise BadInput(f"--load {folder}: it has its own settings; leave out {flags}")
    return env_id, options, saved | {"seed": hp["seed"]}


def check_writable(*paths: Path) -> None:
    """Make the folders of these files, and a temporary file in each.

    Raises:
        BadInput: that does not work, or a folder has one of the names.
    """
    for path in paths:
        try:
            if path.is_dir():
                raise BadInput(f"{path} is a folder; choose another name")
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            why = f"cannot write to {path.parent}: {error.strerror}"
            raise BadInput(f"{why}; choose another folder, or --no-save") from None


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files; if that fails (a full disk), into a temporary folder.

    Raises:
        OSError: it failed; the message says where the files are instead, if they are anywhere.
    """
    try:
        put(folder, files)
    except OSError as error:
        where = "nothing is saved"
        with contextlib.suppress(OSError):
            spare = Path(tempfile.mkdtemp(prefix="deep-rl-"))
            put(spare, files)
            where = f"saved in {spare} instead"
        raise OSError(f"cannot write to {folder}: {error.strerror}; {where}") from None


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Write files: first all of them beside the old ones, so that a full disk spares those."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as parts:
        for name, content in files.items():
            Path(parts, name).write_bytes(content)
        for name in files:
            Path(parts, name).replace(folder / name)
