"""What the scripts share and no algorithm needs: environments, pictures, flags, files."""

from common import envs  # noqa: F401  (registers Treasure-v0, GridWorld-v0 and Maze-v0)
