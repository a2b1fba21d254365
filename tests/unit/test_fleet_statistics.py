"""Counters that several processes add up."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tidegate.cloud import fleet_statistics
from tidegate.cloud.fleet_statistics import FleetStatistics, total
from tidegate.cloud.http.settings import Siblings
from tidegate.cloud.statistics import Counts, Statistics
from tidegate.errors import ResourceError


def counted(runs: int, rows: int) -> Counts:
    statistics = Statistics()
    for _ in range(runs):
        statistics.ran(rows, 2, 1_000, 300_000, 10)
        statistics.finished(True, 50_000, 400_000)
        statistics.finished(False, 7, 8)
    statistics.refused()
    statistics.dropped()
    return statistics.read()


def test_a_total_is_the_sum_of_its_parts() -> None:
    parts = [counted(1, 4), counted(2, 4), counted(3, 8)]
    whole = total(parts)
    assert (whole.executions, whole.inferences, whole.refused, whole.dropped) == (6, 4 + 2 * 4 + 3 * 8, 3, 3)
    assert (whole.success.count, whole.success.ns) == (6, 6 * 400_000)
    assert (whole.fail.count, whole.queue.ns) == (6, 6 * 50_007)
    assert {rows: batch.compute_infer.count for rows, batch in whole.batches.items()} == {4: 3, 8: 3}
    assert (sum(whole.queue_bins), sum(whole.infer_bins)) == (12, 6)
    assert whole.last_inference_ms == max(part.last_inference_ms for part in parts)


def test_a_total_of_one_is_that_one_and_leaves_it_alone() -> None:
    one = counted(2, 3)
    again = total([one])
    assert again == one
    total([one, one])
    assert again == one


def test_workers_ask_each_other(tmp_path: Path) -> None:
    parts = [{"mlp/1.0.0": counted(1, 4)}, {"mlp/1.0.0": counted(2, 1), "other/1.0.0": counted(1, 1)}, {}]
    with ExitStack() as at_the_end:
        fleet = [
            FleetStatistics(lambda own=own: own, Siblings(str(tmp_path), index))  # type: ignore[misc]
            for index, own in enumerate(parts)
        ]
        for one in fleet:
            one.start()
            at_the_end.callback(one.stop)
        assert fleet[0].elsewhere() == [parts[1], parts[2]]
        assert fleet[1].elsewhere() == [parts[0], parts[2]]
        fleet[2].stop()
        assert fleet[0].elsewhere() == [parts[1]]
    assert list(tmp_path.iterdir()) == []


def test_who_is_dead_or_stuck_or_breaks_off_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_statistics, "ANSWER_TIMEOUT_S", 0.2)
    asking = FleetStatistics(dict, Siblings(str(tmp_path), 0))
    (tmp_path / "1.statistics").touch()
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as stuck:
        dead.bind(str(tmp_path / "2.statistics"))
        stuck.bind(str(tmp_path / "3.statistics"))
        stuck.listen()
        assert asking.elsewhere() == []


def test_a_socket_of_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "0.statistics"))
    replaced = FleetStatistics(lambda: {"mlp/1.0.0": counted(1, 1)}, Siblings(str(tmp_path), 0))
    replaced.start()
    try:
        assert len(FleetStatistics(dict, Siblings(str(tmp_path), 1)).elsewhere()) == 1
    finally:
        replaced.stop()


def test_a_directory_whose_path_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no socket"):
        FleetStatistics(dict, Siblings(str(tmp_path / ("long" * 30)), 0)).start()


def test_one_that_is_alone_asks_nobody() -> None:
    alone = FleetStatistics(dict, Siblings())
    alone.start()
    assert alone.elsewhere() == []
    alone.stop()
