"""ModelStatistics of all workers of a port: whichever is asked adds up what each has counted.

Clients such as perf_analyzer open several connections and take differences of these counters, so those of the one
worker that happens to answer would be too few. Each worker tells its own over a Unix socket in a directory that only
their user can enter. One that does not answer soon is left out: it is starting, ending, or stuck. One that was
killed takes its counters with it, so the sum is smaller after that.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tidegate.cloud.http.settings import Siblings
from tidegate.cloud.statistics import BatchCounts, Counts, Duration
from tidegate.errors import ResourceError

CountsByVersion = Mapping[str, Counts]
"""By NAME/VERSION."""

ANSWER_TIMEOUT_S = 1.0

SUFFIX = ".statistics"

_CHUNK_BYTES = 2**16

_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_BATCH_DURATIONS = _DURATIONS[3:]


class FleetStatistics:
    """Tells siblings what this process has counted, and asks them."""

    def __init__(self, own: Callable[[], CountsByVersion], siblings: Siblings) -> None:
        """Join the parts.

        Args:
            own: what this process has counted.
            siblings: where the others are; without a directory there are none.
        """
        self._own = own
        self._siblings = siblings
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._answer, name="tidegate-statistics", daemon=True)

    def start(self) -> None:
        """Answer from now on; a socket that a killed worker of this number left is replaced.

        Raises:
            ResourceError: the socket cannot be had.
        """
        if not self._siblings.directory:
            return
        place = self._place(self._siblings.index)
        place.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(place))
            self._listener.listen()
        except OSError as error:
            self._listener.close()
            self._listener = None
            raise ResourceError(
                f"no socket can be had at {place}: {error.strerror or error}",
                fix="set TMPDIR to a directory that can be written, with a short path",
            ) from error
        self._thread.start()

    def stop(self) -> None:
        """Answer no more. Stopping again does nothing."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._place(self._siblings.index).unlink(missing_ok=True)
        with suppress(OSError):
            # Wakes the thread, which close alone would not.
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        self._thread.join()

    def elsewhere(self) -> list[CountsByVersion]:
        """Return what each of the others has counted; waits for them, a second at most."""
        if not self._siblings.directory:
            return []
        until_s = time.monotonic() + ANSWER_TIMEOUT_S
        own = self._place(self._siblings.index)
        places = [place for place in sorted(own.parent.glob(f"*{SUFFIX}")) if place != own]
        answers = [_asked(place, until_s) for place in places]
        return [answer for answer in answers if answer is not None]

    def _place(self, index: int) -> Path:
        return Path(self._siblings.directory, f"{index}{SUFFIX}")

    def _answer(self) -> None:
        listener = self._listener
        while listener is not None and self._listener is not None:
            try:
                asking, _ = listener.accept()
            except OSError:  # closed
                return
            with asking, suppress(OSError):
                # Whoever asks and does not read must not keep the others from an answer.
                asking.settimeout(ANSWER_TIMEOUT_S)
                asking.sendall(msgspec.json.encode(self._own()))


def total(parts: Sequence[Counts]) -> Counts:
    """Return the sum of what several processes have counted."""
    batches: dict[int, BatchCounts] = {}
    for part in parts:
        for rows, batch in part.batches.items():
            into = batches.setdefault(rows, BatchCounts())
            for name in _BATCH_DURATIONS:
                _add(getattr(into, name), getattr(batch, name))
    whole = Counts(
        inferences=sum(part.inferences for part in parts),
        executions=sum(part.executions for part in parts),
        refused=sum(part.refused for part in parts),
        dropped=sum(part.dropped for part in parts),
        last_inference_ms=max(part.last_inference_ms for part in parts),
        batches=batches,
        queue_bins=[sum(bins) for bins in zip(*(part.queue_bins for part in parts), strict=True)],
        infer_bins=[sum(bins) for bins in zip(*(part.infer_bins for part in parts), strict=True)],
    )
    for part in parts:
        for name in _DURATIONS:
            _add(getattr(whole, name), getattr(part, name))
    return whole


def _add(into: Duration, more: Duration) -> None:
    into.count += more.count
    into.ns += more.ns


def _asked(place: Path, until_s: float) -> CountsByVersion | None:
    """Return a worker's answer; None when it is not there, or not in time, or broke off."""
    raw = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_left_s(until_s))
            asking.connect(str(place))
            while chunk := asking.recv(_CHUNK_BYTES):
                raw += chunk
                asking.settimeout(_left_s(until_s))
        return msgspec.json.decode(raw, type=dict[str, Counts])
    except (OSError, msgspec.DecodeError):
        return None


def _left_s(until_s: float) -> float:
    """Return the time that is left; at least a moment, since 0 would mean not to wait at all."""
    return max(0.001, until_s - time.monotonic())
