"""Asynchronous advantage actor-critic (A3C). Lecture part 5, "A3C".

The idea: "actors in parallel". Several workers, each on its own copy of the environment, learn at the same time and update shared
parameters whenever they are ready, without waiting for each other. They see different states, so that their data are less
correlated: this does what experience replay does for DQN. Each worker plays a few steps, compares the return R that followed
with the value V(s) that was expected, and makes actions more likely that did better (the advantage R - V).

Pseudocode (Mnih et al., 2016, Algorithm S3, for each actor-learner thread; here each is a process)

    [1] Initialize thread step counter t <- 1
    [2] repeat
    [3]     Reset gradients: d theta <- 0 and d theta_v <- 0
    [4]     Synchronize thread-specific parameters theta' = theta and theta'_v = theta_v
    [5]     t_start = t
    [6]     Get state s_t
    [7]     repeat
    [8]         Perform a_t according to policy pi(a_t|s_t; theta')
    [9]         Receive reward r_t and new state s_{t+1}
    [10]        t <- t + 1
    [11]        T <- T + 1
    [12]    until terminal s_t or t - t_start == t_max
    [13]    R = 0 for terminal s_t; V(s_t, theta'_v) for non-terminal s_t (bootstrap from last state)
    [14]    for i in {t-1, ..., t_start} do
    [15]        R <- r_i + gamma R
    [16]        Accumulate gradients wrt theta': d theta <- d theta + grad_theta' log pi(a_i|s_i; theta') (R - V(s_i; theta'_v))
    [17]        Accumulate gradients wrt theta'_v: d theta_v <- d theta_v + d(R - V(s_i; theta'_v))^2 / d theta'_v
    [18]    Perform asynchronous update of theta using d theta and of theta_v using d theta_v
    [19] until T > T_max

The box assumes shared theta and theta_v and a shared counter T = 0; theta' and theta'_v belong to one worker. They never learn by
themselves: a worker only measures gradients with them. Where the slide is loose: theta climbs [16], theta_v descends [17], and in
[16] the advantage is a constant.

Beyond the slide (all off under --literal)

    --no-scale           off: each input divided by its bounds where it has any, so that a small one is not drowned by the others.
    --no-rescale         off: values learned in units of the largest return seen so far. A network learns numbers around 1 much
                         faster than numbers around 100.
    --no-adam            off: Adam, its statistics shared by all workers, in place of the plain gradient step. Each weight gets a
                         step size that fits its gradients, those of all workers. The plain step wants a smaller alpha.
    --entropy 0          off: a bonus for the entropy of the policy, as in the paper; an early habit does not end the exploration.

Try

    python a3c.py --env CartPole-v1
    python a3c.py --env CartPole-v1 --workers 1
    python a3c.py --env Pendulum-v1
    python a3c.py --env CartPole-v1 --literal --alpha 1e-4

References

    Mnih et al., Asynchronous Methods for Deep Reinforcement Learning, 2016 (the algorithm box, in the supplement).
    Niu, Recht, Re, Wright, Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent, 2011.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait

import gymnasium as gym
import numpy as np
import torch
import torch.multiprocessing as mp
from gymnasium.spaces import Discrete, flatdim, flatten, flatten_space
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from common import runs


class Model(nn.Module):
    """pi(a|s; theta) and V(s; theta_v).

    Discrete actions: a softmax over them. Box actions: a Gaussian, in units in which the bounds are -1 and 1.

    Args:
        observation_space: what the environment shows.
        action_space: Discrete or Box.
        hidden: units of the hidden layer.
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, hidden: int):
        super().__init__()
        # A Discrete state becomes one-hot; a vector is divided by its bounds where it has any, so that no input is drowned.
        self.observation_space = observation_space
        flat = flatten_space(observation_space)
        bound = np.maximum(np.abs(flat.low), np.abs(flat.high))
        scale = np.where((bound > 0) & (bound < 1e3), bound, 1.0).astype(np.float32)
        self.register_buffer("scale", torch.from_numpy(scale))
        self.discrete = isinstance(action_space, Discrete)
        self.n_outputs = flatdim(action_space)  # Discrete: one logit for each action; Box: one mean for each dimension
        self.layers = nn.Sequential(nn.Linear(flat.shape[0], hidden), nn.Tanh(), nn.Linear(hidden, self.n_outputs))
        self.register_buffer("unit", torch.ones(()))  # V is learned in units of it; it grows with the returns that are seen
        self.value = nn.Sequential(nn.Linear(flat.shape[0], hidden), nn.Tanh(), nn.Linear(hidden, 1))
        if not self.discrete:
            self.log_std = nn.Parameter(torch.zeros(self.n_outputs))  # one spread for all states: log, so that it stays positive
            self.shape, self.dtype = action_space.shape, action_space.dtype
            bounded = np.isfinite(action_space.low) & np.isfinite(action_space.high)
            self.low, self.high = np.where(bounded, action_space.low, -1), np.where(bounded, action_space.high, 1)
            self.limit, self.bounded = np.where(bounded, 1.0, np.inf), torch.from_numpy(bounded.flatten())

    def vector(self, observation) -> np.ndarray:
        """One observation as a vector. Shape: (features,), float32."""
        return flatten(self.observation_space, observation).astype(np.float32) / self.scale.numpy()

    def outputs(self, states: torch.Tensor) -> torch.Tensor:
        """The logits of Discrete actions, or the means of Box actions. Shape: (batch, outputs).

        A mean stays within its bounds: outside of them all actions would be clipped to the same one, and none be better.
        """
        outputs = self.layers(states)
        return outputs if self.discrete else torch.where(self.bounded, outputs.tanh(), outputs)

    def pi(self, states: torch.Tensor) -> Distribution:
        """pi(.|s) for states of shape (batch, features); its log_prob and entropy have shape (batch,)."""
        outputs = self.outputs(states)
        if self.discrete:
            return Categorical(logits=outputs)
        return Independent(Normal(outputs, self.std()), 1)

    def std(self) -> torch.Tensor:
        """Spread of the Gaussian, at least 0.05: without any spread, log pi and its gradient have no bounds."""
        return self.log_std.clamp(min=-3).exp()

    def V(self, states: torch.Tensor) -> torch.Tensor:
        """V(s) for states of shape (batch, features). Shape: (batch,)."""
        return self.unit * self.value(states).squeeze(-1)

    @torch.inference_mode()  # acting needs no gradient: [16] computes log pi once more, for all steps at once
    def sample(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a ~ pi(.|s) in one state of shape (features,). In numpy: for a single draw torch's distributions are slow."""
        outputs = self.outputs(torch.from_numpy(state)).numpy()
        if self.discrete:  # the Gumbel-max trick: the argmax of logits + Gumbel noise is a draw from their softmax
            return np.argmax(outputs + rng.gumbel(size=self.n_outputs))
        return (outputs + self.std().numpy() * rng.standard_normal(self.n_outputs)).astype(np.float32)

    def to_env(self, action: np.ndarray):
        """An action as the environment takes it; a Gaussian one is clipped to the bounds only here, its log_prob is not."""
        if self.discrete:
            return int(action)
        inside = np.clip(action.reshape(self.shape), -self.limit, self.limit)
        return (self.low + (inside + 1) / 2 * (self.high - self.low)).astype(self.dtype)  # -1 is the lower bound, 1 the upper

    @torch.inference_mode()
    def greedy(self, observation):
        """The most likely action in one state, as the environment takes it."""
        outputs = self.outputs(torch.from_numpy(self.vector(observation))).numpy()
        return self.to_env(outputs.argmax() if self.discrete else outputs)


def in_one_vector(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """All parameters of a model as one vector, and all gradients as another; the layers become views of them.

    So that [3], [4] and [18] are single operations on whole vectors, as they are in the pseudocode.
    """
    parameters = list(model.parameters())
    theta = torch.cat([p.detach().flatten() for p in parameters])
    d_theta = torch.zeros_like(theta)
    start = 0
    for p in parameters:
        end = start + p.numel()
        p.data, p.grad = theta[start:end].view_as(p), d_theta[start:end].view_as(p)
        start = end
    return theta, d_theta


class Shared:
    """What all workers see: theta (with theta_v), Adam's statistics, and each worker's number of steps, whose sum is T.

    All of it lies in shared memory. Each worker counts in a place of its own, so that no count is lost and none has to wait.

    Args:
        theta: the first parameters, one vector.
        workers: how many workers there are.
    """

    def __init__(self, theta: torch.Tensor, workers: int):
        self.theta = theta.clone().share_memory_()
        self.m, self.v = torch.zeros_like(theta).share_memory_(), torch.zeros_like(theta).share_memory_()
        self.steps, self.updates = mp.get_context().RawArray("q", workers), mp.get_context().RawArray("q", workers)
        self.unit = mp.get_context().RawValue("d", 1.0)
        self.stop = mp.get_context().RawValue("b", 0)

    @property
    def T(self) -> int:
        """The global step counter."""
        return sum(self.steps)


def worker(
    rank: int,
    make_env: Callable[[], gym.Env],
    shared: Shared,
    report: Callable[[float, int, int], bool],
    *,
    seed: int,
    steps: int,
    t_max: int,
    gamma: float,
    alpha: float,
    entropy: float,
    rescale: bool,
    adam: bool,
    scale: bool,
    hidden: int,
) -> None:
    """One actor-learner: Algorithm S3.

    Args:
        rank: which worker this is, from 0.
        make_env: makes this worker's own environment.
        shared: what all workers see.
        report: called after each episode with its return, its length and T; True ends this worker.
        seed, ...: as in train(); `steps` is T_max.
    """
    torch.set_num_threads(1)  # one core for each worker
    env = make_env()
    rng = np.random.default_rng([seed, rank])  # each worker sees other states and takes other actions
    model = Model(env.observation_space, env.action_space, hidden)
    if not scale:
        model.scale.fill_(1)
    theta_local, d_theta = in_one_vector(model)  # theta' and theta'_v, d theta and d theta_v
    state = model.vector(env.reset(seed=seed + 1000 * rank)[0])
    episode_return, episode_length = 0.0, 0

    # [1] Initialize thread step counter t <- 1
    t = 1
    # [2] repeat
    while True:
        # [3] Reset gradients: d theta <- 0 and d theta_v <- 0
        d_theta.zero_()
        # [4] Synchronize thread-specific parameters theta' = theta and theta'_v = theta_v
        theta_local.copy_(shared.theta)
        model.unit.fill_(shared.unit.value)
        # [5] t_start = t
        t_start = t
        # [6] Get state s_t
        states, actions, rewards = [state], [], []
        # [7] repeat
        while True:
            # [8] Perform a_t according to policy pi(a_t|s_t; theta')
            action = model.sample(state, rng)
            # [9] Receive reward r_t and new state s_{t+1}
            observation, reward, terminated, truncated, _ = env.step(model.to_env(action))
            state = model.vector(observation)
            states.append(state)
            actions.append(action)
            rewards.append(float(reward))
            # [10] t <- t + 1
            t += 1
            # [11] T <- T + 1
            shared.steps[rank] += 1
            # A time limit (truncated) ends the sequence as well: the next state belongs to another episode.
            # [12] until terminal s_t or t - t_start == t_max
            if terminated or truncated or t - t_start == t_max:
                break

        s = torch.from_numpy(np.stack(states))  # (t - t_start + 1, features), the last state as well
        V = model.V(s)  # (t - t_start + 1,)
        # A time limit is not terminal: the world would have gone on, and V says how well.
        # [13] R = 0 for terminal s_t; V(s_t, theta'_v) for non-terminal s_t (bootstrap from last state)
        R = 0.0 if terminated else V[-1].item()
        targets = np.zeros(t - t_start, np.float32)
        # [14] for i in {t-1, ..., t_start} do
        for i in reversed(range(t - t_start)):
            # [15] R <- r_i + gamma R
            R = rewards[i] + gamma * R
            targets[i] = R
        error = torch.from_numpy(targets) - V[:-1]  # R - V(s_i; theta'_v), (t - t_start,)
        pi = model.pi(s[:-1])
        log_pi = pi.log_prob(torch.from_numpy(np.stack(actions)))
        # Minus, as theta climbs this line and the update below descends; detached, as the advantage is a constant here.
        # [16] Accumulate gradients wrt theta': d theta <- d theta + grad_theta' log pi(a_i|s_i; theta') (R - V(s_i; theta'_v))
        #      (vectorised over i)
        policy_loss = -(log_pi * error.detach() + entropy * pi.entropy()).sum()
        # [17] Accumulate gradients wrt theta'_v: d theta_v <- d theta_v + d(R - V(s_i; theta'_v))^2 / d theta'_v
        #      (vectorised over i)
        value_loss = (error / model.unit).square().sum()
        loss = policy_loss + value_loss
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {shared.T}; a smaller alpha may help")
        loss.backward()  # adds to d_theta, both halves: pi and V share no weight
        # No lock: the workers write when they are ready. Where two write the same number at once, one of the two changes may be
        # lost, and noise of that size does no harm (Hogwild!); a lock would make all of them wait for the slowest.
        # [18] Perform asynchronous update of theta using d theta and of theta_v using d theta_v
        if adam:
            shared.updates[rank] += 1
            n = sum(shared.updates)
            shared.m.lerp_(d_theta, 0.1)  # m <- 0.9 m + 0.1 d_theta: the mean of the gradients
            shared.v.lerp_(d_theta.square(), 0.001)  # v <- 0.999 v + 0.001 d_theta^2: the mean of their squares
            spread = (shared.v / (1 - 0.999**n)).sqrt_().add_(1e-8)
            shared.theta.addcdiv_(shared.m, spread, value=-alpha / (1 - 0.9**n))
        else:
            shared.theta.sub_(d_theta, alpha=alpha)

        if rescale:  # the largest sum of rewards between two updates: values are that large, or some times larger
            shared.unit.value = max(shared.unit.value, abs(sum(rewards)))
        episode_return, episode_length = episode_return + sum(rewards), episode_length + len(rewards)
        if terminated or truncated:
            stop = report(episode_return, episode_length, shared.T)
            state = model.vector(env.reset()[0])
            episode_return, episode_length = 0.0, 0
            if stop:
                break
        # [19] until T > T_max
        if shared.T > steps or shared.stop.value:
            break
    env.close()


class WorkerFailed(RuntimeError):
    """A worker raised an exception or was killed. What was learned until then: `model` and `returns`."""

    model: Model
    returns: list[float]


def in_a_process(rank: int, make_env, shared: Shared, pipe, hyperparameters: dict) -> None:
    """worker() in a process of its own: episodes, and the error if there is one, go through `pipe` to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one decides

    def report(*episode) -> bool:
        pipe.send(episode)
        return bool(shared.stop.value)

    try:
        worker(rank, make_env, shared, report, **hyperparameters)
    except Exception as error:
        pipe.send((error if isinstance(error, FloatingPointError) else None, traceback.format_exc()))


def run_workers(workers: int, make_env, shared: Shared, report: Callable[[float, int, int], bool], hyperparameters: dict) -> None:
    """Start the processes, pass their episodes on to `report`, and leave none behind, whatever happens.

    Raises:
        WorkerFailed: a worker raised (the message is its traceback) or was killed.
        FloatingPointError: a worker's loss is no longer a finite number.
    """
    processes, pipes = [], {}
    try:
        for rank in range(workers):
            reader, writer = mp.Pipe(duplex=False)
            process = mp.get_context().Process(
                target=in_a_process, args=(rank, make_env, shared, writer, hyperparameters), daemon=True
            )
            process.start()
            writer.close()  # the worker has the other copy; once it ends, reading ends too
            processes.append(process)
            pipes[reader] = rank
        while pipes:
            for pipe in wait(list(pipes), timeout=0.2):
                try:
                    message = pipe.recv()
                except EOFError:  # this worker is done, or dead
                    process = processes[pipes.pop(pipe)]
                    process.join()
                    if process.exitcode:
                        raise WorkerFailed(f"a worker process died (exit code {process.exitcode})") from None
                    continue
                if isinstance(message[1], str):
                    raise message[0] or WorkerFailed(message[1])
                if report(*message):
                    return
            if runs.stop_requested():
                return
    finally:
        shared.stop.value = 1  # they end at the next [19]
        for process in processes:
            process.join(timeout=2)
            if process.is_alive():
                process.kill()
                process.join()


@runs.checked(observations="vector", actions={"Discrete", "Box"})
def train(
    make_env: Callable[[], gym.Env],
    *,
    seed: int = 0,
    steps: int = 1_000_000,
    workers: int = min(4, os.cpu_count() or 1),
    t_max: int = 20,
    gamma: float = 0.99,
    alpha: float = 2e-3,
    entropy: float = 0.01,
    adam: bool = True,
    rescale: bool = True,
    scale: bool = True,
    hidden: int = 64,
    literal: bool = False,
    on_episode: Callable[[float, int, int], bool] | None = None,
) -> tuple[Model, list[float]]:
    """Asynchronous advantage actor-critic.

    Args:
        make_env: a function that makes one environment, with Discrete or Box actions. Where processes are spawned (macOS,
            Windows) it has to be a function that another process can import.
        seed: one seed, one result with one worker; with more, their order decides as well; in [0, inf).
        steps: T_max, the budget in environment steps of all workers together, passed by t_max at most; in [1, inf).
        workers: actor-learners, each in a process of its own (a single one in this process); in [1, inf).
        t_max: steps between two updates; in [1, inf).
        gamma: discount of the return; in [0, 1].
        alpha: step size; in (0, inf).
        entropy: weight of the policy's entropy; in [0, inf).
        adam: Adam, with statistics shared by all workers, in place of the plain gradient step.
        rescale: learn values in units of the largest return seen so far.
        scale: divide each input by its bounds, where it has any.
        hidden: units of each hidden layer; in [1, inf).
        literal: the slide to the letter: everything under "Beyond the slide" is off.
        on_episode: called after each episode with its return, its length and the steps so far; True ends the training.

    Returns:
        The model, policy and value, and the undiscounted return of every finished episode, in the order in which they ended.

    Raises:
        ValueError: a number outside its interval, or spaces that do not fit.
        FloatingPointError: the loss is no longer a finite number.
        WorkerFailed: a worker raised an exception or was killed; no process is left behind.
    """
    if literal:
        rescale, entropy, adam, scale = False, 0.0, False, False
    torch.manual_seed(seed)
    with contextlib.closing(make_env()) as env:
        model = Model(env.observation_space, env.action_space, hidden)
    if not scale:
        model.scale.fill_(1)
    theta, _ = in_one_vector(model)
    shared = Shared(theta, workers)
    returns = []

    def report(episode_return: float, length: int, T: int) -> bool:
        returns.append(episode_return)
        return bool(on_episode and on_episode(episode_return, length, T))

    hyperparameters = dict(
        seed=seed,
        steps=steps,
        t_max=t_max,
        gamma=gamma,
        alpha=alpha,
        entropy=entropy,
        rescale=rescale,
        adam=adam,
        scale=scale,
        hidden=hidden,
    )
    try:
        if workers == 1:  # here and now, so that one seed gives one result
            worker(0, make_env, shared, report, **hyperparameters)
        else:
            run_workers(workers, make_env, shared, report, hyperparameters)
    except WorkerFailed as failure:
        theta.copy_(shared.theta)
        model.unit.fill_(shared.unit.value)
        failure.model, failure.returns = model, returns
        raise
    theta.copy_(shared.theta)
    model.unit.fill_(shared.unit.value)
    return model, returns


def main(argv: list[str] | None = None) -> int:
    """The command line: `python a3c.py --help`. Returns the exit status."""
    with runs.Run(train, argv, env="CartPole-v1") as run:
        env = run.open_env()
        if run.load:
            model = run.loaded(Model(env.observation_space, env.action_space, run.hyperparameters["hidden"]))
        else:
            with run.training():
                try:
                    model, _ = train(run.make_env, **run.hyperparameters, on_episode=run.on_episode)
                except WorkerFailed as failure:
                    run.failed(failure)
                    model = failure.model
        run.finish(model, act=model.greedy, value=lambda observation: model.V(torch.from_numpy(model.vector(observation))).item())
    return run.status


if __name__ == "__main__":
    sys.exit(main())
