"""The operations on files that a channel is made of: few, in one place, so that a test can stop at each of them.

The rule that keeps a channel whole: a file gets its name only after its bytes are on the disk, nothing that has a name
is written again, and the one exception, timestamp.json, is replaced in one step after all that it leads to.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.errors import ConfigError, ResourceError

_CHUNK_BYTES = 1 << 20
_PART_SUFFIX = ".part"
_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.part\Z")


class Disk:
    """Each method is one system call that changes something, or one that makes it last."""

    def make_directory(self, path: Path) -> None:
        """Make one directory; its parent exists."""
        path.mkdir(exist_ok=True)

    def create(self, path: Path, mode: int) -> int:
        """Create an empty file that was not there and return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)

    def write(self, descriptor: int, data: bytes) -> int:
        """Append up to all of `data`; return how many bytes were taken."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Return when the file's bytes are on the disk."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name in one step, in place of what has it."""
        source.replace(target)

    def sync_directory(self, path: Path) -> None:
        """Return when the directory's names are on the disk."""
        if sys.platform == "win32":  # cannot open a directory, and orders the rename itself
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()


def store(disk: Disk, path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that its name shows all of `data` or what it showed before, whatever happens in between.

    Raises:
        ResourceError: the disk is full, read-only or failing; what stood there is unchanged.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{_PART_SUFFIX}")
    try:
        descriptor = disk.create(temporary, mode)
        try:
            for start in range(0, len(data), _CHUNK_BYTES):
                _write_all(disk, descriptor, data[start : start + _CHUNK_BYTES])
            disk.sync(descriptor)
        finally:
            os.close(descriptor)
        disk.rename(temporary, path)
        disk.sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            disk.remove(temporary)
        raise _refused(path, error) from error


def make_directories(disk: Disk, root: Path, below: str) -> None:
    """Make `root` and each part of `below`, outermost first, and make their names last.

    Raises:
        ConfigError: `root` is a file.
        ResourceError: the disk refuses.
    """
    path = root
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file; expected a directory", fix="name a new or empty directory")
    try:
        for part in ("", *below.split("/")):
            path = path / part
            if not path.is_dir():
                disk.make_directory(path)
                disk.sync_directory(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


def remove_leftovers(disk: Disk, root: Path) -> None:
    """Remove what a writer that was killed left below `root` without a name. Only for the holder of the lock."""
    try:
        for leftover in sorted(root.rglob(f".*{_PART_SUFFIX}")):
            if _LEFTOVER.match(leftover.name):
                disk.remove(leftover)
    except OSError as error:
        raise _refused(root, error) from error


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which the system lets go when this process ends, however it ends.

    Raises:
        ResourceError: another process holds it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise ResourceError(
                f"another publisher is at work on {path.parent}", fix="wait until it is done, then repeat"
            ) from error
        yield
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_all(disk: Disk, descriptor: int, data: bytes) -> None:
    rest = data
    while rest:
        rest = rest[disk.write(descriptor, rest) :]


def _refused(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"{path} could not be written: {error.strerror or error}",
        fix="check free space and permissions, then repeat the same command; nothing that was there has changed",
    )
