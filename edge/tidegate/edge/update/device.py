"""One device under our lock: its record, and the only way to change it."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone

from tidegate.edge.update import history
from tidegate.edge.update.history import HistoryEntry
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import Record, Slot, write_record
from tidegate.edge.update.settings import DeviceSettings
from tidegate.edge.update.slots import collect, newest_whole, problem_of
from tidegate.edge.update.states import Event
from tidegate.edge.update.transition import Circumstances, advance, let_be_taken
from tidegate.errors import ResourceError

# Steps that people know by what they led to. The end of a roll-back is told with what it led to.
_TOLD = {Event.PROBE_PASSED: "activated", Event.TRIAL_PASSED: "committed", Event.DONE: "", Event.INTERRUPTED: ""}


class Device:
    """A device whose lock this process holds. `record` is always what stands on the disk."""

    def __init__(self, layout: Layout, settings: DeviceSettings, record: Record) -> None:
        self.layout = layout
        self.store = layout.store
        self.settings = settings
        self.record = record

    def send(self, event: Event, *, reason: str = "", slot: Slot | None = None) -> None:
        """Take one step of the table and make it last.

        Args:
            event: what happened.
            reason: why, for people.
            slot: the candidate of FETCH, or what RESTORE is to run.

        Raises:
            StateError: the table does not list it.
            ResourceError: the disk refuses; the device is as it was before.
        """
        about = slot or self.record.candidate or self.record.active
        now = Circumstances(at=utc_now(), reason=reason, slot=slot, window_over=self._window_over())
        self.write(advance(self.record, event, now))
        self.tell(_TOLD.get(event, event.value), about, reason)

    def write(self, record: Record) -> None:
        """Replace the record, on the disk first."""
        if record != self.record:
            write_record(self.layout.state, record)
            self.record = record

    def tell(self, event: str, about: Slot, reason: str = "") -> None:
        """Add to the history, unless there is no name for it.

        The history is for people: when the disk refuses it, the update goes on.
        """
        if not event:
            return
        entry = HistoryEntry(at=utc_now(), event=event, release=about.release, version=about.version, reason=reason)
        with contextlib.suppress(ResourceError):
            history.append(self.layout.history, entry)

    def go_back(self, event: Event, reason: str) -> None:
        """Leave the active version for the newest older one that is whole."""
        left = self.record.active
        self.send(event, reason=reason)
        self.complete_rollback(Event.DONE, f"back from {left.version} (release {left.release}): {reason}")

    def complete_rollback(self, event: Event, reason: str) -> None:
        """Make the newest whole slot the active one, and collect what it leaves behind."""
        self.send(event, reason=reason, slot=self.last_resort())
        self.tell("rolled_back", self.record.active, reason)
        self.collect()

    def older_slots(self) -> list[Slot]:
        """Return what could run instead of the active version: previous, then factory."""
        record = self.record
        return [
            slot
            for slot in (record.previous, record.factory)
            if slot is not None and not slot.holds(record.active.manifest_sha256, record.active.variant)
        ]

    def last_resort(self) -> Slot:
        """Return what is to run from now on: previous, factory, and only when neither is whole, what runs already."""
        whole = newest_whole(self.store, [*self.older_slots(), self.record.active])
        return self.record.factory if whole is None else whole

    def mend(self) -> str:
        """Leave an active version whose files changed on the disk, and return what was wrong; empty when it stays.

        When no other is whole either, its offer may at least be taken anew.
        """
        active, problem = self.record.active, problem_of(self.store, self.record.active)
        if not problem:
            return ""
        if not self.older_slots():
            self.write(let_be_taken(self.record))
            return ""
        self.go_back(Event.DAMAGED_TOO_OFTEN if self.too_often(active) else Event.DAMAGED, problem)
        return problem

    def collect(self) -> None:
        """Remove the files that no slot needs."""
        collect(self.store, self.record.slots)

    def too_often(self, slot: Slot) -> bool:
        """Return whether one more interruption by this release is one too many."""
        counted = self.record.interruptions
        return (
            counted is not None
            and counted.release == slot.release
            and counted.count >= self.settings.interruptions
            and not self._window_over()
        )

    def _window_over(self) -> bool:
        """Return whether what was counted is too old to count. A clock that went back does not make it so."""
        counted = self.record.interruptions
        return counted is not None and seconds_since(counted.since) > self.settings.interruptions_within_s


def utc_now() -> str:
    """Return the time, ISO 8601, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(at: str) -> float:
    """Return how long ago `at` was; 0 when it cannot be told."""
    try:
        then = datetime.strptime(at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return 0.0
    return (datetime.now(timezone.utc) - then).total_seconds()
