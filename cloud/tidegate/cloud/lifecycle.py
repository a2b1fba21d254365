"""The life of one loaded version, as a literal table.

LOADING --loaded--> WARMING --warm--> READY --retire--> DRAINING --drained--> UNLOADED
   |                   |
   +------ failed -----+--------------------------------------------------> UNLOADED
"""

from __future__ import annotations

from enum import Enum

from tidegate.errors import StateError


class State(Enum):
    """Where a version stands; the values are what the repository index shows."""

    LOADING = "LOADING"
    WARMING = "WARMING"
    READY = "READY"
    DRAINING = "DRAINING"
    UNLOADED = "UNLOADED"


class Event(Enum):
    """What happens to a version."""

    LOADED = "loaded"
    WARM = "warm"
    RETIRE = "retire"
    DRAINED = "drained"
    FAILED = "failed"


TABLE: dict[tuple[State, Event], State] = {
    (State.LOADING, Event.LOADED): State.WARMING,
    (State.LOADING, Event.FAILED): State.UNLOADED,
    (State.WARMING, Event.WARM): State.READY,
    (State.WARMING, Event.FAILED): State.UNLOADED,
    (State.READY, Event.RETIRE): State.DRAINING,
    (State.DRAINING, Event.DRAINED): State.UNLOADED,
}
"""Every step there is."""


def next_state(state: State, event: Event) -> State:
    """Return the state after `event`.

    Raises:
        StateError: the table has no such step.
    """
    following = TABLE.get((state, event))
    if following is None:
        raise StateError(
            f"a version that is {state.value} cannot be {event.value}", fix="this is a defect of Tidegate; report it"
        )
    return following
