"""One run, judged by 100 episodes: of a script, Stable-Baselines3 or a random player.

    python -m benchmark.peers dqn --env CartPole-v1 --seed 0
    python -m benchmark.peers sb3_ppo --env CartPole-v1 --steps 100000 --seed 0
    python -m benchmark.peers random --env CartPole-v1

Stable-Baselines3 is trained by its zoo's own program, rl_zoo3 (where the zoo has no settings, it
takes its defaults, without a word). The last lines are those of the project's own scripts.
"""

import contextlib
import importlib
import io
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

from common import envs, runs
from tools.slide import SCRIPTS

EPISODES, STEPS = 100, 100_000  # of the player that is judged


def random_player(env_id: str, seed: int) -> tuple[list[float], str]:
    """Play at random. Returns the returns of the episodes, and what training took."""
    env = envs.make(env_id)
    env.action_space.seed(seed)
    how = dict(seed=seed, episodes=EPISODES, most_steps=STEPS)
    return runs.play(env, lambda state: env.action_space.sample(), **how), "trained for 0 s"


def sb3(algorithm: str, env_id: str, steps: int, seed: int) -> tuple[list[float], str]:
    """Train; the same for the greedy policy."""
    from rl_zoo3 import ALGOS, train, utils
    from stable_baselines3.common.evaluation import evaluate_policy

    with tempfile.TemporaryDirectory() as folder:
        flags = f"--algo {algorithm} --env {env_id} --seed {seed} -n {steps} -f {folder} "
        flags += "--device cpu --num-threads 1 --eval-freq -1 --verbose 0"
        quiet = contextlib.redirect_stdout(io.StringIO())
        with mock.patch.object(sys, "argv", ["train.py", *flags.split()]), quiet:
            start = time.perf_counter()
            train.train()
            seconds = time.perf_counter() - start
        saved = Path(folder, algorithm, f"{env_id}_1")
        hp, stats = utils.get_saved_hyperparams(str(saved / env_id), test_mode=True)
        how = dict(stats_path=stats, seed=seed + 1_000_000, should_render=False, hyperparams=hp)
        env = utils.create_test_env(env_id, **how)
        model = ALGOS[algorithm].load(saved / f"{env_id}.zip", device="cpu")
        returns, _ = evaluate_policy(model, env, EPISODES, return_episode_rewards=True)
    return returns, f"trained for {model.num_timesteps} steps, {seconds:.1f} s"


def main(argv: list[str]) -> int:
    """The command line. Returns the exit status."""
    if argv[:1] and argv[0] in SCRIPTS:
        runs.EPISODES, runs.STEPS = EPISODES, STEPS
        return importlib.import_module(argv[0]).main([*argv[1:], "--no-save"])
    parser = runs.Parser("python -m benchmark.peers", usage=__doc__, allow_abbrev=False)
    parser.add_argument("player", choices="random sb3_a2c sb3_ddpg sb3_dqn sb3_ppo".split())
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=-1, help="[the zoo's]")
    args = parser.parse_args(argv)
    if args.player == "random":
        returns, training = random_player(args.env, args.seed)
    else:
        returns, training = sb3(args.player.split("_")[1], args.env, args.steps, args.seed)
    mean = f"mean return {np.mean(returns):.2f}, standard deviation {np.std(returns):.2f}"
    print(f"{training}\ngreedy policy, {len(returns)} episodes: {mean}")
    return 0


if __name__ == "__main__":
    sys.exit(runs.explained("peers", lambda: main(sys.argv[1:])))
