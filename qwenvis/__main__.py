"""``python -m qwenvis``: the command line."""

import sys

from qwenvis.cli import main

if __name__ == "__main__":
    sys.exit(main())
