"""A model's counters: runs of single requests are appended first and counted many at a time, and come out the same."""

from __future__ import annotations

import threading
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tidegate.cloud.statistics import FOLD_AT, Statistics

TIMES_NS = st.integers(0, 10_000_000_000)


@given(st.lists(st.tuples(st.integers(1, 4), TIMES_NS, TIMES_NS, TIMES_NS), max_size=40))
def test_single_runs_count_as_a_run_and_an_answer_each(runs: list[tuple[int, int, int, int]]) -> None:
    together, one_by_one = Statistics(), Statistics()
    for rows, began_ns, queue_ns, run_ns in runs:
        ended_ns = began_ns + queue_ns + run_ns
        together.ran_alone(rows, began_ns, began_ns + queue_ns, ended_ns)
        one_by_one.ran(rows, 1, 0, run_ns, 0)
        one_by_one.finished(True, queue_ns, queue_ns + run_ns)
    found, expected = together.read(), one_by_one.read()
    # When the last run was is told by the clock of each.
    assert replace(found, last_inference_ms=0) == replace(expected, last_inference_ms=0)


def test_nothing_is_lost_or_counted_twice_between_threads() -> None:
    statistics, threads, each = Statistics(), 4, 3 * FOLD_AT // 2
    start = threading.Barrier(threads + 1)

    def count() -> None:
        start.wait()
        for _ in range(each):
            statistics.ran_alone(2, 0, 10, 30)

    counting = [threading.Thread(target=count) for _ in range(threads)]
    for thread in counting:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in counting):
        assert statistics.read().executions <= threads * each
    for thread in counting:
        thread.join()
    counts = statistics.read()
    assert (counts.executions, counts.inferences) == (threads * each, 2 * threads * each)
    assert (counts.success.count, counts.success.ns) == (threads * each, 30 * threads * each)
    assert sum(counts.infer_bins) == sum(counts.queue_bins) == threads * each
    assert counts.batches[2].compute_infer.ns == 20 * threads * each
    assert counts.last_inference_ms > 0
