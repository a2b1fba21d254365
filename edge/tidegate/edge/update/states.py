"""The update as one table: (state, event) -> (next state, action). Pure; `transition.py` says what an action does to
the record, `updater.py` and `recovery.py` send the events.

The state is what `state.json` holds on the disk. FETCHING, PROBING and ROLLING_BACK are left only by the process that
entered them, or, after it died, by the next one, which sends INTERRUPTED first. STAGED and TRIAL are also resting
states: they outlive a process.
"""

from __future__ import annotations

from enum import Enum

from tidegate.errors import StateError


class State(Enum):
    """How far an update has come."""

    IDLE = "idle"
    """the active version runs, nothing is under way"""
    FETCHING = "fetching"
    """files of the candidate are on their way"""
    STAGED = "staged"
    """the candidate is whole, every digest checked"""
    PROBING = "probing"
    """the candidate proves itself in a child process"""
    TRIAL = "trial"
    """the candidate is the active version now, under watch"""
    COMMITTED = "committed"
    """it has proven itself; what nobody needs any more goes"""
    ROLLING_BACK = "rolling_back"
    """the active version is being left for an older one"""


class Event(Enum):
    """What happened."""

    OFFERED = "offered"
    """the channel has something newer that fits"""
    FETCHED = "fetched"
    """all files are here and every digest is right"""
    FETCH_FAILED = "fetch_failed"
    """network, disk or settings: not the candidate's fault"""
    REFUSED = "refused"
    """the author's own files break a rule, so they always will"""
    SUPERSEDED = "superseded"
    """the channel offers something else now"""
    BEGUN = "begun"
    """nothing speaks against going on"""
    POSTPONED = "postponed"
    """not now: conditions, or this machine cannot run the probe"""
    PROBE_PASSED = "probe_passed"
    PROBE_FAILED = "probe_failed"
    TRIAL_PASSED = "trial_passed"
    TRIAL_FAILED = "trial_failed"
    WITHDRAWN = "withdrawn"
    """the author has taken back what is on trial"""
    DAMAGED = "damaged"
    """files of the active version changed on the disk"""
    DAMAGED_TOO_OFTEN = "damaged_too_often"
    ROLLBACK_ASKED = "rollback_asked"
    """somebody wants the version before"""
    DONE = "done"
    """what the state is for has been done"""
    INTERRUPTED = "interrupted"
    """the process that was in this state has died"""
    INTERRUPTED_TOO_OFTEN = "interrupted_too_often"
    """and not for the first time with this candidate"""


class Action(Enum):
    """What is done with the slots, in the same write as the next state."""

    FETCH = "fetch"
    """note the candidate"""
    STAGE = "stage"
    """keep the candidate"""
    PROBE = "probe"
    """keep the candidate"""
    ACTIVATE = "activate"
    """candidate becomes active, active becomes previous"""
    COMMIT = "commit"
    """keep the slots"""
    CLEAN = "clean"
    """collect what no slot needs"""
    DROP = "drop"
    """forget the candidate; its partial downloads stay"""
    QUARANTINE = "quarantine"
    """forget the candidate; its release is not tried again"""
    CONDEMN = "condemn"
    """quarantine the active version; forget the candidate"""
    LEAVE = "leave"
    """leave the active version without a verdict on it"""
    RETRY = "retry"
    """leave the active version, count that, and let its release be taken anew"""
    RESTORE = "restore"
    """the newest older slot that is whole becomes active"""
    COUNT = "count"
    """count the interruption; keep the candidate"""
    COUNT_AND_DROP = "count_and_drop"
    """count the interruption; forget the candidate, which the next look at the channel may choose again"""
    KEEP = "keep"
    """nothing to do"""


TABLE: dict[tuple[State, Event], tuple[State, Action]] = {
    (State.IDLE, Event.OFFERED): (State.FETCHING, Action.FETCH),
    (State.IDLE, Event.DAMAGED): (State.ROLLING_BACK, Action.RETRY),
    (State.IDLE, Event.DAMAGED_TOO_OFTEN): (State.ROLLING_BACK, Action.CONDEMN),
    (State.IDLE, Event.ROLLBACK_ASKED): (State.ROLLING_BACK, Action.CONDEMN),
    (State.IDLE, Event.INTERRUPTED): (State.IDLE, Action.KEEP),
    (State.FETCHING, Event.FETCHED): (State.STAGED, Action.STAGE),
    (State.FETCHING, Event.FETCH_FAILED): (State.IDLE, Action.DROP),
    (State.FETCHING, Event.REFUSED): (State.IDLE, Action.QUARANTINE),
    (State.FETCHING, Event.INTERRUPTED): (State.IDLE, Action.COUNT_AND_DROP),
    (State.FETCHING, Event.INTERRUPTED_TOO_OFTEN): (State.IDLE, Action.QUARANTINE),
    (State.STAGED, Event.BEGUN): (State.PROBING, Action.PROBE),
    # Its files changed on the disk since.
    (State.STAGED, Event.FETCH_FAILED): (State.IDLE, Action.DROP),
    (State.STAGED, Event.SUPERSEDED): (State.IDLE, Action.DROP),
    (State.STAGED, Event.DAMAGED): (State.ROLLING_BACK, Action.RETRY),
    (State.STAGED, Event.DAMAGED_TOO_OFTEN): (State.ROLLING_BACK, Action.CONDEMN),
    (State.STAGED, Event.ROLLBACK_ASKED): (State.ROLLING_BACK, Action.CONDEMN),
    (State.STAGED, Event.INTERRUPTED): (State.STAGED, Action.KEEP),
    (State.PROBING, Event.PROBE_PASSED): (State.TRIAL, Action.ACTIVATE),
    (State.PROBING, Event.PROBE_FAILED): (State.IDLE, Action.QUARANTINE),
    (State.PROBING, Event.POSTPONED): (State.STAGED, Action.STAGE),
    (State.PROBING, Event.INTERRUPTED): (State.STAGED, Action.COUNT),
    (State.PROBING, Event.INTERRUPTED_TOO_OFTEN): (State.IDLE, Action.QUARANTINE),
    (State.TRIAL, Event.TRIAL_PASSED): (State.COMMITTED, Action.COMMIT),
    (State.TRIAL, Event.TRIAL_FAILED): (State.ROLLING_BACK, Action.CONDEMN),
    (State.TRIAL, Event.DAMAGED): (State.ROLLING_BACK, Action.RETRY),
    (State.TRIAL, Event.DAMAGED_TOO_OFTEN): (State.ROLLING_BACK, Action.CONDEMN),
    (State.TRIAL, Event.ROLLBACK_ASKED): (State.ROLLING_BACK, Action.CONDEMN),
    # A signed roll-back, or a newer release where this one stands badly.
    (State.TRIAL, Event.SUPERSEDED): (State.ROLLING_BACK, Action.LEAVE),
    (State.TRIAL, Event.WITHDRAWN): (State.ROLLING_BACK, Action.LEAVE),
    (State.TRIAL, Event.INTERRUPTED): (State.TRIAL, Action.KEEP),
    (State.COMMITTED, Event.DONE): (State.IDLE, Action.CLEAN),
    (State.COMMITTED, Event.INTERRUPTED): (State.IDLE, Action.CLEAN),
    (State.ROLLING_BACK, Event.DONE): (State.IDLE, Action.RESTORE),
    (State.ROLLING_BACK, Event.INTERRUPTED): (State.IDLE, Action.RESTORE),
}


def step(state: State, event: Event) -> tuple[State, Action]:
    """Look up one transition.

    Raises:
        StateError: the pair is not in `TABLE`.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise StateError(
            f"the update has no transition for {event.name} in {state.name}", fix="please report this: it is a bug"
        ) from None
