from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.cloud.rate import Rate, RateLimiter, client_address
from tidegate.errors import ConfigError, ResourceError


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def passes(limiter: RateLimiter, client: str = "a") -> bool:
    try:
        limiter.take(client)
    except ResourceError:
        return False
    return True


def test_a_burst_passes_then_the_even_pace() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(10, burst=5), clock=clock)
    assert [passes(limiter) for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now_s += 0.1
    assert [passes(limiter) for _ in range(2)] == [True, False]
    clock.now_s += 100
    assert [passes(limiter) for _ in range(7)] == [True] * 5 + [False] * 2


def test_clients_do_not_share_a_bucket() -> None:
    limiter = RateLimiter(Rate(1, burst=1), clock=Clock())
    assert passes(limiter, "a")
    assert passes(limiter, "b")
    assert not passes(limiter, "a")


def test_a_refusal_says_how_long_to_wait_and_that_wait_is_enough() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(4, burst=1), clock=clock)
    limiter.take("a")
    with pytest.raises(ResourceError, match="more often than 4 times") as refused:
        limiter.take("a")
    assert refused.value.fix is not None
    assert "wait 0.25 s" in refused.value.fix
    clock.now_s += 0.25
    limiter.take("a")


@given(st.lists(st.floats(0, 2), max_size=200), st.integers(1, 20), st.integers(1, 20))
def test_no_window_of_time_holds_more_than_the_burst_and_its_share(waits: list[float], rate: int, burst: int) -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(rate, burst=burst), clock=clock)
    passed: list[float] = []
    for wait_s in waits:
        clock.now_s += wait_s
        if passes(limiter):
            passed.append(clock.now_s)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - passed[first]) + 1e-3


def test_the_table_is_bounded_and_forgets_who_called_longest_ago() -> None:
    limiter = RateLimiter(Rate(1, burst=1), maximum_clients=100, clock=Clock())
    for number in range(1000):
        limiter.take(f"client {number}")
    assert len(limiter) == 100
    assert not passes(limiter, "client 999")
    assert passes(limiter, "client 0")


def test_threads_together_get_no_more_than_the_burst() -> None:
    limiter = RateLimiter(Rate(1, burst=100), clock=Clock())
    passed: list[bool] = []

    def ask() -> None:
        passed.extend(passes(limiter) for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed.count(True) == 100


@pytest.mark.parametrize(("per_second", "burst"), [(0, 0), (-1, 0), (float("nan"), 0), (float("inf"), 0), (1, -1)])
def test_a_rate_that_cannot_be_meant_is_refused(per_second: float, burst: int) -> None:
    with pytest.raises(ConfigError):
        Rate(per_second, burst)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:40000", "10.0.0.1"),
        ("10.0.0.1:40000", "10.0.0.1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:40000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::9%5D:40000", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:40000", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::/64"),
        ("ipv6:[::ffff:10.0.0.1]:1", "10.0.0.1"),
        ("unix:", "unix:"),
        ("unix:/run/tidegate.sock", "unix:/run/tidegate.sock"),
        ("local", "local"),
        ("ipv6:nonsense", "ipv6:nonsense"),
    ],
)
def test_a_client_is_its_address_without_the_port(peer: str, address: str) -> None:
    assert client_address(peer) == address
