"""`python -m jobrunner` and the `jobrunner` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from jobrunner.cli.main import cli

    sys.exit(cli())


if __name__ == "__main__":
    main()
