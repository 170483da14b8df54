"""How many environment steps a second each program makes while it learns, on one core.

    python benchmark/speed.py                                  the scripts and Stable-Baselines3
    python benchmark/speed.py --cleanrl DIR --minimalrl DIR    and clones of these repositories

Every program runs as it is, its own default settings included (Stable-Baselines3: its zoo's), with
one thread, one program after the other, in several rounds. Environments count their steps: after
START of them, when all programs learn, the processor time of the next SECONDS is taken. At the end
a table is printed: the median of the rounds, and the ratio to the floor, a program that only acts
with an untrained network of one hidden layer. The clones need what they import themselves
(CleanRL: tensorboard; its DDPG needs gymnasium 0.29, and is left out).
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
START, SECONDS, EVERY = 12_000, 8.0, 64  # EVERY: steps between two looks at the clock
CARTPOLE, PENDULUM = "CartPole-v1", "Pendulum-v1"
SB3 = " --env CartPole-v1 --out {out}"
OURS = " --steps 1000000 --no-stop-when-solved --no-save"
# Name, environment, what is run. {cleanrl} and {minimalrl}: the folders of the clones.
# fmt: off
PROGRAMS = [
    ("floor", CARTPOLE, "floor CartPole-v1"),
    ("dqn.py", CARTPOLE, "dqn.py" + OURS),
    ("SB3 DQN", CARTPOLE, "benchmark/peers.py sb3_dqn" + SB3),
    ("CleanRL dqn.py", CARTPOLE, "{cleanrl}/cleanrl/dqn.py"),
    ("minimalRL dqn.py", CARTPOLE, "{minimalrl}/dqn.py"),
    ("reinforce.py", CARTPOLE, "reinforce.py" + OURS),
    ("minimalRL REINFORCE.py", CARTPOLE, "{minimalrl}/REINFORCE.py"),
    ("actor_critic.py", CARTPOLE, "actor_critic.py" + OURS),
    ("minimalRL actor_critic.py", CARTPOLE, "{minimalrl}/actor_critic.py"),
    ("a3c.py --workers 1", CARTPOLE, "a3c.py --workers 1" + OURS),
    ("SB3 A2C (8 environments)", CARTPOLE, "benchmark/peers.py sb3_a2c" + SB3),
    ("ppo.py (8 environments)", CARTPOLE, "ppo.py" + OURS),
    ("SB3 PPO (8 environments)", CARTPOLE, "benchmark/peers.py sb3_ppo" + SB3),
    ("CleanRL ppo.py (4 environments)", CARTPOLE, "{cleanrl}/cleanrl/ppo.py"),
    ("minimalRL ppo.py", CARTPOLE, "{minimalrl}/ppo.py"),
    ("floor", PENDULUM, "floor Pendulum-v1"),
    ("ddpg.py", PENDULUM, "ddpg.py" + OURS),
    ("SB3 DDPG", PENDULUM, "benchmark/peers.py sb3_ddpg --env Pendulum-v1 --out {out}"),
    ("minimalRL ddpg.py (10 updates an episode)", PENDULUM, "{minimalrl}/ddpg.py"),
]
# fmt: on


def floor(env_id: str) -> None:
    """Act with an untrained network, and learn nothing."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    env = gym.make(env_id)
    space = env.action_space
    sizes = env.observation_space.shape[0], gym.spaces.flatdim(space)
    network = nn.Sequential(nn.Linear(sizes[0], 64), nn.Tanh(), nn.Linear(64, sizes[1]))
    state, _ = env.reset(seed=0)
    while True:
        with torch.inference_mode():
            output = network(torch.from_numpy(state)).numpy()
        action = output.argmax() if isinstance(space, gym.spaces.Discrete) else output
        state, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            state, _ = env.reset()


def measure(program: str, *flags: str) -> None:
    """Run a program; its environments count their steps, print the speed, and end it."""
    make, seen = gym.make, dict(steps=0, start=np.inf)

    def counted(*args, autoreset=None, **kwargs):  # minimalRL gives an option of the old gym
        env = make(*args, **kwargs)
        inner = env.step

        def step(action):
            seen["steps"] += 1
            if seen["steps"] == START:
                seen["start"] = time.process_time()
            elif seen["steps"] % EVERY == 0 and time.process_time() > seen["start"] + SECONDS:
                seconds = time.process_time() - seen["start"]
                found = f"\nspeed: {(seen['steps'] - START) / seconds}"
                print(found, file=sys.__stdout__, flush=True)  # also where print is redirected
                os._exit(0)  # without whatever the program does at its end
            return inner(action)

        env.step = step
        return env

    gym.make = gym.envs.registration.make = counted  # the second for env.spec.make()
    sys.modules["gym"] = gym
    if program == "floor":
        return floor(*flags)
    sys.argv = [program, *flags]
    sys.path.insert(0, str(Path(program).resolve().parent))
    runpy.run_path(program, run_name="__main__")


def speed(command: str, root: str) -> float:
    """Steps a second of one run; NaN, with the program's last words, if it ended too early."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    with tempfile.TemporaryDirectory() as folder:
        environment["TMPDIR"] = folder
        words = command.format(out=folder).split()
        if words[0] != "floor":
            words[0] = str(REPOSITORY / words[0])  # an absolute path stays as it is
        done = subprocess.run(
            [sys.executable, __file__, "--measure", *words],
            cwd=folder,  # some write into the folder they are started in
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.search(r"^speed: (.*)$", done.stdout, re.M)
    if not found:
        print(f"{command}: {done.stderr.strip()[-500:] or 'ended too early'}", file=sys.stderr)
    return float(found[1]) if found else np.nan


def main() -> int:
    """The command line. Returns the exit status: 1 if a program failed."""
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cleanrl", type=Path, help="a clone of vwxyzjn/cleanrl")
    parser.add_argument("--minimalrl", type=Path, help="a clone of seungeunrho/minimalRL")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    clones = {k: str(p.resolve()) for k in ("cleanrl", "minimalrl") if (p := getattr(args, k))}
    programs = [
        (name, env, command.format(out="{out}", **clones))
        for name, env, command in PROGRAMS
        if all(f"{{{k}}}" not in command or k in clones for k in ("cleanrl", "minimalrl"))
    ]
    speeds = {program: [] for program in programs}
    for _ in range(args.rounds):
        for program, found in speeds.items():
            found.append(speed(program[2], clones.get("cleanrl", "")))
            print(f"{found[-1]:8,.0f}  {program[0]}, {program[1]}", flush=True)
    print("\n| program | environment | steps/s | of the floor |\n|---|---|---|---|")
    middle = {(name, env): np.median(found) for (name, env, _), found in speeds.items()}
    for (name, env), rate in middle.items():
        print(f"| {name} | {env} | {rate:,.0f} | {rate / middle['floor', env]:.0%} |")
    return int(np.isnan(list(middle.values())).any())


if __name__ == "__main__":
    sys.exit(main())
