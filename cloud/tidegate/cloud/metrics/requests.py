"""How long requests took, by model, version, label and outcome. An `Observer`, on the path of every request.

A request is appended to an array: no lock, no search for its bin. Many at a time are put into bins, by whoever appends
the last of `FOLD_AT` or reads. Only that takes a lock, and nobody waits for it: whoever finds it taken goes on, since
the one who has it, or the next one, takes what was appended meanwhile.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from typing import NamedTuple

import numpy as np

from tidegate.cloud.core import Caller, Inference, Request
from tidegate.cloud.metrics.speech import CountedCall, SpeechCounts
from tidegate.cloud.metrics.values import ValueCounts
from tidegate.cloud.repository import Repository
from tidegate.cloud.statistics import FOLD_AT, binned, empty_bins
from tidegate.errors import AccessError, NotFoundError, TidegateError
from tidegate.wire.status import code_of

OK = "OK"

UNKNOWN = "UNKNOWN"


class Key(NamedTuple):
    """Of one series. Callers cannot make up values: what the repository does not know is left empty."""

    model: str
    version: str
    label: str
    """the label that the caller gave in place of a version"""
    code: str
    """gRPC's name of the status"""


class Times(NamedTuple):
    """Of one series."""

    bins: list[int]
    total_ns: int


class Series:
    """Counts times; `new` takes one from any thread, by its `append`."""

    __slots__ = ("_bins", "_lock", "_total_ns", "new")

    def __init__(self) -> None:
        self.new = array("q")
        """ns; not yet in a bin"""
        self._lock = threading.Lock()
        self._bins = empty_bins()
        self._total_ns = 0

    def fold(self) -> None:
        """Put what is new into bins, unless another thread does so now."""
        if self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def read(self) -> Times:
        """Return a copy."""
        with self._lock:
            self._fold()
            return Times(list(self._bins), self._total_ns)

    def _fold(self) -> None:
        """Take what was there at first; others append behind it meanwhile. The lock is held."""
        new = self.new
        count = len(new)
        if not count:
            return
        taken = np.frombuffer(new[:count], np.int64)
        del new[:count]
        self._bins = binned(self._bins, taken)
        self._total_ns += int(taken.sum())


class RequestCounts:
    """Counts every request that ended, also those that were refused before they reached a model."""

    def __init__(self, values: ValueCounts | None = None) -> None:
        """Begin empty.

        Args:
            values: told of requests that were answered by a version with a reference profile, which spares all others
                the call of another observer.
        """
        self.repository: Repository | None = None
        """set before the first request; tells which names of models and versions exist"""
        self.speech = SpeechCounts()
        """of the speech service"""
        self._values = values
        self._lock = threading.Lock()
        self._series: dict[Key, Series] = {}
        self._known: dict[tuple[str, str, str, str], Series] = {}
        """the same by what was asked for as version, and the model, version and outcome that were found"""
        self._turned_away: Counter[tuple[str, str]] = Counter()
        self._codes: dict[tuple[type[TidegateError], bool], str] = {}

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        """Count one request."""
        if answer is not None:
            served = answer.served
            manifest = served.manifest
            key = (request.version, manifest.name, manifest.version, OK)
            series = self._known.get(key) or self._learnt(key)
            if self._values is not None and served.reference_profile is not None:
                self._values.finished(caller, request, answer, error, took_ns)
        else:
            series = self._failed(request, UNKNOWN if error is None else self._code(error))
        new = series.new
        new.append(took_ns)
        if len(new) >= FOLD_AT:
            series.fold()

    def turned_away(self, caller: Caller, transport: str, error: TidegateError) -> None:
        """Count one request that was not begun."""
        with self._lock:
            self._turned_away[transport, self._code(error)] += 1

    def read_turned_away(self) -> dict[tuple[str, str], int]:
        """Return a copy, by transport and outcome."""
        with self._lock:
            return dict(self._turned_away)

    def speech_opened(self, caller: Caller, method: str) -> CountedCall:
        """Count one speech call."""
        return self.speech.opened(method)

    def read(self) -> dict[Key, Times]:
        """Return a copy."""
        with self._lock:
            known = list(self._series.items())
        return {key: series.read() for key, series in known}

    def _failed(self, request: Request, code: str) -> Series:
        repository = self.repository
        if repository is None:
            return self._of(Key("", "", "", code))
        try:
            manifest = repository.find(request.model, request.version).manifest
        except NotFoundError:
            return self._of(Key(request.model if repository.versions(request.model) else "", "", "", code))
        key = (request.version, manifest.name, manifest.version, code)
        return self._known.get(key) or self._learnt(key)

    def _learnt(self, key: tuple[str, str, str, str]) -> Series:
        asked, model, version, code = key
        series = self._known[key] = self._of(Key(model, version, "" if asked in ("", version) else asked, code))
        return series

    def _of(self, key: Key) -> Series:
        with self._lock:
            return self._series.setdefault(key, Series())

    def _code(self, error: TidegateError) -> str:
        """Return the status of an error; an AccessError has two."""
        key = (type(error), isinstance(error, AccessError) and error.identified)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = code_of(error)
        return code
