"""The files of a request log: gathered by shape, written whole under another name, and then given their own.

So a reader never sees a torn file, whatever happens to the process: what it had gathered is lost, at most what came
within `maximum_age_s`. Files are never changed, and none is deleted here.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tidegate.bundle.atomic import write_atomically
from tidegate.cloud.request_log_record import LoggedRequest, Record
from tidegate.cloud.request_log_settings import RequestLogSettings
from tidegate.cloud.request_log_table import pyarrow, shape_of, table
from tidegate.errors import ResourceError, TidegateError

log = logging.getLogger(__name__)

LEFT_AFTER_S = 3600.0
"""A temporary file that is older was left by a process that died."""

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")


@dataclass
class _Gathered:
    """Records that will be one file."""

    since_s: float
    records: list[Record] = field(default_factory=list)
    size_bytes: int = 0


@dataclass
class Written:
    """What became of records."""

    records: int = 0
    files: int = 0
    bytes: int = 0
    dropped: int = 0
    """the disk is full, or the log's share of it"""
    failed: int = 0
    """no table could be made of them"""


class LogFiles:
    """Gathers records and writes them. Used by one thread; several processes may share a directory."""

    def __init__(self, settings: RequestLogSettings) -> None:
        """Make the directory, and remove what processes that died have left.

        Raises:
            ResourceError: it cannot be made or listed.
            DependencyError: pyarrow is not installed.
        """
        pyarrow()
        self._settings = settings
        self._gathered: dict[tuple[str, ...], _Gathered] = {}
        self._numbers = itertools.count(1)
        self.written = Written()
        self._told_of_drops = False
        try:
            settings.directory.mkdir(parents=True, exist_ok=True)
            for left in settings.directory.rglob(".*.part"):
                if left.stat().st_mtime < time.time() - LEFT_AFTER_S:
                    left.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(
                f"{settings.directory} cannot be used for the request log: {error.strerror}",
                fix="name a directory that this process may write",
            ) from error

    @property
    def gathered_bytes(self) -> int:
        """About what waits for its file."""
        return sum(group.size_bytes for group in self._gathered.values())

    def add(self, record: Record) -> None:
        """Take a record; write a file when enough has come."""
        failed = isinstance(record, LoggedRequest) and bool(record.error_kind)
        key = (record.model, "errors" if failed else record.version, *map(str, shape_of(record)))
        group = self._gathered.get(key)
        if group is None:
            group = self._gathered[key] = _Gathered(time.monotonic())
        group.records.append(record)
        group.size_bytes += record.size_bytes
        if group.size_bytes >= self._settings.maximum_file_bytes:
            self._write(key)
        elif self.gathered_bytes > self._settings.maximum_queue_bytes:
            self._write(max(self._gathered, key=lambda name: self._gathered[name].size_bytes))

    def write_old(self) -> None:
        """Write what has waited as long as it may."""
        oldest_s = time.monotonic() - self._settings.maximum_age_s
        for key in [key for key, group in self._gathered.items() if group.since_s <= oldest_s]:
            self._write(key)

    def next_s(self) -> float | None:
        """Return in how many seconds something will be old enough; None when nothing waits."""
        if not self._gathered:
            return None
        since_s = min(group.since_s for group in self._gathered.values())
        return max(0.0, since_s + self._settings.maximum_age_s - time.monotonic())

    def write_all(self) -> None:
        """Write everything."""
        for key in list(self._gathered):
            self._write(key)

    def _write(self, key: tuple[str, ...]) -> None:
        group = self._gathered.pop(key)
        count = len(group.records)
        arrow = pyarrow()
        try:
            content = _parquet(arrow, group.records)
        except (arrow.ArrowException, ValueError, TypeError, KeyError) as error:
            # A privacy hook may have made anything of a record.
            self.written.failed += count
            log.warning("request log: %d records of model %s make no table: %s", count, key[0], error)
            return
        try:
            self._make_room(len(content))
            write_atomically(self._path(*key[:2]), [content])
        except TidegateError as error:
            self.written.dropped += count
            if not self._told_of_drops:
                log.warning("request log: records are dropped until this is mended: %s", error.message)
            self._told_of_drops = True
            return
        self._told_of_drops = False
        self.written.records += count
        self.written.files += 1
        self.written.bytes += len(content)

    def _make_room(self, more_bytes: int) -> None:
        """Refuse what would go over the log's share of the disk."""
        used = 0
        for path in self._settings.directory.rglob("*"):
            try:
                used += path.stat().st_size if path.is_file() else 0
            except OSError:  # another process has just renamed or removed it
                continue
        if used + more_bytes > self._settings.maximum_disk_bytes:
            raise ResourceError(
                f"{self._settings.directory} holds {used} of {self._settings.maximum_disk_bytes} bytes",
                fix="move files away, or allow more",
            )

    def _path(self, model: str, version: str) -> Path:
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        folder = self._settings.directory / _safe(model) / _safe(version)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"{folder} cannot be made: {error.strerror}", fix="check the disk") from error
        return folder / f"{now}-{os.getpid()}-{next(self._numbers)}.parquet"


def _safe(name: str) -> str:
    """Return a name that is one step of a path; a hook may have written anything into a record."""
    return name if _SAFE.match(name) else "other"


def _parquet(arrow: Any, records: list[Record]) -> bytes:
    import pyarrow.parquet as parquet

    sink = arrow.BufferOutputStream()
    parquet.write_table(table(records), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
