"""The cohort: monotone, spread evenly, and the same for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.release import cohort, in_cohort

IDS = st.text(max_size=40)


@pytest.mark.parametrize(
    ("device_id", "salt", "expected"),
    [("kiosk-1", "a1b2c3d4e5f60718", 69), ("kiosk-2", "a1b2c3d4e5f60718", 80), ("kiosk-1", "0000000000000000", 36)],
)
def test_the_values_of_the_document(device_id: str, salt: str, expected: int) -> None:
    assert cohort(device_id, salt) == expected


@given(device_id=IDS, salt=IDS, low=st.integers(0, 100), more=st.integers(0, 100))
def test_a_ramp_keeps_every_device_that_it_reached(device_id: str, salt: str, low: int, more: int) -> None:
    if in_cohort(device_id, salt, low):
        assert in_cohort(device_id, salt, min(100, low + more))


@given(devices=st.lists(IDS, unique=True, max_size=50), salt=IDS)
def test_from_5_to_20_percent_keeps_the_first_5(devices: list[str], salt: str) -> None:
    at_5 = {device for device in devices if in_cohort(device, salt, 5)}
    at_20 = {device for device in devices if in_cohort(device, salt, 20)}
    assert at_5 <= at_20


@given(device_id=st.text() | st.characters(categories=["Cs"]), salt=IDS)
def test_nobody_at_0_and_everybody_at_100(device_id: str, salt: str) -> None:
    assert not in_cohort(device_id, salt, 0)
    assert in_cohort(device_id, salt, 100)


def test_devices_are_spread_evenly_and_salts_are_independent() -> None:
    places = Counter(cohort(f"device-{number}", "salt") for number in range(100_000))
    assert set(places) == set(range(100))
    # Chi-squared with 99 degrees of freedom: 149 is passed once in a thousand; the input is fixed.
    assert sum((count - 1000) ** 2 / 1000 for count in places.values()) < 149
    both = sum(in_cohort(f"{n}", "one", 20) and in_cohort(f"{n}", "two", 20) for n in range(100_000))
    assert both == pytest.approx(4000, abs=300)
