"""``python -m privbench`` is ``privbench``."""

from privbench.cli import console

if __name__ == "__main__":
    console()
