"""One updater at a time for a device: a lock of the operating system's, which ends with the process that holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidegate.errors import ResourceError, StateError


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the block. It says who holds it, for people; the lock itself is the system's.

    A second lock is refused in the same process too, so two threads exclude each other as two processes do.

    Raises:
        StateError: somebody holds it; the message names the process.
        ResourceError: the disk refuses.
    """
    try:
        # Not inherited: the probe's child process must not hold the lock after us.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise ResourceError(
            f"{path} could not be opened: {error.strerror or error}", fix="check the disk and its permissions"
        ) from error
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise StateError(
                f"{holder(path)} is at work on {path.parent}", fix="wait until it is done, then repeat"
            ) from error
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Leave our process id. A disk that is full must not keep anybody from rolling back, so failing is no error."""
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError:
        return


def holder(path: Path) -> str:
    """Return who holds a lock, or held it last, for people."""
    try:
        pid = path.read_bytes()[:32].strip().decode("ascii", "replace")
    except OSError:
        pid = ""
    if not pid.isdigit():
        return "another process"
    return "this process itself" if int(pid) == os.getpid() else f"process {pid}"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
