"""Where things lie in a device's directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidegate.fetch.store import Store


@dataclass(frozen=True)
class Layout:
    """The names of one device's files."""

    directory: Path

    @property
    def settings(self) -> Path:
        """What the owner of the device says; see `DeviceSettings`."""
        return self.directory / "device.json"

    @property
    def trusted_root(self) -> Path:
        """The channel's root as it was shipped."""
        return self.directory / "root.json"

    @property
    def state(self) -> Path:
        """The one file that says what runs, and how far an update has come; see `Record`."""
        return self.directory / "state.json"

    @property
    def factory(self) -> Path:
        """The slot that the device was set up with; written once."""
        return self.directory / "factory.json"

    @property
    def history(self) -> Path:
        """What happened, a line each."""
        return self.directory / "history.jsonl"

    @property
    def health(self) -> Path:
        """The counters of the running app."""
        return self.directory / "health.json"

    @property
    def lock(self) -> Path:
        """Held by the process that updates."""
        return self.directory / "lock"

    @property
    def metadata(self) -> Path:
        """The channel's metadata as last seen."""
        return self.directory / "metadata"

    @property
    def store(self) -> Store:
        """The files of all installed releases."""
        return Store(self.directory / "store")
