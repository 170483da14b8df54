"""Actor-critic. Lecture part 5, "Actor-Critic".

REINFORCE waits for the end of an episode, and its return v_t says little about one action among
many (credit assignment). So let a critic Q_phi(s,a) judge the actions: the actor pi_theta picks an
action, the critic tells it how good that was. The critic learns as in Q-learning, from the "real
value" R + gamma max_a Q_phi(s',a), and can borrow the tricks of Q-learning. "Two networks,
extremely hard to converge", says the slide: the critic's errors mislead the actor, and the critic
sees only the states and actions that the actor chooses.

Pseudocode ([1] and [2] are the slide's update rules; [a] to [d] are the usual loop around them)

    [1] Actor update: Delta theta = alpha Q_phi(s_t,a_t) grad_theta log pi_theta(a_t|s_t)
    [2] Critic update:
        Delta phi = beta grad_phi (R_{t+1} + gamma max_a Q_phi(s_{t+1},a) - Q_phi(s_t,a_t))^2

    [a] for each episode do
    [b]     for each step t do
    [c]         Choose a_t from pi_theta(.|s_t)
    [d]         Take action a_t, observe R_{t+1}, s_{t+1}

Where the slide is loose: with the max in [2] the critic estimates Q*, the values of the greedy
policy, where [1] needs Q_pi, the values of the actor's policy. The two agree only if the actor is
optimal. [2] is meant as descent on the squared error (the written sign climbs), with the "real
value" as a constant: the gradient flows through Q_phi(s_t,a_t) only. The loop usually updates the
critic first; here both updates are computed from the same theta and phi, so that their order does
not matter.

Beyond the slide (the flag turns it off; --literal turns all of them off)

    --no-advantage     The weight in [1] is the "real value" minus the mean of Q_phi under pi, in
                       place of Q_phi(s_t,a_t). An action that did worse than the policy's mean
                       becomes less likely.
    --batch 1          One update for many steps, with the actor's own rewards up to the last of
                       them in the "real value": it then lies between Q_pi and Q*. The mean over
                       many steps has less variance, and a reward reaches all earlier steps of the
                       batch at once.
    --no-adam          Adam in place of the plain gradient step. It averages the gradients of the
                       last steps and divides each weight's gradient by its usual size (the root of
                       its mean square), so that one alpha fits returns of 1 and of 500.
    --no-scale-rewards Rewards are multiplied by 1 - gamma, so that Q is a weighted mean of the
                       rewards that follow. The critic soon learns numbers of that size. Until it
                       has, every action seems better (or worse) than expected, which misleads the
                       actor.

Try

    python actor_critic.py --env CartPole-v1
    python actor_critic.py --env CartPole-v1 --literal
    python actor_critic.py --env LunarLander-v3
    python actor_critic.py --env Acrobot-v1 --seed 1 --record acrobot.gif

References

    Sutton, McAllester, Singh, Mansour, Policy Gradient Methods for Reinforcement Learning with
    Function Approximation, 2000.
    Konda, Tsitsiklis, Actor-Critic Algorithms, 2000.
    Mnih et al., Asynchronous Methods for Deep Reinforcement Learning, 2016 (updates of many steps).
"""

from __future__ import annotations

import functools

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical


def train(
    env: gym.Env,
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    episodes: int = 100_000,  # the budget in episodes
    steps: int = 1_000_000,  # environment steps at most; the first budget used up ends training
    gamma: float = 0.99,  # discount of the return
    alpha: float = 5e-3,  # step size of the actor
    beta: float = 5e-3,  # step size of the critic
    batch: int = 256,  # steps in each update
    advantage: bool = True,  # weight log pi with the real value minus the mean of Q_phi under pi
    adam: bool = True,  # Adam in place of the plain gradient step
    scale_rewards: bool = True,  # multiply rewards by 1 - gamma
    hidden: int = 64,  # units of each hidden layer
    literal: bool = False,  # the slide and nothing else: LITERAL in place of these defaults
    on_episode=lambda episode_return, length, step: False,  # called after each; True ends training
) -> tuple[Network, Network, list[float]]:
    """Train on an environment with Discrete actions; returns actor, critic and all returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for small networks a second thread costs more than it gains
    env, returns, step, transitions = prepare(env), [], 0, []
    if scale_rewards:  # beyond the slide; the returns that train() reports stay as they are
        env = gym.wrappers.TransformReward(env, lambda r: max(1 - gamma, 1e-3) * float(r))
    sizes = env.observation_space.shape, env.action_space.n, hidden
    actor, critic = Network(*sizes), Network(*sizes)  # logits of pi_theta, and Q_phi
    groups = [dict(params=actor.parameters(), lr=alpha), dict(params=critic.parameters(), lr=beta)]
    optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(groups, fused=True)

    # Unlike in REINFORCE, learning does not wait for the end of an episode.
    # [a] for each episode do
    for episode in range(1, episodes + 1):
        # Only the first reset gets the seed. If each did, all episodes would start in the same way.
        state, _ = env.reset(seed=seed if episode == 1 else None)
        done = False
        # The environment says when the episode is over.
        # [b] for each step t do
        while not done and step < steps:
            step += 1
            # A sample, not the most likely action: the randomness of pi is the exploration.
            # [c] Choose a_t from pi_theta(.|s_t)
            with torch.inference_mode():  # acting needs no gradient; [1] computes log pi again
                logits = actor(torch.as_tensor(state))
                action = Categorical(logits=logits, validate_args=False).sample().item()
            # A time limit (truncated) ends the episode, too, but s_{t+1} is not terminal then.
            # [d] Take action a_t, observe R_{t+1}, s_{t+1}
            next_state, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            transitions.append((state, action, float(reward), next_state, terminated, done))
            state = next_state
            if len(transitions) < batch:  # beyond the slide; batch = 1: an update at each step
                continue

            s, a, r, s_next, terminated_t, done_t = map(np.array, zip(*transitions, strict=True))
            s, a, s_next = map(torch.as_tensor, (s, a[:, None], s_next))
            transitions.clear()
            with torch.no_grad():  # the real value is a constant: no gradient flows through it
                best = critic(s_next).amax(dim=1).cpu().numpy()  # max_a Q_phi(s_{t+1},a), (batch,)
            # The real value y_t, (batch,). Within an episode it continues with y_{t+1}. The last
            # step of the batch, or of an episode, bootstraps from `best` instead; a terminal state
            # adds nothing. A time limit is not terminal: the task would have gone on.
            y = (r + gamma * (1 - terminated_t) * best).astype(np.float32)
            for t in reversed(range(batch - 1)):
                if not done_t[t]:
                    y[t] = r[t] + gamma * y[t + 1]
            y = torch.as_tensor(y)
            Q = critic(s)  # (batch, n_actions)
            Q_t = Q.gather(1, a).squeeze(1)  # Q_phi(s_t,a_t), (batch,)
            log_pi = actor(s).log_softmax(dim=1)  # (batch, n_actions)
            # The weight is a constant. Without detach the actor's loss would also change Q.
            weight = Q_t.detach()
            if advantage:  # beyond the slide: y_t - sum_a pi(a|s_t) Q_phi(s_t,a)
                weight = y - (log_pi.exp() * Q).sum(dim=1).detach()

            # Minus: the optimiser descends, [1] climbs. With a positive weight a_t becomes more
            # likely, with a negative one less likely. With Q itself as weight and positive returns,
            # every action taken becomes more likely.
            # [1] Actor update: Delta theta = alpha Q_phi(s_t,a_t) grad_theta log pi_theta(a_t|s_t)
            actor_loss = -(weight * log_pi.gather(1, a).squeeze(1)).mean()
            # The square is minimised, so there is no minus. y is a constant: the gradient flows
            # through Q_phi(s_t,a_t) only.
            # [2] Critic update:
            #     Delta phi = beta grad_phi
            #     (R_{t+1} + gamma max_a Q_phi(s_{t+1},a) - Q_phi(s_t,a_t))^2
            critic_loss = (y - Q_t).square().mean()
            loss = actor_loss + critic_loss  # the networks share no weight: one step moves both
            if not loss.isfinite():
                raise FloatingPointError(f"loss {loss:g} at step {step}: lower alpha or beta")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        if not done:  # the budget ended inside this episode: it has no return
            break
        returns.append(float(info["episode"]["r"]))
        if on_episode(returns[-1], info["episode"]["l"], step):
            break
    return actor, critic, returns


class Network(nn.Sequential):
    """States (batch, *shape) -> logits or values, one for each action: (batch, n_actions)."""

    def __init__(self, shape: tuple[int, ...], n_actions: int, hidden: int):
        first, last = Trunk(shape, hidden), nn.Linear(hidden, n_actions)
        super().__init__(first, last)  # no activation after last: any number


class Trunk(nn.Sequential):
    """The first hidden layer. Images (channels, height, width) pass two convolutions before it.

    At 84x84 these are those of Mnih et al., 2013: 8x8 pixels in steps of 4, then 4x4 in steps of 2.
    Below 40x40, where every pixel counts, both are 3x3 in steps of 1.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int):
        if len(shape) == 1:  # a vector
            super().__init__(nn.Linear(shape[0], hidden), nn.Tanh())
            return
        n = min(shape[1:]) // 20  # 4 at 84x84, 2 at 42x42
        size, step, size_2, step_2 = (2 * n, n, 4, 2) if n > 1 else (3, 1, 3, 1)
        first, second = nn.Conv2d(shape[0], 16, size, step), nn.Conv2d(16, 32, size_2, step_2)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(-3))
        # Not tanh: its argument, a sum of many features, soon grows so large that tanh is flat.
        self.extend([nn.Linear(self(torch.zeros(shape)).numel(), hidden), nn.ReLU()])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States (batch, *shape) -> (batch, hidden). Pixels are bytes: 0 to 255 becomes 0 to 1."""
        return super().forward(states / 255 if states.dtype == torch.uint8 else states)


def prepare(env) -> gym.Env:
    """Wrap an environment, or what makes one. States become float32 vectors, Discrete ones one-hot.

    What a network learns belongs to the states that are shown here, small ones stretched.
    Images, uint8 (channels, height, width) of at least 5x5 pixels, stay as they are.

    At the end of an episode, info["episode"] holds its return "r" and its length "l".
    """
    env = gym.wrappers.RecordEpisodeStatistics(env() if callable(env) else env)
    seen = env.observation_space
    if seen.dtype != np.uint8 or len(seen.shape) != 3 or min(seen.shape[1:]) < 5:
        env = gym.wrappers.FlattenObservation(env)
        low, high = np.float32((env.observation_space.low, env.observation_space.high))
        # A network overlooks small inputs: numbers that stay within (-1, 1) are stretched to it.
        unit = np.maximum(-low, high).clip(1e-3, 1)
        space = gym.spaces.Box(low / unit, high / unit)
        env = gym.wrappers.TransformObservation(env, lambda s: np.float32(s / unit), space)
    start, n = int(env.action_space.start), env.action_space.n  # actions are counted from 0 here
    return gym.wrappers.TransformAction(env, lambda a: int(a) + start, gym.spaces.Discrete(n))


# The slide and nothing else. [1] weights with Q itself, and most of Q is the same for all actions:
# with gamma = 0.99 the policy soon takes one action only. A smaller gamma counts fewer later
# rewards, so that the action makes up more of Q.
LITERAL = dict(
    gamma=0.9, alpha=1e-4, beta=1e-2, batch=1, advantage=False, adam=False, scale_rewards=False
)


def literally(env, *, literal: bool = False, **given):
    """train(), with LITERAL in place of its defaults if literal=True. What is given wins."""
    return literally.__wrapped__(env, **((LITERAL if literal else {}) | given))


train = functools.wraps(train)(literally)  # with the signature and the docstring of train() above


def main(argv: list[str] | None = None) -> int:
    """The command line: `python actor_critic.py --help`. Returns the exit status."""
    from common import runs

    act = lambda actor, critic, state: actor(state).argmax()  # the greedy action
    value = lambda actor, critic, state: (actor(state).softmax(-1) * critic(state)).sum()
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
