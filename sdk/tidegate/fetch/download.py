"""Bring one variant of one release into the store: what is missing, as little as possible, each file checked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from tidegate.errors import TidegateError
from tidegate.fetch.error_mapping import mapped
from tidegate.fetch.planning import Plan, PlannedDelta, PlannedFile, plan
from tidegate.fetch.progress import OnProgress, Progress
from tidegate.fetch.receiving import check_space, receive_beside_store, receive_into_store
from tidegate.fetch.store import Store
from tidegate.fetch.trusted import ChannelReader, TargetInfo

__all__ = ["FetchReport", "Plan", "PlannedDelta", "PlannedFile", "fetch", "plan"]


@dataclass(frozen=True)
class FetchReport:
    """What a fetch did."""

    received_bytes: int
    """over the wire, with failed attempts"""
    requests: int
    files: tuple[str, ...]
    """paths inside the bundle that were fetched"""
    deltas_used: tuple[str, ...]
    """those of them that were made from a delta"""
    delta_failures: tuple[str, ...]
    """why a delta was given up and the full file fetched, as `PATH: reason`"""
    reused: tuple[str, ...]
    """SHA-256 of the files that were here already"""


def fetch(reader: ChannelReader, store: Store, plan: Plan, on_progress: OnProgress | None = None) -> FetchReport:
    """Bring what the plan lacks into the store, several files at a time. A cut fetch goes on where it was.

    Args:
        reader: the one that the plan was made with.
        store: likewise.
        plan: from `plan`.
        on_progress: default the reader's own listener.

    Raises:
        ResourceError: not enough free space, found before the first byte; or the disk refuses.
        IntegrityError: a file is not what was signed.
        UnavailableError, DeadlineError: the line or the server, at each of the attempts.
    """
    check_space(store, plan.disk_bytes)
    requests, received_bytes = reader.requests, reader.received_bytes
    work = _Fetching(reader, store, plan, on_progress or reader.on_progress)
    work.run()
    return FetchReport(
        received_bytes=reader.received_bytes - received_bytes,
        requests=reader.requests - requests,
        files=tuple(file.path for file in plan.files),
        deltas_used=tuple(sorted(work.deltas_used)),
        delta_failures=tuple(sorted(work.delta_failures)),
        reused=plan.reused,
    )


class _Fetching:
    """One run of `fetch`: what its threads share."""

    def __init__(self, reader: ChannelReader, store: Store, plan: Plan, on_progress: OnProgress | None) -> None:
        self._reader = reader
        self._store = store
        self._plan = plan
        self._on_progress = on_progress
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._first_error: BaseException | None = None
        self._total_bytes = sum((file.delta or file).target.length for file in plan.files)
        self._done_bytes = self._total_bytes - plan.download_bytes
        self.deltas_used: list[str] = []
        self.delta_failures: list[str] = []

    def run(self) -> None:
        """Fetch all; the first failure ends the others, and is the one that is raised."""
        # The longest first, so that no long one is left alone at the end.
        ordered = sorted(self._plan.files, key=lambda file: -file.target.length)
        with ThreadPoolExecutor(self._reader.settings.parallel_files, "tidegate-fetch") as threads:
            try:
                wait([threads.submit(self._obtain, file) for file in ordered])
            finally:
                self._stop.set()
        if self._first_error is not None:
            raise self._first_error

    def _obtain(self, file: PlannedFile) -> None:
        if self._stop.is_set():
            return
        try:
            if file.delta is None or not self._by_delta(file, file.delta):
                receive_into_store(self._reader, self._store, file.target, heard=self._heard, stop=self._stop)
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._first_error = self._first_error or error
        self._stop.set()

    def _by_delta(self, file: PlannedFile, delta: PlannedDelta) -> bool:
        """Make the file from the one that is here; False, with the reason noted, when that cannot be."""
        try:
            self._apply(file.target, delta)
        except TidegateError as error:
            if self._stop.is_set():
                raise
            with self._lock:
                self.delta_failures.append(f"{file.path}: {error.message}")
                self._total_bytes += file.target.length
            return False
        with self._lock:
            self.deltas_used.append(file.path)
        return True

    def _apply(self, full: TargetInfo, delta: PlannedDelta) -> None:
        from tidegate.delta import Identity, Limits, apply_file

        received = receive_beside_store(self._reader, self._store, delta.target, heard=self._heard, stop=self._stop)
        made = self._store.partial_path(full.sha256)
        try:
            apply_file(
                self._store.path(delta.base_sha256),
                received,
                made,
                full=Identity(full.sha256, full.length),
                limits=Limits(full_bytes=full.length),
            )
        finally:
            with mapped(str(received)):
                received.unlink(missing_ok=True)
        self._store.adopt(made, full.sha256, full.length)

    def _heard(self, target: TargetInfo, count: int) -> None:
        with self._lock:
            self._done_bytes += count
            if self._on_progress is not None:
                try:
                    self._on_progress(Progress(target.path, self._done_bytes, self._total_bytes))
                except BaseException as error:
                    # The listener wants it to end: no delta is to be blamed, and no other file to go on.
                    self._first_error = self._first_error or error
                    self._stop.set()
                    raise
