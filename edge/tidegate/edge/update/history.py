"""What happened on this device: `history.jsonl`, a line for each event, oldest first.

For people and reports: nothing decides on it, so it may lose its last line to a crash, and its oldest to its bound.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tidegate.bundle.atomic import write_atomically
from tidegate.errors import ResourceError

MAXIMUM_BYTES = 256 << 10
"""With a line of some 150 bytes about 1,700 events; beyond it the older half goes."""


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event."""

    at: str
    """UTC, ISO 8601"""
    event: str
    """activated, committed, rolled_back, noted, recovered, interrupted, or an event of the update's table"""
    release: int = 0
    version: str = ""
    reason: str = ""


def append(path: Path, entry: HistoryEntry) -> None:
    """Add a line behind the last whole one, and make it last.

    Raises:
        ResourceError: the disk refuses.
    """
    line = msgspec.json.encode(entry) + b"\n"
    try:
        with path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            torn = size > 0 and _last_byte(path) != b"\n"
            file.write(b"\n" + line if torn else line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written: {error.strerror or error}", fix="check free space and permissions"
        ) from error
    if size + len(line) > MAXIMUM_BYTES:
        _shorten(path)


def read(path: Path) -> list[HistoryEntry]:
    """Return the events, oldest first; lines that a crash tore are left out.

    Raises:
        ResourceError: the disk refuses.
    """
    return list(_parsed(_lines(path)))


def _parsed(lines: Iterable[bytes]) -> Iterable[HistoryEntry]:
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=HistoryEntry)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue


def _shorten(path: Path) -> None:
    lines = [line for line in _lines(path) if line]
    write_atomically(path, [line + b"\n" for line in lines[len(lines) // 2 :]])


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror or error}", fix="check the disk") from error


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
