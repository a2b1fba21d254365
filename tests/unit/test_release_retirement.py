"""What is retired: no device is led elsewhere than before, and nothing that is kept is touched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ConfigError
from tidegate.fetch.choice import DeviceFacts, choose
from tidegate.release import FileReference, Offer, OfferedVariant, Rollout, Track, Withdrawal
from tidegate.release.offers import Stamp
from tidegate.release.retirement import covers, retired

STAMP = Stamp(at="2026-11-21T19:15:43Z", salt="00")
SALTS = ("a1b2c3d4e5f60718", "0000000000000000")
HARDWARE = ((), ("pi4",), ("pi5",), ("pi4", "pi5"))
MINIMA = ("", "1.2", "1.10.1")


def variant(**changes: Any) -> OfferedVariant:
    given: dict[str, Any] = {"id": "v", "backend": "onnx", "precision": "fp32", "sha256": "0" * 64, "size_bytes": 1}
    return OfferedVariant(**(given | changes))


def offer(release: int, **changes: Any) -> Offer:
    given: dict[str, Any] = {
        "version": f"1.{release}.0",
        "bundle_schema": "tidegate.bundle/1",
        "manifest": FileReference(sha256=f"{release:064x}", size_bytes=1),
        "variants": (variant(),),
        "rollout": Rollout(percent=100, salt=SALTS[0]),
        "offered_at": "2026-11-21T19:15:43Z",
    }
    return Offer(release=release, **(given | changes))


def tracks(**offers: tuple[Offer, ...]) -> dict[str, Track]:
    return {name: Track(schema="tidegate.channel/1", model="m", track=name, offers=of) for name, of in offers.items()}


def gone(found: Any) -> list[tuple[str, int]]:
    return [(track, one.release) for track, one in found.retired]


def test_all_but_the_newest_go_and_stay_on_record() -> None:
    found = retired(tracks(stable=tuple(map(offer, range(1, 6)))), 2, STAMP)
    assert gone(found) == [("stable", 1), ("stable", 2), ("stable", 3)]
    assert found.kept == {f"{release:064x}" for release in (4, 5)}
    (track,) = found.tracks.values()
    assert [one.release for one in track.offers] == [1, 2, 3, 4, 5]
    assert [one.release for one in track.standing] == [5, 4]
    assert retired(found.tracks, 2, STAMP).retired == (), "a second time changes nothing"


@pytest.mark.parametrize(
    "newest",
    [
        {"rollout": Rollout(percent=99, salt=SALTS[0])},
        {"withdrawn": Withdrawal(reason="deaf", at="")},
        {"variants": (variant(hardware=("pi5",)),)},
        {"variants": (variant(backend="litert"),)},
        {"variants": (variant(minimum_runtime="1.10.1"),)},
        {"rss_mb": 10},
        {"bundle_schema": "tidegate.bundle/2"},
    ],
    ids=["share", "withdrawn", "hardware", "backend", "runtime", "memory", "schema"],
)
def test_what_some_device_is_led_to_stays(newest: dict[str, Any]) -> None:
    found = retired(tracks(stable=(offer(1), offer(2), offer(3, **newest))), 1, STAMP)
    assert gone(found) == [("stable", 1)]


def test_content_that_another_track_keeps_stays_on_all() -> None:
    promoted = offer(3, version="1.1.0", manifest=offer(1).manifest)
    found = retired(tracks(beta=(offer(1), offer(2), offer(4)), stable=(promoted,)), 1, STAMP)
    assert gone(found) == [("beta", 2)]


def test_a_lower_floor_covers_and_a_higher_one_does_not() -> None:
    low, high = (offer(1, variants=(variant(minimum_runtime=minimum),)) for minimum in ("1.9", "1.10.1"))
    assert covers(low, high)
    assert not covers(high, low)


def test_less_than_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 releases to keep"):
        retired({}, 0, STAMP)


VARIANTS = st.builds(
    lambda number, **changes: variant(id=f"v{number}", **changes),
    st.integers(0, 2),
    backend=st.sampled_from(["onnx", "litert"]),
    minimum_runtime=st.sampled_from(MINIMA),
    hardware=st.sampled_from(HARDWARE),
)
CHANGES = st.fixed_dictionaries(
    {
        "variants": st.lists(VARIANTS, min_size=1, max_size=2).map(tuple),
        "rss_mb": st.sampled_from([0, 10, 20]),
        "rollout": st.builds(Rollout, percent=st.sampled_from([0, 30, 100, 100]), salt=st.sampled_from(SALTS)),
        "withdrawn": st.sampled_from([None, None, None, Withdrawal(reason="x", at="")]),
    }
)
DEVICES = st.builds(
    DeviceFacts,
    device_id=st.sampled_from(["kiosk-1", "kiosk-2"]),
    hardware=st.sampled_from(HARDWARE),
    runtimes=st.sampled_from(
        [
            {"onnx": "onnxruntime 1.2.0"},
            {"onnx": "onnxruntime 1.31.1", "litert": "ai_edge_litert 1.9"},
            {"litert": "ai_edge_litert 2.1.0"},
        ]
    ),
    memory_mb=st.sampled_from([None, 10.0, 15.0]),
)


@given(st.lists(CHANGES, max_size=8), st.integers(1, 4), DEVICES)
def test_every_device_takes_the_same_release_as_before(
    changes: list[dict[str, Any]], releases: int, device: DeviceFacts
) -> None:
    before = tracks(stable=tuple(offer(number, **one) for number, one in enumerate(changes, start=1)))
    found = retired(before, releases, STAMP)
    after = {**before, **found.tracks}
    chosen = [choose(one["stable"], device, running_release=0, quarantined=()) for one in (before, after)]
    assert chosen[0].offer == chosen[1].offer
    assert chosen[0].variant == chosen[1].variant
    standing = {one.manifest.sha256 for one in after["stable"].standing}
    assert standing <= found.kept
    assert [msgspec.structs.replace(one, withdrawn=None) for one in after["stable"].offers] == [
        msgspec.structs.replace(one, withdrawn=None) for one in before["stable"].offers
    ]
