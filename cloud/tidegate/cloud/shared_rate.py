"""How often each client may call, counted for several processes together: the token buckets lie in one small file.

A bucket is one number, as in `tidegate.cloud.rate`: the time, on the clock that all processes of a machine share, at
which it would be full again. The file is a table of sets of places; a client's name says which set, and within a set a
client takes any place. When all are taken, the one whose bucket is full the soonest makes room: what is full is the
same as what was never seen, so nothing is lost unless a set is full of busy clients.

A process holds a lock on a set only while it changes it. The system lets go of the lock when a process is killed, and
the worst that a kill in between leaves is one bucket that is off by one request.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tidegate.cloud.rate import MOST_CLIENTS, Rate, refused
from tidegate.errors import ResourceError

PLACES = 8
"""In a set."""

SETS = 2 * MOST_CLIENTS // PLACES
"""Twice as many places as clients that one process alone remembers: names fall into sets unevenly."""

_PLACE = struct.Struct("<Qd")
"""A client's mark, 0 for nobody, and when its bucket is full again."""

_SET = struct.Struct("<" + "Qd" * PLACES)


class SharedRateLimiter:
    """As `RateLimiter`, for all processes that name the same file. Safe for several threads."""

    def __init__(self, rate: Rate, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the file, or make it.

        Args:
            rate: what one client may ask for, of all processes together.
            path: of the table; it goes with the processes.
            clock: the same for all processes: seconds that only grow.

        Raises:
            ResourceError: the file cannot be had.
        """
        self._rate = rate
        self._interval_s = 1 / rate.per_second
        self._tolerance_s = rate.tolerance_s
        self._clock = clock
        self._lock = threading.Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, SETS * _SET.size)
            self._table = mmap.mmap(self._file, SETS * _SET.size)
        except OSError as error:
            raise ResourceError(f"{path} cannot be had: {error.strerror}", fix="look at the disk of TMPDIR") from error

    def take(self, client: str) -> None:
        """Count one request.

        Raises:
            ResourceError: it comes too soon; it was not counted.
        """
        import fcntl

        number = int.from_bytes(hashlib.blake2b(client.encode(), digest_size=16).digest(), "little")
        mark, place = (number >> 64) or 1, number % (1 << 64) % SETS * _SET.size
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX, _SET.size, place)
            try:
                ahead_s = self._take(mark, place)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _SET.size, place)
        if ahead_s:
            raise refused(client, self._rate, ahead_s)

    def _take(self, mark: int, place: int) -> float:
        """Count, and return 0; or return how many seconds the client is ahead of the pace. The set is locked."""
        values = _SET.unpack_from(self._table, place)
        marks, full_at_s = values[::2], values[1::2]
        now_s = self._clock()
        chosen = marks.index(mark) if mark in marks else full_at_s.index(min(full_at_s))
        before_s = full_at_s[chosen] if marks[chosen] == mark else 0.0
        then_s = max(now_s, before_s) + self._interval_s
        ahead_s = then_s - now_s
        if ahead_s > self._tolerance_s * (1 + 1e-6):
            return ahead_s
        _PLACE.pack_into(self._table, place + chosen * _PLACE.size, mark, then_s)
        return 0.0
