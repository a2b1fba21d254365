"""A newer release that the server has named, told once: the word is not signed, so it is a reason to look, no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.edge.update.hint import UpdateHint
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import read_record
from tidegate.errors import BundleError, NotFoundError, ResourceError

if TYPE_CHECKING:
    from tidegate.wire.report import Latest


class ReleaseNews:
    """Of one device that an updater keeps."""

    def __init__(self, device: Path, on_newer: Callable[[Latest], None]) -> None:
        """`on_newer` is told once of each release that this device has neither taken nor put into quarantine."""
        self._state = Layout(device).state
        self._on_newer = on_newer
        self._hint = UpdateHint(rest_s=0.0)
        self._heard: Latest | None = None

    def note(self, latest: Latest | None) -> None:
        """Take what the server named last; costs nothing while that is the same."""
        if latest is None or latest == self._heard:
            return
        try:
            record = read_record(self._state)
        except (BundleError, NotFoundError, ResourceError):
            return  # What the device has taken cannot be told now; the next look may.
        self._heard = latest
        if self._hint.note(latest, record):
            self._on_newer(latest)
