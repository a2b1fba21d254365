"""The pure rules of the server: order of versions, work that drains, slots for streams, settings."""

from __future__ import annotations

import random
import threading

import pytest

from tidegate.cloud import ServerSettings
from tidegate.cloud.repository import version_key
from tidegate.cloud.speech_session import StreamSettings
from tidegate.cloud.work import StreamSlots, Work
from tidegate.errors import ConfigError, InputError, ResourceError, UnavailableError

# The example of Semantic Versioning 2.0.0, section 11, and numbers that sort otherwise as text.
RISING = [
    "0.9.10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.10",
    "1.2.0",
    "1.10.0",
    "10.0.0",
]


def test_versions_sort_by_precedence() -> None:
    shuffled = random.Random(7).sample(RISING, len(RISING))
    assert sorted(shuffled, key=version_key) == RISING


def test_build_metadata_does_not_count() -> None:
    assert version_key("1.0.0+build.7") == version_key("1.0.0")


def test_draining_refuses_new_work_and_waits_for_the_old() -> None:
    work = Work()
    first, second = work.begin(), work.begin()
    work.drain()
    with pytest.raises(UnavailableError, match="shutting down"):
        work.begin()
    assert not work.wait_until_idle(0)
    first.release()
    first.release()  # once is what counts
    assert (work.under_way, work.wait_until_idle(0)) == (1, False)
    finisher = threading.Thread(target=second.release)
    finisher.start()
    assert work.wait_until_idle(60)
    finisher.join()


def test_slots_are_limited_and_come_back() -> None:
    slots = StreamSlots(2)
    first = slots.take()
    slots.take()
    with pytest.raises(ResourceError, match="all 2 streams"):
        slots.take()
    first.release()
    first.release()
    assert slots.open == 1
    slots.take()
    assert slots.open == 2


@pytest.mark.parametrize(
    "field", ["maximum_message_bytes", "maximum_streams", "unary_threads", "maximum_queued_calls", "maximum_segment_s"]
)
def test_settings_that_cannot_be_meant(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is 0"):
        ServerSettings(**{field: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"sample_rate_hz": 0},
        {"sample_rate_hz": -16_000},
        {"sample_rate_hz": 10**9},
        {"sample_rate_hz": 16_000, "maximum_search_results": -1},
        {"sample_rate_hz": 16_000, "maximum_search_results": 10**6},
    ],
)
def test_stream_settings_that_cannot_be_meant(fields: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        StreamSettings(**fields)  # type: ignore[arg-type]
