"""The stream to a server: opened, given up, opened again in the background after a rest."""

from __future__ import annotations

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


class CloudLink:
    """At most one open stream. One thread uses it; opening and closing wait for the network elsewhere."""

    def __init__(self, open_stream: Callable[[], Stream], backoff: Backoff, background: Executor | None = None) -> None:
        """Note how to open; nothing is opened yet.

        Args:
            open_stream: gives a new stream; raises a TidegateError when it cannot.
            backoff: when a failing server may be tried again.
            background: opens later streams and closes old ones; default: one thread.
        """
        self._open_stream = open_stream
        self._backoff = backoff
        self._background = background or ThreadPoolExecutor(1, thread_name_prefix="tidegate-connect")
        self._opening: Future[Stream] | None = None
        self._bytes_of_closed_streams = 0
        self.stream: Stream | None = None
        """the open one; None while there is none"""

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the network, over all streams."""
        return self._bytes_of_closed_streams + (self.stream.bytes_sent if self.stream else 0)

    def open_now(self) -> None:
        """Open a stream and wait for it. Raises what `open_stream` raises."""
        self.stream = self._open_stream()

    def open_again(self) -> None:
        """Without a stream, begin to open one after the rest. Take what was opened once it is there.

        Raises what `open_stream` raised.
        """
        if self.stream is None and self._opening is None and self._backoff.may_try():
            self._opening = self._background.submit(self._open_stream)
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            stream = opening.result()
            self._let_go()
            self.stream = stream

    def renew(self) -> None:
        """Begin to open another stream; the one that is open goes on until `open_again` takes the new one."""
        if self._opening is None:
            self._opening = self._background.submit(self._open_stream)

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


def _close_unused(opening: Future[Stream]) -> None:
    if opening.exception() is None:
        opening.result().close()
