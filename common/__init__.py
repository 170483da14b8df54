"""What the scripts share and no algorithm needs: environments, pictures, flags, files."""

from common import envs  # noqa: F401  (registers our worlds)
