"""Everything around a training: flags, checks, progress, returns.csv, saving, loading, evaluating.

No algorithm needs this file. A script's `main()` reads:

    from common import runs

    return runs.main(train, argv, env="CartPole-v1", act=..., value=...)

rlhf.py, which has a language in place of an environment, takes from here what common/language.py
needs: flags, checks, Ctrl-C, files.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import typing
from collections.abc import Callable
from math import inf
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro
from tqdm import tqdm

from common import envs, plotting
from common.envs import BadInput

EPISODES, STEPS = 20, 50_000  # of an evaluation, whichever ends first: some episodes never end
WATCHED_STEPS = 2_000  # of an episode in a window or a clip
COLUMNS = ("episode", "step", "seconds", "return", "length")  # of returns.csv
WEIGHTS = {False: "weights.pt", True: "q_table.npy"}  # whether a table was learned -> file

# The intervals of train()'s keywords. "script.keyword" is for that script only.
INTERVALS = {
    "[0, 2**31)": (lambda x: 0 <= x < 2**31, "seed"),
    "[1, inf)": (lambda x: 1 <= x < inf, "episodes steps memory batch train_every n_steps t_max "
                 "workers n_envs horizon epochs hidden demonstrations comparisons"),
    "[0, inf)": (lambda x: 0 <= x < inf, "warmup sigma beta clip"),
    "(0, inf)": (lambda x: 0 < x < inf, "alpha d_targ std "
                 "reinforce.beta actor_critic.beta ddpg.beta"),
    "[0, 1]": (lambda x: 0 <= x <= 1, "gamma gae_lambda epsilon"),
    "(0, 1]": (lambda x: 0 < x <= 1, "tau qlearning_table.alpha"),
}  # fmt: skip


def main(train: Callable, argv=None, *, env: str, act: Callable, value=None, several=False) -> int:
    """Run a script, from its command line to the summary.

    Args:
        train: the script's train(). Its module may have prepare() and LITERAL.
        argv: the command line after the script's name; None takes sys.argv.
        env: the default of --env.
        act: (*learned, state) -> the greedy action. The state comes from prepare(): a tensor, a
            float32 vector or a uint8 image, or an int if a table was learned.
        value: (*learned, state) -> the value of the state; None if no value was learned.
        several: train() takes a function that makes an environment, in place of an environment.

    Returns:
        The exit status: 0; 1: training diverged, or the disk is full; 2: bad input; 130: Ctrl-C.
    """
    script = Path(inspect.getfile(inspect.unwrap(train))).stem
    argv = sys.argv[1:] if argv is None else argv
    return explained(script, lambda: Run(script, train, argv, env, several).go(act, value))


def explained(script: str, run: Callable[[], int]) -> int:
    """The exit status of run(). What goes wrong in it becomes one line on standard error."""
    try:
        return run()
    except (BadInput, FloatingPointError, MemoryError) as error:
        print(f"{script}.py: {envs.first_line(error)}", file=sys.stderr)
        return getattr(error, "status", 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


# -------------------------------------------------------------------------------------- the flags


@dataclasses.dataclass
class Files:
    """The flags that every script has beside the keywords of its train().

    Args:
        out: folder for returns.csv, returns.png, run.json and what was learned; default:
            runs/<script>/<env>/seed<N>
        save: --no-save writes nothing
        load: no training: take what was saved in this folder, and evaluate it
    """

    out: Path | None = None
    save: bool = True
    load: Path | None = None


@dataclasses.dataclass
class World:
    """The flags of the scripts that have an environment.

    Args:
        env: any Gymnasium id, or one of ours: Treasure-v0, GridWorld-v0, Maze-v0, MiniPong-v0
        env_kwargs: its own options, as name=value: --env-kwargs size=8
        stop_when_solved: stop when the mean of the last 100 returns reaches the environment's
            reward_threshold (Pendulum-v1: -200, last 20)
        render: watch the learned policy afterwards in a window; text environments in the terminal,
            where the first training episodes are shown, too
        record: save a clip as FILE.gif, or FILE.mp4 (with imageio-ffmpeg)
        picture: draw what was learned as FILE.png: Treasure-v0, GridWorld-v0, Maze-v0
        device: where the networks are; auto: a GPU for images, if there is one, else the CPU, which
            is faster for small networks. On a GPU two runs of one seed may differ
    """

    env: str = ""
    env_kwargs: tuple[str, ...] = ()
    stop_when_solved: bool = True
    render: bool = False
    record: Path | None = None
    picture: Path | None = None
    device: typing.Literal["auto", "cpu", "cuda"] = "auto"


def parse(train: Callable, argv: list[str], script: str, kinds: tuple, **defaults) -> tuple:
    """The flags, and the keywords of train() with their values.

    tyro answers --help and what does not parse (status 2). With --literal the literal values are
    the flags' defaults, so a flag given beside it wins.

    Args:
        train: the script's train(); its module may have LITERAL. The help of a keyword is the
            comment behind it.
        argv: the command line after the script's name.
        script: the script's name.
        kinds: dataclasses of more flags.
        defaults: of their flags, where they differ.
    """
    module, types = sys.modules[train.__module__], typing.get_type_hints(train)
    source = inspect.getsource(inspect.unwrap(train))
    comments = dict(re.findall(r"^ +(\w+): .*?  # (.*)$", source, re.MULTILINE))
    fields = []
    for name, keyword in inspect.signature(train).parameters.items():
        if keyword.kind is keyword.KEYWORD_ONLY and not name.startswith("on_"):
            flag = typing.Annotated[types[name], tyro.conf.arg(help=comments.get(name, ""))]
            fields.append((name, flag, keyword.default))
    if [a for a in argv if a in ("--literal", "--no-literal")][-1:] == ["--literal"]:
        defaults |= getattr(module, "LITERAL", {})
    Settings = dataclasses.make_dataclass("Settings", fields, bases=kinds)
    page = (module.__doc__ or "").split("\n\nPseudocode")[0].split("\n\n")
    text = dict(prog=f"{script}.py", description="\n\n".join(page[:2]))
    given = tyro.cli(Settings, args=argv, default=Settings(**defaults), **text)
    return given, {name: getattr(given, name) for name, *_ in fields}


def check_numbers(hyperparameters: dict, script: str) -> None:
    """Refuse what lies outside of INTERVALS.

    Raises:
        BadInput: naming the value and its interval.
    """
    for interval, (holds, names) in INTERVALS.items():
        for name in names.split():
            keyword = name.removeprefix(f"{script}.")
            if keyword in hyperparameters and not holds(x := hyperparameters[keyword]):
                raise BadInput(f"--{keyword.replace('_', '-')} {x}: it must lie in {interval}")
    batch, memory = (hyperparameters.get(name, 0) for name in ("batch", "memory"))
    if batch > memory > 0:
        raise BadInput(f"--batch {batch}: more transitions than --memory {memory} holds")


def options(pairs: tuple[str, ...]) -> dict:
    """("size=8", "map_name=8x8") -> {"size": 8, "map_name": "8x8"}"""
    result = {}
    for name, equals, text in (pair.partition("=") for pair in pairs):
        if not equals:
            raise BadInput(f"--env-kwargs {name}: write name=value, as in size=8")
        result[name] = text
        with contextlib.suppress(ValueError, SyntaxError):
            result[name] = ast.literal_eval(text)
    return result


# -------------------------------------------------------------------------------- during training


@contextlib.contextmanager
def ctrl_c_sets(stop):
    """The first Ctrl-C only sets stop.value to 1; a second one quits."""

    def ask(*_):
        stop.value = 1
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """Counts and shows the episodes of a training, and turns Ctrl-C into a request.

    Attributes:
        rows: one (episode, step, seconds, return, length) for each episode.
        solved: the row at which the goal was reached, or None.
        stop: a value shared with other processes, for envs.Guard; 1 after Ctrl-C.

    Args:
        env_id: the environment's id.
        budget: the keywords of train(), for "steps" and "episodes".
        until_solved: whether solving it ends the training.
        bar: whether a terminal may show a progress bar.
    """

    def __init__(self, env_id: str, budget: dict, until_solved: bool, bar: bool):
        self.goal, self.window = envs.solved_at(env_id)
        self.budget, self.until_solved, self.step = budget, until_solved, 0
        self.rows, self.solved, self.stop = [], None, multiprocessing.RawValue("b", 0)
        style = dict(unit="step", unit_scale=True, dynamic_ncols=True)
        self.bar = tqdm(total=budget["steps"], disable=not (bar and sys.stderr.isatty()), **style)

    @contextlib.contextmanager
    def training(self):
        """The time of training.

        The first Ctrl-C lets the running episode end as truncated, so that train() returns what it
        has; a second one quits.
        """
        self.start, self.shown_next = time.perf_counter(), 1
        with ctrl_c_sets(self.stop), self.bar:
            yield
        self.seconds = time.perf_counter() - self.start

    def on_episode(self, episode_return: float, length: int, step: int) -> bool:
        """train() calls this after each episode. True ends the training: solved, or Ctrl-C.

        Args:
            episode_return: the episode's undiscounted sum of rewards.
            length: its steps.
            step: environment steps since training began.
        """
        self.step, seconds = step, time.perf_counter() - self.start
        if self.stop.value:  # Ctrl-C cut this episode short, so its return means nothing
            return True
        self.rows.append((len(self.rows) + 1, step, seconds, float(episode_return), int(length)))
        recent = [row[3] for row in self.rows[-self.window :]]
        mean = sum(recent) / len(recent)
        if self.goal is not None and len(recent) == self.window and mean >= self.goal:
            self.solved = self.solved or self.rows[-1]
        line = f"episode {len(self.rows)}, mean of the last {len(recent)}: {mean:.1f}"
        self.bar.set_description(line, refresh=False)
        self.bar.update(step - self.bar.n)
        if self.bar.disable and seconds > self.shown_next:  # after 1, 2, 4, ... s, then every 30
            print(f"{line}, step {step}, {step / seconds:.0f} steps/s", flush=True)
            self.shown_next = seconds + min(seconds, 30)
        return bool(self.solved and self.until_solved)

    def summary(self) -> str:
        """Lines for the end of the training."""
        returns, steps = [row[3] for row in self.rows], self.step
        ended = self.stop.value or (self.solved and self.until_solved)
        if not ended and len(returns) < self.budget.get("episodes", inf):
            steps = max(steps, self.budget["steps"])  # the budget ended inside an episode
        end = "interrupted after" if self.stop.value else "trained for"
        speed = f"{self.seconds:.1f} s ({steps / self.seconds:.0f} steps/s)"
        text = f"{end} {len(returns)} episodes, {steps} steps, {speed}"
        if not returns:
            return f"{text}\nno episode ended: give more --steps"
        last = returns[-self.window :]
        text += f"\nmean return of the last {len(last)} episodes: {np.mean(last):.2f}"
        if self.goal is not None:
            text += "\nsolved" if self.solved else "\nnot solved"
            text += f" (mean of {self.window} at or above {self.goal:g})"
        if self.solved:
            text += " at episode {}, step {}, {:.1f} s".format(*self.solved[:3])
        return text


class Shown(gym.Wrapper):
    """Reports the first dozen episodes, with "ansi" step by step, as the lecture's demo does."""

    episode = 0

    def show(self) -> None:
        """Print the present state, on a terminal over the one before it."""
        if self.env.render_mode == "ansi" and self.episode <= 12:
            text = self.env.render().rstrip("\n")
            print(text, flush=True)
            if sys.stdout.isatty():
                time.sleep(0.05)
                print(f"\x1b[{text.count(chr(10)) + 1}A\x1b[J", end="")

    def reset(self, **kwargs):
        result = self.env.reset(**kwargs)
        self.episode, self.steps = self.episode + 1, 0
        self.show()
        return result

    def step(self, action):
        _, _, terminated, truncated, _ = result = self.env.step(action)
        self.steps += 1
        self.show()
        if (terminated or truncated) and self.episode <= 12:
            print(f"Episode {self.episode}: total_steps = {self.steps}")
        return result


# ------------------------------------------------------------------------------ the greedy policy


class Greedy:
    """What was learned, as a policy in a prepared environment: greedy(state) is its action.

    Args:
        env: the prepared environment.
        learned: what train() returned, without the returns.
        act, value: as main().
    """

    def __init__(self, env: gym.Env, learned: list, act: Callable, value: Callable | None):
        self.env, self.learned, self.act, self.value = env, learned, act, value

    def ask(self, function: Callable, state):
        """What act or value says about a state of the prepared environment."""
        state = state if is_table(self.learned) else torch.tensor(state)
        with torch.inference_mode():
            return function(*self.learned, state)

    def __call__(self, state):
        action, space = self.ask(self.act, state), self.env.action_space
        if isinstance(space, gym.spaces.Discrete):
            return int(action)
        return np.asarray(action.cpu(), space.dtype).reshape(space.shape)

    def look(self, state) -> tuple:
        """The greedy action and its value; None if no value was learned."""
        return self(state), self.value and float(self.ask(self.value, state))


def play(env, policy, *, seed, episodes=1, most_steps=WATCHED_STEPS, watch=lambda total: False):
    """Play episodes in a prepared environment.

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
            total, length, done = total + float(reward), length + 1, terminated or truncated
            closed = watch(total)
        played.append((total, length, done))
        budget = 0 if closed else budget - length
    return played


def window_closed(total: float = 0.0) -> bool:
    """Whether the user has closed the window that Gymnasium opened with pygame."""
    pygame = sys.modules.get("pygame")
    return bool(pygame and pygame.display.get_init() and pygame.event.peek(pygame.QUIT))


# ---------------------------------------------------------------------------------------- the run


class Run:
    """One run of a script. Making it checks every flag.

    Args:
        script: the script's name, "dqn".
        train, argv, env, several: as main().

    Raises:
        BadInput: a flag, the environment or a file cannot work.
    """

    def __init__(self, script: str, train: Callable, argv: list[str], env: str, several: bool):
        self.script, self.train, self.several = script, train, several
        self.prepare = getattr(sys.modules[train.__module__], "prepare", lambda env: env)
        flags, hp = parse(train, argv, script, (Files, World), env=env)
        check_numbers(hp, script)
        if flags.load:
            saved = saved_run(flags.load, script)
            if flags.env != saved["env"] and any(a.partition("=")[0] == "--env" for a in argv):
                raise BadInput(f"--load {flags.load}: trained on {saved['env']}; leave --env out")
            flags.env, flags.env_kwargs = saved["env"], saved["env_kwargs"]
            hp |= saved["hyperparameters"] | {"seed": hp["seed"]}
        self.flags, self.hyperparameters = flags, hp
        self.open = functools.partial(envs.make, flags.env, **options(flags.env_kwargs))
        self.title = f"{script}.py on {flags.env}, seed {hp['seed']}"
        label = re.sub("[/:]", "-", "-".join([flags.env, *flags.env_kwargs]))
        self.out = flags.out or Path("runs", script, label, f"seed{hp['seed']}")
        self.saves = flags.save and not flags.load
        with contextlib.closing(self.open()) as one:
            envs.check_spaces(one, script)
            # A table or a vector gains nothing from a GPU; a3c's workers share memory of the CPU.
            gpu = script not in ("qlearning_table", "ddpg", "a3c") and torch.cuda.is_available()
            if flags.device == "cuda" and not gpu:
                raise BadInput(f"--device cuda: not with {script}.py on this machine; leave it out")
            prepared = self.prepare(one)
            images = len(prepared.observation_space.shape or ()) == 3
            self.cuda = flags.device == "cuda" or (flags.device == "auto" and gpu and images)
            if "memory" in hp and not flags.load:
                envs.check_memory(prepared, hp["memory"])
            self._check_files(one)

    def _check_files(self, env: gym.Env) -> None:
        """Check --out, --record, --picture and --render before training, not an hour later."""
        flags, modes = self.flags, env.metadata.get("render_modes", [])
        record, picture = flags.record, flags.picture
        if picture and not (picture.suffix == ".png" and plotting.drawable(env)):
            worlds = "a .png of Treasure-v0, GridWorld-v0 or Maze-v0"
            raise BadInput(f"--picture {picture}: it can only be {worlds}")
        displays = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        screen = sys.platform in ("win32", "darwin") or any(map(os.environ.get, displays))
        self.text = "ansi" in modes and (modes[0] == "ansi" or not screen)
        if flags.render and not (self.text or screen):
            raise BadInput("--render: there is no screen here; use --record clip.gif")
        if record or (flags.render and not self.text):
            try:  # a clip of one image, so that a missing package shows now
                with contextlib.closing(self.open(render_mode="rgb_array")) as env:
                    env.reset()
                    image = plotting.frame(env.render(), 0.0)
                    plotting.clip([image], 30, record.suffix if record else ".gif")
            except Exception as error:
                flag = f"--record {record}" if record else "--render"
                why = f"{flags.env} cannot be drawn: {envs.first_line(error)}"
                raise BadInput(f"{flag}: {why} (.gif, or .mp4 with imageio-ffmpeg)") from error
        for folder in [path.parent for path in (record, picture) if path] + [self.out] * self.saves:
            write(folder, {})

    def go(self, act: Callable, value: Callable | None) -> int:
        """Train or load, evaluate, save, show. Returns the exit status."""
        with torch.device("cuda") if self.cuda else contextlib.nullcontext():  # of new tensors
            return self._go(act, value)

    def _go(self, act: Callable, value: Callable | None) -> int:
        flags, seed = self.flags, self.hyperparameters["seed"]
        learned = load(flags.load, self.untrained) if flags.load else self._train()
        env = self.prepare(self.open())
        greedy = Greedy(env, learned, act, value)
        self._evaluate(greedy)
        if flags.picture:
            image = plotting.picture(env, greedy.look, self.title)
            write(flags.picture.parent, {flags.picture.name: image})
        if flags.record:
            world, frames = self.prepare(self.open(render_mode="rgb_array")), []
            take = lambda total: frames.append(plotting.frame(world.render(), total))
            play(world, greedy, seed=seed, watch=take)
            clip = plotting.clip(frames, world.metadata.get("render_fps", 30), flags.record.suffix)
            write(flags.record.parent, {flags.record.name: clip})
        if flags.render:
            world = self.prepare(Shown(self.open(render_mode="ansi" if self.text else "human")))
            for episode in range(1, 4):
                play(world, greedy, seed=seed + episode, watch=window_closed)
            world.close()
        if is_table(learned):
            print_table(learned[0], env)
        return 130 if not flags.load and self.progress.stop.value else 0

    def _train(self) -> list:
        """What was learned. It is saved at once, before anything else can go wrong."""
        hp, text = self.hyperparameters, self.flags.render and self.text and not self.several
        self.progress = Progress(self.flags.env, hp, self.flags.stop_when_solved, bar=not text)
        make = functools.partial(self.open, stop=self.progress.stop)
        env = Shown(make(render_mode="ansi")) if text else make if self.several else make()
        try:
            with self.progress.training():
                *learned, _ = self.train(env, **hp, on_episode=self.progress.on_episode)
        except Exception:  # diverged, or the environment broke: at least the curve is worth a look
            if self.progress.rows:
                self._save([])
            raise
        print(self.progress.summary())
        self._save(learned)
        return learned

    def untrained(self) -> list:
        """What train() begins with."""
        hp = self.hyperparameters | {"steps": 0}
        hp |= {"workers": 1} if "workers" in hp else {}
        return self.train(self.open if self.several else self.open(), **hp)[:-1]

    def _evaluate(self, greedy: Greedy) -> None:
        """Print the mean and spread of the greedy policy's returns."""
        seed = self.hyperparameters["seed"] + 1_000_000  # not the episodes it was trained on
        played = play(greedy.env, greedy, seed=seed, episodes=EPISODES, most_steps=STEPS)
        ended, line = [total for total, _, done in played if done], "greedy policy"
        if ended:
            line += f", {len(ended)} episodes: mean return {np.mean(ended):.2f}"
            line += f", standard deviation {np.std(ended):.2f}"
        if len(ended) < len(played):
            line += "; an episode did not end: return {:.2f} after {} steps".format(*played[-1])
        print(line)

    def _save(self, learned: list) -> None:
        """Write the run's files; of nothing learned only those about the training."""
        if not self.saves:
            return
        progress, flags = self.progress, self.flags
        rows = [(e, step, f"{t:.3f}", r, n) for e, step, t, r, n in progress.rows]
        settings = dict(script=self.script, env=flags.env, env_kwargs=flags.env_kwargs)
        settings["hyperparameters"] = self.hyperparameters
        settings["solved"] = progress.solved and dict(zip(COLUMNS, progress.solved, strict=True))
        files = packed(settings, [COLUMNS, *rows], learned)
        if rows:
            curve = progress.rows, self.title, progress.goal, progress.window, progress.solved
            files["returns.png"] = plotting.learning_curve(*curve)
        write(self.out, files)


def print_table(Q: np.ndarray, env: gym.Env, most: int = 16) -> None:
    """Print the first `most` rows of a Q-table, shape (states, actions)."""
    names = getattr(env.unwrapped, "action_names", [f"action {a}" for a in range(Q.shape[1])])
    print("\nQ-table  " + "".join(f"{name:>11}" for name in names))
    for state, values in enumerate(Q[:most]):
        print(f"state {state:<3}" + "".join(f"{value:11.4f}" for value in values))
    if len(Q) > most:
        print(f"... and {len(Q) - most} more states")


# --------------------------------------------------------------------------------------- the files


def is_table(learned: list) -> bool:
    """Whether a Q-table was learned, and not networks."""
    return isinstance(learned[0], np.ndarray)


def packed(settings: dict, table: list[tuple], learned: list) -> dict[str, bytes]:
    """run.json, returns.csv and what was learned (if anything was): name -> content of the file."""
    settings |= {"versions": {m.__name__: str(m.__version__) for m in (gym, np, torch)}}
    files = {"run.json": (json.dumps(settings, indent=2) + "\n").encode()}
    files["returns.csv"] = "".join(",".join(map(str, row)) + "\n" for row in table).encode()
    content = io.BytesIO()
    if learned and is_table(learned):
        np.save(content, learned[0], allow_pickle=False)
    elif learned:
        weights = torch.nn.ModuleList(learned).state_dict()
        torch.save({name: weight.cpu() for name, weight in weights.items()}, content)
    return files | ({WEIGHTS[is_table(learned)]: content.getvalue()} if learned else {})


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files or none, and say so. No files: only find out whether it can write.

    The files go to a temporary folder first, so that a full disk loses nothing that was there.

    Raises:
        BadInput: the folder cannot be written, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            for name, content in files.items():
                Path(part, name).write_bytes(content)
            for name in files:
                os.replace(Path(part, name), folder / name)
    except OSError as error:
        failure = BadInput(f"cannot write to {folder}: {error.strerror}; choose another folder")
        failure.status = 1 if files else 2  # before training it is bad input
        raise failure from None
    if files:
        print("saved", *(folder / name for name in files), sep="  ")


def saved_run(folder: Path, script: str) -> dict:
    """What run.json in a saved run's folder says.

    Raises:
        BadInput: it is missing or damaged, or of another script.
    """
    try:
        run = dict(env="", env_kwargs=(), hyperparameters={})
        run |= json.loads((folder / "run.json").read_text())
        by = run["script"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"run.json is missing or damaged ({type(error).__name__})"
        raise BadInput(f"--load {folder}: {why}; give a folder that --out wrote") from None
    if by != script:
        raise BadInput(f"--load {folder}: {by}.py saved it; {by}.py --load {folder}")
    return run


def load(folder: Path, untrained: Callable[[], list]) -> list:
    """What was learned, from the files of a saved run. Nothing in them is executed.

    Args:
        folder: of the run.
        untrained: makes a table or networks of the same shapes.

    Raises:
        BadInput: the file is missing, damaged, or of another shape.
    """
    path = folder
    try:
        learned = untrained()
        path = folder / WEIGHTS[is_table(learned)]
        if is_table(learned):
            learned[0][:] = np.load(path, allow_pickle=False).reshape(learned[0].shape)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            torch.nn.ModuleList(learned).load_state_dict(weights)
        return learned
    except Exception as error:
        raise BadInput(f"--load {path}: {envs.first_line(error)}; train again") from None
