"""What a caller hears while files come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a fetch is."""

    file: str
    """target path, or the name of a metadata file, that the last bytes belong to"""
    done_bytes: int
    """received so far over all files, with what an earlier run had kept"""
    total_bytes: int
    """of all files; may change when a delta fails and the full file is fetched instead"""


OnProgress = Callable[[Progress], None]
"""Called from the threads that fetch, one call at a time; the line waits for it. What it raises ends the fetch and
reaches the caller."""
