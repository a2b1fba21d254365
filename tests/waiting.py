"""Waiting for what another thread or process brings about: with a pause between two looks, and with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

WAIT_S = 120.0
"""Only a defect takes so long, however busy the machine; less than a test's own limit, so that a reason is told."""

PAUSE_S = 0.005

COMMAND_TIMEOUT_S = 240.0
"""Limit of a command that a test runs to its end; less than a test's own limit, for the same reason."""


def wait_until(look: Callable[[], Found], *, timeout_s: float = WAIT_S) -> Found:
    """Look again and again until what is found is true, and return it.

    Raises:
        AssertionError: it never was; or whatever `look` raises, such as an assertion that the wait makes sense still.
    """
    end_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < end_s, f"still {found!r} after {timeout_s:g} s"
        pause.wait(PAUSE_S)
    return found
