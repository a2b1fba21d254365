"""Counting of requests by several threads at once, while somebody reads."""

from __future__ import annotations

import threading
from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from tidegate.cloud.core import LOCAL, Request
from tidegate.cloud.metrics.requests import Key, RequestCounts
from tidegate.cloud.statistics import BOUNDS_NS, FOLD_AT, empty_bins
from tidegate.errors import AccessError, InputError, TidegateError

REQUEST = Request("m", {})
CODES: list[tuple[TidegateError, str]] = [
    (InputError("a", fix="b"), "INVALID_ARGUMENT"),
    (AccessError("a", fix="b", identified=True), "PERMISSION_DENIED"),
    (AccessError("a", fix="b", identified=False), "UNAUTHENTICATED"),
]


@given(st.lists(st.one_of(st.sampled_from(BOUNDS_NS), st.integers(0, 2**40)), max_size=30))
def test_times_lie_in_the_bins_of_their_upper_ends(times_ns: list[int]) -> None:
    counts, expected = RequestCounts(), empty_bins()
    for took_ns in times_ns:
        counts.finished(LOCAL, REQUEST, None, CODES[0][0], took_ns)
        expected[bisect_left(BOUNDS_NS, took_ns)] += 1
    found = counts.read()
    assert [list(times.bins) for times in found.values()] == ([expected] if times_ns else [])
    assert sum(times.total_ns for times in found.values()) == sum(times_ns)


def test_no_request_is_lost_between_threads_that_count_and_one_that_reads() -> None:
    counts, threads, each = RequestCounts(), 4, 3 * FOLD_AT + 7
    ready = threading.Barrier(threads + 1)

    def count() -> None:
        ready.wait(60)
        for number in range(each):
            error, _ = CODES[number % len(CODES)]
            counts.finished(LOCAL, REQUEST, None, error, 3)

    counting = [threading.Thread(target=count, daemon=True) for _ in range(threads)]
    for thread in counting:
        thread.start()
    ready.wait(60)
    before = 0
    while any(thread.is_alive() for thread in counting):
        now = sum(sum(times.bins) for times in counts.read().values())
        assert now >= before
        before = now
    found = counts.read()
    assert set(found) == {Key("", "", "", code) for _, code in CODES}
    assert sum(sum(times.bins) for times in found.values()) == threads * each
    assert sum(times.total_ns for times in found.values()) == 3 * threads * each
