"""How long requests took, by model, version, label and outcome. An `Observer`."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate.cloud.core import Caller, Inference, Request
from tidegate.cloud.repository import Repository
from tidegate.cloud.statistics import BOUNDS_NS, empty_bins
from tidegate.errors import NotFoundError, TidegateError
from tidegate.wire.status import code_of

OK = "OK"


class Key(NamedTuple):
    """Of one series. Callers cannot make up values: what the repository does not know is left empty."""

    model: str
    version: str
    label: str
    """the label that the caller gave in place of a version"""
    code: str
    """gRPC's name of the status"""


@dataclass
class Times:
    """Of one series."""

    bins: list[int] = field(default_factory=empty_bins)
    total_ns: int = 0


class RequestCounts:
    """Counts every request that ended, also those that were refused before they reached a model."""

    def __init__(self, repository: Repository | None = None) -> None:
        self.repository = repository
        """set before the first request; tells which names of models and versions exist"""
        self._lock = threading.Lock()
        self._times: dict[Key, Times] = {}

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        """Count one request."""
        key = self._key(request, answer, error)
        with self._lock:
            times = self._times.get(key)
            if times is None:
                times = self._times[key] = Times()
            times.bins[bisect_left(BOUNDS_NS, took_ns)] += 1
            times.total_ns += took_ns

    def read(self) -> dict[Key, Times]:
        """Return a copy."""
        with self._lock:
            return {key: Times(list(times.bins), times.total_ns) for key, times in self._times.items()}

    def _key(self, request: Request, answer: Inference | None, error: TidegateError | None) -> Key:
        if answer is not None:
            version = answer.served.version
            return Key(answer.served.name, version, "" if request.version in ("", version) else request.version, OK)
        code = code_of(error) if error is not None else "UNKNOWN"
        repository = self.repository
        if repository is None:
            return Key("", "", "", code)
        try:
            served = repository.find(request.model, request.version)
        except NotFoundError:
            return Key(request.model if repository.versions(request.model) else "", "", "", code)
        label = "" if request.version in ("", served.version) else request.version
        return Key(served.name, served.version, label, code)
