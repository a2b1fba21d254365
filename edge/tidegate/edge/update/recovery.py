"""What a crash left, made whole again. Every public call of the updater begins here, under the lock."""

from __future__ import annotations

import re
from typing import cast

from msgspec.structs import replace

from tidegate.edge.update.device import Device, utc_now
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import SCHEMA, Quarantined, Record, Slot, read_record, read_slot, salvage, write_record
from tidegate.edge.update.settings import DeviceSettings
from tidegate.edge.update.slots import newest_whole
from tidegate.edge.update.states import Event, State
from tidegate.errors import BundleError, NotFoundError, ResourceError

# As `write_atomically` names them, and `tidegate.release.disk.store`, which writes the key of reports.
_LEFTOVER = re.compile(r"\.(.+\.)?[0-9a-f]{16}\.part\Z")


def recovered(layout: Layout, settings: DeviceSettings) -> Device:
    """Return the device, in a state that no dead process has left half done. Only for the holder of the lock.

    Raises:
        NotFoundError: the directory is not a device.
        BundleError: neither the record nor the factory slot can be read.
        ResourceError: the disk refuses.
    """
    _remove_leftovers(layout)
    try:
        device = Device(layout, settings, read_record(layout.state))
    except (BundleError, NotFoundError) as error:
        device = Device(layout, settings, _rebuilt(layout))
        write_record(layout.state, device.record)
        device.tell("recovered", device.record.active, error.message)
        return device
    _finish(device)
    return device


def _finish(device: Device) -> None:
    """Do what the dead process would have done next, or undo what it did."""
    record = device.record
    if record.phase in (State.FETCHING, State.PROBING) and record.candidate is not None:
        if device.too_often(record.candidate):
            times = device.settings.interruptions + 1
            device.send(Event.INTERRUPTED_TOO_OFTEN, reason=f"the updater ended {times} times while it was at it")
            device.collect()
        else:
            device.send(Event.INTERRUPTED)
            device.tell("interrupted", record.candidate, f"the updater ended in the middle of {record.phase.value}")
    elif record.phase is State.ROLLING_BACK:
        device.complete_rollback(Event.INTERRUPTED, "completes a roll-back that was interrupted")
    elif record.phase is State.COMMITTED:
        device.collect()
        device.send(Event.INTERRUPTED)


def _rebuilt(layout: Layout) -> Record:
    """Return a record for a device whose own cannot be understood: it rolls back.

    The newest older slot that is whole runs. What ran may be offered again, and then has to prove itself anew.
    """
    fields = salvage(layout.state)
    factory = _factory(layout, cast("Slot | None", fields.get("factory")))
    previous = cast("Slot | None", fields.get("previous"))
    active = newest_whole(layout.store, (previous, factory)) or factory
    return Record(
        schema=SCHEMA,
        phase=State.IDLE,
        active=replace(active, activated_at=utc_now(), why="the record of this device could not be understood"),
        factory=factory,
        quarantined=cast("tuple[Quarantined, ...]", fields.get("quarantined", ())),
        counters={active.track: active.release},
    )


def _factory(layout: Layout, stated: Slot | None) -> Slot:
    """Return the factory slot; the file of its own counts more than the record, which is written often."""
    try:
        return read_slot(layout.factory)
    except (BundleError, NotFoundError):
        if stated is None:
            raise
        return stated


def _remove_leftovers(layout: Layout) -> None:
    """Remove what a writer that was killed left without a name."""
    try:
        for path in layout.directory.iterdir():
            if _LEFTOVER.match(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{layout.directory} could not be cleared: {error.strerror or error}", fix="check the disk"
        ) from error
