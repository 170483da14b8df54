"""Plant classic bugs, one at a time, and count how many of them the tests catch: `python tests/mutants.py [script ...]`.

Each bug is a piece of a script and what stands there instead. The tests of that script run on a copy with the bug in it; the bug
is caught if one of them fails. Takes some ten minutes; the result is written down in tests/README.md.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [
    "gradients",
    "episode_ends",
    "randomness",
    "against_exact_values",
    "faults",
    "learning",
]  # the fast ones first

NO_ZERO_GRAD = ("optimizer.zero_grad()", "pass  # gradients pile up")
BUGS = {
    "qlearning_table": [
        ("the update's sign flipped", "Q[S, A] += step_size", "Q[S, A] -= step_size"),
        ("min for max", "Q[S_next].max()", "Q[S_next].min()"),
        ("gamma forgotten", "R + gamma * Q", "R + Q"),
        ("bootstrap through a terminal state", "* (not terminated)", "* 1"),
        ("no bootstrap at a time limit", "* (not terminated)", "* (not terminated and not truncated)"),
        ("S is never advanced", "            S = S_next\n", "            S = S\n"),
        ("epsilon the wrong way round", "rng.random() < random_share", "rng.random() > random_share"),
        ("argmin for argmax", "values == values.max()", "values == values.min()"),
        ("ties always to the first", "best[rng.integers(len(best))]", "best[0]"),
        ("visits are not counted", "visits[S, A] += 1", "visits[S, A] += 0"),
        ("the value of S in place of S'", "gamma * Q[S_next]", "gamma * Q[S]"),
        ("epsilon decays at once", "random_share = epsilon * (1 - (episode - 1) / episodes)", "random_share = 0.0"),
        ("alpha squared", "step_size[S, A] * (real", "step_size[S, A] ** 2 * (real"),
        ("random action always", "rng.random() < random_share else", "rng.random() >= 0 else"),
    ],
    "dqn": [
        ("terminal and non-terminal exchanged", "(1 - terminated_j)", "terminated_j"),
        ("bootstrap through a terminal state", "* (1 - terminated_j)", "* 1"),
        ("truncated stored as terminated", "reward, next_state, terminated, done=", "reward, next_state, terminated or truncated, done="),
        ("gamma forgotten", "np.full(batch, gamma, np.float32)", "np.full(batch, 1.0, np.float32)"),
        ("gamma^n forgotten", "discount[goes_on] *= gamma", "pass"),
        ("rewards of n steps not discounted", "goes_on * discount * self", "goes_on * self"),
        ("n steps run on into the next episode", "~self.done[last % self.capacity] & ", ""),
        ("argmin in the target", ".argmax(dim=1, keepdim=True)", ".argmin(dim=1, keepdim=True)"),
        ("the greedy action is the worst", "self(torch.from_numpy(phi)).argmax()", "self(torch.from_numpy(phi)).argmin()"),
        ("no target network", "values = target_network(next_state_j)", "values = q_network(next_state_j)"),
        ("soft update the wrong way round", "(theta_target, theta, tau)", "(theta, theta_target, tau)"),
        ("the target network never moves", "torch._foreach_lerp_(theta_target, theta, tau)", "pass"),
        ("target neither detached nor slow", "y = reward_j + discount_j * (1 - terminated_j) * next_value", "torch.set_grad_enabled(True); y = reward_j + discount_j * (1 - terminated_j) * q_network(next_state_j).amax(dim=1)"),
        ("next state stored as state", "self.states[i], self.actions[i], self.rewards[i] = state,", "self.states[i], self.actions[i], self.rewards[i] = next_state,"),
        ("the state is never advanced", "state, episode_return, done = next_state,", "state, episode_return, done = state,"),
        ("epsilon the wrong way round", "rng.random() < random_share", "rng.random() > random_share"),
        ("gradients pile up", *NO_ZERO_GRAD),
        ("double Q exchanged", "(q_network(next_state_j) if double else values)", "(values if double else q_network(next_state_j))"),
        ("newest only sampled", "first = rng.integers(max(0, self.stored - self.capacity), self.stored, size=batch)", "first = rng.integers(max(0, self.stored - 64), self.stored, size=batch)"),
        ("huber exchanged", "(F.smooth_l1_loss if huber else F.mse_loss)", "(F.mse_loss if huber else F.smooth_l1_loss)"),
        ("action indices rolled", "q_network(state_j).gather(1, action_j.unsqueeze(1))", "q_network(state_j).gather(1, action_j.roll(1).unsqueeze(1))"),
        ("anneal upwards", "alpha * (1 - max(step / steps", "alpha * (max(step / steps"),
        ("epsilon never falls", "max(epsilon, 1 - (1 - epsilon) * step / epsilon_decay)", "max(epsilon, 1.0)"),
        ("ring overwrites one place", "i = self.stored % self.capacity", "i = 0"),
        ("loss of sum", "(F.smooth_l1_loss if huber else F.mse_loss)(q / q_network.unit, y / q_network.unit)", "(F.smooth_l1_loss if huber else F.mse_loss)(q / q_network.unit, y / q_network.unit, reduction='sum')"),
        ("target in other units", "    target_network.unit = q_network.unit", "    pass"),
    ],
    "reinforce": [
        ("descends the return", "loss = -objective", "loss = objective"),
        ("gamma forgotten", "rewards[t] + gamma * following", "rewards[t] + following"),
        ("returns summed forwards", "for t in reversed(range(len(rewards))):", "for t in range(len(rewards)):"),
        ("log forgotten", ".log_prob(torch.from_numpy(np.stack(actions)))", ".log_prob(torch.from_numpy(np.stack(actions))).exp()"),
        ("no bootstrap at a time limit", "0.0 if terminated or", "0.0 if done or"),
        ("bootstrap at a terminal state", "0.0 if terminated or baseline", "0.0 if baseline"),
        ("baseline added", "w = w - V[:-1].detach()", "w = w + V[:-1].detach()"),
        ("baseline not detached", "w = w - V[:-1].detach()", "w = w - V[:-1]"),
        ("baseline one step late", "w = w - V[:-1].detach()", "w = w - V[1:].detach()"),
        ("r(tau) and v_t exchanged", 'if weight == "trajectory" else v', 'if weight != "trajectory" else v'),
        ("gradients pile up", *NO_ZERO_GRAD),
        ("states and actions one step apart", "policy.pi(s[:-1])", "policy.pi(s[1:])"),
        ("last step dropped", "for t in reversed(range(len(rewards))):", "for t in reversed(range(len(rewards) - 1)):"),
        ("gumbel subtracted", "outputs + rng.gumbel(", "outputs - rng.gumbel("),
        ("std not exp", "self.log_std.clamp(min=-3).exp()", "self.log_std.clamp(min=-3)"),
    ],
    "actor_critic": [
        ("the actor descends", "actor_loss = -objective", "actor_loss = objective"),
        ("min for max", "amax(dim=1)", "amin(dim=1)"),
        ("gamma forgotten", "gamma * (1 - terminated[t]) * following", "(1 - terminated[t]) * following"),
        ("bootstrap through a terminal state", "gamma * (1 - terminated[t]) * following", "gamma * following"),
        ("no bootstrap at a time limit", "terminated[t], done[t] = ended, over", "terminated[t], done[t] = over, over"),
        ("rewards run on into the next episode", "last = t == batch - 1 or done[t]", "last = t == batch - 1"),
        ("log forgotten", "log_pi = actor(s).log_softmax(dim=1)", "log_pi = actor(s).softmax(dim=1)"),
        ("target not detached", 'with torch.no_grad():  # the "real value"', 'with torch.enable_grad():  # the "real value"'),
        ("entropy punished", "- entropy * Categorical", "+ entropy * Categorical"),
        ("mean of Q added", "weight -= (log_pi", "weight += (log_pi"),
        ("mean of Q without pi", "(log_pi.exp() * Q).sum(dim=1)", "Q.sum(dim=1)"),
        ("critic's gradients pile up", "critic_optimizer.zero_grad()", "pass"),
        ("wrong action's value", "Q_taken = Q.gather(1, a)", "Q_taken = Q.gather(1, 1 - a)"),
        ("the states of the next step", "s, a = torch.from_numpy(states)", "s, a = torch.from_numpy(next_states)"),
        ("critic frozen", "            critic_optimizer.step()\n", ""),
        ("greedy while training", "action = actor.sample(state, rng)", "action = int(actor(torch.from_numpy(state)).argmax())"),
        ("loss of sum", ".square().mean()\n            critic_optimizer", ".square().sum()\n            critic_optimizer"),
        ("steps counted double", "length, step = length + 1, step + 1", "length, step = length + 1, step + 2"),
        ("gumbel subtracted", "self(torch.from_numpy(state)).numpy() + rng.gumbel", "self(torch.from_numpy(state)).numpy() - rng.gumbel"),
    ],
    "ddpg": [
        ("the actor descends Q", "(-J).backward(", "J.backward("),
        ("gamma forgotten", "reward_i + gamma * (1", "reward_i + (1"),
        ("bootstrap through a terminal state", "gamma * (1 - terminated_i) * next_value", "gamma * next_value"),
        ("truncated stored as terminated", "R.store(state, action, reward, next_state, terminated)", "R.store(state, action, reward, next_state, terminated or truncated)"),
        ("soft update the wrong way round", "(theta_target, theta, tau)", "(theta, theta_target, tau)"),
        ("the targets never move", "torch._foreach_lerp_(theta_target, theta, tau)", "pass"),
        ("no target critic", "target_critic(next_state_i, target", "critic(next_state_i, target"),
        ("no target actor", "target_actor(next_state_i))", "actor(next_state_i))"),
        ("only the critic's target moves", "theta_target = [*target_critic.parameters(), *target_actor.parameters()]", "theta_target = [*target_critic.parameters(), *copy.deepcopy(target_actor).parameters()]"),
        ("the actor learns from old actions", "J = critic(state_i, actor(state_i)).mean()", "J = critic(state_i, action_i + 0 * actor(state_i)).mean()"),
        ("critic's gradients pile up", "critic_optimizer.zero_grad()", "pass"),
        ("the state is never advanced", "state, episode_return, done = next_state,", "state, episode_return, done = state,"),
        ("bounds exchanged", "(self.low + (action.reshape(self.shape) + 1) / 2 * (self.high - self.low))", "(self.low + (action.reshape(self.shape) + 1) * (self.high - self.low))"),
        ("noise forgotten", "actor.mu(state) + fading * N()", "actor.mu(state)"),
        ("noise grows", "max(0.0, 1 - step / noise_decay)", "min(1.0, step / noise_decay)"),
        ("critic loss of sum", "F.mse_loss(critic(state_i, action_i), y)", "F.mse_loss(critic(state_i, action_i), y, reduction='sum')"),
        ("the actor's sum", "actor(state_i)).mean()", "actor(state_i)).sum()"),
        ("OU drifts away", "-0.15 * self.value", "0.15 * self.value"),
    ],
    "a3c": [
        ("the policy descends", "policy_loss = -(log_pi", "policy_loss = (log_pi"),
        ("the update climbs", "shared.theta.sub_(d_theta, alpha=alpha)", "shared.theta.add_(d_theta, alpha=alpha)"),
        ("Adam climbs", "value=-alpha / (1 - 0.9**n)", "value=alpha / (1 - 0.9**n)"),
        ("advantage not a constant", "error.detach()", "error"),
        ("gamma forgotten", "R = rewards[i] + gamma * R", "R = rewards[i] + R"),
        ("bootstrap at a terminal state", "R = 0.0 if terminated else V[-1].item()", "R = V[-1].item()"),
        ("no bootstrap at a time limit", "R = 0.0 if terminated else V[-1].item()", "R = 0.0 if terminated or truncated else V[-1].item()"),
        ("no bootstrap at all", "R = 0.0 if terminated else V[-1].item()", "R = 0.0"),
        ("returns summed forwards", "for i in reversed(range(t - t_start)):", "for i in range(t - t_start):"),
        ("gradients are not reset", "d_theta.zero_()", "pass"),
        ("theta' is never synchronised", "theta_local.copy_(shared.theta)", "pass"),
        ("entropy punished", "+ entropy * pi.entropy()", "- entropy * pi.entropy()"),
        ("bootstrap from the last but one state", "else V[-1].item()", "else V[-2].item()"),
        ("t_max off by one", "t - t_start == t_max:", "t - t_start == t_max - 1:"),
        ("T counts double", "shared.steps[rank] += 1", "shared.steps[rank] += 2"),
        ("value loss forgotten", "loss = policy_loss + value_loss", "loss = policy_loss"),
        ("gumbel subtracted", "outputs + rng.gumbel(", "outputs - rng.gumbel("),
        ("noise of the gaussian forgotten", "self.std().numpy() * rng.standard_normal(self.n_outputs)", "0 * rng.standard_normal(self.n_outputs)"),
        ("moments exchanged", "shared.m.lerp_(d_theta, 0.1)", "shared.m.lerp_(d_theta, 0.001)"),
    ],
    "ppo": [
        ("descends the objective", "loss = value_loss - surrogate", "loss = value_loss + surrogate"),
        ("ratio upside down", "(pi.log_prob(a[j]) - pi_old.log_prob(a[j])).exp()", "(pi_old.log_prob(a[j]) - pi.log_prob(a[j])).exp()"),
        ("exp of the log ratio forgotten", "pi_old.log_prob(a[j])).exp()", "pi_old.log_prob(a[j]))"),
        ("gamma forgotten", "rewards + gamma * (1 - terminated)", "rewards + (1 - terminated)"),
        ("bootstrap through a terminal state", "gamma * (1 - terminated) * next_values", "gamma * next_values"),
        ("no bootstrap at a time limit", "gamma * (1 - terminated) * next_values", "gamma * (1 - done) * next_values"),
        ("GAE runs on into the next episode", "gae_lambda * (1 - done[t]) * later", "gae_lambda * later"),
        ("GAE runs on through a time limit", "gae_lambda * (1 - done[t]) * later", "gae_lambda * (1 - terminated[t]) * later"),
        ("lambda forgotten", "gamma * gae_lambda * (1", "gamma * (1"),
        ("GAE forwards", "for t in reversed(range(horizon)):", "for t in range(horizon):"),
        ("stale old policy", "old.load_state_dict(model.state_dict())", "pass"),
        ("the next episode's first state", "next_states[t, i] = model.vector(", "_ = model.vector("),
        ("KL the wrong way round", "kl_divergence(pi_old, pi)", "kl_divergence(pi, pi_old)"),
        ("KL rewarded", "ratio * A_j - beta", "ratio * A_j + beta"),
        ("beta adapts the wrong way", "beta /= 2", "beta *= 2"),
        ("max for min in the clip", "torch.minimum(ratio", "torch.maximum(ratio"),
        ("gradients pile up", *NO_ZERO_GRAD),
        ("values summed into the target twice", "advantages + values).flatten()", "advantages + 2 * values).flatten()"),
        ("clip one-sided", "ratio.clamp(1 - clip, 1 + clip)", "ratio.clamp(1 - clip, 1 - clip)"),
        ("one epoch", "for _ in range(epochs):", "for _ in range(1):"),
        ("half the batch never used", "rng.permutation(len(s))", "rng.permutation(len(s) // 2)"),
        ("advantage not centred", "(A[j] - A[j].mean())", "(A[j])"),
        ("value not trained", "loss = value_loss - surrogate", "loss = -surrogate"),
        ("loss of sum", "kl_divergence(pi_old, pi)).mean()", "kl_divergence(pi_old, pi)).sum()"),
        ("old in other units", "for network in (model, old):", "for network in (model,):"),
        ("bounds exchanged", "self.low + (inside + 1) / 2 * (self.high - self.low)", "self.high + (inside + 1) / 2 * (self.low - self.high)"),
    ],
}  # fmt: skip


def caught(script: str, old: str, new: str) -> str:
    """Which test fails on a copy with the bug; "" if none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        shutil.copytree(
            ROOT,
            copy,
            ignore=shutil.ignore_patterns(".git", ".venv", "runs", "docs", "__pycache__"),
        )
        source = (copy / f"{script}.py").read_text()
        if source.count(old) < 1:
            raise SystemExit(f"{script}.py no longer holds {old!r}: mend the bug's entry")
        (copy / f"{script}.py").write_text(source.replace(old, new, 1))
        names = "qlearning" if script == "qlearning_table" else script
        files = [f"tests/test_{file}.py" for file in FILES]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            names,
            *files,
        ]
        try:
            result = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "(never ends)"
        if result.returncode == 0:
            return ""
        return next(
            (line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))),
            "(did not run)",
        )


def main(scripts: list[str]) -> int:
    for script in scripts or BUGS:
        if failed := caught(script, "import", "import"):
            raise SystemExit(f"{script}.py fails without any bug: {failed}")
    bugs = [(script, *bug) for script in scripts or BUGS for bug in BUGS[script]]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda bug: caught(bug[0], bug[2], bug[3]), bugs))
    for (script, name, *_), result in zip(bugs, results, strict=True):
        print(
            f"{'caught' if result else 'MISSED':7} {script:16} {name:40} {result.split(' - ')[0].replace('FAILED tests/', '')}"
        )
    for script in scripts or BUGS:
        of = [bool(result) for bug, result in zip(bugs, results, strict=True) if bug[0] == script]
        print(f"{script}: {sum(of)} of {len(of)}")
    print(f"all: {sum(map(bool, results))} of {len(results)}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
