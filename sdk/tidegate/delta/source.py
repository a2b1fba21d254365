"""Bytes that are read in pieces, from memory or from a file, so that a large file need not be in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tidegate.errors import IntegrityError, NotFoundError, ResourceError

CHUNK_BYTES = 1 << 16


class Source(Protocol):
    """Something with a size that can be read anywhere."""

    @property
    def size_bytes(self) -> int:
        """Its length."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes; the caller keeps within `size_bytes`.

        Raises:
            IntegrityError: the file became shorter.
            ResourceError: the system refused to read.
        """


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size_bytes(self) -> int:
        """Return the length."""
        return len(self._data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes."""
        return self._data[offset : offset + size]


class FileSource:
    """A file on disk. Read, not mapped: a mapped file that is cut short while in use would kill the process."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            NotFoundError: there is none.
            ResourceError: the system refused.
        """
        self._path = path
        try:
            self._file = path.open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"no file {path}", fix="name an existing file") from error
        except OSError as error:
            raise self._refused(error) from error
        self._size_bytes = self._file.seek(0, 2)

    @property
    def size_bytes(self) -> int:
        """Return the length that the file had when it was opened."""
        return self._size_bytes

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes."""
        try:
            self._file.seek(offset)
            data = self._file.read(size)
        except OSError as error:
            raise self._refused(error) from error
        if len(data) != size:
            raise IntegrityError(f"{self._path} became shorter while it was read", fix="let no other program write it")
        return data

    def _refused(self, error: OSError) -> ResourceError:
        return ResourceError(f"{self._path} could not be read: {error.strerror}", fix="check permissions and the disk")

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Part:
    """A stretch of a source, read from its begin to its end like a file."""

    def __init__(self, source: Source, offset: int, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._source = source
        self._position = offset
        self._end = offset + size_bytes

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, all that is left when negative, nothing at the end."""
        left = self._end - self._position
        taken = left if size < 0 else min(size, left)
        data = self._source.read_at(self._position, taken)
        self._position += taken
        return data


def chunks_of(source: Source) -> Iterator[bytes]:
    """Yield the whole source in pieces."""
    for offset in range(0, source.size_bytes, CHUNK_BYTES):
        yield source.read_at(offset, min(CHUNK_BYTES, source.size_bytes - offset))


def sha256_of(source: Source) -> str:
    """Return the SHA-256 of the whole source in lower-case hexadecimal."""
    found = hashlib.sha256()
    for chunk in chunks_of(source):
        found.update(chunk)
    return found.hexdigest()
