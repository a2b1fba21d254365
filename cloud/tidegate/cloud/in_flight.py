"""How many bytes are on their way, all callers together: answers that are not taken yet, bodies that are not all there.

Each call has a time limit of its own, but thousands of callers who take nothing of large answers would fill the memory
within that time. So there is one limit over all. Where something new goes over it, the oldest makes room: who reads
is done in milliseconds, and what has been there for longest is what is not read. Refusing the new one instead would
let a single client who reads nothing keep everybody else from being answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tidegate.errors import ResourceError

COUNTED_BYTES = 64 * 1024
"""Smaller ones are not counted: the number of calls under way bounds them."""


class BytesInFlight:
    """Counts bytes and ends the oldest when there are too many. Safe for several threads."""

    def __init__(self, maximum_bytes: int) -> None:
        """Begin with none.

        Args:
            maximum_bytes: of all together.
        """
        self.maximum_bytes = maximum_bytes
        self._lock = threading.Lock()
        self._held: dict[int, tuple[int, Callable[[], object]]] = {}
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Counted now."""
        return self._bytes

    def check(self, size_bytes: int) -> None:
        """Refuse what alone is too much.

        Raises:
            ResourceError: it is.
        """
        if size_bytes > self.maximum_bytes:
            raise ResourceError(
                f"the answer has {size_bytes} bytes; this server holds {self.maximum_bytes} of all answers together",
                fix="ask for less at once, or serve with a larger --max-unread-mb",
            )

    def hold(self, owner: object, size_bytes: int, end: Callable[[], object]) -> None:
        """Count bytes, or count anew what was counted; the oldest others are ended where there are too many.

        Args:
            owner: whose they are; `end` keeps it alive.
            size_bytes: how many now. Less than `COUNTED_BYTES` is not counted.
            end: ends what holds them, from any thread.
        """
        if size_bytes < COUNTED_BYTES:
            return
        place = id(owner)
        ended = []
        with self._lock:
            before, _ = self._held.get(place, (0, end))
            self._held[place] = (size_bytes, end)
            self._bytes += size_bytes - before
            while self._bytes > self.maximum_bytes:
                oldest = next((other for other in self._held if other != place), None)
                if oldest is None:
                    break
                freed, end_oldest = self._held.pop(oldest)
                self._bytes -= freed
                ended.append(end_oldest)
        for end_one in ended:
            end_one()

    def release(self, owner: object) -> None:
        """Count them no more; without effect for who holds none."""
        if id(owner) not in self._held:
            return
        with self._lock:
            size_bytes, _ = self._held.pop(id(owner), (0, None))
            self._bytes -= size_bytes
