"""A rate limit that several processes keep together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.served import PROCESS_TIMEOUT_S

from tidegate.cloud import shared_rate
from tidegate.cloud.rate import Rate, RateLimiter
from tidegate.cloud.shared_rate import PLACES, SharedRateLimiter
from tidegate.errors import ResourceError

ASKS = """
import sys
from pathlib import Path
from tidegate.cloud.rate import Rate
from tidegate.cloud.shared_rate import SharedRateLimiter
from tidegate.errors import ResourceError

limiter, taken = SharedRateLimiter(Rate(1e-6, burst=500), Path(sys.argv[1])), 0
for _ in range(400):
    try:
        limiter.take("key a")
        taken += 1
    except ResourceError:
        pass
print(taken)
"""


def passes(limiter: RateLimiter | SharedRateLimiter, client: str) -> bool:
    try:
        limiter.take(client)
    except ResourceError:
        return False
    return True


@given(calls=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=60))
def test_two_processes_together_let_pass_what_one_would(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int, bool]]
) -> None:
    now_s = 1000.0
    path = tmp_path_factory.mktemp("rate") / "rate"
    rate = Rate(2, burst=3)
    alone = RateLimiter(rate, clock=lambda: now_s)
    together = [SharedRateLimiter(rate, path, clock=lambda: now_s) for _ in range(2)]
    for client, quarters, second in calls:
        now_s += quarters / 4
        assert passes(together[second], client) == passes(alone, client)


def test_what_is_refused_says_how_long_to_wait(tmp_path: Path) -> None:
    limiter = SharedRateLimiter(Rate(4, burst=1), tmp_path / "rate", clock=lambda: 50.0)
    limiter.take("key a")
    with pytest.raises(ResourceError, match="more often than 4 times a second") as refused:
        limiter.take("key a")
    assert "wait 0.25 s" in str(refused.value.fix)


def test_a_full_set_forgets_whose_bucket_is_full_the_soonest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rate, "SETS", 1)
    now_s = 100.0
    limiter = SharedRateLimiter(Rate(1, burst=1), tmp_path / "rate", clock=lambda: now_s)
    for client in range(PLACES):
        now_s += 0.01
        limiter.take(f"key {client}")
    assert not passes(limiter, "key 0")
    limiter.take("one more")
    # Its place was that of the first, whose bucket would have been full before all others.
    assert not passes(limiter, "key 7")
    assert passes(limiter, "key 0")


def test_processes_at_the_same_time_lose_no_count(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASKS, str(tmp_path / "rate")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = [int(one.communicate(timeout=PROCESS_TIMEOUT_S)[0]) for one in running]
    assert sum(taken) == 500
    assert min(taken) >= 100


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be had"):
        SharedRateLimiter(Rate(1), tmp_path / "nowhere" / "rate")
