"""The choice of an offer: the newest that fits, every newer one with its reason, and nobody dropped by a ramp."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ConfigError
from tidegate.fetch.choice import DeviceFacts, choose
from tidegate.release import FileReference, Offer, OfferedVariant, Rollout, Track, Withdrawal

DEVICE = DeviceFacts("kiosk-1", ("pi5", "kiosk"), {"onnx": "onnxruntime 1.31.1", "litert": "ai_edge_litert 2.1.0"}, 64)
SALT = "a1b2c3d4e5f60718"
"""kiosk-1 has place 69 with it: docs/channel.md"""
SHA256 = "0" * 64


def variant(
    id: str = "onnx-fp32", backend: str = "onnx", minimum: str = "", hardware: tuple[str, ...] = ()
) -> OfferedVariant:
    return OfferedVariant(
        id=id,
        backend=backend,
        precision="fp32",
        sha256=SHA256,
        size_bytes=1,
        minimum_runtime=minimum,
        hardware=hardware,
    )


BASE = Offer(
    release=1,
    version="1.0.0",
    bundle_schema="tidegate.bundle/1",
    manifest=FileReference(sha256=SHA256, size_bytes=1),
    variants=(variant(),),
    rollout=Rollout(percent=100, salt=SALT),
    offered_at="2026-11-21T19:15:43Z",
)


def offer(release: int, **changes: object) -> Offer:
    return msgspec.structs.replace(BASE, release=release, version=f"1.{release}.0", **changes)


def track(*offers: Offer) -> Track:
    return Track(schema="tidegate.channel/1", model="tiny", track="stable", offers=offers)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"withdrawn": Withdrawal(reason="wrong labels", at="2026-11-21T19:15:43Z")}, "withdrawn: wrong labels"),
        (
            {"bundle_schema": "tidegate.bundle/2"},
            "its manifest has schema tidegate.bundle/2; this version of Tidegate reads tidegate.bundle/1",
        ),
        ({"rss_mb": 65}, "it needs 65 MB of memory; this device has 64 MB for a model"),
        (
            {"rollout": Rollout(percent=69, salt=SALT)},
            "it is rolled out to 69 % of the devices so far; this one is reached at 70 %",
        ),
        (
            {"variants": (variant(hardware=("pi4", "x86")),)},
            "no variant fits: onnx-fp32 is for pi4 or x86 (this device is pi5 kiosk)",
        ),
        (
            {"variants": (variant(minimum="1.32"),)},
            "no variant fits: onnx-fp32 needs version 1.32 of its runtime (found onnxruntime 1.31.1)",
        ),
        (
            {"variants": (variant(backend="torch"),)},
            "no variant fits: onnx-fp32 needs a runtime for torch (none is installed)",
        ),
        ({"variants": ()}, "it has no variants"),
        (
            {"rss_mb": 128, "variants": (variant(backend="torch"), variant("b", minimum="2"))},
            "no variant fits: onnx-fp32 needs a runtime for torch (none is installed), "
            "b needs version 2 of its runtime (found onnxruntime 1.31.1); "
            "it needs 128 MB of memory; this device has 64 MB for a model",
        ),
    ],
)
def test_an_offer_that_does_not_fit_is_passed_over_with_its_reason(changes: dict[str, object], reason: str) -> None:
    choice = choose(track(offer(3), offer(4, **changes)), DEVICE, running_release=2, quarantined=())
    assert choice.offer is not None
    assert choice.offer.release == 3
    assert [(one.release, one.version, one.reason) for one in choice.passed_over] == [(4, "1.4.0", reason)]


def test_quarantine_holds_until_a_higher_counter() -> None:
    offers = (offer(3), offer(4))
    held = choose(track(*offers), DEVICE, running_release=3, quarantined={4})
    assert held.offer is None
    assert held.variant is None
    assert "quarantine" in held.passed_over[0].reason
    again = choose(track(*offers, offer(5)), DEVICE, running_release=3, quarantined={4})
    assert again.offer is not None
    assert again.offer.release == 5


@pytest.mark.parametrize(
    ("running", "chosen"), [(0, 7), (6, 7), (7, None), (8, None)], ids=["nothing", "older", "the same", "newer"]
)
def test_only_a_higher_counter_is_installed(running: int, chosen: int | None) -> None:
    choice = choose(track(offer(1), offer(7)), DEVICE, running_release=running, quarantined=())
    assert (choice.offer.release if choice.offer else None) == chosen
    assert choice.passed_over == ()


def test_a_signed_roll_back_is_installed_although_its_content_is_older() -> None:
    back = msgspec.structs.replace(offer(9), version="1.0.0", rollback_of=8, reason="misses words")
    choice = choose(track(offer(1), offer(8), back), DEVICE, running_release=8, quarantined=())
    assert choice.offer is back


def test_the_first_variant_that_fits_is_taken_in_the_authors_order() -> None:
    variants = (
        variant("npu", hardware=("npu",)),
        variant("new", minimum="9"),
        variant("int8", "litert", minimum="2.1.0", hardware=("pi5",)),
        variant("fp32"),
    )
    choice = choose(track(offer(1, variants=variants)), DEVICE, running_release=0, quarantined=())
    assert choice.variant is not None
    assert choice.variant.id == "int8"


def test_a_device_without_tags_takes_variants_without_tags_only() -> None:
    plain = dataclasses.replace(DEVICE, hardware=())
    tagged = choose(track(offer(1, variants=(variant(hardware=("pi5",)),))), plain, running_release=0, quarantined=())
    assert "this device has no hardware tags" in tagged.passed_over[0].reason
    assert choose(track(offer(1)), plain, running_release=0, quarantined=()).offer is not None


@pytest.mark.parametrize("stated", [0, 64])
def test_memory_that_is_enough_or_not_stated_fits(stated: int) -> None:
    assert choose(track(offer(1, rss_mb=stated)), DEVICE, running_release=0, quarantined=()).offer is not None
    unlimited = dataclasses.replace(DEVICE, memory_mb=None)
    assert choose(track(offer(1, rss_mb=10**6)), unlimited, running_release=0, quarantined=()).offer is not None


@pytest.mark.parametrize("changes", [{"device_id": ""}, {"memory_mb": 0}, {"memory_mb": float("nan")}])
def test_facts_that_cannot_be_meant_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        dataclasses.replace(DEVICE, **changes)  # type: ignore[arg-type]
    assert refused.value.fix


HARDWARE = st.lists(st.sampled_from(["pi4", "pi5", "x86"]), max_size=2, unique=True).map(tuple)
VARIANTS = st.lists(
    st.builds(
        variant,
        id=st.sampled_from(["a", "b"]),
        backend=st.sampled_from(["onnx", "litert", "torch"]),
        minimum=st.sampled_from(["", "1.2", "2.1.0", "99"]),
        hardware=HARDWARE,
    ),
    max_size=3,
).map(tuple)


def with_changes(changes: list[dict[str, Any]]) -> Track:
    return track(*(offer(2 * number, **each) for number, each in enumerate(changes, 1)))


OFFERS: st.SearchStrategy[Track] = st.lists(
    st.fixed_dictionaries(
        {
            "variants": VARIANTS,
            "rss_mb": st.sampled_from([0, 32, 128]),
            "rollout": st.builds(Rollout, percent=st.integers(0, 100), salt=st.text(max_size=4)),
            "bundle_schema": st.sampled_from(["tidegate.bundle/1", "tidegate.bundle/2"]),
            "withdrawn": st.sampled_from([None, Withdrawal(reason="bad", at="2026-11-21T19:15:43Z")]),
        }
    ),
    max_size=6,
).map(with_changes)
DEVICES = st.builds(
    DeviceFacts,
    device_id=st.text(min_size=1),
    hardware=HARDWARE,
    runtimes=st.sampled_from([{}, {"onnx": "onnxruntime 1.31.1"}, dict(DEVICE.runtimes)]),
    memory_mb=st.sampled_from([None, 16.0, 64.0]),
)
RUNNING = st.integers(0, 12)
QUARANTINED = st.sets(st.integers(1, 12))


@given(offers=OFFERS, device=DEVICES, running=RUNNING, quarantined=QUARANTINED)
def test_what_is_chosen_fits_and_all_newer_ones_have_a_reason(
    offers: Track, device: DeviceFacts, running: int, quarantined: set[int]
) -> None:
    choice = choose(offers, device, running_release=running, quarantined=quarantined)
    floor = choice.offer.release if choice.offer else running
    newer = [one.release for one in reversed(offers.offers) if one.release > floor]
    assert [one.release for one in choice.passed_over] == newer
    assert all(one.reason for one in choice.passed_over)
    assert (choice.offer is None) == (choice.variant is None)
    if choice.offer is not None and choice.variant is not None:
        assert choice.offer.release > running
        assert choice.offer.release not in quarantined
        assert choice.offer.withdrawn is None
        assert choice.variant in choice.offer.variants
        assert choice.variant.backend in device.runtimes
        assert not choice.variant.hardware or set(choice.variant.hardware) & set(device.hardware)


@given(offers=OFFERS, device=DEVICES, running=RUNNING, quarantined=QUARANTINED)
def test_who_has_installed_the_choice_is_offered_nothing_more(
    offers: Track, device: DeviceFacts, running: int, quarantined: set[int]
) -> None:
    first = choose(offers, device, running_release=running, quarantined=quarantined)
    if first.offer is not None:
        again = choose(offers, device, running_release=first.offer.release, quarantined=quarantined)
        assert again.offer is None
        assert again.passed_over == first.passed_over


@given(
    devices=st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=60),
    salt=st.text(max_size=8),
    low=st.integers(0, 100),
    more=st.integers(0, 100),
)
def test_a_ramp_keeps_every_device_that_it_reached(devices: list[str], salt: str, low: int, more: int) -> None:
    assert reached(devices, salt, low) <= reached(devices, salt, min(100, low + more))


@given(devices=st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=200), salt=st.text(max_size=8))
def test_from_5_to_20_percent_keeps_the_first_5(devices: list[str], salt: str) -> None:
    assert reached(devices, salt, 5) <= reached(devices, salt, 20)


def reached(devices: list[str], salt: str, percent: int) -> set[str]:
    ramp = track(offer(1), offer(2, rollout=Rollout(percent=percent, salt=salt)))
    facts = {name: dataclasses.replace(DEVICE, device_id=name) for name in devices}
    chosen = {name: choose(ramp, facts[name], running_release=1, quarantined=()).offer for name in devices}
    return {name for name, one in chosen.items() if one is not None}


def test_a_ramp_reaches_about_the_share_that_it_says() -> None:
    devices = [f"device-{number}" for number in range(5_000)]
    # Binomial, n = 5000, p = 0.2: five standard deviations are 2.8 percentage points; the input is fixed.
    assert len(reached(devices, SALT, 20)) / len(devices) == pytest.approx(0.2, abs=0.028)
