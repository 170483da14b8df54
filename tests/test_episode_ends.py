"""A time limit is not an end: what is learned on an environment whose values are known with and without the bootstrap.

One state, reward 1 a step, gamma 0.5. If the episode is cut by a time limit, the rewards would have gone on, and the value is
1 / (1 - gamma) = 2. If the step is terminal, nothing follows, and the value is 1.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch

import dqn


class OneState(gym.Env):
    """Each episode is one step long, and ends as `end` says; the actions make no difference."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, end: str):
        self.end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), 1.0, self.end == "terminated", self.end == "truncated", {}


@pytest.mark.parametrize(("end", "value"), [("truncated", 2.0), ("terminated", 1.0)])
@pytest.mark.parametrize("double", [True, False])
def test_dqn(end, value, double):
    q_network, returns = dqn.train(
        OneState(end), steps=1_500, gamma=0.5, epsilon=1.0, warmup=50, train_every=1, tau=0.1, alpha=1e-3, double=double
    )
    assert returns == [1.0] * 1_500
    q = q_network(torch.ones(1)).detach().numpy()
    assert q == pytest.approx([value, value], abs=0.05)
