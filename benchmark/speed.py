"""How many environment steps a second a program makes while it learns, on one core.

    python -m benchmark.speed dqn.py --steps 1000000 --no-stop-when-solved --no-save
    python -m benchmark.run --only speed --jobs 1              all programs of plan.toml

Every program runs as it is, with its own settings (Stable-Baselines3: its zoo's). After the first
START steps of its environments, when all programs learn, the processor time of the next SECONDS is
taken; then the program is ended.
"""

import os
import runpy
import sys
import time
from unittest import mock

import gymnasium as gym
import numpy as np

START, SECONDS = 12_000, 24.0


def counting(report):
    """`with counting(...):` counts the steps of all environments that gym.make() opens.

    report(steps a second) is called once, after START steps and then SECONDS.
    """
    step, count, began = gym.wrappers.OrderEnforcing.step, 0, np.inf

    def counted(env, action):
        nonlocal count, began
        count += 1
        if count == START:
            began = time.process_time()
        elif count % 64 == 0 and (passed := time.process_time() - began) > SECONDS:
            report((count - START) / passed)
            began = np.inf
        return step(env, action)

    return mock.patch.object(gym.wrappers.OrderEnforcing, "step", counted)


def main(program: str, *flags: str) -> None:
    """Run a program in this process, and print its speed."""

    def report(speed: float) -> None:
        print(f"\nspeed: {speed:.0f}", file=sys.__stdout__, flush=True)
        os._exit(0)

    sys.modules["gym"], sys.argv = gym, [program, *flags]  # minimalRL imports it as gym
    with counting(report):
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1:] else sys.exit(__doc__)
