"""`python -m tidegate.cli`, and where the command `tidegate` starts."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the command line; an interrupt while the command is still being imported ends it quietly as well."""
    try:
        from tidegate.cli.main import main
    except KeyboardInterrupt:
        return 130
    return main()


if __name__ == "__main__":
    sys.exit(start())
