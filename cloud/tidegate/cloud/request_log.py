"""Keeps a share of the requests for retraining: sampled where they end, written by a thread of its own.

A request is never held up: it is drawn, copied and queued in memory, or dropped and counted when the queue is full. The
privacy hook and everything that touches the disk run on the log's thread.
"""

from __future__ import annotations

import importlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.cloud.core import Caller, Inference, Request
from tidegate.cloud.request_log_files import LogFiles
from tidegate.cloud.request_log_record import (
    LoggedRequest,
    LoggedSegment,
    Record,
    array_bytes,
    check_record,
    confidence_of,
)
from tidegate.cloud.request_log_settings import RequestLogSettings
from tidegate.cloud.rows import has_batch_axis
from tidegate.cloud.speech_segment import SegmentAnswer
from tidegate.cloud.speech_settings import StreamSettings
from tidegate.errors import AccessError, ConfigError, NotFoundError, TidegateError

Hook = Callable[[Record], Record | None]

NOT_KEPT = (NotFoundError, AccessError)
"""Errors of requests that reached no model: nothing to learn from, and the names in them are anybody's."""

CLOSE_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestLogCounts:
    """What became of requests that were drawn, since the start."""

    written: int
    """records in files"""
    files: int
    bytes: int
    dropped_queue: int
    """the queue was full"""
    dropped_disk: int
    """the disk was, or the log's share of it"""
    withheld: int
    """by the privacy hook"""
    failed: int
    """the hook failed, or made something of a record that is no table"""


class RequestLog:
    """An observer of the core, and of speech when that is asked for."""

    def __init__(self, settings: RequestLogSettings) -> None:
        """Make the directory and find the hook; `start` begins.

        Raises:
            ConfigError: there is no such hook.
            ResourceError: the directory cannot be used.
            DependencyError: pyarrow is not installed.
        """
        self._settings = settings
        self._hook = _hook(settings.hook) if settings.hook else None
        self._files = LogFiles(settings)
        self._changed = threading.Condition()
        self._queue: deque[Record] = deque()
        self._queued_bytes = 0
        self._dropped = self._withheld = self._failed = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tidegate-request-log", daemon=True)

    @property
    def counts(self) -> RequestLogCounts:
        """What became of requests."""
        written = self._files.written
        return RequestLogCounts(
            written=written.records,
            files=written.files,
            bytes=written.bytes,
            dropped_queue=self._dropped,
            dropped_disk=written.dropped,
            withheld=self._withheld,
            failed=self._failed + written.failed,
        )

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what was kept and end. Closing again does nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def __enter__(self) -> RequestLog:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the server tells

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        """See `tidegate.cloud.core.Observer`."""
        settings = self._settings
        if not settings.keeps(request.model) or isinstance(error, NOT_KEPT):
            return
        confidence = None
        if settings.uncertain_below and answer is not None:
            confidence = confidence_of(answer.served.manifest, answer.outputs)
        reasons = self._reasons(confidence, failed=error is not None)
        if not reasons:
            return
        # Inputs that do not fit the model have no place in its table.
        inputs = {} if error is not None and error.fault == "caller" else request.feeds
        outputs = {} if answer is None else answer.outputs
        if not self._has_room(sum(array_bytes(array) for part in (inputs, outputs) for array in part.values())):
            return
        version = request.version if answer is None else answer.served.version
        self._put(
            LoggedRequest(
                model=request.model,
                version=version,
                time_ns=time.time_ns(),
                reasons=reasons,
                share=settings.share,
                inputs=self._copied(request.model, inputs),
                outputs=self._copied(request.model, outputs),
                label="" if request.version == version else request.version,
                variant="" if answer is None else answer.served.model.variant_id,
                id=request.id,
                took_ms=took_ns / 1e6,
                confidence=confidence,
                error_kind="" if error is None else type(error).__name__,
                error="" if error is None else error.message,
                rows_first=answer is not None and has_batch_axis(answer.served.signature) and _same_rows(request.feeds),
            )
        )

    def segment_finished(self, caller: Caller, settings: StreamSettings, answer: SegmentAnswer) -> None:
        """See `tidegate.cloud.speech_observers.SegmentObserver`."""
        served, transcript = answer.served, answer.transcript
        if not self._settings.keeps(served.name) or self._settings.leaves_out(served.name, "audio"):
            return
        reasons = self._reasons(transcript.confidence, failed=False)
        if not reasons or not self._has_room(len(answer.audio)):
            return
        self._put(
            LoggedSegment(
                model=served.name,
                version=served.version,
                time_ns=time.time_ns(),
                reasons=reasons,
                share=self._settings.share,
                audio=answer.audio,
                sample_rate_hz=settings.sample_rate_hz,
                transcript=transcript.text,
                confidence=transcript.confidence,
                label="" if settings.version == served.version else settings.version,
                rejected_label=transcript.label,
                variant=served.model.variant_id,
                segment_id=answer.segment_id,
                start_s=answer.start_s,
                end_s=answer.end_s,
                device_bundle=settings.device_bundle,
            )
        )

    # Steps

    def _reasons(self, confidence: float | None, *, failed: bool) -> tuple[str, ...]:
        settings = self._settings
        holds = {
            "random": random.random() < settings.share,
            "uncertain": confidence is not None and confidence < settings.uncertain_below,
            "error": failed and settings.errors,
        }
        return tuple(reason for reason, is_so in holds.items() if is_so)

    def _copied(self, model: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return copies, since what is handed in may be memory that is used again, without what is never kept."""
        leaves_out = self._settings.leaves_out
        return {name: np.array(array) for name, array in arrays.items() if not leaves_out(model, name)}

    def _has_room(self, more_bytes: int) -> bool:
        """Say whether a record of this size may be queued; count it as dropped when not. Before anything is copied."""
        settings = self._settings
        with self._changed:
            fits = (
                self._queued_bytes + more_bytes <= settings.maximum_queue_bytes
                and len(self._queue) < settings.maximum_queue_records
                and not self._closing
            )
            self._dropped += not fits
        return fits

    def _put(self, record: Record) -> None:
        with self._changed:
            self._queue.append(record)
            self._queued_bytes += record.size_bytes
            self._changed.notify()

    def _run(self) -> None:
        while True:
            records, closing = self._take()
            for record in records:
                self._pass(record)
            if closing and not records:
                self._files.write_all()
                return
            self._files.write_old()

    def _take(self) -> tuple[list[Record], bool]:
        """Return what has come, after waiting for it or for a file that is due, and whether the log is closing."""
        with self._changed:
            if not self._queue and not self._closing:
                self._changed.wait(self._files.next_s())
            records = list(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            return records, self._closing

    def _pass(self, record: Record) -> None:
        """Hand one record through the privacy hook to the files."""
        kept: Record | None = record
        if self._hook is not None:
            guarded = _Guarded()
            with guarded:
                kept = self._hook(record)
                check_record(kept)
            if guarded.failed:
                self._failed += 1
                return
            self._withheld += kept is None
        if kept is not None:
            self._files.add(kept)


class _Guarded:
    """Keeps a failing privacy hook from ending the log; the record it failed on is not kept."""

    failed = False

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        self.failed = True
        # Not the error's text: it may hold what the hook was there to keep away.
        log.warning("request log: the privacy hook failed with %s; the record is not kept", kind.__name__)
        return True


def _same_rows(arrays: Mapping[str, NDArray[Any]]) -> bool:
    return len({len(array) if array.ndim else -1 for array in arrays.values()}) == 1


def _hook(name: str) -> Hook:
    module_name, _, function_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), function_name, None)
    except ImportError as error:
        raise ConfigError(
            f"the privacy hook {name} cannot be imported: {error}", fix="install it where this server finds it"
        ) from error
    if not callable(found):
        raise ConfigError(f"the privacy hook {name} is not a function", fix="name a function of the module")
    hook: Hook = found
    return hook
