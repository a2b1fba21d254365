"""A lock between processes that share a directory; the system lets go of it when its holder ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidegate.errors import ResourceError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the block; wait for it while somebody else does. Its directory is made if missing.

    Raises:
        ResourceError: the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be opened: {error.strerror or error}", fix="check the directory and its permissions"
        ) from error
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
