"""One version in memory: its model, its place on the device, and what has been counted of it since the last look."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Bundle, Manifest, Signature
from tidegate.edge.update.counters import Counters
from tidegate.edge.update.record import Slot
from tidegate.errors import TidegateError
from tidegate.fetch.installed import open_installed
from tidegate.fetch.store import Store
from tidegate.runtime import Model, load

Array = NDArray[Any]


class LoadedVersion:
    """A model that counts its calls. Thread-safe; made and freed by `ActiveModel`."""

    def __init__(self, slot: Slot, model: Model, manifest: Manifest, store: Store, lock: threading.Lock) -> None:
        self.slot = slot
        """where it stands in the device's record"""
        self.manifest = manifest
        self.model = model
        self.holders = 0
        """calls and holds that are using it; guarded by `lock`"""
        self.good_calls = 0
        """calls through the handle that went well, each an answer; guarded by `lock`"""
        self.errors = 0
        """calls that raised, ever"""
        budget_ms = manifest.budgets.latency_p95_ms if manifest.budgets else 0.0
        self.budget_ns = int(budget_ms * 1e6) if budget_ms else 1 << 62
        first = manifest.signature.inputs[0] if manifest.signature.inputs else None
        self.first_input = first.name if first else ""
        self._has_rows = first is not None and bool(first.shape) and first.shape[0] == -1
        self._store = store
        self._lock = lock
        self._held_calls = 0
        self._other = Counters()

    @property
    def variant_id(self) -> str:
        """The variant that runs."""
        return self.model.variant_id

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        return self.model.signature

    def open_bundle(self) -> Bundle:
        """Open the installed release, for its assets. Raises what `open_installed` raises."""
        return open_installed(self._store, self.slot.manifest_sha256, self.slot.variant)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once in a hold, as `Model.run` does, and count it."""
        began_ns = time.perf_counter_ns()
        try:
            outputs = self.model.run(feeds)
        except TidegateError as error:
            self.count_error(error)
            raise
        self._count_held(time.perf_counter_ns() - began_ns, feeds.get(self.first_input))
        return outputs

    def __call__(self, array: Array) -> Array:
        """Run a model of one input and one output once in a hold, as `Model` does, and count it."""
        began_ns = time.perf_counter_ns()
        try:
            output = self.model(array)
        except TidegateError as error:
            self.count_error(error)
            raise
        self._count_held(time.perf_counter_ns() - began_ns, array)
        return output

    def report_failure(self, reason: str) -> None:
        """Count a failure that only the app can see: it is held against this version in its trial."""
        with self._lock:
            self._other.add(Counters(reported=1, last_problem=reason))

    def report_unusable(self, reason: str) -> None:
        """Say that the app cannot work with this version at all: on trial, it is left at once."""
        with self._lock:
            self._other.add(Counters(unusable=1, last_problem=reason))

    def report_answer(self, *, is_empty: bool) -> None:
        """Count the result of a hold, which may have taken several calls, and whether there was anything in it."""
        with self._lock:
            self._other.answers += 1
            self._other.empty += is_empty

    def count_error(self, error: TidegateError) -> None:
        """Count a call that raised: the caller's input or ours."""
        is_callers = error.fault == "caller"
        with self._lock:
            self.errors += 1
            self._other.add(Counters(calls=1, failed=not is_callers, refused=is_callers, last_problem=error.message))

    def count_slow(self, elapsed_ns: int, first: Array | None) -> None:
        """Count a call over the budget; that is for one row, so one with several may take as many times longer."""
        rows = len(first) if self._has_rows and isinstance(first, np.ndarray) and first.ndim else 1
        if elapsed_ns > self.budget_ns * max(rows, 1):
            with self._lock:
                self._other.over_budget += 1

    def count_empty(self) -> None:
        """Count the answer of a call as one with nothing in it."""
        with self._lock:
            self._other.empty += 1

    def drain(self) -> Counters:
        """Return what has been counted since the last time."""
        with self._lock:
            counters, self._other = self._other, Counters()
            counters.calls += self.good_calls + self._held_calls
            counters.answers += self.good_calls
            self.good_calls = self._held_calls = 0
            return counters

    def _count_held(self, elapsed_ns: int, first: Array | None) -> None:
        with self._lock:
            self._held_calls += 1
        if elapsed_ns > self.budget_ns:
            self.count_slow(elapsed_ns, first)


def load_version(store: Store, slot: Slot, threads: int | None, lock: threading.Lock) -> LoadedVersion:
    """Load what a slot names; `lock` is its owner's, and guards what is counted.

    Raises: what `open_installed` and `tidegate.runtime.load` raise.
    """
    with open_installed(store, slot.manifest_sha256, slot.variant) as bundle:
        model = load(bundle, variant=slot.variant, threads=threads)
        return LoadedVersion(slot, model, bundle.manifest, store, lock)
