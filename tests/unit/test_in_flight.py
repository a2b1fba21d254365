"""Bytes on their way: who makes room, and what is counted when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.cloud.in_flight import COUNTED_BYTES, BytesInFlight
from tidegate.errors import ResourceError

LARGE = COUNTED_BYTES


class Owner:
    """Holds bytes and notes when it is ended."""

    def __init__(self) -> None:
        self.ended = 0

    def end(self) -> None:
        self.ended += 1


def test_the_oldest_make_room_for_the_new() -> None:
    held = BytesInFlight(3 * LARGE)
    owners = [Owner() for _ in range(5)]
    for owner in owners:
        held.hold(owner, LARGE, owner.end)
    assert [owner.ended for owner in owners] == [1, 1, 0, 0, 0]
    assert held.bytes == 3 * LARGE


def test_what_grows_keeps_its_place_in_time_and_never_ends_itself() -> None:
    held = BytesInFlight(3 * LARGE)
    first, second = Owner(), Owner()
    held.hold(first, LARGE, first.end)
    held.hold(second, LARGE, second.end)
    held.hold(first, 2 * LARGE, first.end)
    assert (first.ended, second.ended, held.bytes) == (0, 0, 3 * LARGE)
    held.hold(second, 2 * LARGE, second.end)
    assert (first.ended, second.ended, held.bytes) == (1, 0, 2 * LARGE)
    held.hold(second, 9 * LARGE, second.end)
    assert second.ended == 0


def test_small_ones_are_not_counted_and_one_that_is_too_large_is_refused() -> None:
    held = BytesInFlight(LARGE)
    owner = Owner()
    held.hold(owner, COUNTED_BYTES - 1, owner.end)
    assert held.bytes == 0
    held.check(LARGE)
    with pytest.raises(ResourceError, match=str(LARGE + 1)):
        held.check(LARGE + 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, LARGE, 2 * LARGE, 5 * LARGE])), max_size=50))
def test_the_count_is_that_of_what_is_held(steps: list[tuple[int, int]]) -> None:
    held = BytesInFlight(7 * LARGE)
    owners = [Owner() for _ in range(6)]
    sizes: dict[int, int] = {}
    for number, size in steps:
        owner = owners[number]
        if size:
            held.hold(owner, size, owner.end)
            sizes[number] = size
        else:
            held.release(owner)
            sizes.pop(number, None)
        for other, ended in enumerate(owners):
            if ended.ended:
                sizes.pop(other, None)
                ended.ended = 0
        assert held.bytes == sum(sizes.values()) <= 7 * LARGE
    for owner in owners:
        held.release(owner)
        held.release(owner)
    assert held.bytes == 0
