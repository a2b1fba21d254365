"""Which version a running app has in memory: the active one, or the first behind it that loads.

What does not load, or fails its trial, is not waited for: the follower falls back to the previous version, then to the
factory's, and counts it, so that the updater's next `settle` rolls back. It never writes the record itself.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tidegate.edge.update.counters import Counters
from tidegate.edge.update.health import Health, HealthWriter, read_health
from tidegate.edge.update.ladder import Identity, evidence, identity, ladder_of, stamp_of
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.loaded import LoadedVersion, load_version
from tidegate.edge.update.record import Record, Slot, read_record, read_slot
from tidegate.errors import BundleError, ModelError, NotFoundError, ResourceError, TidegateError

RETRY_S = 60.0
"""After a failed load, before the same version is tried again."""
RECORD_CHANGES_FOLLOWED = 5
"""In a row, while the updater changes the record under our hands."""


class Follower:
    """Loads, exchanges and frees versions. One thread at a time looks for news; taking and freeing are thread-safe."""

    def __init__(self, directory: Path, threads: int | None, check_interval_s: float) -> None:
        """Load nothing yet.

        Args:
            directory: the device's.
            threads: of each model; None for the runtime's default.
            check_interval_s: least time between two looks at the record, and between two writes of the counters.
        """
        self._layout = Layout(directory)
        self._threads = threads
        self._check_interval_s = check_interval_s
        self.lock = threading.Lock()
        """guards which version is current, who holds which, and what is counted of each"""
        self.health = HealthWriter(self._layout.health, interval_s=check_interval_s)
        self.versions: list[LoadedVersion] = []
        """in memory; the current one last"""
        self.current: LoadedVersion | None = None
        """the one that runs; None before `follow` and after `leave`"""
        self.next_look_s = 0.0
        """on the monotonic clock"""
        self.fallback_reason = ""
        """why another version than the active one runs; empty when the active one does"""
        self._refused: dict[Identity, tuple[float, str]] = {}
        """versions that did not load: when they may be tried again, and why"""
        self._record: Record | None = None
        """as last read; None when it could not be understood"""
        self._seen: tuple[int, int, int] | None = None

    def follow(self) -> None:
        """Run the first version of the ladder that loads; begin again when the record changed meanwhile.

        Raises:
            NotFoundError: the directory is not a device.
            ModelError: no version on the device loads.
        """
        problems: list[str] = []
        for _ in range(RECORD_CHANGES_FOLLOWED):
            self._seen = stamp_of(self._layout.state)
            problems = self._climb(self._ladder())
            if stamp_of(self._layout.state) == self._seen:
                break
        if self.current is None:
            raise ModelError(
                f"no version in {self._layout.directory} can be loaded: {'; '.join(problems)}",
                fix="run `tidegate device status`; `tidegate device init` sets the device up again",
            )
        if self.fallback_reason != "; ".join(problems):
            self.fallback_reason = "; ".join(problems)
            self._tell_running(self.current)

    def leave(self) -> None:
        """Write the last counts, take the process out, and free the model after its last holder."""
        with self.lock:
            current, self.current = self.current, None
        finish(self.health, self.versions)
        if current is not None:
            self.free_if_unused(current)

    def look(self, *, is_due: bool = False) -> None:
        """Write what was counted; follow the record when it changed or the version that runs is failing its trial."""
        self.next_look_s = time.monotonic() + self._check_interval_s
        for version in tuple(self.versions):
            hand_over(self.health, version)
        health = self.health.write() if is_due else self.health.write_if_due()
        is_failing = health is not None and self._is_failing(health)
        if is_failing or stamp_of(self._layout.state) != self._seen or self._retry_is_due():
            self.follow()

    def free_if_unused(self, version: LoadedVersion) -> None:
        """Free a version that nobody holds and that does not run any more."""
        with self.lock:
            if version is self.current or version.holders or version not in self.versions:
                return
            self.versions.remove(version)
        hand_over(self.health, version)
        version.model.close()

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
        if self.current is not None:
            self._tell_running(self.current)
        return problems

    def _run_slot(self, slot: Slot, *, is_fallback: bool) -> None:
        """Make this slot's version the current one, unless it is already; raise why not."""
        current = self.current
        if current is not None and identity(current.slot) == identity(slot):
            self._refuse_failing(slot, read_health(self._layout.health))
            current.slot = slot
            return
        retry_s, why = self._refused.get(identity(slot), (0.0, ""))
        if time.monotonic() < retry_s:
            raise ModelError(why)
        # Written first: if the load ends this process, the next one knows.
        self._refuse_failing(slot, self.health.began(slot.release, slot.version, "loading", is_fallback=is_fallback))
        try:
            version = load_version(self._layout.store, slot, self._threads, self.lock)
        except TidegateError as error:
            if (
                stamp_of(self._layout.state) == self._seen
            ):  # Otherwise the record moved on, and its files with it: nobody's fault.
                self.health.add(slot.release, Counters(load_failures=1, last_problem=error.message))
                self._refused[identity(slot)] = (time.monotonic() + RETRY_S, error.message)
            raise
        self._refused.pop(identity(slot), None)
        self.health.add(slot.release, Counters(starts=1))
        self.health.began(slot.release, slot.version, "running", is_fallback=is_fallback)
        self._switch(version)

    def _switch(self, version: LoadedVersion) -> None:
        with self.lock:
            old, self.current = self.current, version
            self.versions.append(version)
        if old is not None:
            self.free_if_unused(old)

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
            if self.current is not None:
                return [self.current.slot]
            try:
                return [read_slot(self._layout.factory)]
            except NotFoundError:
                raise error from None
        return ladder_of(record)

    def _tell_running(self, version: LoadedVersion) -> None:
        slot = version.slot
        self.health.began(slot.release, slot.version, "running", is_fallback=bool(self.fallback_reason))

    def _retry_is_due(self) -> bool:
        return any(time.monotonic() >= retry_s for retry_s, _ in self._refused.values())


def hand_over(health: HealthWriter, version: LoadedVersion) -> None:
    """Give the health counters what has been counted of a version."""
    counters = version.drain()
    if counters != Counters():
        health.add(version.slot.release, counters)


def finish(health: HealthWriter, versions: list[LoadedVersion]) -> None:
    """Write the last counts and take the process out; also at the end of the interpreter."""
    for version in versions:
        hand_over(health, version)
    health.close()
