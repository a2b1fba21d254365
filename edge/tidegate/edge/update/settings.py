"""What the owner of a device says: which channel, which model, which hardware. `device.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from tidegate.bundle.atomic import write_atomically
from tidegate.errors import ConfigError, NotFoundError, ResourceError
from tidegate.fetch.settings import FetchSettings
from tidegate.release.track import check_track_name

_EDIT = "correct device.json"


@dataclass(frozen=True)
class DeviceSettings:
    """One device. Everything here is the owner's to change; what the device finds out stands in `state.json`."""

    device_id: str
    """decides the device's place in a roll-out; never changes, and no two devices share it"""
    url: str
    """of the channel, without a slash at the end; such as https://models.example.com/site"""
    model: str
    """name of the model, as its manifest has it"""
    track: str = "stable"
    hardware: tuple[str, ...] = ()
    """tags such as pi5; a variant that names tags needs one of these"""
    memory_mb: float | None = None
    """what a model may take; null: what the machine has is not looked at"""
    check_interval_s: float = 6 * 3600
    """how often whoever runs the updater should run it; the updater itself never sleeps"""
    interruptions: int = 5
    """that a candidate may cause within `interruptions_within_s`; with one more it is quarantined"""
    interruptions_within_s: float = 24 * 3600
    probe: dict[str, Any] = field(default_factory=dict)
    """fields of `ProbeSettings` that differ from its defaults"""
    trial: dict[str, Any] = field(default_factory=dict)
    """fields of `TrialSettings` that differ from what the manifest says"""
    fetch: FetchSettings = field(default_factory=FetchSettings)

    def __post_init__(self) -> None:
        for name in ("device_id", "url", "model"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty", fix=_EDIT)
        check_track_name(self.track)
        if not self.url.startswith(("https://", "http://")):
            raise ConfigError(f"url {self.url!r} is not an http or https address", fix=_EDIT)
        if self.memory_mb is not None and not (math.isfinite(self.memory_mb) and self.memory_mb > 0):
            raise ConfigError(f"memory_mb is {self.memory_mb}; expected more than 0, or null", fix=_EDIT)
        for name in ("check_interval_s", "interruptions_within_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; expected more than 0", fix=_EDIT)
        if self.interruptions < 1:
            raise ConfigError(f"interruptions is {self.interruptions}; expected 1 or more", fix=_EDIT)


def read_settings(path: Path) -> DeviceSettings:
    """Read `device.json`.

    Raises:
        NotFoundError: it is not there.
        ConfigError: no JSON, a name that is not a setting, or a value that cannot be meant.
        ResourceError: the disk refuses.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} is not there, so {path.parent} is not a device", fix="set it up with `tidegate device init`"
        ) from error
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror or error}", fix="check the disk") from error
    return decode(raw, origin=str(path))


def decode(raw: bytes, *, origin: str = "device.json") -> DeviceSettings:
    """Parse settings. Raises ConfigError, as `read_settings`."""
    try:
        named = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        _refuse_strangers(named, DeviceSettings, origin)
        if "fetch" in named:
            inner = msgspec.json.decode(named["fetch"], type=dict[str, msgspec.Raw])
            _refuse_strangers(inner, FetchSettings, f"{origin}: fetch")
        return msgspec.json.decode(raw, type=DeviceSettings)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{origin}: {error}", fix=_EDIT) from error


def write_settings(path: Path, settings: DeviceSettings) -> None:
    """Write `device.json` in one step.

    Raises:
        ResourceError: the disk refuses.
    """
    write_atomically(path, [msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"])


def _refuse_strangers(named: dict[str, msgspec.Raw], kind: type, origin: str) -> None:
    known = {one.name for one in fields(kind)}
    for name in named:
        if name not in known:
            raise ConfigError(
                f"{origin} has {name!r}; expected only {', '.join(sorted(known))}", fix="correct the name"
            )
