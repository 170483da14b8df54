"""Actor-critic. Lecture part 5, "Actor-Critic".

REINFORCE waits for the end of an episode, and its return v_t says little about one action among
many (credit assignment). So let a critic Q_phi(s,a) judge the actions: the actor pi_theta picks an
action, the critic tells it how good that was. The critic learns as in Q-learning, from the "real
value" R + gamma max_a Q_phi(s',a), and could borrow its tricks, such as replay. "Two networks,
extremely hard to converge", says the slide: the critic's errors mislead the actor, and the critic
sees only the states and actions that the actor chooses.

Pseudocode ([1] and [2] are the slide's update rules; [a] to [e] are the usual loop around them)

    [a] Initialize actor pi_theta and critic Q_phi with random weights
    [b] for t = 1, 2, ... do
    [c]     Choose a_t from pi_theta(.|s_t)
    [d]     Take action a_t, observe R_{t+1}, s_{t+1}
    [e]     Set the "real value" y_t = R_{t+1} + gamma max_a Q_phi(s_{t+1},a)
    [1]     Actor update: Delta theta = alpha Q_phi(s_t,a_t) grad_theta log pi_theta(a_t|s_t)
    [2]     Critic update:
            Delta phi = beta grad_phi (R_{t+1} + gamma max_a Q_phi(s_{t+1},a) - Q_phi(s_t,a_t))^2

Where the slide is loose: [2] is meant as descent on the squared error (the written sign climbs),
with the "real value" as a constant: the gradient flows through Q_phi(s_t,a_t) only. Nothing follows
a terminal s_{t+1}, so y_t = R_{t+1} there. A time limit ends an episode, too, but its last state is
not terminal: the task would have gone on, so y_t includes its value. Both updates are computed from
the same theta and phi, so their order does not matter.

Beyond the slide (--literal, see LITERAL below, turns off all that has a flag and adapts constants)

    Expected value (off: --no-expected) instead of the max: y_t = R_{t+1} + gamma sum_a
        pi(a|s_{t+1}) Q_phi(s_{t+1},a). With the max the critic estimates Q*, the values of the
        optimal policy, but [1] needs Q_pi, those of the actor's policy.
    Advantage (off: --no-advantage). The weight in [1] is y_t minus the mean of Q_phi under pi: an
        action that did worse than the policy's mean becomes less likely. With Q_phi as the weight
        and positive rewards every action taken becomes more likely.
    Several actors (off: --n-envs 1), each in an environment of its own, share each pass through the
        networks, which saves most of the computing time. Both updates take the mean over them.
    Adam (off: --no-adam) instead of the plain gradient step. It divides each weight's gradient by
        its usual size, so one alpha fits returns of 1 and of 500.
    Small last weights of the actor, so it begins almost the same in every state. State components
        bounded within (-1, 1) are divided by their bound (by common.envs.make, not here).

Try

    python actor_critic.py --env CartPole-v1
    python actor_critic.py --env CartPole-v1 --literal
    python actor_critic.py --env LunarLander-v3
    python actor_critic.py --env Acrobot-v1 --seed 1 --record acrobot.gif

References

    Sutton, McAllester, Singh, Mansour, Policy Gradient Methods for Reinforcement Learning with
    Function Approximation, 2000.
    Konda, Tsitsiklis, Actor-Critic Algorithms, 2000.
    van Seijen, van Hasselt, Whiteson, Wiering, A Theoretical and Empirical Analysis of Expected
    Sarsa, 2009 (the mean).
"""

import gymnasium as gym
import numpy as np
import torch
from torch import nn


def train(
    make_env,  # a function that makes an environment; called once for each actor
    *,
    seed: int = 0,  # the same seed gives the same run (on the same machine)
    steps: int = 1_000_000,  # environment steps at most, of all actors together
    n_envs: int = 16,  # N, the actors, each with an environment of its own
    gamma: float = 0.99,  # discount of the return
    alpha: float = 1e-3,  # step size of the actor
    beta: float = 1e-2,  # step size of the critic
    expected: bool = True,  # the mean of Q_phi under pi instead of its max
    advantage: bool = True,  # weight log pi with y_t minus the mean of Q_phi under pi
    adam: bool = True,  # Adam instead of the plain gradient step
    hidden: int = 64,  # units of the hidden layer
    trunk=None,  # for images: a function that makes the first layers (common/pixels.py)
    on_episode=None,  # called with (episode_return, length, step); may return True to stop
) -> tuple["Network", "Network", list[float]]:
    """Train on Discrete actions; returns actor, critic and the list of episode returns."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # a second thread only costs time in small networks
    envs = gym.vector.SyncVectorEnv([make_env] * n_envs, autoreset_mode="SameStep")
    space = envs.single_observation_space
    assert trunk or space.dtype == np.float32, "use wrappers FlattenObservation, DtypeObservation"
    # [a] Initialize actor pi_theta and critic Q_phi with random weights
    # Both give a number for each action: the actor's are logits, the critic's values.
    actor = Network(space.shape, envs.single_action_space.n, hidden, trunk)
    actor[-1].weight.data.mul_(0.01)  # small: at first the same policy in every state
    critic = Network(space.shape, envs.single_action_space.n, hidden, trunk)

    groups = [dict(params=actor.parameters(), lr=alpha), dict(params=critic.parameters(), lr=beta)]
    Optimizer = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = Optimizer(groups, fused=True)
    state, _ = envs.reset(seed=seed)  # (N, n_features), from N different seeds
    episode_return = np.zeros(n_envs)
    length = np.zeros(n_envs, int)
    returns = []
    # [b] for t = 1, 2, ... do
    # Learning does not wait for the end of an episode. Each pass is one step of all N actors, so
    # `step`, which counts them all, grows by N.
    for step in range(n_envs, steps + 1, n_envs):
        # [c] Choose a_t from pi_theta(.|s_t) (vectorised over actors)
        # A sample, not the most likely action: the randomness of pi is the exploration.
        s = torch.as_tensor(state)
        log_probs = actor(s).log_softmax(dim=1)  # (N, n_actions), with the gradient for [1]
        a = log_probs.detach().exp().multinomial(1)  # (N, 1), drawn with the probabilities pi
        # [d] Take action a_t, observe R_{t+1}, s_{t+1} (vectorised over actors)
        # terminated: s_{t+1} is terminal. truncated: a time limit ended the episode. SameStep: the
        # same call begins the next one.
        state, reward, terminated, truncated, info = envs.step(a.squeeze(1).cpu().numpy())
        episode_return += reward
        length += 1
        next_state = state.copy()
        for i in np.flatnonzero(terminated | truncated):
            next_state[i] = info["final_obs"][i]  # state[i] begins another episode
            returns.append(float(episode_return[i]))
            if on_episode and on_episode(returns[-1], int(length[i]), step):
                return actor, critic, returns
            episode_return[i] = 0.0
            length[i] = 0
        # [e] Set the "real value" y_t = R_{t+1} + gamma max_a Q_phi(s_{t+1},a)
        #   (vectorised over actors)
        # no_grad: y is a constant, (N,). 1 - terminated is 0 for a terminal s_{t+1}.
        with torch.no_grad():
            s_next = torch.as_tensor(next_state)
            Q_next = critic(s_next)  # (N, n_actions)
            if expected:  # beyond the slide: the mean under pi
                value = (actor(s_next).softmax(dim=1) * Q_next).sum(dim=1)
            else:
                value = Q_next.amax(dim=1)
            y = torch.as_tensor(reward).float() + gamma * torch.as_tensor(1 - terminated) * value
        # [1] Actor update: Delta theta = alpha Q_phi(s_t,a_t) grad_theta log pi_theta(a_t|s_t)
        #   (vectorised over actors)
        # Minus: the optimiser descends, [1] climbs. Both updates are carried out below [2].
        log_pi = log_probs.gather(1, a).squeeze(1)  # log pi_theta(a_t|s_t), (N,)
        Q = critic(s)  # (N, n_actions)
        Q_t = Q.gather(1, a).squeeze(1)  # Q_phi(s_t,a_t), (N,)
        if advantage:  # beyond the slide: y_t minus the mean under pi
            weight = y - (log_probs.exp() * Q).sum(dim=1)
        else:
            weight = Q_t
        actor_loss = -(weight.detach() * log_pi).mean()  # detach: the weight is a constant
        # [2] Critic update:
        #   Delta phi = beta grad_phi (R_{t+1} + gamma max_a Q_phi(s_{t+1},a) - Q_phi(s_t,a_t))^2
        #   (vectorised over actors)
        # The optimiser descends, as the squared error should: no minus here. y is a constant.
        critic_loss = (y - Q_t).square().mean()
        loss = actor_loss + critic_loss  # no common parameters: one step moves both networks
        if not loss.isfinite():
            raise FloatingPointError(f"loss {loss:g} at step {step}: lower alpha or beta")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return actor, critic, returns


# The slide. In [1] Q itself is the weight, and most of Q does not depend on the action: with gamma
# at 0.99 the policy soon takes one action only. With a smaller gamma the action matters more.
LITERAL = dict(n_envs=1, gamma=0.9, alpha=1e-4, expected=False, advantage=False, adam=False)


class Network(nn.Sequential):
    """States (batch, *shape) -> logits or values, one for each action: (batch, n_actions)."""

    def __init__(self, shape: tuple[int, ...], n_actions: int, hidden: int, trunk=None):
        first = [trunk(shape, hidden)] if trunk else [nn.Linear(shape[0], hidden), nn.Tanh()]
        super().__init__(*first, nn.Linear(hidden, n_actions))


def main(argv: list[str] | None = None) -> int:
    """The command line: `python actor_critic.py --help`. Returns the exit status."""
    from common import runs

    act = lambda actor, critic, state: actor(state).argmax()  # the greedy action
    value = lambda actor, critic, state: (actor(state).softmax(-1) * critic(state)).sum()
    return runs.main(train, argv, env="CartPole-v1", act=act, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
