"""Updates of a device: proven before they run, and always a way back. docs/updates.md tells the whole.

The names load when they are first used: importing this loads no network client and no runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.edge.update.active import ActiveModel
    from tidegate.edge.update.history import HistoryEntry
    from tidegate.edge.update.initialisation import initialise
    from tidegate.edge.update.record import Quarantined, Record, Slot
    from tidegate.edge.update.results import CheckResult, Status, UpdateResult
    from tidegate.edge.update.settings import DeviceSettings
    from tidegate.edge.update.states import State
    from tidegate.edge.update.updater import Updater

_HOME = {
    "ActiveModel": "active",
    "CheckResult": "results",
    "DeviceSettings": "settings",
    "HistoryEntry": "history",
    "Quarantined": "record",
    "Record": "record",
    "Slot": "record",
    "State": "states",
    "Status": "results",
    "UpdateResult": "results",
    "Updater": "updater",
    "initialise": "initialisation",
}

__all__ = [
    "ActiveModel",
    "CheckResult",
    "DeviceSettings",
    "HistoryEntry",
    "Quarantined",
    "Record",
    "Slot",
    "State",
    "Status",
    "UpdateResult",
    "Updater",
    "initialise",
]


def __getattr__(name: str) -> object:
    """Load the module of a public name."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
