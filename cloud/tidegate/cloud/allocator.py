"""Memory that was freed, given back to the system: glibc keeps it for later, above all what lies between used pieces.

A server that answered a burst of large requests would look as if it still held them. `malloc_trim` (malloc_trim(3),
glibc) gives back every whole page that is free. It costs a few milliseconds, so it is called seldom, and only where
the process has grown. Settings that make glibc keep less at all times were tried and cost three times the CPU time for
answers of 4 MB.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from tidegate.runtime.process import resident_bytes

LOOK_S = 10.0
"""Between two looks at the size of the process."""

GROWN_BYTES = 16 * 2**20
"""Less than this is not worth the time."""


def trimmer() -> Callable[[], object] | None:
    """Return what gives free memory back; None where the C library has nothing of that kind."""
    if not sys.platform.startswith("linux"):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(ctypes.c_size_t(0))


class FreeMemory:
    """Gives memory back when the process has grown since it last did."""

    def __init__(
        self, trim: Callable[[], object] | None = None, resident: Callable[[], int | None] = resident_bytes
    ) -> None:
        """Begin with the size of now.

        Args:
            trim: gives memory back; None: what the C library has for it, or nothing.
            resident: size of the process in bytes; None where the system does not say: nothing is given back then.
        """
        self._trim = trim or trimmer()
        self._resident = resident
        self._floor_bytes = resident() or 0
        self._next_s = 0.0

    def look(self, now_s: float, *, quiet: bool) -> None:
        """Give memory back if it is time and worth it.

        Args:
            now_s: monotonic.
            quiet: whether nobody would have to wait for the allocator now.
        """
        if self._trim is None or not quiet or now_s < self._next_s:
            return
        self._next_s = now_s + LOOK_S
        size_bytes = self._resident() or 0
        if size_bytes - self._floor_bytes >= GROWN_BYTES:
            self._trim()
            self._floor_bytes = self._resident() or 0
        else:
            self._floor_bytes = min(self._floor_bytes, size_bytes)
