"""Files by what is in them: one name for equal content, shared between versions, and never a name without its bytes.

    DIR/files/SHA256      whole, checked when it got its name
    DIR/partial/SHA256    on the way; what a cut download resumes

A name in `files` was given after the bytes were hashed and synced. Disks fail all the same, so whoever runs a file
checks it again (`check`, and `tidegate.fetch.installed`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from tidegate.bundle.atomic import sync_directory, write_atomically
from tidegate.bundle.bundle import digest
from tidegate.errors import ConfigError, IntegrityError, NotFoundError, ResourceError

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK_BYTES = 1 << 20
_DISK = "check free space and permissions of the directory, then repeat; what was stored before is unchanged"


class Store:
    """One directory of files by SHA-256. Safe to read from several threads and processes; one writes at a time.

    Making a `Store` touches no disk: the directories are made with the first file.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = directory / "files"
        self._partial = directory / "partial"

    def path(self, sha256: str) -> Path:
        """Return where the file with this digest lies, or would lie.

        Raises:
            ConfigError: not 64 lower-case hexadecimal digits, so no name of ours.
        """
        return self._files / _checked(sha256)

    def has(self, sha256: str) -> bool:
        """Return whether the file is here by name. Enough to skip a download, not to run it: see `check`."""
        return self.path(sha256).is_file()

    def check(self, sha256: str) -> bool:
        """Read the file and return whether it is what its name says; False too when it is missing or unreadable."""
        try:
            return _hash(self.path(sha256)) == sha256
        except OSError:
            return False

    def read(self, sha256: str) -> bytes:
        """Return a file whole, checked against its digest.

        Raises:
            NotFoundError: it is not here.
            IntegrityError: its bytes changed on the disk.
            ResourceError: the disk refuses.
        """
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{path} is not in the store", fix="run the update again") from error
        except OSError as error:
            raise ResourceError(f"{path} could not be read: {error.strerror or error}", fix="check the disk") from error
        found = digest(data)
        if found != sha256:
            raise IntegrityError(
                f"{path} has SHA-256 {found}; expected {sha256}", fix="check the disk, then run the update again"
            )
        return data

    def partial_path(self, sha256: str) -> Path:
        """Return where a download of this file collects its bytes; makes the directory.

        Raises:
            ConfigError: not a SHA-256.
            ResourceError: the disk refuses.
        """
        name = _checked(sha256)
        _make(self._partial)
        return self._partial / name

    def adopt(self, partial: Path, sha256: str, size_bytes: int) -> Path:
        """Give a finished download its name, if it is what it should be, and return where it lies.

        Whatever happens, the name shows the whole file or nothing.

        Raises:
            NotFoundError: `partial` does not exist.
            IntegrityError: other size or digest; `partial` is removed, since no more bytes can mend it.
            ResourceError: the disk refuses.
        """
        target = self.path(sha256)
        _make(self._files)
        try:
            with partial.open("rb") as file:
                found_bytes = os.fstat(file.fileno()).st_size
                found = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    found.update(chunk)
            if found_bytes != size_bytes or found.hexdigest() != sha256:
                partial.unlink()
                raise IntegrityError(
                    f"a download has {found_bytes} bytes and SHA-256 {found.hexdigest()}; "
                    f"expected {size_bytes} bytes and {sha256}",
                    fix="run the update again; if it stays so, tell the channel's owner",
                )
            _sync(partial)
            partial.replace(target)
            sync_directory(self._files)
        except FileNotFoundError as error:
            raise NotFoundError(f"{partial} is not there to be stored", fix="run the update again") from error
        except OSError as error:
            raise ResourceError(f"{target} could not be stored: {error.strerror or error}", fix=_DISK) from error
        return target

    def put(self, data: bytes) -> str:
        """Store bytes and return their SHA-256. What is here and whole is not written again.

        Raises:
            ResourceError: the disk is full or refuses.
        """
        sha256 = digest(data)
        if not self.check(sha256):
            _make(self._files)
            write_atomically(self.path(sha256), [data])
        return sha256

    def remove_except(self, keep: Collection[str]) -> None:
        """Remove every other file, and every partial download of another file; leftovers of a crash go too.

        Raises:
            ResourceError: the disk refuses.
        """
        try:
            for directory in (self._files, self._partial):
                if directory.is_dir():
                    for entry in sorted(directory.iterdir()):
                        if entry.name not in keep:
                            entry.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(
                f"{self.directory} could not be cleared: {error.strerror or error}", fix=_DISK
            ) from error


def _checked(sha256: str) -> str:
    if not _SHA256.match(sha256):
        raise ConfigError(f"{sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal", fix="give the file's digest")
    return sha256


def _hash(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(directory: Path) -> None:
    """Make a directory and let its name last."""
    if directory.is_dir():
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        sync_directory(directory.parent)
        sync_directory(directory.parent.parent)
    except OSError as error:
        raise ResourceError(f"{directory} could not be made: {error.strerror or error}", fix=_DISK) from error
