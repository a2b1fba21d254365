"""The model that a device runs now, whichever that is.

with ActiveModel("device") as model:
    output = model(array)                  # between two calls it may become another version
    with model.hold() as version:          # here it stays the same
        version.run(feeds)

The handle looks at `state.json` at most once a second, between calls, and only at its date and size. When another
version is active it is loaded, takes over with the next call or hold, and the old one is freed after its last holder.
The call that finds news pays for the load; call `refresh` from a moment of your own to pay it there.

What does not load, or fails its trial, is not waited for: see `following`. `slot` and `fallback_reason` tell of it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import TracebackType

from tidegate.bundle import Manifest, Signature
from tidegate.edge.update.following import Follower, finish
from tidegate.edge.update.loaded import Array, LoadedVersion
from tidegate.edge.update.record import Slot
from tidegate.errors import ConfigError, StateError, TidegateError

CHECK_INTERVAL_S = 1.0

_size = attrgetter("size")


class ActiveModel:
    """Follows the active version of a device. Thread-safe; one for each process that runs the model."""

    def __init__(
        self, directory: str | Path, *, threads: int | None = None, check_interval_s: float = CHECK_INTERVAL_S
    ) -> None:
        """Load the active version, or what stands behind it.

        Args:
            directory: the device's, as `tidegate device init` made it.
            threads: of each model; None for the runtime's default on a device.
            check_interval_s: least time between two looks at the record; 0 looks before every call.

        Raises:
            NotFoundError: the directory is not a device.
            ModelError: no version on the device loads; the message names each with its reason.
            ConfigError: a negative interval.
        """
        if not check_interval_s >= 0:
            raise ConfigError(f"check_interval_s is {check_interval_s}; expected 0 or more", fix="1 second is usual")
        self._follower = follower = Follower(Path(directory), threads, check_interval_s)
        self._lock = follower.lock
        self._check_interval_s = check_interval_s
        self._looking = threading.RLock()
        """one thread at a time looks for news"""
        self._finish = weakref.finalize(self, finish, follower.health, follower.versions)
        try:
            with self._looking:
                follower.follow()
                follower.next_look_s = time.monotonic() + check_interval_s
        except BaseException:
            self._finish()
            raise

    @property
    def slot(self) -> Slot:
        """What really runs now."""
        return self._running().slot

    @property
    def manifest(self) -> Manifest:
        """Of the version that runs now."""
        return self._running().manifest

    @property
    def signature(self) -> Signature:
        """Of the version that runs now."""
        return self._running().signature

    @property
    def fallback_reason(self) -> str:
        """Why another version than the active one runs; empty when the active one does."""
        return self._follower.fallback_reason

    @property
    def health_problem(self) -> str:
        """Why the health counters could not be written lately; empty when they were."""
        return self._follower.health.problem

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the active model once; see `tidegate.runtime.Model.run`.

        Raises:
            StateError: the handle is closed. And what `Model.run` raises.
        """
        version = self._take()
        began_ns = time.perf_counter_ns()
        try:
            outputs = version.model.run(feeds)
        except BaseException as error:
            self._failed(version, error)
            raise
        elapsed_ns = time.perf_counter_ns() - began_ns
        is_empty = not any(map(_size, outputs.values()))
        if self._done(version) or elapsed_ns > version.budget_ns or is_empty:
            self._unusual(version, elapsed_ns, feeds.get(version.first_input), is_empty)
        return outputs

    def __call__(self, array: Array) -> Array:
        """Run an active model of one input and one output once; see `tidegate.runtime.Model.__call__`.

        Raises: as `run`.
        """
        version = self._take()
        began_ns = time.perf_counter_ns()
        try:
            output = version.model(array)
        except BaseException as error:
            self._failed(version, error)
            raise
        elapsed_ns = time.perf_counter_ns() - began_ns
        if self._done(version) or elapsed_ns > version.budget_ns or not output.size:
            self._unusual(version, elapsed_ns, array, not output.size)
        return output

    @contextmanager
    def hold(self) -> Iterator[LoadedVersion]:
        """Give the version that is active now for the whole block, whatever becomes active meanwhile.

        Calls of the version are counted; whether the block's result was empty is the caller's to report.

        Raises:
            StateError: the handle is closed.
        """
        version = self._take()
        try:
            yield version
        finally:
            self._give_back(version)

    def report_failure(self, reason: str) -> None:
        """Count a failure that only the app can see against the version that runs now."""
        self._running().report_failure(reason)

    def report_unusable(self, reason: str) -> None:
        """Say that the app cannot work with the version that runs now at all: on trial, it is left at once."""
        self._running().report_unusable(reason)

    def refresh(self) -> None:
        """Look for news at once, and write the health counters.

        Raises:
            StateError: the handle is closed.
        """
        with self._looking:
            if self._follower.current is None:
                raise _closed()
            self._follower.look(is_due=True)

    def close(self) -> None:
        """Write the health counters and free the model after its last holder. Closing again does nothing."""
        with self._looking:
            if self._finish.detach() is not None:
                self._follower.leave()

    def __enter__(self) -> ActiveModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> LoadedVersion:
        current = self._follower.current
        if current is None:
            raise _closed()
        return current

    def _take(self) -> LoadedVersion:
        follower = self._follower
        if time.monotonic() >= follower.next_look_s:
            self._look_unless_somebody_does()
        # `with` costs more than acquire and release do, and nothing between them can fail.
        lock = self._lock
        lock.acquire()
        version = follower.current
        if version is not None:
            version.holders += 1
        lock.release()
        if version is None:
            raise _closed()
        return version

    def _done(self, version: LoadedVersion) -> bool:
        """Count a call that went well and give its version back; return whether it is to be freed, perhaps."""
        lock = self._lock
        lock.acquire()
        version.holders -= 1
        version.good_calls += 1
        lock.release()
        return version is not self._follower.current

    def _unusual(self, version: LoadedVersion, elapsed_ns: int, first: Array | None, is_empty: bool) -> None:
        """What hardly ever follows a call: it was slow or empty, or another version has taken over meanwhile."""
        if elapsed_ns > version.budget_ns:
            version.count_slow(elapsed_ns, first)
        if is_empty:
            version.count_empty()
        self._follower.free_if_unused(version)

    def _failed(self, version: LoadedVersion, error: BaseException) -> None:
        if isinstance(error, TidegateError):
            version.count_error(error)
        self._give_back(version)

    def _give_back(self, version: LoadedVersion) -> None:
        with self._lock:
            version.holders -= 1
        self._follower.free_if_unused(version)

    def _look_unless_somebody_does(self) -> None:
        if self._looking.acquire(blocking=False):
            try:
                if self._follower.current is not None:
                    self._follower.look()
            finally:
                self._looking.release()


def _closed() -> StateError:
    return StateError("the handle of the active model is closed", fix="make a new ActiveModel")
