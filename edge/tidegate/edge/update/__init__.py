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
    from tidegate.edge.update.report import Reporter, Running
    from tidegate.edge.update.report_identity import create_report_key
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
    "Reporter": "report",
    "Running": "report",
    "Slot": "record",
    "State": "states",
    "Status": "results",
    "UpdateResult": "results",
    "Updater": "updater",
    "create_report_key": "report_identity",
    "initialise": "initialisation",
}

__all__ = [
    "ActiveModel",
    "CheckResult",
    "DeviceSettings",
    "HistoryEntry",
    "Quarantined",
    "Record",
    "Reporter",
    "Running",
    "Slot",
    "State",
    "Status",
    "UpdateResult",
    "Updater",
    "create_report_key",
    "initialise",
]


def __getattr__(name: str) -> object:
    """Load the module of a public name."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
