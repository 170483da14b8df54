"""Actor-critic. Lecture part 5, "Actor-Critic".

The idea: REINFORCE waits for the end of an episode, and its return v_t says little about one action among many (credit
assignment). So let a critic Q_phi(s,a) say how good an action was: the actor pi_theta picks the action, the critic judges it, and
both learn at every single step. The critic learns as in Q-learning, from the "real value" R + gamma max_a Q_phi(s',a), and can
borrow its tricks. "Two networks, extremely hard to converge", says the slide: each learns from the other's mistakes.

That is so. `python actor_critic.py --literal --steps 20000 --seed N` learns nothing on any of the seeds 0 to 2, the mean of the
last 100 returns is 9.4, where chance gets 22: all values are positive, so that whatever is done becomes more likely, until only
one action is left. With the defaults each of the seeds 0 to 9 is solved, after 100,000 steps in the median.

Pseudocode ([1] and [2] are the slide's update rules; [a] to [d] are the usual loop around them)

    [1] Actor update: Delta theta = alpha Q_phi(s_t,a_t) grad_theta log pi_theta(a_t|s_t)
    [2] Critic update: Delta phi = beta grad_phi (R_{t+1} + gamma max_a Q_phi(s_{t+1},a) - Q_phi(s_t,a_t))^2

    [a] for each episode do
    [b]     for each step t do
    [c]         Choose a_t from pi_theta(.|s_t)
    [d]         Take action a_t, observe R_{t+1}, s_{t+1}

Where the slide is loose: [2] is meant as descent on the squared error, the written sign would climb it; and the "real value" in
it is a constant, the gradient flows through Q_phi(s_t,a_t) only. Both updates use theta and phi as they were at step t.

Beyond the slide (all off under --literal)

    --no-scale           off: each input divided by its bounds where it has any, so that a small one is not drowned by the others.
    --no-advantage       off: the weight in [1] less the mean of Q_phi under pi. If all values are positive, every action becomes
                         more likely, the better ones only a little more; less the mean, the worse ones become less likely.
    --no-sampled         off: the "real value" of a_t in place of the critic's guess Q_phi(s_t,a_t) as the weight in [1]. Both
                         estimate the same, but the guess is wrong at first, and the actor would follow its errors.
    --batch 1            off: several steps in each update, with the rewards up to the last of them in the "real value". One step
                         alone says little, and its neighbours say the same.
    --no-normalize       off: the weights of a batch divided by their spread, so that a step of theta is of the same size
                         whether rewards are large or small.
    --entropy 0          off: a bonus for the entropy of the policy; an early habit does not end the exploration.
    --no-rescale         off: values learned in units of the largest return seen so far. A network learns numbers around 1 much
                         faster than numbers around 100.
    --no-adam            off: Adam in place of the plain gradient step; each weight gets a step size that fits its gradients. The
                         plain step wants a smaller alpha.

Try

    python actor_critic.py --env CartPole-v1
    python actor_critic.py --env Acrobot-v1 --record acrobot.gif
    python actor_critic.py --env CartPole-v1 --no-sampled
    python actor_critic.py --env CartPole-v1 --literal --alpha 1e-4 --beta 1e-3

References

    Sutton, McAllester, Singh, Mansour, Policy Gradient Methods for Reinforcement Learning with Function Approximation, 2000.
    Konda, Tsitsiklis, Actor-Critic Algorithms, 2000.
    Mnih et al., Asynchronous Methods for Deep Reinforcement Learning, 2016 (several steps in an update, entropy).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import flatdim, flatten, flatten_space
from torch import nn
from torch.distributions import Categorical

from common import runs


class Network(nn.Module):
    """From a state to one number for each action: the logits of pi_theta, or the values Q_phi.

    Args:
        observation_space: what the environment shows.
        n_actions: number of actions, A.
        hidden: units of the hidden layer.
    """

    def __init__(self, observation_space: gym.Space, n_actions: int, hidden: int):
        super().__init__()
        # A Discrete state becomes one-hot; a vector is divided by its bounds where it has any, so that no input is drowned.
        self.observation_space = observation_space
        flat = flatten_space(observation_space)
        bound = np.maximum(np.abs(flat.low), np.abs(flat.high))
        scale = np.where((bound > 0) & (bound < 1e3), bound, 1.0).astype(np.float32)
        self.register_buffer("scale", torch.from_numpy(scale))
        self.n_actions = n_actions
        self.register_buffer("unit", torch.ones(()))  # Q is learned in units of it; it grows with the returns that are seen
        self.layers = nn.Sequential(nn.Linear(flat.shape[0], hidden), nn.Tanh(), nn.Linear(hidden, n_actions))

    def vector(self, observation) -> np.ndarray:
        """One observation as a vector. Shape: (features,), float32."""
        return flatten(self.observation_space, observation).astype(np.float32) / self.scale.numpy()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States (batch, features) -> (batch, A)."""
        return self.unit * self.layers(states)

    @torch.inference_mode()  # acting needs no gradient: [1] computes log pi once more, for the whole batch at once
    def sample(self, state: np.ndarray, rng: np.random.Generator) -> int:
        """Draw a ~ pi(.|s) in one state of shape (features,). In numpy: for a single draw torch's distributions are slow."""
        # The Gumbel-max trick: the argmax of logits + Gumbel noise is a draw from their softmax.
        return int(np.argmax(self(torch.from_numpy(state)).numpy() + rng.gumbel(size=self.n_actions)))

    @torch.inference_mode()
    def greedy(self, observation) -> int:
        """The most likely action in one state."""
        return self(torch.from_numpy(self.vector(observation))).argmax().item()


@runs.checked(observations="vector", actions={"Discrete"}, hint=' ("how to take max on continuous actions?": lecture part 5)')
def train(
    env: gym.Env,
    *,
    seed: int = 0,
    episodes: int = 10_000,
    steps: int = 300_000,
    gamma: float = 0.99,
    alpha: float = 5e-3,
    beta: float = 1e-2,
    batch: int = 256,
    advantage: bool = True,
    sampled: bool = True,
    normalize: bool = True,
    entropy: float = 0.01,
    adam: bool = True,
    rescale: bool = True,
    scale: bool = True,
    hidden: int = 64,
    literal: bool = False,
    on_episode: Callable[[float, int, int], bool] | None = None,
) -> tuple[Network, Network, list[float]]:
    """Actor-critic.

    Args:
        env: an environment with Discrete actions; its observations are flattened (Discrete ones: one-hot).
        seed: one seed, one result; in [0, inf).
        episodes: the budget in episodes; in [1, inf).
        steps: the budget in environment steps; the first of the two that is used up ends the training; in [1, inf).
        gamma: discount of the return; in [0, 1].
        alpha: step size of the actor; in (0, inf).
        beta: step size of the critic; in (0, inf).
        batch: steps in each update; in [1, inf).
        advantage: take the mean of Q_phi under pi off the weight of the actor's gradient.
        sampled: weigh the actor's gradient with the "real value", in place of Q_phi(s_t,a_t).
        normalize: divide the weights of a batch by their spread.
        entropy: weight of the policy's entropy; in [0, inf).
        adam: Adam, in place of the plain gradient step.
        rescale: learn values in units of the largest return seen so far.
        scale: divide each input by its bounds, where it has any.
        hidden: units of the hidden layer of each network; in [1, inf).
        literal: the slide to the letter: everything under "Beyond the slide" is off.
        on_episode: called after each episode with its return, its length and the steps so far; True ends the training.

    Returns:
        The actor, the critic, and the undiscounted return of every finished episode.

    Raises:
        ValueError: a number outside its interval, or spaces that do not fit.
        FloatingPointError: the loss is no longer a finite number.
    """
    if literal:
        batch, advantage, sampled, normalize, rescale, entropy, adam, scale = 1, False, False, False, False, 0.0, False, False
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # networks this small lose more by handing work to a second thread than they gain
    rng = np.random.default_rng(seed)
    returns, step = [], 0
    actor = Network(env.observation_space, env.action_space.n, hidden)  # pi_theta
    critic = Network(env.observation_space, env.action_space.n, hidden)  # Q_phi
    if not scale:
        actor.scale.fill_(1)
    Optimizer = torch.optim.Adam if adam else torch.optim.SGD
    actor_optimizer = Optimizer(actor.parameters(), lr=alpha, fused=True)  # fused: one call for all weights
    critic_optimizer = Optimizer(critic.parameters(), lr=beta, fused=True)
    # The steps since the last update. Shapes: states (batch, features), the others (batch,).
    features = flatdim(env.observation_space)
    states, next_states = np.zeros((2, batch, features), np.float32)
    actions = np.zeros(batch, np.int64)
    rewards, terminated, done = np.zeros((3, batch), np.float32)

    # [a] for each episode do
    for episode in range(1, episodes + 1):
        # The environment is seeded once; later resets go on from there.
        state = actor.vector(env.reset(seed=seed if episode == 1 else None)[0])
        episode_return, length, over = 0.0, 0, False
        # [b] for each step t do
        while not over and step < steps:
            t = step % batch  # the place of this step in its batch
            length, step = length + 1, step + 1
            # [c] Choose a_t from pi_theta(.|s_t)
            action = actor.sample(state, rng)
            # [d] Take action a_t, observe R_{t+1}, s_{t+1}
            observation, reward, ended, truncated, _ = env.step(action)
            next_state, over = actor.vector(observation), ended or truncated
            states[t], actions[t], rewards[t], next_states[t] = state, action, reward, next_state
            terminated[t], done[t] = ended, over
            state, episode_return = next_state, episode_return + float(reward)
            if t + 1 < batch:
                continue

            if rescale:  # the largest sum of rewards that a batch brought: about as large as values get
                critic.unit.clamp_(min=float(np.abs(rewards.sum())))
            s, a = torch.from_numpy(states), torch.from_numpy(actions).unsqueeze(1)
            Q = critic(s)  # (batch, A)
            with torch.no_grad():  # the "real value" is a constant: no gradient through it
                best = critic(torch.from_numpy(next_states)).amax(dim=1).numpy()  # max_a Q_phi(s_{t+1},a), (batch,)
            # The "real value", from the last step backwards: R_{t+1} + gamma max_a Q_phi(s_{t+1},a) for the last step of the
            # batch or of an episode, R_{t+1} + gamma (real value of the next step) before it. Nothing follows a terminal state;
            # a time limit (truncated) only stops our watching, and is bootstrapped like any other state.
            real_value = np.zeros(batch, np.float32)
            for t in reversed(range(batch)):
                last = t == batch - 1 or done[t]
                following = best[t] if last else real_value[t + 1]
                real_value[t] = rewards[t] + gamma * (1 - terminated[t]) * following
            y = torch.from_numpy(real_value)

            log_pi = actor(s).log_softmax(dim=1)  # (batch, A)
            Q_taken = Q.gather(1, a).squeeze(1)  # Q_phi(s_t,a_t), the "estimated value", (batch,)
            with torch.no_grad():
                weight = (y if sampled else Q_taken).clone()
                if advantage:
                    weight -= (log_pi.exp() * Q).sum(dim=1)  # less sum_a pi(a|s_t) Q_phi(s_t,a)
                if normalize:
                    weight /= weight.square().mean().sqrt() + 1e-8
            # [1] Actor update: Delta theta = alpha Q_phi(s_t,a_t) grad_theta log pi_theta(a_t|s_t)
            objective = (log_pi.gather(1, a).squeeze(1) * weight).mean()
            actor_loss = -objective - entropy * Categorical(logits=log_pi).entropy().mean()  # minus: the optimiser descends
            actor_optimizer.zero_grad()
            actor_loss.backward()
            actor_optimizer.step()
            # [2] Critic update: Delta phi = beta grad_phi (R_{t+1} + gamma max_a Q_phi(s_{t+1},a) - Q_phi(s_t,a_t))^2
            critic_loss = ((y - Q_taken) / critic.unit).square().mean()
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()
            if not torch.isfinite(actor_loss + critic_loss):
                raise FloatingPointError(f"the loss is no finite number at step {step}; a smaller alpha or beta may help")

        if not over:  # the budget of steps ended inside this episode: it has no return yet
            break
        returns.append(episode_return)
        if on_episode and on_episode(episode_return, length, step):
            break
    return actor, critic, returns


def main(argv: list[str] | None = None) -> int:
    """The command line: `python actor_critic.py --help`. Returns the exit status."""
    with runs.Run(train, argv, env="CartPole-v1") as run:
        env = run.open_env()
        if run.load:
            shape = env.observation_space, env.action_space.n, run.hyperparameters["hidden"]
            actor, critic = run.loaded(nn.ModuleList([Network(*shape), Network(*shape)]))
        else:
            with run.training():
                actor, critic, _ = train(env, **run.hyperparameters, on_episode=run.on_episode)

        def value(observation) -> float:  # sum_a pi(a|s) Q(s,a)
            s = torch.from_numpy(actor.vector(observation))
            return (actor(s).softmax(dim=-1) * critic(s)).sum().item()

        run.finish(nn.ModuleList([actor, critic]), act=actor.greedy, value=value)
    return run.status


if __name__ == "__main__":
    sys.exit(main())
