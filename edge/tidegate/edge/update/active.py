"""The model that a device runs now, whichever that is.

with ActiveModel("device") as model:
    output = model(array)                  # between two calls it may become another version
    with model.hold() as version:          # here it stays the same
        version.run(feeds)

The handle looks at `state.json` at most once a second, between calls, and only at its date and size. When another
version is active it is loaded, takes over with the next call or hold, and the old one is freed after its last holder.
The call that finds news pays for the load; call `refresh` from a moment of your own to pay it there.

What does not load, or fails its trial, is not waited for: the handle falls back to the previous version, then to the
factory's, tells so in `slot` and `fallback_reason`, and counts it, so that the updater's next `settle` rolls back. It
never writes the record itself.
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
from tidegate.edge.update.counters import Counters
from tidegate.edge.update.health import Health, HealthWriter, read_health
from tidegate.edge.update.ladder import Identity, evidence, identity, ladder_of, stamp_of
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.loaded import Array, LoadedVersion, load_version
from tidegate.edge.update.record import Record, Slot, read_record, read_slot
from tidegate.errors import (
    BundleError,
    ConfigError,
    ModelError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
)

CHECK_INTERVAL_S = 1.0
RETRY_S = 60.0
"""After a failed load, before the same version is tried again."""
RECORD_CHANGES_FOLLOWED = 5
"""In a row, while the updater changes the record under our hands."""

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
        self._layout = Layout(Path(directory))
        self._threads = threads
        self._check_interval_s = check_interval_s
        self._lock = threading.Lock()
        """guards which version is current, who holds which, and what is counted of each"""
        self._looking = threading.RLock()
        """one thread at a time looks for news"""
        self._health = HealthWriter(self._layout.health, interval_s=check_interval_s)
        self._versions: list[LoadedVersion] = []
        """in memory; the current one last"""
        self._current: LoadedVersion | None = None
        self._refused: dict[Identity, tuple[float, str]] = {}
        """versions that did not load: when they may be tried again, and why"""
        self._record: Record | None = None
        """as last read; None when it could not be understood"""
        self._seen: tuple[int, int, int] | None = None
        self._next_look_s = 0.0
        self.fallback_reason = ""
        """why another version than the active one runs; empty when the active one does"""
        self._finish = weakref.finalize(self, _finish, self._health, self._versions)
        try:
            with self._looking:
                self._follow()
                self._next_look_s = time.monotonic() + check_interval_s
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
    def health_problem(self) -> str:
        """Why the health counters could not be written lately; empty when they were."""
        return self._health.problem

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
            if self._current is None:
                raise _closed()
            self._look(is_due=True)

    def close(self) -> None:
        """Write the health counters and free the model after its last holder. Closing again does nothing."""
        with self._looking:
            with self._lock:
                current, self._current = self._current, None
            self._finish()
        if current is not None:
            self._free_if_unused(current)

    def __enter__(self) -> ActiveModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _running(self) -> LoadedVersion:
        current = self._current
        if current is None:
            raise _closed()
        return current

    def _take(self) -> LoadedVersion:
        if time.monotonic() >= self._next_look_s:
            self._look_unless_somebody_does()
        # `with` costs more than acquire and release do, and nothing between them can fail.
        lock = self._lock
        lock.acquire()
        version = self._current
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
        return version is not self._current

    def _unusual(self, version: LoadedVersion, elapsed_ns: int, first: Array | None, is_empty: bool) -> None:
        """What hardly ever follows a call: it was slow or empty, or another version has taken over meanwhile."""
        if elapsed_ns > version.budget_ns:
            version.count_slow(elapsed_ns, first)
        if is_empty:
            version.count_empty()
        self._free_if_unused(version)

    def _failed(self, version: LoadedVersion, error: BaseException) -> None:
        if isinstance(error, TidegateError):
            version.count_error(error)
        self._give_back(version)

    def _give_back(self, version: LoadedVersion) -> None:
        with self._lock:
            version.holders -= 1
        self._free_if_unused(version)

    def _look_unless_somebody_does(self) -> None:
        if self._looking.acquire(blocking=False):
            try:
                if self._current is not None:
                    self._look()
            finally:
                self._looking.release()

    def _look(self, *, is_due: bool = False) -> None:
        """Write what was counted; follow the record when it changed or the version that runs is failing its trial."""
        self._next_look_s = time.monotonic() + self._check_interval_s
        for version in tuple(self._versions):
            _hand_over(self._health, version)
        health = self._health.write() if is_due else self._health.write_if_due()
        is_failing = health is not None and self._is_failing(health)
        if is_failing or stamp_of(self._layout.state) != self._seen or self._retry_is_due():
            self._follow()

    def _follow(self) -> None:
        """Run the first version of the ladder that loads; begin again when the record changed meanwhile."""
        problems: list[str] = []
        for _ in range(RECORD_CHANGES_FOLLOWED):
            self._seen = stamp_of(self._layout.state)
            problems = self._climb(self._ladder())
            if stamp_of(self._layout.state) == self._seen:
                break
        if self._current is None:
            raise ModelError(
                f"no version in {self._layout.directory} can be loaded: {'; '.join(problems)}",
                fix="run `tidegate device status`; `tidegate device init` sets the device up again",
            )
        if self.fallback_reason != "; ".join(problems):
            self.fallback_reason = "; ".join(problems)
            self._tell_running(self._current)

    def _climb(self, ladder: list[Slot]) -> list[str]:
        """Take the first slot that can be taken, and return what kept from those before it."""
        problems: list[str] = []
        self._refused = {key: value for key, value in self._refused.items() if key in map(identity, ladder)}
        for slot in ladder:
            try:
                self._run_slot(slot, is_fallback=bool(problems))
            except TidegateError as error:
                problems.append(f"{slot.version} (release {slot.release}): {error.message}")
                if stamp_of(self._layout.state) != self._seen:
                    break
            else:
                return problems
        if self._current is not None:
            self._tell_running(self._current)
        return problems

    def _run_slot(self, slot: Slot, *, is_fallback: bool) -> None:
        """Make this slot's version the current one, unless it is already; raise why not."""
        current = self._current
        if current is not None and identity(current.slot) == identity(slot):
            self._refuse_failing(slot, read_health(self._layout.health))
            current.slot = slot
            return
        retry_s, why = self._refused.get(identity(slot), (0.0, ""))
        if time.monotonic() < retry_s:
            raise ModelError(why)
        # Written first: if the load ends this process, the next one knows.
        self._refuse_failing(slot, self._health.began(slot.release, slot.version, "loading", is_fallback=is_fallback))
        try:
            version = load_version(self._layout.store, slot, self._threads, self._lock)
        except TidegateError as error:
            if (
                stamp_of(self._layout.state) == self._seen
            ):  # Otherwise the record moved on, and its files with it: nobody's fault.
                self._health.add(slot.release, Counters(load_failures=1, last_problem=error.message))
                self._refused[identity(slot)] = (time.monotonic() + RETRY_S, error.message)
            raise
        self._refused.pop(identity(slot), None)
        self._health.add(slot.release, Counters(starts=1))
        self._health.began(slot.release, slot.version, "running", is_fallback=is_fallback)
        self._switch(version)

    def _switch(self, version: LoadedVersion) -> None:
        with self._lock:
            old, self._current = self._current, version
            self._versions.append(version)
        if old is not None:
            self._free_if_unused(old)

    def _free_if_unused(self, version: LoadedVersion) -> None:
        with self._lock:
            if version is self._current or version.holders or version not in self._versions:
                return
            self._versions.remove(version)
        _hand_over(self._health, version)
        version.model.close()

    def _is_failing(self, health: Health) -> bool:
        record = self._record
        try:
            return record is not None and bool(evidence(self._layout, record, record.active, health))
        except TidegateError:  # Its manifest cannot be read any more. What runs was whole when it was loaded.
            return False

    def _refuse_failing(self, slot: Slot, health: Health) -> None:
        problem = evidence(self._layout, self._record, slot, health)
        if problem:
            raise ModelError(problem)

    def _ladder(self) -> list[Slot]:
        """Return the versions to try, the active one first.

        While the record cannot be read, what runs goes on running; where nothing runs yet, the factory's version does.
        """
        try:
            self._record = record = read_record(self._layout.state)
        except (BundleError, NotFoundError, ResourceError) as error:
            self._record = None
            if self._current is not None:
                return [self._current.slot]
            try:
                return [read_slot(self._layout.factory)]
            except NotFoundError:
                raise error from None
        return ladder_of(record)

    def _tell_running(self, version: LoadedVersion) -> None:
        slot = version.slot
        self._health.began(slot.release, slot.version, "running", is_fallback=bool(self.fallback_reason))

    def _retry_is_due(self) -> bool:
        return any(time.monotonic() >= retry_s for retry_s, _ in self._refused.values())


def _hand_over(health: HealthWriter, version: LoadedVersion) -> None:
    counters = version.drain()
    if counters != Counters():
        health.add(version.slot.release, counters)


def _finish(health: HealthWriter, versions: list[LoadedVersion]) -> None:
    """Write the last counts and take the process out; also at the end of the interpreter."""
    for version in versions:
        _hand_over(health, version)
    health.close()


def _closed() -> StateError:
    return StateError("the handle of the active model is closed", fix="make a new ActiveModel")
