"""What processes are there, read from /proc: any of them may end between two looks, and then is simply not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def children_of(pid: int) -> Sequence[int]:
    """Return the process ids of all children, whichever thread of `pid` started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in _content(children).split()]


def workers_of(pid: int) -> Sequence[int]:
    """Return the children that serve, other than the helper that multiprocessing starts."""
    return [child for child in children_of(pid) if runs(child, "spawn_main")]


def runs(pid: int, part: str) -> bool:
    """Say whether the process is there and `part` is in its command line."""
    return part.encode() in _content(Path(f"/proc/{pid}/cmdline"))


def has_loaded(pid: int, part: str) -> bool:
    """Say whether the process is there and has a file mapped whose path has `part` in it."""
    return part.encode() in _content(Path(f"/proc/{pid}/maps"))


def is_there(pid: int) -> bool:
    """Say whether the process is there and not a zombie."""
    status = _content(Path(f"/proc/{pid}/status"))
    return bool(status) and b"State:\tZ" not in status


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
