"""Run a function in a forked child: what is imported is there at once, and what it does to itself ends with it."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

CHILD_LIMIT_S = 120
"""After which a child that hangs is ended by SIGALRM."""


def in_child(run: Callable[[], Result]) -> Result:
    """Run and return what it returns.

    Raises:
        AssertionError: the child failed or died; with its traceback.
    """
    ending, result = ended(run)
    if ending != "returned":
        raise AssertionError(f"the child {ending}\n{result}")
    answer: Result = result
    return answer


def ended(run: Callable[[], Any]) -> tuple[str, Any]:
    """Run and tell how it ended: returned (with the result), raised (with the traceback), or died of a signal."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(CHILD_LIMIT_S)
        answer: tuple[str, Any] = ("ended", None)
        try:
            try:
                answer = ("returned", run())
            except BaseException:  # noqa: BLE001 it is told to the parent
                answer = ("raised", traceback.format_exc())
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:  # whatever happened, the child never runs on in the parent's place
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        return f"died of {signal.Signals(-code).name}", None
    outcome: tuple[str, Any] = pickle.loads(said)
    return outcome
