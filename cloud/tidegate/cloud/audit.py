"""A record of what was administered: one line of JSON for each call, appended, whether it was done or refused."""

from __future__ import annotations

import logging
import os
import threading
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from tidegate.cloud.rate import Rate, RateLimiter
from tidegate.errors import AccessError, ResourceError, TidegateError

REFUSALS = Rate(per_second=1, burst=1000)
"""Calls of strangers are recorded no faster than this, all together, so that nobody can fill the disk."""

log = logging.getLogger(__name__)


class AuditEntry(msgspec.Struct, frozen=True):
    """One line."""

    time: str
    """UTC, ISO 8601, milliseconds"""
    who: str
    """id of the key, or the address of a caller without one"""
    peer: str
    """address as the transport writes it"""
    call: str
    """name of the method"""
    model: str
    """empty where it concerns the whole server"""
    outcome: str
    """`done`, or the class of the error"""
    message: str
    """of the error; empty when done"""


class AuditLog:
    """Appends to a file. Safe for several threads, and for several processes on one file.

    The file is opened anew for each entry, so that it may be moved away at any time (logrotate). Administration is
    rare; an entry costs some 30 microseconds.
    """

    def __init__(self, path: Path) -> None:
        """Open the file once, so that a path that cannot be written is found at the start.

        Raises:
            ResourceError: it cannot be written.
        """
        self._path = path
        self._lock = threading.Lock()
        self._refusals = RateLimiter(REFUSALS)
        try:
            self._append(b"")
        except OSError as error:
            raise ResourceError(
                f"cannot write the audit log {path}: {error.strerror}", fix="name a file that the server may write"
            ) from error

    def record(self, *, who: str, peer: str, call: str, model: str, error: TidegateError | None) -> None:
        """Append one entry. A disk that refuses is told of in the log, together with the entry."""
        if isinstance(error, AccessError) and not self._may_record_refusal():
            return
        entry = AuditEntry(
            time=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            who=who,
            peer=peer,
            call=call,
            model=model,
            outcome="done" if error is None else type(error).__name__,
            message="" if error is None else error.message,
        )
        line = msgspec.json.encode(entry) + b"\n"
        try:
            self._append(line)
        except OSError as failed:
            log.error("the audit log %s takes no entry (%s): %s", self._path, failed.strerror, line.decode().strip())

    def _may_record_refusal(self) -> bool:
        try:
            self._refusals.take("refusals")
        except ResourceError:
            return False
        return True

    def _append(self, line: bytes) -> None:
        with self._lock:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
