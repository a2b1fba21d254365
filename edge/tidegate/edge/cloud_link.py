"""The stream to a server: opened, given up, opened again in the background after a rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.backoff import Backoff
from tidegate.errors import TidegateError

if TYPE_CHECKING:
    from tidegate.client import RecognizedSegment


class Stream(Protocol):
    """What the route needs of `tidegate.client.RecognizeStream`."""

    @property
    def bytes_sent(self) -> int: ...  # noqa: D102
    def begin(self, segment_id: int, start_sample: int) -> None: ...  # noqa: D102
    def send(self, start_sample: int, audio: NDArray[np.int16]) -> None: ...  # noqa: D102
    def end(self, segment_id: int, end_sample: int) -> None: ...  # noqa: D102
    def poll(self) -> list[RecognizedSegment]: ...  # noqa: D102
    def wait(self, segment_id: int, timeout_s: float) -> RecognizedSegment: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


_Opened = tuple[Stream, float]
"""and when that was, on the pipeline's clock"""


class CloudLink:
    """At most one open stream. One thread uses it; opening and closing wait for the network elsewhere."""

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        backoff: Backoff,
        background: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Note how to open; nothing is opened yet.

        Args:
            open_stream: gives a new stream; raises a TidegateError when it cannot.
            backoff: when a failing server may be tried again.
            background: opens later streams and closes old ones; default: one thread.
            clock: monotonic, in seconds.
        """
        self._open_stream = open_stream
        self._backoff = backoff
        self._background = background or ThreadPoolExecutor(1, thread_name_prefix="tidegate-connect")
        self._clock = clock
        self._opened_s = clock()
        self._opening: Future[_Opened] | None = None
        self._bytes_of_closed_streams = 0
        self.stream: Stream | None = None
        """the open one; None while there is none"""

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the network, over all streams."""
        return self._bytes_of_closed_streams + (self.stream.bytes_sent if self.stream else 0)

    @property
    def age_s(self) -> float:
        """Since the stream was opened."""
        return self._clock() - self._opened_s

    def open_now(self) -> None:
        """Open a stream and wait for it. Raises what `open_stream` raises."""
        self._take(self._open())

    def wait_until_open(self) -> None:
        """Without a stream, wait for the one that is being opened, if one is. Raises what `open_stream` raised."""
        if self.stream is None and self._opening is not None:
            opening, self._opening = self._opening, None
            self._take(opening.result())

    def open_again(self) -> None:
        """Without a stream, begin to open one after the rest. Take what was opened once it is there.

        Raises what `open_stream` raised.
        """
        if self.stream is None and self._opening is None and self._backoff.may_try():
            self._opening = self._background.submit(self._open)
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            opened = opening.result()
            self._let_go()
            self._take(opened)

    def renew(self) -> None:
        """Begin to open another stream; the one that is open goes on until `open_again` takes the new one."""
        if self._opening is None:
            self._opening = self._background.submit(self._open)

    def give_up(self) -> list[RecognizedSegment]:
        """Let go of the stream without waiting; return the answers that have come."""
        answers = [] if self.stream is None else _last_answers(self.stream)
        self._let_go()
        return answers

    def close(self) -> None:
        """End the stream, and one that is being opened."""
        if self.stream is not None:
            self.stream.close()
            self._bytes_of_closed_streams += self.stream.bytes_sent
            self.stream = None
        if self._opening is not None and not self._opening.cancel():
            self._opening.add_done_callback(_close_unused)
        self._background.shutdown(wait=False)

    def _open(self) -> _Opened:
        return self._open_stream(), self._clock()

    def _take(self, opened: _Opened) -> None:
        self.stream, self._opened_s = opened

    def _let_go(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            self._bytes_of_closed_streams += stream.bytes_sent
            self._background.submit(stream.close)


def _last_answers(stream: Stream) -> list[RecognizedSegment]:
    try:
        return stream.poll()
    except TidegateError:
        # It says again why the stream broke, and that no answer is left.
        return []


def _close_unused(opening: Future[_Opened]) -> None:
    if opening.exception() is None:
        opening.result()[0].close()
