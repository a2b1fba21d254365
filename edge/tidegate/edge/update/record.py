"""What a device knows of itself, in one file: which version runs, and how far an update has come.

Pointer and phase are in the same file, and the file is replaced in one step, so that one rename is the whole switch:
a reader sees the device before or after, whenever the writer dies.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from tidegate.bundle.atomic import write_atomically
from tidegate.edge.update.states import State
from tidegate.errors import BundleError, NotFoundError, ResourceError

SCHEMA = "tidegate.device/1"


class Slot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One installed version, by content."""

    model: str
    track: str
    release: int
    """the counter of the offer; of the factory version, that of its manifest"""
    version: str
    manifest_sha256: str
    variant: str
    variant_sha256: str
    installed_at: str
    """UTC, ISO 8601"""
    activated_at: str = ""
    """UTC, ISO 8601; empty for a candidate"""
    why: str = ""
    """how it came to be what it is, in words"""
    offered_at: str = ""
    """when the author offered it, UTC, ISO 8601: a clock that is before it is wrong; empty for the factory version"""
    files: tuple[str, ...] = ()
    """SHA-256 of all its files, of the factory version only: so nothing that is damaged can make them go"""

    def holds(self, manifest_sha256: str, variant: str) -> bool:
        """Return whether this is that content: one manifest, and the same variant of it."""
        return (self.manifest_sha256, self.variant) == (manifest_sha256, variant)


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A release that failed here."""

    release: int
    version: str
    reason: str
    at: str
    """UTC, ISO 8601"""


class Interruptions(msgspec.Struct, frozen=True, kw_only=True):
    """The loop counter: how often the updater died with one candidate."""

    release: int
    count: int
    since: str
    """of the first one, UTC, ISO 8601"""


class LastCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last look at the channel."""

    at: str
    """UTC, ISO 8601"""
    latest_release: int = 0
    """of the newest offer that fits this device; 0 when none does"""
    latest_version: str = ""
    problem: str = ""
    """why the channel could not be read; empty when it could"""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of `state.json`."""

    schema: str
    phase: State
    active: Slot
    factory: Slot
    previous: Slot | None = None
    candidate: Slot | None = None
    quarantined: tuple[Quarantined, ...] = ()
    """oldest first"""
    counters: dict[str, int] = {}
    """the highest release taken, by track"""
    interruptions: Interruptions | None = None
    last_check: LastCheck | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """All slots there are, the active one first."""
        return tuple(slot for slot in (self.active, self.previous, self.factory, self.candidate) if slot is not None)

    def counter(self, track: str) -> int:
        """Return the release that an offer on `track` must exceed."""
        return max(self.counters.get(track, 0), self.factory.release)


def read_record(path: Path) -> Record:
    """Read the record of a device. Needs no lock: the file is only ever replaced whole.

    Raises:
        NotFoundError: there is none, so the directory is not a device yet.
        BundleError: it cannot be understood; `tidegate.edge.update.recovery` mends that.
        ResourceError: the disk refuses.
    """
    raw = _read(path)
    try:
        record = msgspec.json.decode(raw, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: {error}", fix="run `tidegate device status`, which mends it") from error
    if record.schema != SCHEMA:
        raise BundleError(
            f"{path} has schema {record.schema!r}; this version of Tidegate reads {SCHEMA!r}",
            fix="run `tidegate device status`, which mends it, or install the Tidegate that wrote it",
        )
    if record.candidate is None and record.phase in (State.FETCHING, State.STAGED, State.PROBING):
        raise BundleError(
            f"{path} is in the phase {record.phase.value} without a candidate",
            fix="run `tidegate device status`, which mends it",
        )
    return record


def write_record(path: Path, record: Record) -> None:
    """Replace the record in one step.

    Raises:
        ResourceError: the disk is full, read-only or failing; the device is as it was.
    """
    write_atomically(path, [encode(record)])


def read_slot(path: Path) -> Slot:
    """Read a slot that stands in a file of its own, as `factory.json` does.

    Raises: as `read_record`.
    """
    try:
        return msgspec.json.decode(_read(path), type=Slot)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: {error}", fix="set the device up again with `tidegate device init`") from error


def encode(value: Record | Slot) -> bytes:
    """Return the JSON text of a record or a slot."""
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2) + b"\n"


def salvage(path: Path) -> Mapping[str, object]:
    """Return those fields of a damaged or foreign record that can be understood by themselves; never raises for
    what the file holds.

    Raises:
        ResourceError: the disk refuses.
    """
    kinds: dict[str, object] = {
        "active": Slot,
        "previous": Slot,
        "factory": Slot,
        "quarantined": tuple[Quarantined, ...],
        "counters": dict[str, int],
    }
    try:
        fields = msgspec.json.decode(_read(path), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotFoundError):
        return {}
    understood: dict[str, object] = {}
    for name, kind in kinds.items():
        if name in fields:
            try:
                understood[name] = msgspec.json.decode(fields[name], type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
    return understood


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} is not there, so {path.parent} is not a device", fix="set it up with `tidegate device init`"
        ) from error
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror or error}", fix="check the disk") from error
