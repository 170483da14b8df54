"""Images: what is shown of them (phi), and the first layers of a network that sees them.

The scripts take `trunk` as a keyword: `train(env, trunk=pixels.Convolutions)`. On the command line
it is handed over whenever an environment shows images.
"""

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import nn


def phi(env: gym.Env, screen_size: int = 84) -> gym.Env:
    """The lecture's phi: the last 4 images of a game; any other environment stays as it is.

    Atari: AtariPreprocessing (grey, screen_size pixels high and wide, an action repeated 4 times,
    up to 30 no-ops), below 84 pixels with more contrast. Then the last 4 images, channels first,
    uint8: (4 * channels, height, width).
    """
    if hasattr(env.unwrapped, "ale") and len(env.observation_space.shape) == 3:
        env = gym.wrappers.AtariPreprocessing(env, screen_size=screen_size)
        if screen_size < 84:  # a small ball is pale there
            env = gym.wrappers.TransformObservation(env, contrast, env.observation_space)
    space = env.observation_space
    pixels = isinstance(space, Box) and space.dtype in (np.uint8, np.bool_)
    if not pixels or len(space.shape) not in (2, 3) or min(space.shape[:2]) < 5:  # to filter
        return env
    env = gym.wrappers.FrameStackObservation(env, 4)
    shape = (4 * int(np.prod(space.shape[2:])), *space.shape[:2])
    white = np.uint8(255 // max(1, int(space.high.max())))  # the brightest pixel: about 255
    show = lambda x: np.moveaxis(x.reshape(4, *shape[1:], -1), 3, 1).reshape(shape) * white
    return gym.wrappers.TransformObservation(env, show, Box(0, 255, shape, np.uint8))


def contrast(image: np.ndarray) -> np.ndarray:
    """How far each pixel is from the background (the median), three times over, at most 255."""
    return np.minimum(3 * abs(image - np.median(image)), 255).astype(np.uint8)


class Convolutions(nn.Sequential):
    """Two convolutions and a dense layer: images (batch, *shape) -> (batch, hidden).

    At 84x84 they are those of Mnih et al., 2013: 8x8 pixels in steps of 4, then 4x4 in steps of 2.
    Below 40x40, where every pixel counts, both are 3x3 in steps of 1.

    Args:
        shape: channels, height, width.
        hidden: units of the dense layer.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: int):
        n = min(shape[1:]) // 20  # 4 at 84x84, 2 at 42x42
        size, step, size_2, step_2 = (2 * n, n, 4, 2) if n > 1 else (3, 1, 3, 1)
        first, second = nn.Conv2d(shape[0], 16, size, step), nn.Conv2d(16, 32, size_2, step_2)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(-3))
        # ReLU, not tanh: a sum of so many features soon grows so large that tanh is flat.
        self.extend([nn.Linear(self(torch.zeros(shape)).numel(), hidden), nn.ReLU()])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels are bytes: 0 to 255 becomes 0 to 1."""
        return super().forward(images / 255)
