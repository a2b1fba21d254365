"""Which versions a running app tries, in which order, and which of them it leaves alone."""

from __future__ import annotations

from pathlib import Path

from tidegate.bundle import Manifest, TrialSettings
from tidegate.edge.update.health import Health
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import Record, Slot
from tidegate.edge.update.settings import read_settings
from tidegate.edge.update.states import State
from tidegate.edge.update.trial import judge, thresholds
from tidegate.errors import ConfigError, NotFoundError
from tidegate.fetch.installed import installed_manifest

CRASHED_LOADS_TOLERATED = 1
"""A version whose load has ended more processes than this is not loaded again."""

Identity = tuple[int, str, str]


def identity(slot: Slot) -> Identity:
    """Return what makes two slots the same version, however they came to be where they are."""
    return slot.release, slot.manifest_sha256, slot.variant


def ladder_of(record: Record) -> list[Slot]:
    """Return the active, the previous and the factory version, each once.

    An updater that died in the middle of a roll-back may not come again for hours: what it was leaving stands last.
    """
    order = [record.active, record.previous, record.factory]
    if record.phase is State.ROLLING_BACK:
        order = [*order[1:], record.active]
    ladder: dict[Identity, Slot] = {}
    for slot in order:
        if slot is not None:
            ladder.setdefault(identity(slot), slot)
    return list(ladder.values())


def evidence(layout: Layout, record: Record | None, slot: Slot, health: Health) -> str:
    """Return what the counters say against a version; empty when that is not enough to leave it.

    Raises:
        NotFoundError, BundleError, ResourceError: the manifest of the version on trial cannot be read.
    """
    counters = health.of(slot.release)
    if counters.crashed_loads > CRASHED_LOADS_TOLERATED:
        return f"its load ended {counters.crashed_loads} processes"
    if record is None or record.phase is not State.TRIAL or identity(slot) != identity(record.active):
        return ""
    manifest = installed_manifest(layout.store, slot.manifest_sha256, slot.variant)
    verdict = judge(counters, _thresholds(layout, manifest), elapsed_s=0.0)
    return verdict.reason if verdict.decision == "roll back" else ""


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever a file is replaced; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _thresholds(layout: Layout, manifest: Manifest) -> TrialSettings:
    try:
        return thresholds(manifest.trial, read_settings(layout.settings).trial)
    except (NotFoundError, ConfigError):  # The updater tells its owner; the app goes on with the author's.
        return thresholds(manifest.trial, {})
