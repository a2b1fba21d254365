"""Count what a process does to the files of one directory, and end it, or let the disk refuse, at a chosen place.

Every call that opens for writing, writes, syncs, renames, links, unlinks, truncates or makes a directory is a point; a
write is two, before it and half-way. Names come by Python's audit events, bytes by files that count. What is installed
cannot be taken out again, so it is for forked children.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import os
import pathlib
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMED = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_RANDOM_NAME = re.compile(r"\.[0-9a-f]{16}\.part\Z|(?<=/)tmp[^/]+\Z")

Reached = Callable[[str, str], None]
"""Hears the kind of a call and the path that it is about, before it is made; may raise OSError, or not return."""


def watch(directory: Path, reached: Reached) -> None:
    """From now on tell `reached` of every call that changes something below `directory`."""
    root = str(directory.absolute())

    def tell(kind: str, *paths: object) -> None:
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(root):
                reached(kind, os.fsdecode(path)[len(root) :])
                return

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NAMED:
            tell(event.removeprefix("os."), *arguments[:2])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
            tell("open", arguments[0])

    real_write, real_sync, real_truncate = os.write, os.fsync, os.ftruncate

    def write(descriptor: int, data: Any) -> int:
        view = memoryview(data).cast("B")
        tell("write", _path_of(descriptor))
        half = real_write(descriptor, view[: len(view) // 2]) if len(view) > 1 else 0
        tell("write on", _path_of(descriptor))
        return half + real_write(descriptor, view[half:])

    def sync(descriptor: int) -> None:
        tell("sync", _path_of(descriptor))
        real_sync(descriptor)

    def truncate(descriptor: int, length: int) -> None:
        tell("truncate", _path_of(descriptor))
        real_truncate(descriptor, length)

    class CountingFile(io.FileIO):
        def write(self, data: Any) -> int:
            return write(self.fileno(), data)

    real_open = io.open

    def open_counting(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if "b" not in mode or not set(mode) & set("wax+") or buffering == 0:
            return real_open(file, mode, buffering, *rest, **named)
        opener, closefd = named.get("opener"), named.get("closefd", True)
        raw = CountingFile(file, mode.replace("b", ""), closefd=closefd, opener=opener)
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    for module, name, ours in (
        (os, "write", write),
        (os, "fsync", sync),
        (os, "ftruncate", truncate),
        (io, "open", open_counting),
        (builtins, "open", open_counting),
    ):
        setattr(module, name, ours)
    tempfile._io.open = open_counting  # type: ignore[attr-defined]
    if hasattr(pathlib, "_NormalAccessor"):  # Python 3.10 keeps its own.
        pathlib._NormalAccessor.open = staticmethod(open_counting)
    sys.addaudithook(hear)


def _path_of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


@dataclass(frozen=True)
class Point:
    """One call of a run that was not disturbed."""

    number: int
    """from 1"""
    kind: str
    path: str
    state: str
    """digest of the whole directory before the call; equal digests are equal states"""


def recorder(directory: Path, points: list[Point]) -> Reached:
    """Note every point with the state of the disk at it."""

    def reached(kind: str, path: str) -> None:
        points.append(Point(len(points) + 1, kind, path, state_of(directory)))

    return reached


def killer(number: int) -> Reached:
    """End the process with SIGKILL at one point."""
    left = number

    def reached(kind: str, path: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


FILLS_DISK = frozenset({"open", "write", "write on", "mkdir", "symlink", "link"})
"""What needs space; to unlink, to rename and to truncate needs none."""


def refuser(number: int, code: int, *, lasting: bool) -> Reached:
    """Let the call at one point fail, and with `lasting` every call after it of the kind that such a disk refuses."""
    count = 0

    def reached(kind: str, path: str) -> None:
        nonlocal count
        count += 1
        applies = code != errno.ENOSPC or kind in FILLS_DISK
        if applies and (count == number or (lasting and count > number)):
            raise OSError(code, os.strerror(code), path)

    return reached


def state_of(directory: Path) -> str:
    """Return a digest of all names and contents below a directory; random names count as one."""
    found = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        name = _RANDOM_NAME.sub("*", str(path))
        content = path.read_bytes() if path.is_file() else b""
        found.update(f"{name} {path.is_symlink()} {path.is_dir()} {len(content)}\n".encode() + content)
    return found.hexdigest()
