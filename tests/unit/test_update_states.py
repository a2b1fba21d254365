"""The update's table: every pair, and what no sequence of events can do to the slots."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tidegate.edge.update.record import SCHEMA, Interruptions, Record, Slot
from tidegate.edge.update.states import TABLE, Action, Event, State, step
from tidegate.edge.update.transition import MAXIMUM_QUARANTINED, Circumstances, advance, take_note
from tidegate.errors import StateError

WITH_CANDIDATE = {State.FETCHING, State.STAGED, State.PROBING}


def slot(release: int) -> Slot:
    return Slot(
        model="m",
        track="stable",
        release=release,
        version=f"1.{release}.0",
        manifest_sha256=f"{release:064x}",
        variant="v",
        variant_sha256=f"{release + 1000:064x}",
        installed_at="2026-01-01T00:00:00Z",
    )


def record(phase: State = State.IDLE, **changes: object) -> Record:
    made = Record(schema=SCHEMA, phase=phase, active=slot(2), previous=slot(1), factory=slot(0), counters={"stable": 2})
    if phase in WITH_CANDIDATE:
        made = replace(made, candidate=slot(3))
    return replace(made, **changes)


def circumstances(event: Event, before: Record) -> Circumstances:
    restored = before.previous or before.factory
    given_slot = slot(9) if event is Event.OFFERED else restored if before.phase is State.ROLLING_BACK else None
    return Circumstances(at="2026-02-02T00:00:00Z", reason="because", slot=given_slot)


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=lambda one: one.name)
def test_a_pair_is_listed_or_refused(state: State, event: Event) -> None:
    before = record(state)
    if (state, event) in TABLE:
        assert step(state, event) == TABLE[state, event]
        assert advance(before, event, circumstances(event, before)).phase is TABLE[state, event][0]
        return
    with pytest.raises(StateError, match=f"{event.name} in {state.name}"):
        advance(before, event, circumstances(event, before))


def test_nothing_in_the_table_is_out_of_reach_or_unused() -> None:
    reached = {State.IDLE}
    for _ in State:
        reached |= {target for (source, _), (target, _) in TABLE.items() if source in reached}
    assert reached == set(State)
    assert {event for _, event in TABLE} == set(Event)
    assert {action for _, action in TABLE.values()} == set(Action)


def test_every_state_survives_the_death_of_its_process() -> None:
    assert {state for state, event in TABLE if event is Event.INTERRUPTED} == set(State)


def test_the_active_version_changes_only_by_activating_and_restoring() -> None:
    for (state, event), (_, action) in TABLE.items():
        before = record(state)
        after = advance(before, event, circumstances(event, before))
        changed = after.active.version != before.active.version
        assert changed == (action in (Action.ACTIVATE, Action.RESTORE)), (state, event)


def test_only_a_candidate_that_was_probed_is_activated() -> None:
    activating = [(state, event) for (state, event), (_, action) in TABLE.items() if action is Action.ACTIVATE]
    assert activating == [(State.PROBING, Event.PROBE_PASSED)]
    into_probing = {state for (state, _), (target, _) in TABLE.items() if target is State.PROBING}
    into_staged = {(state, event) for (state, event), (target, _) in TABLE.items() if target is State.STAGED}
    assert into_probing == {State.STAGED}
    assert (State.FETCHING, Event.FETCHED) in into_staged
    assert {state for state, _ in into_staged} == {State.FETCHING, State.STAGED, State.PROBING}


@given(st.lists(st.sampled_from(Event), max_size=60))
def test_no_sequence_of_events_loses_a_version_to_run(events: list[Event]) -> None:
    now, offered = record(), 3
    for event in events:
        if (now.phase, event) not in TABLE:
            continue
        told = circumstances(event, now)
        if event is Event.OFFERED:
            told = replace_slot(told, slot(offered))
            offered += 1
        after = advance(now, event, told)
        assert after.factory == now.factory
        assert (after.candidate is not None) == (after.phase in WITH_CANDIDATE)
        assert after.active.activated_at or after.active in (slot(2), slot(1), slot(0))
        known = {one.version for one in (now.active, now.previous, now.factory, now.candidate) if one is not None}
        assert after.active.version in known
        now = after


def replace_slot(told: Circumstances, new: Slot) -> Circumstances:
    return Circumstances(at=told.at, reason=told.reason, slot=new)


def test_activation_moves_the_pointer_and_keeps_the_way_back() -> None:
    after = advance(record(State.PROBING), Event.PROBE_PASSED, Circumstances(at="now", reason="passed its probe"))
    assert (after.active.release, after.active.activated_at, after.active.why) == (3, "now", "passed its probe")
    assert after.previous == slot(2)
    assert after.counter("stable") == 3


def test_a_failed_trial_quarantines_and_restores() -> None:
    condemned = advance(record(State.TRIAL), Event.TRIAL_FAILED, Circumstances(at="now", reason="deaf"))
    assert [(one.release, one.reason) for one in condemned.quarantined] == [(2, "deaf")]
    assert condemned.active == slot(2), "until an older slot was checked, what runs goes on running"
    restored = advance(condemned, Event.DONE, Circumstances(at="later", reason="deaf", slot=slot(1)))
    assert (restored.active.release, restored.previous, restored.phase) == (1, None, State.IDLE)


def test_what_is_left_may_be_looked_at_again_but_nothing_below_it() -> None:
    condemned = advance(record(), Event.ROLLBACK_ASKED, Circumstances(at="now", reason="deaf"))
    assert condemned.counter("stable") == 1
    damaged = advance(record(), Event.DAMAGED, Circumstances(at="now", reason="bits"))
    assert (damaged.counter("stable"), damaged.quarantined) == (1, ())


@pytest.mark.parametrize("event", [Event.SUPERSEDED, Event.WITHDRAWN])
def test_an_author_who_takes_a_version_back_condemns_nothing(event: Event) -> None:
    left = advance(record(State.TRIAL), event, Circumstances(at="now", reason="author"))
    assert (left.quarantined, left.counter("stable")) == ((), 2)


@pytest.mark.parametrize(
    ("interruptions", "window_over", "count"),
    [
        (None, False, 1),
        (Interruptions(release=3, count=1, since="before"), False, 2),
        (Interruptions(release=3, count=4, since="before"), True, 1),
        (Interruptions(release=2, count=4, since="before"), False, 1),
    ],
    ids=["first", "again", "long ago", "another release"],
)
@pytest.mark.parametrize("phase", [State.FETCHING, State.PROBING])
def test_interruptions_are_counted_for_each_release(
    phase: State, interruptions: Interruptions | None, window_over: bool, count: int
) -> None:
    before = record(phase, interruptions=interruptions)
    after = advance(before, Event.INTERRUPTED, Circumstances(at="now", window_over=window_over))
    assert after.interruptions is not None
    assert (after.interruptions.release, after.interruptions.count) == (3, count)
    assert after.interruptions.since == ("before" if count == 2 else "now")


def test_the_quarantine_is_bounded_and_lists_a_release_once() -> None:
    now = record()
    for release in [*range(1, 100), 99]:
        now = advance(
            replace(now, phase=State.PROBING, candidate=slot(release)),
            Event.PROBE_FAILED,
            Circumstances(at="now", reason="bad"),
        )
    releases = [one.release for one in now.quarantined]
    assert releases == list(range(100 - MAXIMUM_QUARANTINED, 100))


def test_a_noted_counter_never_falls_and_moves_the_track() -> None:
    noted = take_note(record(counters={"stable": 2, "beta": 9}), 7, "beta")
    assert (noted.active.release, noted.active.track, noted.counters) == (7, "beta", {"stable": 2, "beta": 9})
    assert noted.active.manifest_sha256 == slot(2).manifest_sha256


def test_a_factory_version_is_the_floor_of_every_track() -> None:
    assert record(factory=slot(5)).counter("nightly") == 5
