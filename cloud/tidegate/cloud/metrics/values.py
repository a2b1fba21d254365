"""What goes into models and comes out, counted in the bins of the bundle's reference profile. An `Observer`.

A model without a reference profile has no such metrics: without bins there is nothing to bound their number by.
Counting is done by a thread of its own, of at most so many requests a second, so that no request waits for it; what is
counted is a sample. No value leaves, only counts.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidegate.cloud.core import Caller, Inference, Request
from tidegate.errors import TidegateError
from tidegate.profile import CategoryFeature, Feature, Summary, Window, decode

MOST_WAITING = 64
"""Requests that wait to be counted; more are left out."""

MOST_ROWS = 64
"""Rows of one request that are counted."""

MOST_FEATURES = 64
"""Features of one version that are shown; of more, the first in the profile's order."""


class Counted(NamedTuple):
    """One feature of one version."""

    model: str
    version: str
    feature: Feature
    summary: Summary


class ValueCounts:
    """Counts values of requests that were answered."""

    def __init__(self, per_s: float) -> None:
        """Begin empty; the thread starts with the first request.

        Args:
            per_s: requests a second of each model that are counted, at most.
        """
        self._interval_s = 1 / per_s
        self._lock = threading.Lock()
        self._waiting: queue.Queue[tuple[Request, Inference] | None] = queue.Queue(MOST_WAITING)
        self._next_s: dict[tuple[str, str], float] = {}
        self._windows: dict[tuple[str, str], tuple[bytes, Window | None]] = {}
        self._left_out: dict[tuple[str, str], int] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        """Put one request where the thread finds it, if its model's turn has come."""
        if answer is None or answer.served.reference_profile is None or self._closed:
            return
        key = (answer.served.name, answer.served.version)
        now_s = time.monotonic()
        if now_s < self._next_s.get(key, 0.0):
            return
        self._next_s[key] = now_s + self._interval_s
        if self._thread is None:
            self._start()
        try:
            self._waiting.put_nowait((request, answer))
        except queue.Full:
            self._leave_out(key)

    def read(self) -> tuple[list[Counted], dict[tuple[str, str], int]]:
        """Return what was counted, and how many requests could not be, by model and version."""
        with self._lock:
            counted = [
                Counted(*key, feature, summary)
                for key, (_, window) in self._windows.items()
                if window is not None
                for feature, summary in list(zip(window.profile.features, window.summaries, strict=True))[
                    :MOST_FEATURES
                ]
            ]
            return counted, dict(self._left_out)

    def settle(self) -> None:
        """Wait until everything that was put is counted."""
        self._waiting.join()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tidegate-values", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._count(*item)
            finally:
                self._waiting.task_done()
        self._waiting.task_done()

    def _count(self, request: Request, answer: Inference) -> None:
        key = (answer.served.name, answer.served.version)
        try:
            window = self._window(key, answer.served.reference_profile or b"")
            if window is not None:
                added = Window(window.profile)
                added.add(_some(request.feeds), _some(answer.outputs))
                with self._lock:
                    self._windows[key] = (self._windows[key][0], window.merge(added))
        except TidegateError:
            # Not of the form that the profile was made for.
            self._leave_out(key)

    def _window(self, key: tuple[str, str], raw: bytes) -> Window | None:
        """Return what was counted against this profile until now; None for a profile that cannot be read."""
        known = self._windows.get(key)
        if known is not None and known[0] == raw:
            return known[1]
        with self._lock:
            self._windows[key] = (raw, None)
        window = Window(decode(raw))
        with self._lock:
            self._windows[key] = (raw, window)
        return window

    def _leave_out(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._left_out[key] = self._left_out.get(key, 0) + 1


def categories(feature: CategoryFeature, summary: Summary) -> dict[str, int]:
    """Return the counts of a category feature: the frequent ones of the reference, and all others together."""
    names = [category.value for category in feature.top]
    counts = [int(count) for count in summary.counts]
    return dict(zip(names, counts, strict=False)) | {"(other)": sum(counts[len(names) :])}


def _some(arrays: object) -> dict[str, NDArray[np.generic]]:
    assert isinstance(arrays, dict)
    return {name: array[:MOST_ROWS] if array.ndim else array for name, array in arrays.items()}
