"""Proximal policy optimisation (PPO). Lecture part 5, "PPO".

Samples of a policy estimate the policy gradient of that policy only: after one step they are out of
date. PPO collects a batch with pi_theta_old and takes many small steps on it. The objective weights
each advantage A_t by how much more likely the action has become, pi_theta / pi_theta_old, and
subtracts a penalty for the divergence KL[pi_theta_old, pi_theta]. Each batch is used many times,
and the policy stays near the one that collected it.

Pseudocode ([1] is the slide's objective; [a] to [h] are the loop around it; Schulman et al., 2017)

    [a] Initialize policy pi_theta, theta_old = theta, and value function V
    [b] for iteration = 1, 2, ... do
    [c]     for actor = 1, 2, ..., N do
    [d]         Run policy pi_theta_old in environment for T timesteps
    [e]         Compute advantage estimates A_1, ..., A_T (GAE, lambda)
    [f]     Optimize surrogate L wrt theta, with K epochs and minibatch size M <= NT
    [1]         maximize over theta: E_t[ pi_theta(a_t|s_t) / pi_theta_old(a_t|s_t) * A_t
                - beta KL[pi_theta_old(.|s_t), pi_theta(.|s_t)] ]
    [g]     d = E_t[KL]; d < d_targ/1.5: beta <- beta/2; d > 1.5 d_targ: beta <- 2 beta
    [h]     theta_old <- theta

Where the slide is loose: it gives the objective [1] only. The KL compares theta with theta_old, the
policy that collected the batch (in rlhf.py another KL keeps it near the supervised policy). A time
limit ends an episode, too, but its last state is not terminal: [e] takes V there.

Beyond the slide (--literal, see LITERAL below, turns off all that has a flag)

    Normalised states (off: --no-normalize-states). The networks read states minus their mean,
        divided by their standard deviation, so all components count alike. The mean is over all
        states so far; the standard deviation is the root of the mean of the iterations' variances.
        Both are updated once an iteration, between [d] and [e]: actions are chosen with the old
        ones, and [1] and [g] compute pi_theta_old with the new ones, too. They are saved with the
        networks. Images stay as they are.
    Normalised rewards (off: --no-normalize-rewards). Rewards are divided by the standard deviation
        of all discounted sums so far, each from a step to the end of its episode or iteration, so V
        learns numbers of moderate size. The V that is returned is in the last iteration's units.
    V, which GAE needs, learns by the squared error in the same loop, and [1] is climbed by Adam,
        whose step size falls to 0 over the budget, as in the paper's runs on Atari: late updates do
        not destroy a good policy.
    Small last weights of the policy, so it begins almost the same in every state; a Gaussian begins
        with standard deviation 1/sqrt(n) for n components. State components bounded within (-1, 1)
        are divided by their bound, and Box actions are rescaled to [-1, 1] and clipped (by
        common.envs.make, not here).

Try

    python ppo.py --env CartPole-v1
    python ppo.py --env Pendulum-v1
    python ppo.py --env LunarLander-v3
    python ppo.py --env HalfCheetah-v5

The paper's other surrogate, better on its benchmarks, replaces the line of L at [1] (eps = 0.2):

    L = torch.minimum(ratio * A[j], ratio.clamp(1 - 0.2, 1 + 0.2) * A[j]).mean()

References

    Schulman et al., Proximal Policy Optimization Algorithms, 2017.
    Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation,
    2016 (GAE).
    Andrychowicz et al., What Matters for On-Policy Deep Actor-Critic Methods?, 2021 (states).
"""

import copy

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence


def train(
    make_env,  # a function that makes an environment; called once for each actor
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    steps: int = 1_000_000,  # environment steps of all actors, in whole iterations of N T steps
    n_envs: int = 8,  # N, the actors, each with an environment of its own
    horizon: int = 256,  # T, the timesteps that each actor runs in an iteration
    epochs: int = 10,  # K, number of passes over the N T samples
    batch: int = 256,  # M, the size of a minibatch
    gamma: float = 0.99,  # discount of the return
    gae_lambda: float = 0.95,  # lambda of the advantage: 0 looks one step ahead, 1 to the end
    alpha: float = 2e-3,  # step size to begin with; it falls to 0 over the budget
    beta: float = 1.0,  # weight of the KL penalty to begin with
    d_targ: float = 0.01,  # how far an iteration should move the policy, as E_t[KL]
    normalize_states: bool = True,  # subtract the states' mean, divide by their standard deviation
    normalize_rewards: bool = True,  # divide rewards by the standard deviation of discounted sums
    hidden: int = 64,  # units of the hidden layer
    trunk=None,  # for images: a function that makes the first layers (common/pixels.py)
    on_episode=None,  # called with (episode_return, length, step); may return True to stop
) -> tuple[nn.Module, nn.Module, list[float]]:
    """Train on Discrete or Box actions; returns policy, V (both take batches) and the returns."""
    envs = gym.vector.SyncVectorEnv([make_env] * n_envs, autoreset_mode="SameStep")
    space = envs.single_observation_space
    assert trunk or space.dtype == np.float32, "use wrappers FlattenObservation, DtypeObservation"
    # [a] Initialize policy pi_theta, theta_old = theta, and value function V
    # Beyond the slide: all three read standardised states. In eval mode BatchNorm1d subtracts its
    # mean and divides by its standard deviation; momentum=None: over all iterations so far.
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # a second thread only costs time in small networks
    layer = nn.BatchNorm1d if normalize_states and not trunk else nn.Identity
    standard = layer(space.shape[0], affine=False, momentum=None).eval()
    policy = nn.Sequential(standard, Policy(space.shape, envs.single_action_space, hidden, trunk))
    policy_old = nn.Sequential(standard, copy.deepcopy(policy[1]).requires_grad_(False))
    V = nn.Sequential(standard, Value(space.shape, hidden, trunk))

    optimizer = torch.optim.Adam([*policy.parameters(), *V.parameters()], lr=alpha, fused=True)
    sums = gym.wrappers.utils.RunningMeanStd()  # of the discounted sums of rewards
    state, _ = envs.reset(seed=seed)  # (N, n_features), from N different seeds
    episode_return, length = np.zeros((2, n_envs))
    returns = []

    # [b] for iteration = 1, 2, ... do
    # It collects NT samples, learns from them K times, and throws them away.
    for step in range(0, steps, n_envs * horizon):
        optimizer.param_groups[0]["lr"] = alpha * (1 - step / steps)  # beyond the slide
        # [c] for actor = 1, 2, ..., N do (vectorised over actors)
        # One call of envs.step() moves all N: a row for each timestep, a column for each actor.
        states, next_states = np.zeros((2, horizon, *state.shape), state.dtype)  # each (T, N, ...)
        rewards, terminated, done = np.zeros((3, horizon, n_envs), np.float32)  # each (T, N)
        actions = []
        # [d] Run policy pi_theta_old in environment for T timesteps (vectorised over actors)
        # theta_old stays as it is until [h]. SameStep: where an episode ends, the same call of
        # step() begins the next one.
        for t in range(horizon):
            actions.append(policy_old(torch.as_tensor(state)).sample())  # policy_old: no gradient
            states[t] = state
            state, rewards[t], terminated[t], truncated, info = envs.step(actions[t].cpu().numpy())
            next_states[t] = state
            done[t] = np.logical_or(terminated[t], truncated)
            episode_return += rewards[t]
            length += 1
            for i in np.flatnonzero(done[t]):
                next_states[t, i] = info["final_obs"][i]  # state[i] begins another episode
                returns.append(float(episode_return[i]))
                if on_episode and on_episode(returns[-1], int(length[i]), step + (t + 1) * n_envs):
                    return policy, V, returns
                episode_return[i] = 0.0
                length[i] = 0
        # (T, N, n_features) -> (NT, n_features): the networks take rows.
        s, s_next = (torch.as_tensor(x).flatten(0, 1) for x in (states, next_states))
        standard.train()(s)  # beyond the slide: train mode updates its statistics; output not used
        standard.eval()  # until the next iteration they stay as they are
        if normalize_rewards:  # beyond the slide; gae() with V = 0, lambda = 1: discounted sums
            sums.update(gae(rewards, 0.0, 0.0, terminated, done, gamma, 1.0).flatten())
            rewards /= np.sqrt(sums.var)
        # [e] Compute advantage estimates A_1, ..., A_T (GAE, lambda) (vectorised over actors)
        # Constants for [1]: numpy(force=True) detaches. V sees all states in one call, and its
        # output (NT,) becomes (T, N) again.
        values, next_values = (V(x).numpy(force=True).reshape(done.shape) for x in (s, s_next))
        A = gae(rewards, values, next_values, terminated, done, gamma, gae_lambda)
        # [f] Optimize surrogate L wrt theta, with K epochs and minibatch size M <= NT
        # Actors and timesteps no longer matter: (T, N) -> (NT,), in the order of s. Each epoch
        # shuffles them: neighbours in time are alike.
        a = torch.cat(actions)  # (NT,); Box actions: (NT, action_size)
        target = torch.as_tensor(A + values).flatten()  # the return that V should predict
        A = torch.as_tensor(A).flatten()
        for _ in range(epochs):
            for j in torch.randperm(len(s)).split(batch):
                # [1] maximize over theta: E_t[ pi_theta(a_t|s_t) / pi_theta_old(a_t|s_t) * A_t
                #   - beta KL[pi_theta_old(.|s_t), pi_theta(.|s_t)] ]
                # At an iteration's first gradient step theta = theta_old: the ratio is 1, KL has
                # gradient 0, and the gradient of [1] is the policy gradient.
                pi, pi_old = policy(s[j]), policy_old(s[j])
                ratio = (pi.log_prob(a[j]) - pi_old.log_prob(a[j])).exp()  # (M,)
                L = (ratio * A[j] - beta * kl_divergence(pi_old, pi)).mean()
                # Minus L: the optimiser descends, [1] climbs. The term of V is beyond the slide.
                loss = (target[j] - V(s[j])).square().mean() - L
                if not loss.isfinite():
                    raise FloatingPointError(f"loss {loss:g} at step {step}: lower alpha")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        # [g] d = E_t[KL]; d < d_targ/1.5: beta <- beta/2; d > 1.5 d_targ: beta <- 2 beta
        # d large: the policy moved too far from the one that collected the samples; beta grows.
        d = kl_divergence(policy_old(s), policy(s)).mean().item()
        if d < d_targ / 1.5:
            beta /= 2
        elif d > 1.5 * d_targ:
            beta *= 2
        # [h] theta_old <- theta
        # The next batch is collected with the new policy.
        policy_old.load_state_dict(policy.state_dict())
    return policy, V, returns


LITERAL = dict(normalize_states=False, normalize_rewards=False)  # the slide


def gae(rewards, values, next_values, terminated, done, gamma: float, gae_lambda: float):
    """Advantages by generalised advantage estimation; arrays or tensors, (T, N) each.

    values are V(s_t), next_values V(s_{t+1}). delta_t = r_t + gamma V(s_{t+1}) - V(s_t) is the
    error of V in one step, and A_t = delta_t + gamma lambda A_{t+1} the discounted sum of this and
    all later errors. lambda = 0 has little variance but V's bias, lambda = 1 more variance and less
    bias. After a terminal state the value is 0, after a time limit V(s_{t+1}); both end the sum.
    """
    A = rewards + gamma * (1 - terminated) * next_values - values  # delta_t; the loop adds the rest
    for t in reversed(range(len(A) - 1)):
        A[t] += gamma * gae_lambda * (1 - done[t]) * A[t + 1]
    return A


class Policy(nn.Module):
    """pi(a|s; theta): a softmax over Discrete actions, a Gaussian over Box actions."""

    def __init__(self, shape: tuple[int, ...], actions: gym.Space, hidden: int, trunk=None):
        super().__init__()
        first = [trunk(shape, hidden)] if trunk else [nn.Linear(shape[0], hidden), nn.Tanh()]
        n = gym.spaces.flatdim(actions)  # a logit for each action, or a mean for each component
        self.layers = nn.Sequential(*first, nn.Linear(hidden, n))
        self.layers[-1].weight.data.mul_(0.01)  # small: at first the same policy in every state
        # Only Box actions have a shape. log_std: of each component, the same in all states.
        self.log_std = nn.Parameter(torch.full((n,), n**-0.5).log()) if actions.shape else None

    def forward(self, states: torch.Tensor) -> Distribution:
        """States (batch, *shape) -> distribution whose log_prob is (batch,)."""
        outputs = self.layers(states)  # logits, or means
        if self.log_std is None:
            return Categorical(logits=outputs, validate_args=False)
        # Independent: log_prob adds up the components of an action.
        return Independent(Normal(outputs, self.log_std.exp(), validate_args=False), 1)


class Value(nn.Sequential):
    """V(s): states (batch, *shape) -> values (batch,)."""

    def __init__(self, shape: tuple[int, ...], hidden: int, trunk=None):
        first = [trunk(shape, hidden)] if trunk else [nn.Linear(shape[0], hidden), nn.Tanh()]
        super().__init__(*first, nn.Linear(hidden, 1), nn.Flatten(-2))  # (batch, 1) -> (batch,)


def main(argv: list[str] | None = None) -> int:
    """The command line: `python ppo.py --help`. Returns the exit status."""
    from common import runs

    act = lambda policy, V, state: policy(state[None]).mode[0]  # the greedy action
    value = lambda policy, V, state: V(state[None])
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
