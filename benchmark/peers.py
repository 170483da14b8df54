"""One run of Stable-Baselines3 with its zoo's settings for the environment.

    python benchmark/peers.py sb3_ppo --env CartPole-v1 --seed 0 --out DIR

It saves the same returns.csv as the project's scripts, so that both are measured in the same way.
Settings and budget are those of rl-baselines3-zoo, hyperparams/*.yml.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import A2C, DDPG, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise

# Algorithm and environment -> class, number of environments, steps, settings.
ZOO = {
    ("sb3_ppo", "CartPole-v1"): (
        PPO,
        8,
        100_000,
        dict(
            n_steps=32,
            batch_size=256,
            gae_lambda=0.8,
            gamma=0.98,
            n_epochs=20,
            ent_coef=0.0,
            learning_rate=lambda left: 0.001 * left,
            clip_range=lambda left: 0.2 * left,
        ),
    ),
    ("sb3_a2c", "CartPole-v1"): (A2C, 8, 500_000, dict(ent_coef=0.0)),
    ("sb3_dqn", "CartPole-v1"): (
        DQN,
        1,
        50_000,
        dict(
            learning_rate=2.3e-3,
            batch_size=64,
            buffer_size=100_000,
            learning_starts=1000,
            gamma=0.99,
            target_update_interval=10,
            train_freq=256,
            gradient_steps=128,
            exploration_fraction=0.16,
            exploration_final_eps=0.04,
            policy_kwargs=dict(net_arch=[256, 256]),
        ),
    ),
    ("sb3_ddpg", "Pendulum-v1"): (
        DDPG,
        1,
        20_000,
        dict(
            gamma=0.98,
            buffer_size=200_000,
            learning_starts=10_000,
            action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
            gradient_steps=1,
            train_freq=1,
            learning_rate=1e-3,
            policy_kwargs=dict(net_arch=[400, 300]),
        ),
    ),
}


class Episodes(BaseCallback):
    """Notes every episode that ends, as (episode, step, seconds, return, length)."""

    def __init__(self):
        super().__init__()
        self.rows, self.start = [], time.perf_counter()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                seconds = f"{time.perf_counter() - self.start:.3f}"
                self.rows.append(
                    (
                        len(self.rows) + 1,
                        self.num_timesteps,
                        seconds,
                        info["episode"]["r"],
                        info["episode"]["l"],
                    )
                )
        return True


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", choices=sorted({name for name, _ in ZOO}))
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="default: the zoo's")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if (args.algorithm, args.env) not in ZOO:
        parser.error(
            f"no settings for {args.algorithm} on {args.env}; there are: "
            + ", ".join(map(" on ".join, ZOO))
        )
    algorithm, n_envs, steps, settings = ZOO[args.algorithm, args.env]
    torch.set_num_threads(1)
    env = make_vec_env(args.env, n_envs=n_envs, seed=args.seed)
    episodes = Episodes()
    algorithm("MlpPolicy", env, seed=args.seed, device="cpu", **settings).learn(
        args.steps or steps, callback=episodes
    )
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "returns.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["episode", "step", "seconds", "return", "length"])
        writer.writerows(episodes.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
