"""What really runs on this device, as headers of a cloud call.

`Running` is what the process has loaded, not what a file says should run; the device's record only tells how it stands
to that. So a device that fell back says so, whatever it was told to install.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tidegate.bundle.manifest import Manifest
from tidegate.errors import ResourceError, TidegateError
from tidegate.wire.pairing import SignalPath
from tidegate.wire.report import (
    REPORT_HEADER,
    SCHEMA,
    SIGNATURE_HEADER,
    DeviceReport,
    Headers,
    RunState,
    format_report,
)

if TYPE_CHECKING:
    from tidegate.edge.update.record import Record, Slot
    from tidegate.wire.report_signature import ReportKey

_LONGEST_RUNTIME = 48


@dataclass(frozen=True)
class Running:
    """What this process has loaded."""

    model: str
    version: str
    release: int
    """of the manifest; the channel's counter is taken from the device's record"""
    variant: str
    sha256: str
    """of the variant's file"""
    runtime: str
    signal_path: SignalPath

    @classmethod
    def of(cls, manifest: Manifest, variant_id: str = "", runtime: str = "") -> Running:
        """Describe a loaded variant; without one, a bundle whose segments a server decides.

        Args:
            manifest: of the bundle.
            variant_id: `Model.variant_id`.
            runtime: `Model.runtime`.
        """
        digests = {variant.id: variant.sha256 for variant in manifest.variants}
        return cls(
            model=manifest.name,
            version=manifest.version,
            release=manifest.release,
            variant=variant_id,
            sha256=digests[variant_id] if variant_id else "",
            runtime=runtime[:_LONGEST_RUNTIME],
            signal_path=SignalPath.of(manifest),
        )


class Reporter:
    """Makes the report of one process. Safe to use from several threads.

    For a device that an updater keeps, give its directory. `Client(report=...)` takes `headers`.
    """

    def __init__(self, running: Callable[[], Running], directory: Path | None = None) -> None:
        """Take a session number and, if the device has one, its key.

        Args:
            running: asked before each report what is loaded; must be quick.
            directory: of the device; None: a bundle without an updater, which reports no id, state or signature.

        Raises:
            NotFoundError, ConfigError: the directory is not a device, or its settings or key are malformed.
            DependencyError: the device has a key, and PyNaCl is not installed.
            ResourceError: the disk cannot be read.
        """
        self._running = running
        self._device = None if directory is None else _ReportingDevice(directory)
        self._counts = itertools.count(1)
        self._lock = threading.Lock()
        self._last: DeviceReport | None = None

    @property
    def why_unsigned(self) -> str:
        """Why reports carry no signature; empty when they do."""
        return "a bundle without an updater" if self._device is None else self._device.why_unsigned

    def report(self) -> DeviceReport:
        """Return what runs now, without a counter."""
        running = self._running()
        plain = DeviceReport(
            schema=SCHEMA,
            model=running.model,
            version=running.version,
            release=running.release,
            variant=running.variant,
            sha256=running.sha256,
            runtime=running.runtime,
            front_end=running.signal_path.front_end,
            prefilter=running.signal_path.prefilter,
            state="unmanaged",
        )
        return plain if self._device is None else self._device.placed(plain)

    def headers(self) -> Headers:
        """Return the next report and its signature, for one call.

        Raises:
            ConfigError: a name of the device or the bundle cannot travel in a header.
        """
        report = self.report()
        with self._lock:
            self._last = report
            counter = next(self._counts)
        if self._device is None:
            return ((REPORT_HEADER, format_report(report)),)
        return self._device.signed(replace(report, session=self._device.session, counter=counter))

    def changed(self) -> bool:
        """Tell whether something else runs, or in another state, than the last report said."""
        return self._last is not None and self.report() != self._last


class _ReportingDevice:
    """The device's side of a report: who it is, and how what runs stands to its record."""

    def __init__(self, directory: Path) -> None:
        from tidegate.edge.update.layout import Layout
        from tidegate.edge.update.report_identity import new_session, read_report_key
        from tidegate.edge.update.settings import read_settings

        layout = Layout(directory)
        settings = read_settings(layout.settings)
        self._id = settings.device_id
        self._track = settings.track
        self._state_file = layout.state
        self._key: ReportKey | None = read_report_key(directory)
        self.why_unsigned = "" if self._key else "the device has no key"
        self._seen: tuple[tuple[int, ...] | None, Record | None] = (None, None)
        try:
            self.session = new_session(directory)
        except ResourceError as error:
            # Without a session of its own a signed report would look like one sent before. Listening goes on.
            self.session, self._key, self.why_unsigned = 0, None, error.message

    def placed(self, report: DeviceReport) -> DeviceReport:
        """Add id and track, and what the device's record says of the release that runs."""
        record = self._record()
        slot = None if record is None else _slot_of(record, report)
        state = _state(record, slot)
        named = replace(report, device=self._id, track=self._track, state=state)
        if slot is None:
            return named
        return replace(named, track=slot.track, release=slot.release, since=slot.activated_at[:24])

    def signed(self, report: DeviceReport) -> Headers:
        """Return the headers of a complete report."""
        value = format_report(report)
        if self._key is None:
            return ((REPORT_HEADER, value),)
        return (REPORT_HEADER, value), (SIGNATURE_HEADER, self._key.sign(value))

    def _record(self) -> Record | None:
        """Return the device's record, read again when the file was replaced; None when it cannot be read."""
        from tidegate.edge.update.record import read_record

        try:
            status = self._state_file.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._seen[0] != stamp:
                self._seen = (stamp, read_record(self._state_file))
        except (OSError, TidegateError):
            # The report says `unknown` then. What the record lacks, the updater mends; a cloud call goes on.
            self._seen = (None, None)
        return self._seen[1]


def _slot_of(record: Record, report: DeviceReport) -> Slot | None:
    """Return the slot that holds what runs."""
    slots = (record.active, record.previous, record.factory)
    return next(
        (
            slot
            for slot in slots
            if slot is not None
            and (slot.model, slot.version) == (report.model, report.version)
            # Without a runtime on the device nothing says which variant; the bundle then decides.
            and (not report.sha256 or slot.variant_sha256 == report.sha256)
        ),
        None,
    )


def _state(record: Record | None, slot: Slot | None) -> RunState:
    """Return how what runs stands to the device's record."""
    from tidegate.edge.update.states import State

    if record is None:
        return "unknown"
    if slot is not record.active or record.phase is State.ROLLING_BACK:
        return "not-active"
    if record.phase is State.TRIAL:
        return "trial"
    # A roll-back leaves the counter where the newer release had put it.
    return "rolled-back" if record.active.release < record.counters.get(record.active.track, 0) else "committed"
