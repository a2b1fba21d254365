"""Whether the prefilter of a device and the speech model of a server belong together.

A server's model was judged on segments that one prefilter cut, out of audio of one rate. The rule, the same on both
sides:

1. The front ends are equal: kind and sample rate, such as `audio/16000`.
2. The prefilter settings are equal, by digest over all of them. A server's bundle without a prefilter table takes any.

What one side does not state is not checked. docs/serving.md says how a server goes through a change of prefilter.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import msgspec

from tidegate.bundle.manifest import Manifest, PrefilterSettings
from tidegate.errors import StateError

EXPECTS_HEADER = "tidegate-expects"
"""Response header of a recognition stream: FRONT_END PREFILTER of the server's model, `any` for what it leaves open."""

DIGEST_DIGITS = 16
"""Of the prefilter's SHA-256: 64 bits tell settings apart; nobody gains by making two of them equal."""

_ANY = "any"


@dataclass(frozen=True)
class SignalPath:
    """What stands in front of a model, as each side names it to the other."""

    front_end: str = ""
    """KIND/SAMPLE_RATE_HZ; empty: not stated"""
    prefilter: str = ""
    """KIND/DIGEST; empty: not stated"""

    @classmethod
    def of(cls, manifest: Manifest) -> SignalPath:
        """Return what a bundle's manifest says."""
        front_end, prefilter = manifest.front_end, manifest.prefilter
        return cls(
            front_end="" if front_end is None else f"{front_end.kind}/{front_end.sample_rate_hz}",
            prefilter="" if prefilter is None else f"{prefilter.kind}/{prefilter_digest(prefilter)}",
        )

    def to_header(self) -> str:
        """Return the value of `EXPECTS_HEADER`."""
        return f"{self.front_end or _ANY} {self.prefilter or _ANY}"

    @classmethod
    def from_header(cls, value: str) -> SignalPath:
        """Return what a server expects; words beyond the two are left for later versions."""
        front_end, prefilter = [*value.split(), _ANY, _ANY][:2]
        return cls("" if front_end == _ANY else front_end, "" if prefilter == _ANY else prefilter)


def prefilter_digest(settings: PrefilterSettings) -> str:
    """Return the first digits of the SHA-256 over every setting, so that a spelled-out default changes nothing.

    The settings are written as JSON with sorted keys, no spaces, and options as floats.
    """
    plain = msgspec.to_builtins(settings) | {
        "options": {name: float(value) for name, value in settings.options.items()},
        "pre_roll_ms": settings.pre_roll_ms,
        "minimum_speech_ms": settings.minimum_speech_ms,
        "hangover_ms": settings.hangover_ms,
        "maximum_segment_ms": settings.maximum_segment_ms,
    }
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def misfit(device: SignalPath, server: SignalPath) -> str:
    """Return in words why the two do not belong together; empty when they do."""
    reasons = {
        "front_end": "the device's bundle hears {0}, the server's model {1}",
        "prefilter": "the device cuts segments with prefilter {0}, the server's model was released for {1}",
    }
    expected = asdict(server)
    return "; ".join(
        reasons[name].format(found, expected[name])
        for name, found in asdict(device).items()
        if found and expected[name] and found != expected[name]
    )


def check_pair(device: SignalPath, server: SignalPath, *, device_bundle: str, server_model: str) -> None:
    """Refuse a device and a server's model that do not belong together.

    Args:
        device: of the bundle that runs on the device.
        server: of the model that would decide.
        device_bundle: NAME VERSION.
        server_model: NAME VERSION.

    Raises:
        StateError: both sides and what to do are in the message.
    """
    why = misfit(device, server)
    if why:
        raise StateError(
            f"the device's bundle {device_bundle or '(unnamed)'} and the server's model {server_model} do not belong "
            f"together: {why}",
            fix="update the device with `tidegate device update`, or serve the version of the model that was built "
            "with this device's front end and prefilter beside the new one",
        )
