"""What several workers may take together, and how long one that cannot start waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.cloud.http.settings import HttpSettings
from tidegate.cloud.limits import Safety
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.repository import RepositorySettings
from tidegate.cloud.server import ServerSettings
from tidegate.cloud.worker_process import WorkerSpec, shared_out
from tidegate.cloud.workers import pause_after


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 1), (1, 2), (2, 4), (5, 32), (6, 60), (10**9, 60)])
def test_pauses_grow_up_to_a_minute(failures: int, pause_s: float) -> None:
    assert pause_after(failures) == pause_s


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_limits_hold_for_all_workers_together(workers: int) -> None:
    settings = ServerSettings(
        maximum_streams=1000,
        maximum_queued_calls=5,
        safety=Safety(streams_per_client=10, maximum_connections=100, maximum_unread_bytes=10**9),
        outside=OutsideSettings(
            http=HttpSettings(maximum_connections=7, maximum_requests=9, maximum_arriving_bytes=10**9)
        ),
    )
    spec = WorkerSpec((Path("a.tide"),), "127.0.0.1:0", settings, RepositorySettings(maximum_memory_bytes=10**9))
    own = shared_out(spec, workers)
    pairs = [
        (own.settings.maximum_streams, 1000),
        (own.settings.maximum_queued_calls, 5),
        (own.settings.safety.streams_per_client, 10),
        (own.settings.safety.maximum_connections, 100),
        (own.settings.safety.maximum_unread_bytes, 10**9),
        (own.settings.outside.http.maximum_connections, 7),
        (own.settings.outside.http.maximum_requests, 9),
        (own.settings.outside.http.maximum_arriving_bytes, 10**9),
        (own.repository.maximum_memory_bytes, 10**9),
    ]
    for part, whole in pairs:
        assert part is not None
        # As much as there is, and less than one more for each worker.
        assert whole <= part * workers < whole + workers
    assert own.bundles == spec.bundles


def test_what_has_no_limit_has_none_for_workers() -> None:
    own = shared_out(WorkerSpec((), "127.0.0.1:0"), 4)
    assert own.settings.safety.streams_per_client is None
    assert own.repository.maximum_memory_bytes == 0


def test_room_for_one_answer_is_left() -> None:
    settings = ServerSettings(maximum_message_bytes=1000, safety=Safety(maximum_unread_bytes=2000))
    own = shared_out(WorkerSpec((), "127.0.0.1:0", settings), 4)
    assert own.settings.safety.maximum_unread_bytes == 1000
