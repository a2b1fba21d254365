"""A command whose standard error is a terminal, which is read while it runs: a terminal holds but a few kilobytes."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.waiting import COMMAND_TIMEOUT_S


def run_on_terminal(command: Sequence[str]) -> tuple[subprocess.CompletedProcess[bytes], str]:
    """Run a command to its end; return it with its standard output, and what the terminal saw."""
    controller, terminal = pty.openpty()
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(_read_to_the_end, controller)
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=terminal, timeout=COMMAND_TIMEOUT_S, check=False
            )
        finally:
            os.close(terminal)
        return done, seen.result(COMMAND_TIMEOUT_S)


def _read_to_the_end(controller: int) -> str:
    told = b""
    with open(controller, "rb", buffering=0) as file:
        while True:
            try:
                piece = file.read(4096)
            except OSError:  # nobody holds the other end any more
                return told.decode()
            if not piece:
                return told.decode()
            told += piece
