"""One step of the update on the record: the table's next state, and what its action does to the slots. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from tidegate.edge.update.record import Interruptions, Quarantined, Record, Slot
from tidegate.edge.update.states import Action, Event, step
from tidegate.errors import StateError

MAXIMUM_QUARANTINED = 64
"""Older ones go: counters rise, so an offer that old is not looked at any more."""


@dataclass(frozen=True)
class Circumstances:
    """What a step depends on beside the record."""

    at: str
    """UTC, ISO 8601"""
    reason: str = ""
    """in words, for people"""
    slot: Slot | None = None
    """FETCH: the candidate. RESTORE: what is to run."""
    window_over: bool = False
    """the interruptions counted so far are too old to count"""


def advance(record: Record, event: Event, circumstances: Circumstances) -> Record:
    """Return the record after `event`: one write makes state and slots true together.

    Raises:
        StateError: the table does not list the event in this state.
    """
    state, action = step(record.phase, event)
    return replace(_EFFECTS[action](record, circumstances), phase=state)


def take_note(record: Record, release: int, track: str) -> Record:
    """Return the record of a device that runs already what an offer with another counter holds."""
    return replace(
        record,
        active=replace(record.active, release=release, track=track),
        counters=record.counters | {track: max(release, record.counters.get(track, 0))},
    )


def let_be_taken(record: Record) -> Record:
    """Return the record with the active version's offer in reach again: only quarantine keeps it from being taken."""
    active = record.active
    below = min(record.counters.get(active.track, 0), active.release - 1)
    return replace(record, counters=record.counters | {active.track: max(below, 0)})


def _fetch(record: Record, now: Circumstances) -> Record:
    return replace(record, candidate=_given(now))


def _keep(record: Record, now: Circumstances) -> Record:
    return record


def _activate(record: Record, now: Circumstances) -> Record:
    candidate = _candidate(record)
    return replace(
        record,
        active=replace(candidate, activated_at=now.at, why=now.reason),
        previous=record.active,
        candidate=None,
        counters=record.counters | {candidate.track: max(candidate.release, record.counter(candidate.track))},
        interruptions=None,
    )


def _drop(record: Record, now: Circumstances) -> Record:
    return replace(record, candidate=None)


def _quarantine(record: Record, now: Circumstances) -> Record:
    return replace(_condemned(record, _candidate(record), now), candidate=None, interruptions=None)


def _condemn(record: Record, now: Circumstances) -> Record:
    left = let_be_taken(_condemned(record, record.active, now))
    return replace(left, candidate=None, interruptions=None)


def _leave(record: Record, now: Circumstances) -> Record:
    return replace(record, candidate=None)


def _retry(record: Record, now: Circumstances) -> Record:
    return replace(let_be_taken(_counted(record, record.active.release, now)), candidate=None)


def _restore(record: Record, now: Circumstances) -> Record:
    slot = _given(now)
    if slot.holds(record.active.manifest_sha256, record.active.variant):
        return replace(record, candidate=None)
    return replace(record, active=replace(slot, activated_at=now.at, why=now.reason), previous=None, candidate=None)


def _count(record: Record, now: Circumstances) -> Record:
    return _counted(record, _candidate(record).release, now)


def _count_and_drop(record: Record, now: Circumstances) -> Record:
    return replace(_count(record, now), candidate=None)


def _counted(record: Record, release: int, now: Circumstances) -> Record:
    before = record.interruptions
    if before is None or before.release != release or now.window_over:
        return replace(record, interruptions=Interruptions(release=release, count=1, since=now.at))
    return replace(record, interruptions=replace(before, count=before.count + 1))


def _condemned(record: Record, slot: Slot, now: Circumstances) -> Record:
    entry = Quarantined(release=slot.release, version=slot.version, reason=now.reason, at=now.at)
    others = tuple(one for one in record.quarantined if one.release != slot.release)
    return replace(record, quarantined=(*others, entry)[-MAXIMUM_QUARANTINED:])


def _candidate(record: Record) -> Slot:
    if record.candidate is None:
        raise StateError(f"there is no candidate in {record.phase.name}", fix="please report this: it is a bug")
    return record.candidate


def _given(now: Circumstances) -> Slot:
    if now.slot is None:
        raise StateError("no slot was given for this step", fix="please report this: it is a bug")
    return now.slot


_EFFECTS: dict[Action, Callable[[Record, Circumstances], Record]] = {
    Action.FETCH: _fetch,
    Action.STAGE: _keep,
    Action.PROBE: _keep,
    Action.ACTIVATE: _activate,
    Action.COMMIT: _keep,
    Action.CLEAN: _keep,
    Action.DROP: _drop,
    Action.QUARANTINE: _quarantine,
    Action.CONDEMN: _condemn,
    Action.LEAVE: _leave,
    Action.RETRY: _retry,
    Action.RESTORE: _restore,
    Action.COUNT: _count,
    Action.COUNT_AND_DROP: _count_and_drop,
    Action.KEEP: _keep,
}
