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
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch

from common import envs, pixels, plotting
from common.envs import BadInput

EPISODES, STEPS = 20, 50_000  # of an evaluation, whichever ends first: some episodes never end
WATCHED_STEPS = 2_000  # of an episode in a window or a clip
logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # when it ends workers
COLUMNS = ("episode", "step", "seconds", "return", "length")  # of returns.csv


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
    except (BadInput, FloatingPointError, ImportError, MemoryError, OSError) as error:
        line, status = envs.short(error, 400), 1 + isinstance(error, BadInput | FileNotFoundError)
    except Exception as error:  # of a worker of a3c.py, or PyTorch's lack of memory
        if not re.search("allocate|terminated with", str(error)):
            raise
        found = re.findall(r".*(?:allocate|terminated with|Error: ).*", str(error))
        line, status = found[-1].removeprefix("FloatingPointError: "), 1
    say(f"{script}.py: {line}", sys.stderr)
    return status


def say(text: str, stream=None) -> None:
    """Print. Where that fails (a closed pipe, a full disk), the run goes on in silence."""
    try:
        print(text, file=stream, flush=True)
    except UnicodeError:  # an old terminal
        say(text.encode("ascii", "replace").decode(), stream)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


# -------------------------------------------------------------------------------------- the flags


class Flags(NamedTuple):
    """The runner's flags; the comment behind each is its help."""

    env: str = None  # any Gymnasium id, or ours: Treasure-v0, GridWorld-v0, Maze-v0, MiniPong-v0
    literal: bool = False  # the slide: turns off what it does not have; a value beside it wins
    render: bool = False  # watch what was learned, in a window or as text in the terminal
    record: Path = None  # save a clip of what was learned: .gif, or .mp4 with imageio-ffmpeg
    picture: Path = None  # a .png of what was learned: our grids, CartPole, Pendulum, MountainCar
    env_kwargs: list = None  # the environment's own options, as in size=8
    stop_when_solved: bool = True  # end once the mean of 100 returns reaches the threshold
    load: Path = None  # evaluate what was saved there; no training
    out: Path = None  # where to save; otherwise in runs/SCRIPT
    save: bool = True  # save what was learned


class Parser(argparse.ArgumentParser):
    """Errors become BadInput; a page of help that nobody reads to its end is no error."""

    def error(self, message: str):
        raise BadInput(f"{message}; --help lists all flags")

    def _print_message(self, message: str, file=None):
        say(message.rstrip())


def assignment(text: str) -> tuple:
    """ "size=8" -> ("size", 8), "map_name=8x8" -> ("map_name", "8x8")"""
    name, value = text.split("=", 1)
    with contextlib.suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value)
    return name, value


GROUPS = "what you will use first", "the algorithm", "the rest"  # of --help
FIRST = {"env", "seed", "steps", "episodes", "literal", "render", "record"}
# Type of a flag's value -> what argparse needs to know.
METAVARS = {int: "N", float: "X", str: "ID", Path: "PATH"}
STYLES = {kind: dict(type=kind, metavar=metavar) for kind, metavar in METAVARS.items()}
STYLES[bool] = dict(action=argparse.BooleanOptionalAction)
STYLES[list] = dict(type=assignment, metavar="NAME=VALUE", nargs="+", action="extend")


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
    title, page = (module.__doc__ or "").partition("\n\n")[::2]
    examples = "\n".join(["examples:", *re.findall("^  (  python .*)", page, re.MULTILINE)])
    layout = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=27, width=80)
    text = dict(description=textwrap.fill(title, 80), epilog=examples, formatter_class=layout)
    parser = Parser(usage=f"python {script}.py [flags]", allow_abbrev=False, add_help=False, **text)
    first, algorithm, rest = map(parser.add_argument_group, GROUPS)
    first.add_argument("--help", "-h", action="help", help="show this and end")
    hp, flags = keywords(train), keywords(Flags)
    flags = {name: flags[name] for name in names or flags} | hp
    for name, (kind, default, meaning) in flags.items():
        group = first if name in FIRST else algorithm if name in hp else rest
        meaning = meaning.replace("%", "%%") + " [%(default)s]" * (name in hp or kind is bool)
        group.add_argument(flag(name), help=meaning, **STYLES[kind])
        parser.set_defaults(**{name: default})
    if "--literal" in argv:
        parser.set_defaults(**getattr(module, "LITERAL", {}))
    args, given = parser.parse_args(argv), {a.split("=")[0] for a in argv if a.startswith("--")}
    return args, {name: getattr(args, name) for name in hp}, given


def flag(name: str) -> str:
    """ "n_steps" -> "--n-steps" """
    return f"--{name.replace('_', '-')}"


# What a hyperparameter can be at least and at most; others: COUNT if whole, NUMBER if not.
COUNT, NUMBER, SHARE, FEW = (1, 2_000_000_000), (0, 1e9), (0, 1), (1, 1_000)
LIMITS = dict(gamma=SHARE, gae_lambda=SHARE, epsilon=SHARE, tau=SHARE, workers=FEW, n_envs=FEW)
LIMITS |= dict(alpha=(1e-9, 1), hidden=(1, 10_000), seed=(0, COUNT[1]), warmup=(0, COUNT[1]))


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
        self.goal, self.window = env.spec.reward_threshold, 100
        if env.spec.id == "Pendulum-v1":  # Gymnasium does not say when that is solved
            self.goal, self.window = -200.0, 20
        self.steps, self.until_solved = steps, until_solved
        self.rows, self.solved, self.stopped = [], None, False
        self.start, self.shown_next = time.perf_counter(), 1

    def __call__(self, episode_return: float, length: int, step: int) -> bool:
        """Take one episode; True ends the training: solved, or Ctrl-C."""
        seconds = time.perf_counter() - self.start
        row = len(self.rows) + 1, step, round(seconds, 3), float(episode_return), int(length)
        self.rows.append(row)
        last = [row[3] for row in self.rows[-self.window :]]
        self.mean, n = sum(last) / len(last), len(last)
        if self.goal is not None and n == self.window and self.mean >= self.goal:
            self.solved = self.solved or row
        if seconds > self.shown_next:  # after 1, 2, 4, 8 seconds, then every 10
            self.shown_next = seconds + min(seconds, 10)
            line = f"episode {len(self.rows)}, step {step} of {self.steps}, mean return of the last"
            say(f"{line} {n}: {self.mean:.1f}, {step / seconds:.0f} steps/s")
        return self.stopped or bool(self.solved and self.until_solved)

    def summary(self) -> str:
        """Lines for the end of the training."""
        episodes = len(self.rows)
        text = f"{'interrupted after' if self.stopped else 'trained for'} {episodes} episodes"
        if not self.rows:
            return f"{text}: none has ended; give more --steps"
        text += ", {1} steps, {2:.1f} s\nmean return of the last ".format(*self.rows[-1])
        text += f"{min(episodes, self.window)} episodes of training: {self.mean:.2f}"
        if self.goal is not None:
            text += "\nsolved" if self.solved else "\nnot solved"
            text += f" (mean of {self.window} at or above {self.goal:g})"
        if self.solved:
            text += " at episode {}, step {}, {:.1f} s".format(*self.solved[:3])
        return text


class Shown(gym.wrappers.RecordEpisodeStatistics):
    """Shows the first dozen episodes in the terminal, step by step, as the lecture's demo does."""

    over = ""

    def __init__(self, env: gym.Env):
        super().__init__(env, stats_key="shown")  # the environment may have an "episode" of its own

    def reset(self, **kwargs):
        return self.show(super().reset(**kwargs))

    def step(self, action):
        return self.show(super().step(action))

    def show(self, result: tuple) -> tuple:
        """Print the present state, on a terminal over the one before it; returns the result."""
        done = any(result[2:4])
        if self.episode_count - done >= 12:
            return result
        if self.env.render_mode == "ansi":
            text = self.env.render().rstrip("\n")
            say(self.over + text)
            if sys.stdout and sys.stdout.isatty():
                time.sleep(0.05)
                self.over = f"\x1b[{text.count(chr(10)) + 1}A\x1b[J"
        if done:
            say(f"{self.over}Episode {self.episode_count}: total_steps = {self.episode_lengths}")
            self.over = ""
        return result


# ---------------------------------------------------------------------------------------- the run


class Job:
    """A command line, and the folder in which what was learned is kept.

    Args:
        script: the script's name, "dqn".
        train, argv: as main().
        names: as parse().

    Attributes:
        flags: those of Flags, with their values.
        hp: the hyperparameters, those of train().
        saves: whether anything is saved.

    Raises:
        BadInput: a flag, a hyperparameter or the saved run cannot work.
    """

    env_id, env_kwargs = "", {}  # rlhf.py has no environment

    def __init__(self, script: str, train: Callable, argv, *names: str):
        self.script, self.train = script, train
        self.flags, self.hp, given = parse(train, argv, script, *names)
        if self.flags.load:
            self.read_settings(given)
        for name, x in self.hp.items():
            least, most = LIMITS.get(name, COUNT if type(x) is int else NUMBER)
            if not least <= x <= most:
                raise BadInput(f"{flag(name)} {x}: it must be at least {least} and at most {most}")
        self.seed, self.saves = self.hp["seed"], self.flags.save and not self.flags.load

    def read_settings(self, given: set[str]) -> None:
        """Take environment and hyperparameters from the saved run; `given` are the flags given."""
        if other := given - {"--load", "--seed", "--render", "--record", "--picture"}:
            raise BadInput(f"--load brings its own settings; leave out {' '.join(sorted(other))}")
        file = self.flags.load / "run.json"
        try:
            run = json.loads(file.read_text())
            assert run["script"] == self.script, f"saved by {run['script']}.py"
            self.flags.env, self.flags.env_kwargs = str(run["env"]), dict(run["env_kwargs"])
            saved = run["hyperparameters"] | {"seed": self.hp["seed"]}
            self.hp = {name: type(x)(saved.get(name, x)) for name, x in self.hp.items()}
        except Exception as error:  # whatever stands there instead
            raise BadInput(f"{file} does not fit: {envs.short(error, 200)}") from None

    def choose_folder(self, label: str = "", *others: Path | None) -> None:
        """Choose `out`, and check that its files and others can be written.

        Raises:
            BadInput: one of them cannot, or a folder has its name.
        """
        self.out = self.flags.out or Path("runs", self.script, label, f"seed{self.seed}")
        for path in filter(None, [self.saves and self.out / "weights.pt", *others]):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=path.parent).close()
                if path.is_dir():
                    raise IsADirectoryError(0, "it is a folder")
            except OSError as error:
                raise BadInput(f"{path}: {error.strerror}; choose another folder") from None

    def save(self, rows: list[tuple], learned: list, **results) -> None:
        """Save returns.csv, and weights.pt with run.json if anything was learned.

        Args:
            rows: of returns.csv, the names first.
            learned: a table or networks, or nothing.
            results: for run.json.

        Raises:
            OSError: as write().
        """
        files = {"returns.csv": "".join(",".join(map(str, row)) + "\n" for row in rows).encode()}
        if learned:
            weights = {name: w.cpu() for name, w in modules(learned).state_dict().items()}
            torch.save(weights, content := io.BytesIO())
            versions = {package.__name__: package.__version__ for package in (gym, np, torch)}
            settings = dict(script=self.script, env=self.env_id, env_kwargs=self.env_kwargs)
            settings |= dict(hyperparameters=self.hp, **results, versions=versions)
            run = json.dumps(settings, indent=2, default=str) + "\n"
            files |= {"weights.pt": content.getvalue(), "run.json": run.encode()}
        if self.saves:
            write(self.out, files)

    def save_picture(self, draw: Callable[[], bytes]) -> None:
        """Save returns.png; if that fails, it costs nothing else."""
        if self.saves:
            with contextlib.suppress(Exception):
                write(self.out, {"returns.png": draw()})

    def filled(self, learned: list) -> list:
        """Fill a table or networks of the right shapes from weights.pt. Nothing in it is executed.

        Raises:
            BadInput: the file is missing, damaged, or of other shapes.
        """
        file = self.flags.load / "weights.pt"
        try:
            modules(learned).load_state_dict(torch.load(file, "cpu", weights_only=True))
            weights = modules(learned).state_dict().values()
            assert all(torch.isfinite(w).all() for w in weights), "a weight is not a number"
        except Exception as error:
            raise BadInput(f"{file} does not fit; train again ({envs.short(error)})") from None
        return learned


class Run(Job):
    """One run of a script. Making it checks every flag, before training and not an hour later.

    Args:
        script: the script's name, "dqn"; the others as main().

    Raises:
        BadInput: a flag, the environment or a file cannot work.
    """

    def __init__(self, script, train, argv, env, act, value, table):
        super().__init__(script, train, argv)
        self.env_id, self.env_kwargs = self.flags.env or env, dict(self.flags.env_kwargs or {})
        self.act, self.value, self.table = act, value, table
        self.open = functools.partial(envs.make, self.env_id, table, **self.env_kwargs)
        one, parameters = self.open(), inspect.signature(train).parameters
        envs.check(one, script)
        self.env_id = "".join(self.env_id.rpartition(":")[:2]) + envs.name_of(one)  # with version
        self.title = f"{script}.py on {self.env_id}, seed {self.seed}"
        self.takes_function, self.trunk = "make_env" in parameters, {}
        if envs.shows_images(one):
            if "trunk" not in parameters:
                raise BadInput(f"{self.env_id}: {script}.py does not take images; use ppo.py")
            self.trunk = dict(trunk=pixels.Convolutions)
            if torch.cuda.is_available() and "workers" not in self.hp:
                torch.set_default_device("cuda")
        self.check_pictures(one)
        label = "-".join([self.env_id, *(f"{k}={v}" for k, v in self.env_kwargs.items())])
        self.choose_folder(re.sub("[/:]", "-", label), self.flags.record, self.flags.picture)
        self.progress = Progress(one, self.hp["steps"], self.flags.stop_when_solved)

    def check_pictures(self, env: gym.Env) -> None:
        """Check --picture, --render and --record."""
        flags, modes = self.flags, env.metadata.get("render_modes", [])
        drawable = isinstance(env.unwrapped, envs.FiniteMDP) or plotting.plane_of(env)
        if flags.picture and not (drawable and flags.picture.suffix == ".png"):
            raise BadInput(f"--picture draws our grids, {', '.join(plotting.PLANES)}; .png only")
        displays = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        screen = sys.platform in ("win32", "darwin") or any(map(os.environ.get, displays))
        self.text = flags.render and "ansi" in modes and (modes[0] == "ansi" or not screen)
        if flags.render and not (self.text or screen):
            raise BadInput("--render: there is no screen here; use --record clip.gif")
        if flags.record or (flags.render and not self.text):
            try:  # so that a missing package shows now
                self.clip(flags.record.suffix if flags.record else ".gif", whole=False)
            except Exception as error:
                why = envs.short(error, 200)
                raise BadInput(f"cannot be drawn (--record takes .gif, .mp4): {why}") from error

    def go(self) -> int:
        """Train or load, evaluate, save, show. Returns the exit status."""
        self.learned = self.load() if self.flags.load else self.learn()
        seed = self.seed + 1_000_000  # not the episodes it was trained on
        returns = play(self.open(), self.greedy, seed=seed, episodes=EPISODES, most_steps=STEPS)
        line = f"greedy policy, {len(returns)} episodes: mean return {np.mean(returns):.2f}"
        say(f"{line}, standard deviation {np.std(returns):.2f}")
        self.save_picture(lambda: plotting.learning_curve(self.progress, self.title, returns))
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
        learned, progress = [], self.progress
        with ctrl_c(progress):
            try:
                learned = self.trained(self.text, on_episode=progress)
            finally:  # where it diverged, the returns are worth a look; older weights stay there
                self.save([COLUMNS, *progress.rows], learned, solved=progress.solved)
        say(progress.summary() + f"\nsaved in {self.out}" * self.saves)
        return learned

    def load(self) -> list:
        """What was learned, from the files of a saved run."""
        few = {name: n for name, n in dict(steps=0, workers=1).items() if name in self.hp}
        return self.filled(self.trained(**few))  # networks of the same shapes

    # ------------------------------------------------------------------------------- afterwards

    def ask(self, function: Callable, state):
        """What act or value says about a state."""
        with torch.inference_mode():
            return function(*self.learned, state if self.table else torch.as_tensor(state))

    def greedy(self, state):
        """The greedy action in a state."""
        return torch.as_tensor(self.ask(self.act, state)).cpu().numpy()

    def show(self) -> None:
        """--picture, --record, --render, and the table."""
        world = self.open()
        if self.flags.picture:
            look = lambda s: (self.greedy(s), self.value and float(self.ask(self.value, s)))
            draw = plotting.plane if plotting.plane_of(world) else plotting.picture
            self.draw(self.flags.picture, draw(world, look, self.title))
        if self.flags.record:
            self.draw(self.flags.record, self.clip(self.flags.record.suffix))
        if self.flags.render:
            window = Shown(self.open(render_mode="ansi" if self.text else "human"))
            for episode in range(1, 4):
                play(window, self.greedy, seed=self.seed + episode, watch=window_closed)
            window.close()
        if self.table:
            table = np.array2string(self.learned[0], precision=4, suppress_small=True)
            names = ", ".join(getattr(world.unwrapped, "action_names", ["a = 0, 1, ..."]))
            say(f"Q-table, a row for each state, columns {names}:\n{table}")

    def clip(self, kind: str, whole: bool = True) -> bytes:
        """A clip of an episode of the greedy policy, or of its first image."""
        world, frames = self.open(render_mode="rgb_array"), []

        def watch(total: float) -> bool:
            frames.append(plotting.frame(world.render(), total))
            return not whole

        play(world, self.greedy, seed=self.seed, watch=watch)
        return plotting.clip(frames, world.metadata.get("render_fps", 30), kind)

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
        watch: called with the return so far after each reset and step; True ends the episode.

    Returns:
        The return of each episode; the last one may not have ended.
    """
    returns = []
    while len(returns) < episodes and most_steps > 0:
        state, _ = env.reset(seed=None if returns else seed)
        total, over = 0.0, watch(0.0)
        while not over and most_steps > 0:
            state, reward, terminated, truncated, _ = env.step(policy(state))
            total, most_steps = total + reward, most_steps - 1
            over = watch(total) or terminated or truncated
        returns.append(total)
    return returns


def window_closed(total: float = 0.0) -> bool:
    """Whether the user has closed the window that Gymnasium opened with pygame."""
    pygame = sys.modules.get("pygame")
    return bool(pygame and pygame.display.get_init() and pygame.event.peek(pygame.QUIT))


# --------------------------------------------------------------------------------------- the files


def modules(learned: list) -> torch.nn.ModuleList:
    """Networks, and tables as if they were networks: both are saved and loaded alike."""
    table = lambda x: torch.nn.ParameterList([torch.from_numpy(x)])  # it shares the array's memory
    return torch.nn.ModuleList([table(x) if isinstance(x, np.ndarray) else x for x in learned])


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files: all of them beside the old ones first, so that a full disk spares those.

    Raises:
        OSError: it failed; the message says in which temporary folder the files are instead.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as parts:
            for name, content in files.items():
                Path(parts, name).write_bytes(content)
            for name in files:
                Path(parts, name).replace(folder / name)
    except OSError as error:
        spare = Path(tempfile.mkdtemp(prefix="deep-rl-"))
        for name, content in files.items():
            Path(spare, name).write_bytes(content)
        raise OSError(f"{folder}: {error.strerror}; saved in {spare} instead") from None
