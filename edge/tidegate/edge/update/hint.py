"""What a server said about a newer release: worth a look at the channel, and nothing more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.edge.update.record import Record
    from tidegate.wire.report import Latest

SHORTEST_REST_S = 600.0
"""Between two checks on a server's word: one that lies causes two requests in this time."""


class UpdateHint:
    """Decides when a server's word is worth a check. In memory only: nothing of it is trusted or kept."""

    def __init__(self, *, rest_s: float = SHORTEST_REST_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a hint; `clock` is monotonic, in seconds."""
        self._rest_s = rest_s
        self._clock = clock
        self._followed: dict[tuple[str, str], int] = {}
        self._quiet_until_s: float | None = None

    def note(self, latest: Latest, record: Record) -> bool:
        """Tell whether the channel should be checked now because of what a server said.

        True once for each release, if it is for this device's model and track, newer than all that the device has
        taken, not in quarantine here, and not within the rest after the last True. A release that the device passes
        over is not asked for again; the regular check still looks at it.

        Args:
            latest: the server's word.
            record: of the device.
        """
        if latest.model != record.active.model or latest.track != record.active.track:
            return False
        if any(one.release == latest.release for one in record.quarantined):
            return False
        known = max(record.counter(latest.track), self._followed.get((latest.model, latest.track), 0))
        now_s = self._clock()
        if latest.release <= known or (self._quiet_until_s is not None and now_s < self._quiet_until_s):
            return False
        self._followed[latest.model, latest.track] = latest.release
        self._quiet_until_s = now_s + self._rest_s
        return True
