"""`tidegate` as it is typed, in this process: what it says on both streams, and its exit code.

A traceback would be an exception here. What needs a process of its own, to be killed or measured, starts one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tidegate.cli.main import main


class Said(NamedTuple):
    """What a command said, named as `subprocess.CompletedProcess` names it."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Said]


def command_in(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return what runs one command; libraries that write to the file descriptors themselves are heard as well."""

    def run(*words: str | Path) -> Said:
        capfd.readouterr()
        try:
            code = main([*map(str, words)])
        except SystemExit as left:  # argparse's own end
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return run
