"""The run around a training: flags made from `train()`, checks, progress, returns.csv, saving, loading, evaluating, the summary.

Nothing here is needed to understand an algorithm. A script's `main()` reads:

    with runs.Run(train, argv, env="CartPole-v1") as run:     # parse; bad input becomes one line and exit status 2
        ...                                                   # train or load
        run.finish(...)                                       # evaluate, save, summarise, show
    return run.status
"""

from __future__ import annotations

import ast
import contextlib
import csv
import dataclasses
import functools
import inspect
import io
import json
import os
import platform
import re
import signal
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path

import docstring_parser
import gymnasium as gym
import numpy as np
import torch
import tyro
from tqdm import tqdm

from common import envs, plotting
from common.envs import BadInput

EVALUATION_EPISODES = 20


# -------------------------------------------------------------------------------------------- refusing impossible input


def checked(observations: str, actions: set[str], hint: str = "") -> Callable:
    """Decorator of `train()`: refuse what cannot work before any training, in one line.

    The intervals are read from the docstring's `Args:`; "gamma: discount, in [0, 1]." is the check as well as the documentation.
    A bound may be the name of another argument. An argument that is None (no limit) passes.

    Args:
        observations: "Discrete", or "vector" for every space that flattens into a vector.
        actions: of "Discrete" and "Box", those that fit.
        hint: what to add when the actions do not fit.

    Raises (when `train` is called):
        BadInput: naming the value and what to do.
    """

    def decorate(train):
        signature = inspect.signature(train)
        intervals = {
            p.arg_name: re.search(r"\bin ([\[(])([^,\s]+), ([^,\s]+)([\])])", p.description or "")
            for p in docstring_parser.parse(train.__doc__).params
        }

        @functools.wraps(train)
        def check_then_train(env, **arguments):
            bound = signature.bind(env, **arguments)
            bound.apply_defaults()
            for name, interval in intervals.items():
                value = bound.arguments.get(name)
                if interval is None or value is None:
                    continue
                left, low, high, right = interval.groups()
                low, high = (float(bound.arguments.get(end, end)) for end in (low, high))
                for v in value if isinstance(value, (tuple, list)) else [value]:
                    if not ((v >= low if left == "[" else v > low) and (v <= high if right == "]" else v < high)):
                        raise BadInput(f"--{name.replace('_', '-')} {v}: it has to lie {interval.group()}")
            if isinstance(env, gym.Env):
                envs.check_spaces(env, observations, actions, hint)
                env = envs.zero_based(env)
            else:  # a function that makes environments
                with contextlib.closing(env()) as one:
                    envs.check_spaces(one, observations, actions, hint)
                env = functools.partial(envs.make_zero_based, env)
            return train(env, **arguments)

        return check_then_train

    return decorate


def stop_requested() -> bool:
    """Whether Ctrl-C was pressed during training: for a script that waits for other processes."""
    return envs.StopRequest.asked


# ------------------------------------------------------------------------------------------------------------ the flags


@dataclasses.dataclass
class Flags:
    """The flags that every script has beside the keywords of its train()."""

    env: str
    """any Gymnasium id, or one of ours: Treasure-v0, GridWorld-v0, Maze-v0"""
    env_kwargs: tuple[str, ...] = ()
    """the environment's own options, as name=value: --env-kwargs size=8"""
    stop_when_solved: bool = True
    """stop once the mean of the last 100 returns reaches the environment's reward_threshold (Pendulum-v1: -200 over 20)"""
    out: Path | None = None
    """folder for returns.csv, returns.png, run.json and what was learned; default runs/<script>/<env>/seed<N>"""
    save: bool = True
    """--no-save writes nothing"""
    load: Path | None = None
    """no training: take what was saved in this folder, and evaluate it"""
    render: bool = False
    """watch the learned policy afterwards, in a window (text environments: in the terminal)"""
    render_delay: float = 0.05
    """seconds for each picture in the terminal"""
    render_every: int | None = None
    """watch every Nth episode of the training as well; closing the window ends the watching, not the training"""
    record: Path | None = None
    """save a clip of the learned policy as FILE.gif (or FILE.mp4, with ffmpeg)"""
    picture: Path | None = None
    """draw what was learned as FILE.png: values and greedy actions of grid worlds, CartPole, Pendulum, MountainCar"""


def _parse(train: Callable, argv: list[str] | None, env: str, script: str) -> tuple[Flags, dict]:
    """Flags and the keywords of train(), from the command line; tyro answers --help and what does not parse (status 2)."""
    documents = {p.arg_name: p.description for p in docstring_parser.parse(train.__doc__).params}
    types = typing.get_type_hints(train)
    keywords = [
        p for p in inspect.signature(train).parameters.values() if p.kind is p.KEYWORD_ONLY and not p.name.startswith("on_")
    ]
    fields = [
        (
            p.name,
            typing.Annotated[types[p.name], tyro.conf.arg(help=documents.get(p.name, ""))],
            dataclasses.field(default=p.default),
        )
        for p in keywords
    ]
    Hyperparameters = dataclasses.make_dataclass("Hyperparameters", fields)
    Hyperparameters.__doc__ = "The keywords of train(): the budget and the hyperparameters."

    def both(run: tyro.conf.OmitArgPrefixes[Flags], train: tyro.conf.OmitArgPrefixes[Hyperparameters]):
        return run, vars(train)

    both.__annotations__ = {
        "run": tyro.conf.OmitArgPrefixes[Flags],
        "train": tyro.conf.OmitArgPrefixes[Hyperparameters],
    }
    both.__defaults__ = (Flags(env=env), Hyperparameters())
    page = sys.modules[train.__module__].__doc__ or ""
    idea = page.split("\n\nPseudocode")[0].split("\n\n")
    return tyro.cli(both, prog=script + ".py", args=argv, description="\n\n".join(idea[:2]))


def _options(pairs: tuple[str, ...]) -> dict:
    """("size=8", "map_name=8x8") -> {"size": 8, "map_name": "8x8"}"""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"--env-kwargs {pair}: write name=value, for instance size=8")
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options


# -------------------------------------------------------------------------------------------------------------- the run


class Run:
    """One run of a script, from the command line to the summary.

    Attributes:
        script: the script's name, "dqn".
        hyperparameters: the keywords of train(), from the command line (with --load: as they were saved).
        make_env: a function without arguments that opens an environment to train in; it can be sent to another process.
        load: the folder of --load, or None.
        status: the exit status: 0; 2 for bad input; 1 for a training that diverged; 130 after Ctrl-C.

    Args:
        train: the script's train().
        argv: the command line after the script's name; None takes sys.argv.
        env: the default of --env.
        weights: the name of the file that holds what was learned, "weights.pt" or "q_table.npy".
    """

    def __init__(self, train: Callable, argv: list[str] | None, *, env: str, weights: str = "weights.pt"):
        self.script = Path(inspect.getfile(inspect.unwrap(train))).stem
        self._argv = sys.argv[1:] if argv is None else argv
        self._train, self._default_env, self._weights = train, env, weights
        self.status, self._rows, self._solved, self._shown, self._bar = 0, [], None, 0.0, None
        self._tables, self._in_terminal = {}, False

    # -- from the command line to an environment

    def __enter__(self) -> Run:
        self._flags, self.hyperparameters = _parse(self._train, self._argv, self._default_env, self.script)
        envs.StopRequest.asked = False
        self._handler = signal.getsignal(signal.SIGINT)
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        self._end_training()
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            self.status = 130
        elif isinstance(error, BadInput):
            print(f"{self.script}.py: {error}", file=sys.stderr)
            self.status = error.status
        elif isinstance(error, FloatingPointError):
            print(f"{self.script}.py: training diverged: {error}", file=sys.stderr)
            self.status = 1
            if self._saves:  # the curve so far is worth a look, the weights are not
                print("saved  " + "  ".join(self._save(None)))
        else:
            return False
        return True

    def open_env(self) -> gym.Env:
        """The environment of --env, once every flag has been looked at.

        Raises:
            BadInput: the environment, --load, --out, --record or --render cannot work.
        """
        flags = self._flags
        self.load = flags.load
        if flags.load:
            self._read_settings(flags.load)
        kwargs = _options(flags.env_kwargs)
        self._open = self.make_env = functools.partial(envs.make, flags.env, **kwargs)
        env = self._open()
        label = "-".join([flags.env.replace("/", "-").replace(":", "-"), *(f"{k}={v}" for k, v in kwargs.items())])
        self._picture_window = plotting.Window()
        self._title = f"{self.script}.py on {flags.env}, seed {self.hyperparameters['seed']}"
        self._out = flags.out or Path("runs", self.script, label, f"seed{self.hyperparameters['seed']}")
        self._saves = flags.save and not flags.load
        if self._saves:
            _writable(self._out)
        if flags.record:
            if flags.record.suffix.lower() not in (".gif", ".mp4"):
                raise BadInput(f"--record {flags.record}: the file's name has to end in .gif, or in .mp4")
            if flags.record.suffix.lower() == ".mp4" and not plotting.encoder():
                raise BadInput(f"--record {flags.record}: there is no ffmpeg; pip install imageio-ffmpeg, or name the file .gif")
            _writable(flags.record.parent)
            self._can_render("--record", "rgb_array", env)
        if flags.picture:
            if flags.picture.suffix.lower() != ".png":
                raise BadInput(f"--picture {flags.picture}: the file's name has to end in .png")
            if not plotting.drawable(env):
                worlds = "Treasure-v0, GridWorld-v0, Maze-v0, CartPole-v1, Pendulum-v1, MountainCar-v0"
                raise BadInput(f"--picture: what is learned on {flags.env} cannot be drawn; it works for {worlds}")
            _writable(flags.picture.parent)
        if flags.render_every is not None and flags.render_every < 1:
            raise BadInput(f"--render-every {flags.render_every}: it has to be at least 1")
        self._threshold, self._window = (env.spec.reward_threshold if env.spec else None), 100
        if self._threshold is None and flags.env == "Pendulum-v1":
            self._threshold, self._window = -200.0, 20
        return self._watched(env) if flags.render or flags.render_every else env

    def _can_render(self, flag: str, mode: str, env: gym.Env) -> None:
        if mode not in env.metadata.get("render_modes", []):
            raise BadInput(f"{flag}: {self._flags.env} cannot be rendered as {mode!r}; leave the flag out")
        self._open(render_mode=mode).close()  # a missing package shows here, not after an hour of training

    # -- watching: text environments, those that list "ansi" first, in the terminal; the others in a window

    def _watched(self, env: gym.Env) -> gym.Env:
        """The environment to train in, some of its episodes shown; for scripts that open several, `make_env` shows the first."""
        self._in_terminal = env.metadata.get("render_modes", [])[:1] == ["ansi"]
        every = self._flags.render_every
        several = self.hyperparameters.get("workers", 1) > 1
        if not self._in_terminal:
            self._check_screen("--render" if self._flags.render else "--render-every", env)
        if several and every:
            raise BadInput("--render-every: each worker is a process of its own; add --workers 1 to watch one")
        if self.load or several or (every is None and not self._in_terminal):
            return env  # only what was learned is watched
        Watched.shown = None
        self.make_env = lambda: Watched(self._open(render_mode="ansi" if self._in_terminal else "rgb_array"), self._show, every)
        return self.make_env()

    def _check_screen(self, flag: str, env: gym.Env) -> None:
        screen = sys.platform in ("win32", "darwin") or any(
            os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        )
        if not screen:
            raise BadInput(f"{flag}: there is no screen here; use --record clip.gif")
        self._can_render(flag, "rgb_array", env)

    def _show(self, env: gym.Env, caption: str, draw: bool = True) -> bool:
        """Show the present state, or only see (draw=False) whether the window was closed. False once nobody watches any more."""
        if env.render_mode == "ansi":
            if draw:
                plotting.show_text(env, self._flags.render_delay)
            return True
        image = env.render() if draw else None
        return self._picture_window.show(image, env.metadata.get("render_fps", 30), f"{self._title}: {caption}")

    # -- during training

    @contextlib.contextmanager
    def training(self):
        """The time of training: a progress bar on a terminal, Ctrl-C ends the training and not the program.

        The first Ctrl-C lets the running episode end as truncated, so that train() returns what it has; a second one quits.
        """

        def ask(signum, frame):
            envs.StopRequest.asked = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        with contextlib.suppress(ValueError):  # signals belong to the main thread; elsewhere there is no Ctrl-C to handle
            self._handler = signal.signal(signal.SIGINT, ask)
        self._start = time.perf_counter()
        self._shown = self._start + 1  # when progress is shown next
        if sys.stderr.isatty() and not self._in_terminal:  # a bar and a text environment would write over each other
            total = self.hyperparameters["steps"]
            self._bar = tqdm(total=total, unit="step", unit_scale=True, dynamic_ncols=True, desc="episode 0")
        try:
            yield
        finally:
            self._seconds = time.perf_counter() - self._start
            self._interrupted = envs.StopRequest.asked
            self._end_training()

    def failed(self, error: Exception) -> None:
        """Show an error that ended the training early; what was learned until then is still evaluated and saved."""
        print(f"{self.script}.py: {error}", file=sys.stderr)
        self.status = 1

    def _end_training(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, self._handler)
        envs.StopRequest.asked = False

    def on_episode(self, episode_return: float, length: int, step: int) -> bool:
        """train() calls this after each episode. True ends the training: solved, or Ctrl-C.

        Args:
            episode_return: the episode's undiscounted sum of rewards.
            length: its steps.
            step: environment steps since training began.
        """
        if envs.StopRequest.asked:
            return True  # this episode was cut short: its return is not one
        now = time.perf_counter()
        self._rows.append((len(self._rows) + 1, step, now - self._start, episode_return, length))
        recent = [row[3] for row in self._rows[-self._window :]]
        mean = sum(recent) / len(recent)
        if self._solved is None and self._threshold is not None and len(recent) == self._window and mean >= self._threshold:
            self._solved = self._rows[-1]
        if self._bar is not None:
            if now > self._shown:
                self._bar.set_description(f"episode {len(self._rows)}, mean of the last {len(recent)}: {mean:.1f}", refresh=False)
                self._bar.update(step - self._bar.n)
                self._shown = now + 0.1
        elif now > self._shown:
            speed, last = step / (now - self._start), f"mean of the last {len(recent)} {mean:.1f}"
            print(f"episode {len(self._rows)}, step {step}: {last}, {speed:.0f} steps/s", flush=True)
            self._shown = now + min(now - self._start, 30)  # the next line: after 1, 2, 4, ... seconds, then every 30
        return self._solved is not None and self._flags.stop_when_solved

    def on_table(self, Q: np.ndarray) -> None:
        """train() of Q-learning calls this after each episode: copies for --picture, of fewer and fewer episodes."""
        episode = len(self._rows) + 1
        if self._flags.picture and (episode in (3, 8, 12) or re.fullmatch("[125]0*", str(episode))):
            self._tables[episode] = Q.copy()

    # -- afterwards

    def finish(self, learned: torch.nn.Module | np.ndarray, act: plotting.Act, value: plotting.Value | None = None) -> None:
        """Evaluate, save, summarise; then show what --picture, --record and --render ask for.

        Args:
            learned: what was learned: a module whose weights are saved, or a Q-table.
            act: observation -> the greedy action.
            value: observation -> what a state is worth; None if no value was learned.
        """
        for line in [] if self.load else self._summary():
            print(line)
        files = self._save(learned) if self._saves else []  # before anything else can go wrong
        greedy = evaluate(self._open, act, EVALUATION_EPISODES, self.hyperparameters["seed"])
        mean, spread = np.mean(greedy), np.std(greedy)
        print(f"greedy policy, {len(greedy)} episodes: mean return {mean:.2f}, standard deviation {spread:.2f}")
        if self._flags.picture:
            if self._tables:
                self._tables[len(self._rows)] = learned
            content = plotting.picture(self._open(), act, value, self._title, self._tables)
            files += _write(self._flags.picture.parent, {self._flags.picture.name: content})
        if self._flags.record:
            files.append(self._record(act))
        if files:
            print("saved  " + "  ".join(files))
        if self._flags.render:
            self._watch(act)
        self._picture_window.close()
        if not self.load and self._interrupted:
            self.status = 130

    def _summary(self) -> list[str]:
        returns = [row[3] for row in self._rows]
        steps = self._rows[-1][1] if self._rows else 0
        end = "interrupted after" if self._interrupted else "trained for"
        lines = [f"{end} {len(returns)} episodes, {steps} steps, {self._seconds:.1f} s ({steps / self._seconds:.0f} steps/s)"]
        if not returns:
            return [*lines, "no episode ended: give more --steps"]
        last = returns[-self._window :]
        lines.append(f"mean return of the last {len(last)} episodes: {np.mean(last):.2f}")
        if self._threshold is not None:
            goal = f"mean of {self._window} at or above {self._threshold:g}"
            if self._solved:
                episode, step, seconds, *_ = self._solved
                lines.append(f"solved ({goal}) at episode {episode}, step {step}, {seconds:.1f} s")
            else:
                lines.append(f"not solved ({goal})")
        return lines

    def _save(self, learned) -> list[str]:
        """Write the run's files, each under another name first, so that a full disk loses nothing that was there."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["episode", "step", "seconds", "return", "length"])
        writer.writerows((e, s, f"{t:.3f}", r, n) for e, s, t, r, n in self._rows)
        settings = {
            "script": self.script,
            "env": self._flags.env,
            "env_kwargs": list(self._flags.env_kwargs),
            "hyperparameters": self.hyperparameters,
            "solved": self._solved and dict(zip(["episode", "step", "seconds"], self._solved, strict=False)),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__.split("+")[0],
                "numpy": np.__version__,
                "gymnasium": gym.__version__,
            },
        }
        files = {"returns.csv": table.getvalue().encode(), "run.json": (json.dumps(settings, indent=2) + "\n").encode()}
        if self._rows:
            files["returns.png"] = plotting.learning_curve(self._rows, self._title, self._threshold, self._window, self._solved)
        if learned is not None:
            content = io.BytesIO()
            if isinstance(learned, np.ndarray):
                np.save(content, learned, allow_pickle=False)
            else:
                torch.save(learned.state_dict(), content)
            files[self._weights] = content.getvalue()
        return _write(self._out, files)

    def _read_settings(self, folder: Path) -> None:
        try:
            saved = json.loads((folder / "run.json").read_text())
            script, env, hyperparameters = saved["script"], saved["env"], saved["hyperparameters"]
        except FileNotFoundError:
            raise BadInput(f"--load {folder}: no run.json there; give a folder that --out wrote") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"--load {folder}: run.json cannot be read ({error}); train again") from None
        if script != self.script:
            raise BadInput(f"--load {folder}: saved by {script}.py; run {script}.py --load {folder}")
        given = any(a == "--env" or a.startswith("--env=") for a in self._argv)
        if given and env != self._flags.env:
            raise BadInput(f"--load {folder}: trained on {env}, not on {self._flags.env}; leave --env out")
        self._flags.env, self._flags.env_kwargs = env, tuple(saved.get("env_kwargs", ()))
        # Of the saved keywords those that train() still has; a tuple became a list on its way through the file.
        for name, value in hyperparameters.items():
            if name in self.hyperparameters and name != "seed":
                self.hyperparameters[name] = tuple(value) if isinstance(value, list) else value

    def loaded(self, learned: torch.nn.Module | np.ndarray):
        """`learned`, filled with what --load names. Nothing in the file is executed.

        Raises:
            BadInput: the file is missing, damaged, or of another shape.
        """
        path = self.load / self._weights
        try:
            if isinstance(learned, np.ndarray):
                table = np.load(path, allow_pickle=False)
                if table.shape != learned.shape:
                    raise ValueError(f"shape {table.shape} for {learned.shape}")
                learned[:] = table
            else:
                learned.load_state_dict(torch.load(path, weights_only=True))
        except FileNotFoundError:
            raise BadInput(f"--load {self.load}: no {self._weights} there; give a folder of a finished run") from None
        except Exception as error:
            raise BadInput(f"--load {path}: it does not hold these weights ({envs._first_line(error)}); train again") from None
        return learned

    def _record(self, act) -> str:
        with contextlib.closing(self._open(render_mode="rgb_array")) as env:
            frames, rewards, done = [], [], False
            observation, _ = env.reset(seed=self.hyperparameters["seed"])
            while not done:
                frames.append((env.render(), sum(rewards)))
                observation, reward, terminated, truncated, _ = env.step(act(observation))
                rewards.append(float(reward))
                done = terminated or truncated
            frames.append((env.render(), sum(rewards)))
            content = plotting.clip(frames, env.metadata.get("render_fps", 30), self._flags.record.suffix.lower())
        return _write(self._flags.record.parent, {self._flags.record.name: content})[0]

    def _watch(self, act, episodes: int = 3) -> None:
        with contextlib.closing(self._open(render_mode="ansi" if self._in_terminal else "rgb_array")) as env:
            for episode in range(1, episodes + 1):
                observation, _ = env.reset(seed=self.hyperparameters["seed"] + episode)
                total, step, done = 0.0, 0, False
                while not done:
                    if not self._show(env, f"episode {episode}, return {total:g}"):
                        return
                    observation, reward, terminated, truncated, _ = env.step(act(observation))
                    total, step, done = total + float(reward), step + 1, terminated or truncated
                self._show(env, f"episode {episode}, return {total:g}")
                print(f"Episode {episode}: total_steps = {step}, return {total:g}")


class Watched(gym.Wrapper):
    """Shows episodes of the training as they happen: every Nth, or as the lecture's demo does the first twelve.

    Of several environments only one is shown, that which is reset first.

    Args:
        env: opened for rendering.
        show: (environment, caption, whether to draw) -> False once nobody watches any more.
        every: N, or None for the first twelve episodes.
    """

    shown: Watched | None = None

    def __init__(self, env: gym.Env, show: Callable[[gym.Env, str, bool], bool], every: int | None):
        super().__init__(env)
        self.show, self.every, self.episode, self.steps, self.total = show, every, 0, 0, 0.0

    def _show(self) -> bool:
        """Show this episode, if it is one to be shown."""
        wanted = self.episode <= 12 if self.every is None else self.episode % self.every == 0
        if Watched.shown is not self or (not wanted and self.steps):
            return False
        if not self.show(self.env, f"training, episode {self.episode}, return {self.total:g}", wanted):
            Watched.shown = False  # closed: nothing is shown any more
        return wanted

    def reset(self, **kwargs):
        Watched.shown = self if Watched.shown is None else Watched.shown
        result = self.env.reset(**kwargs)
        self.steps, self.total, self.episode = 0, 0.0, self.episode + 1
        self._show()
        return result

    def step(self, action):
        result = self.env.step(action)
        self.steps, self.total = self.steps + 1, self.total + float(result[1])
        if self._show() and (result[2] or result[3]) and self.env.render_mode == "ansi":
            print(f"Episode {self.episode}: total_steps = {self.steps}")
        return result


def evaluate(make_env: envs.EnvMaker, act: Callable, episodes: int, seed: int, most_steps: int = 50_000) -> list[float]:
    """Returns of `episodes` episodes of the policy `act`, in an environment of its own, with a seed of its own.

    After `most_steps` it ends with the episodes there are, as some never end; at least one return is given.
    """
    with contextlib.closing(make_env()) as env:
        observation, _ = env.reset(seed=seed + 1_000_000)  # not the episodes it was trained on
        returns, total = [], 0.0
        for _ in range(most_steps):
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            total += float(reward)
            if terminated or truncated:
                returns.append(total)
                if len(returns) == episodes:
                    break
                total = 0.0
                observation, _ = env.reset()
        return returns or [total]


def print_table(Q: np.ndarray, env: gym.Env, most: int = 16) -> None:
    """Print a Q-table, shape (states, actions), with the names of states and actions; of a long one the first `most` rows."""
    names = getattr(env.unwrapped, "action_names", None) or [f"action {a}" for a in range(Q.shape[1])]
    rows, columns = env.unwrapped.shape if isinstance(env.unwrapped, envs.FiniteMDP) else (1, 0)
    print("\nQ-table" + "".join(f"{name:>11}" for name in names))
    for state, values in enumerate(Q[:most]):
        label = f"cell {state // columns},{state % columns}" if rows > 1 else f"{'cell' if columns else 'state'} {state}"
        print(f"{label:<9}" + "".join(f"{value:11.4f}" for value in values))
    if len(Q) > most:
        print(f"... and {len(Q) - most} more states")


# ------------------------------------------------------------------------------------------------------------ the files


def _writable(folder: Path) -> None:
    """Find out before training, not after it, that a folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}; choose another folder, or --no-save") from None


def _write(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write all files or none: each goes to a temporary name first, and they are renamed once all are on the disk."""
    temporary = {folder / name: folder / (name + ".part") for name in files}
    try:
        for part, content in zip(temporary.values(), files.values(), strict=True):
            part.write_bytes(content)
        for path, part in temporary.items():
            os.replace(part, path)
    except OSError as error:
        for part in temporary.values():
            part.unlink(missing_ok=True)
        failure = BadInput(f"cannot save to {folder}: {error.strerror}; what was there before is untouched")
        failure.status = 1  # not the user's doing
        raise failure from None
    return [str(path) for path in temporary]
