"""Which offer of a track is meant for this device, and why each newer one is not. Pure: no file, no clock, no network.

The rules are those of docs/channel.md, "What a device does with it".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tidegate.bundle.manifest import SCHEMA
from tidegate.errors import ConfigError
from tidegate.release import Offer, OfferedVariant, Track, cohort
from tidegate.runtime.loading import runtime_suffices

_QUARANTINE = "it failed on this device and is in quarantine until there is a newer release"


@dataclass(frozen=True)
class DeviceFacts:
    """What decides, on the device's side."""

    device_id: str
    """its place in a roll-out comes from it; must stay the same for the life of the device"""
    hardware: tuple[str, ...]
    """tags that it answers to, such as `pi5`; a variant with tags needs one of them"""
    runtimes: Mapping[str, str]
    """installed runtime by backend, such as `{"onnx": "onnxruntime 1.31.1"}`"""
    memory_mb: float | None
    """what a model may take, in MB; None: not limited"""

    def __post_init__(self) -> None:
        if not self.device_id:
            raise ConfigError("the device id is empty", fix="give each device an id of its own that never changes")
        if self.memory_mb is not None and not self.memory_mb > 0:
            raise ConfigError(f"memory of {self.memory_mb} MB; expected more than 0", fix="leave it out for no limit")


@dataclass(frozen=True)
class PassedOver:
    """A newer offer that this device does not take."""

    release: int
    version: str
    reason: str
    """in words, with what was found and what was expected; all reasons, with `; ` between them"""


@dataclass(frozen=True)
class Choice:
    """What this device is to install, if anything."""

    offer: Offer | None
    """the newest that fits and is newer than what runs; None: nothing to do"""
    variant: OfferedVariant | None
    """the first of its variants that this device can run; None exactly when `offer` is"""
    passed_over: tuple[PassedOver, ...]
    """all offers with a counter above the choice (without one: above what runs), newest first"""


def choose(track: Track, device: DeviceFacts, *, running_release: int, quarantined: Collection[int]) -> Choice:
    """Return the newest offer that fits this device, and why each newer one does not.

    Args:
        track: as the channel signed it.
        device: what this device is and has.
        running_release: the counter that a choice must exceed: that of the offer of this track that the device runs; 0
            for none.
        quarantined: counters of offers that failed on this device.
    """
    passed_over: list[PassedOver] = []
    for offer in reversed(track.offers):
        if offer.release <= running_release:
            break
        variant, reasons = _judge(offer, device, quarantined)
        if variant is not None and not reasons:
            return Choice(offer, variant, tuple(passed_over))
        passed_over.append(PassedOver(offer.release, offer.version, "; ".join(reasons)))
    return Choice(None, None, tuple(passed_over))


def _judge(
    offer: Offer, device: DeviceFacts, quarantined: Collection[int]
) -> tuple[OfferedVariant | None, Sequence[str]]:
    """Return the variant that fits, and every reason against the offer. No variant: there is a reason."""
    if offer.withdrawn is not None:
        return None, [f"withdrawn: {offer.withdrawn.reason}"]
    if offer.bundle_schema != SCHEMA:
        # Its other fields may mean something that this version does not know.
        return None, [f"its manifest has schema {offer.bundle_schema}; this version of Tidegate reads {SCHEMA}"]
    variant, reasons = _variant(offer, device)
    if offer.release in quarantined:
        reasons.insert(0, _QUARANTINE)
    if device.memory_mb is not None and offer.rss_mb > device.memory_mb:
        reasons.append(f"it needs {offer.rss_mb} MB of memory; this device has {device.memory_mb:g} MB for a model")
    place = cohort(device.device_id, offer.rollout.salt)
    if place >= offer.rollout.percent:
        reasons.append(
            f"it is rolled out to {offer.rollout.percent} % of the devices so far; this one is reached at {place + 1} %"
        )
    return variant, reasons


def _variant(offer: Offer, device: DeviceFacts) -> tuple[OfferedVariant | None, list[str]]:
    """Return the first variant that this device can run, in the author's order; without one, why none can."""
    obstacles = {variant.id: _obstacle(variant, device) for variant in offer.variants}
    fitting = [variant for variant in offer.variants if not obstacles[variant.id]]
    if fitting:
        return fitting[0], []
    told = ", ".join(f"{name} {obstacle}" for name, obstacle in obstacles.items())
    return None, [f"no variant fits: {told}" if told else "it has no variants"]


def _obstacle(variant: OfferedVariant, device: DeviceFacts) -> str:
    """Return why this device cannot run a variant; empty when it can."""
    if variant.hardware and not set(variant.hardware) & set(device.hardware):
        found = f"this device is {' '.join(device.hardware)}" if device.hardware else "this device has no hardware tags"
        return f"is for {' or '.join(variant.hardware)} ({found})"
    runtime = device.runtimes.get(variant.backend)
    if runtime is None:
        return f"needs a runtime for {variant.backend} (none is installed)"
    if not runtime_suffices(runtime, variant.minimum_runtime):
        return f"needs version {variant.minimum_runtime} of its runtime (found {runtime})"
    return ""
