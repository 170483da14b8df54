"""What the scripts share and no algorithm needs: environments, plots, and the run around a training (flags, files, summary)."""

from common import envs  # noqa: F401  (registers Treasure-v0, GridWorld-v0 and Maze-v0 with Gymnasium)
