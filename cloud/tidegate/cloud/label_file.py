"""Labels and what was unloaded by hand, in a small file: kept over restarts, and the same in every worker process.

    {"schema": "tidegate.labels/1", "loaded": [], "unloaded": [["mlp", "1.0.0"]],
     "moves": [{"model": "mlp", "label": "stable", "version": "1.2.0", "before": "1.1.0", "time_s": 1790000000.0}]}

Where a label points is its latest move. Whoever changes the file holds its lock, reads it, and replaces it at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tidegate.bundle.atomic import write_atomically
from tidegate.cloud.file_lock import locked
from tidegate.cloud.versions import LabelMove
from tidegate.errors import ConfigError, ResourceError

SCHEMA = "tidegate.labels/1"


@dataclass(frozen=True)
class HandMade:
    """What was decided by hand."""

    moves: tuple[LabelMove, ...] = ()
    """of all labels, oldest first"""
    loaded: frozenset[tuple[str, str]] = frozenset()
    """name and version; held whatever the policy says"""
    unloaded: frozenset[tuple[str, str]] = frozenset()
    """name and version; they stay away until they are loaded by hand"""


class _File(msgspec.Struct, frozen=True, kw_only=True):
    schema: str
    moves: tuple[LabelMove, ...] = ()
    loaded: tuple[tuple[str, str], ...] = ()
    unloaded: tuple[tuple[str, str], ...] = ()


class LabelFile:
    """One file. Safe between processes; within one, the repository takes turns."""

    def __init__(self, path: Path) -> None:
        """Note the path; nothing is read yet."""
        self._path = path
        self._seen = ""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from changing the file during the block.

        Raises:
            ResourceError: the disk refuses.
        """
        with locked(self._path.with_name(f".{self._path.name}.lock")):
            yield

    @property
    def changed(self) -> bool:
        """Whether the file is another one than at the last `read` or `write`."""
        return self._mark() != self._seen

    def read(self) -> HandMade:
        """Return what is written; nothing where there is no file yet.

        Raises:
            ConfigError: it is not such a file.
            ResourceError: the disk refuses.
        """
        seen = self._mark()
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            self._seen = ""
            return HandMade()
        except OSError as error:
            raise ResourceError(f"{self._path} cannot be read: {error.strerror}", fix="check the disk") from error
        try:
            found = msgspec.json.decode(raw, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self._path} holds no labels: {error}", fix="name another file, or remove it"
            ) from error
        if found.schema != SCHEMA:
            raise ConfigError(f"{self._path} has schema {found.schema!r}; expected {SCHEMA!r}", fix="name another file")
        self._seen = seen
        return HandMade(found.moves, frozenset(found.loaded), frozenset(found.unloaded))

    def write(self, state: HandMade) -> None:
        """Replace the file at once.

        Raises:
            ResourceError: the disk refuses.
        """
        loaded, unloaded = tuple(sorted(state.loaded)), tuple(sorted(state.unloaded))
        file = _File(schema=SCHEMA, moves=state.moves, loaded=loaded, unloaded=unloaded)
        write_atomically(self._path, [msgspec.json.format(msgspec.json.encode(file), indent=1)])
        self._seen = self._mark()

    def _mark(self) -> str:
        try:
            status = self._path.stat()
        except OSError:
            return ""
        return f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}"
