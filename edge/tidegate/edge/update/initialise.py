"""Make a directory a device."""

from __future__ import annotations

from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.edge.update.record import Slot
from tidegate.edge.update.settings import DeviceSettings


def initialise(
    directory: Path, settings: DeviceSettings, trusted_root: bytes, factory_bundle: Path | Bundle, *, variant: str = ""
) -> Slot:
    raise NotImplementedError
