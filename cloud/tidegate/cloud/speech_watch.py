"""Ends speech streams that have run out of time, with a status that says why.

A stream's thread sits in grpc and waits for the next message, without a limit. So one thread for all streams keeps
their deadlines, and wakes the thread of a stream whose deadline has passed; that one then ends its stream with an
error, as for anything else. To wake it, an empty message is put where grpc puts those that come. Where this grpcio is
made otherwise, the call is cancelled, and the client learns no reason.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tidegate.errors import TidegateError

Message = TypeVar("Message")

Limit = Callable[[], tuple[float, TidegateError]]
"""Until when the next message has to come, on `time.monotonic()` and perhaps infinite, and what to say when it has not.
Asked before each wait."""

REPEAT_S = 0.5
"""A thread that was just about to wait is woken again after this."""


class Watchdog:
    """One thread that keeps the deadlines of any number of streams; it runs while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._streams: dict[_Wait, float] = {}
        """when to wake each, on `time.monotonic()`"""
        self._wakes_at_s = math.inf
        self._thread: threading.Thread | None = None

    def watched(self, messages: Iterator[Message], wake: Callable[[], object], limit: Limit) -> Iterator[Message]:
        """Yield a stream's messages as long as each comes in time.

        Args:
            messages: waits for the next one.
            wake: makes that wait end, from any thread; whatever it yields then is thrown away.
            limit: asked before each wait.

        Raises:
            TidegateError: what `limit` gave with the deadline that has passed.
        """
        wait = _Wait(wake)
        try:
            while True:
                deadline_s, error = limit()
                if deadline_s <= time.monotonic():
                    raise error
                self._set(wait, deadline_s)
                message = next(messages, None)
                if self._set(wait, math.inf):
                    raise error
                if message is None:
                    return
                yield message
        finally:
            self._forget(wait)

    def _set(self, wait: _Wait, at_s: float) -> bool:
        """Have a stream woken at another time; return whether it was woken before."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tidegate-speech-watch", daemon=True)
                self._thread.start()
            self._streams[wait] = at_s
            if at_s < self._wakes_at_s:
                self._changed.notify()
            return wait.woken

    def _forget(self, wait: _Wait) -> None:
        with self._changed:
            self._streams.pop(wait, None)
            if not self._streams:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._streams:
                    self._thread = None
                    return
                # Deadlines mostly move back: to wake for one that has moved costs less than to be told of each.
                self._wakes_at_s = min(self._streams.values())
                wait_s = self._wakes_at_s - time.monotonic()
                if wait_s > 0:
                    self._changed.wait(None if wait_s == math.inf else wait_s)
                self._wakes_at_s = math.inf
                late = self._late()
            for wait in late:
                wait.wake()

    def _late(self) -> list[_Wait]:
        """Return the streams whose time has run out. The lock is held."""
        now_s = time.monotonic()
        late = [wait for wait, at_s in self._streams.items() if at_s <= now_s]
        for wait in late:
            wait.woken = True
            self._streams[wait] = now_s + REPEAT_S
        return late


class _Wait:
    """One stream's wait."""

    __slots__ = ("wake", "woken")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.woken = False


def wake_call(context: Any) -> None:
    """Let the thread that waits for a call's next message go on, from another thread.

    Args:
        context: grpc's.
    """
    state: Any = getattr(context, "_state", None)
    if not hasattr(state, "condition") or not hasattr(state, "request"):
        context.cancel()
        return
    with state.condition:
        state.request = b""
        state.condition.notify_all()
