"""What the scripts share and no algorithm needs: environments, pictures, flags, files."""
