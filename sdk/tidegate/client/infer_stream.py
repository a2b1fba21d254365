"""Inferences over one stream, for threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from tidegate.client.connection import Connection
from tidegate.client.descriptions import Answer, Parameter
from tidegate.client.duplex import Duplex
from tidegate.client.requests import InferCall, Inputs
from tidegate.errors import DeadlineError, StateError
from tidegate.wire.report import Headers

if TYPE_CHECKING:
    from tidegate.client.stream_messages import StreamedAnswer

LARGEST_QUEUE_BYTES = 8 * 2**20
"""Requests that may wait for a slow network before `send` waits."""

MOST_WAITING_ANSWERS = 64
"""Answers that nobody has taken before the server is slowed down."""


class InferStream:
    """Made by `Client.infer_stream`. One thread sends; one, the same or another, receives.

        with client.infer_stream() as stream:
            for answer in stream.infer_each("mlp", ({"x": row} for row in rows)):
                print(answer.outputs["y"])

    A request that fails is an answer with an `error`, and the stream goes on. A stream that breaks stays broken: every
    call raises what broke it. Nothing of it is sent again: the server may have run what it has not answered.
    """

    def __init__(self, connection: Connection, *, headers: Headers = (), timeout_s: float | None = None) -> None:
        """Open the stream. Errors of the server come with the first answer."""
        from tidegate.client.stream_messages import STREAMED

        self._answers: deque[Answer] = deque()
        self._stream = Duplex(
            connection,
            STREAMED,
            "ModelStreamInfer",
            largest_queue_bytes=LARGEST_QUEUE_BYTES,
            take=self._take,
            headers=headers,
            timeout_s=timeout_s,
        )

    def send(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Send one request; see `Client.infer` for the arguments. The server checks the inputs.

        Args:
            timeout_s: to wait for room when the network is slow.

        Raises:
            InputError: an array or a parameter has no form in the protocol.
            UnavailableError: the stream is broken, or the network took nothing in that time.
            StateError: after `finish` or `close`.
        """
        self._stream.put(InferCall(name, inputs, version, outputs, request_id, parameters).message(), timeout_s)

    def finish(self) -> None:
        """Tell the server that no request follows; `receive` returns None after the last answer."""
        self._stream.finish_sending()

    def receive(self, timeout_s: float | None = None) -> Answer | None:
        """Return the next answer, or None when the server has answered everything and ended the stream.

        Args:
            timeout_s: None waits as long as the stream lives.

        Raises:
            DeadlineError: no answer in that time; the stream goes on.
            UnavailableError: the stream broke. StateError: it was closed.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._stream.changed:
            while not self._answers and self._stream.is_open:
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise no_answer(self._stream.target)
                self._stream.changed.wait(left_s)
            if self._answers:
                self._stream.changed.notify_all()
                return self._answers.popleft()
            self._stream.check_usable()
            return None

    def infer_each(
        self, name: str, inputs: Iterable[Inputs], *, version: str = "", in_flight: int = 16
    ) -> Iterator[Answer]:
        """Send one request for each element and yield one answer for each, in order; at most `in_flight` are under way.

        For models that give one answer to each request, on a stream that nothing else uses meanwhile.

        Raises: what `send` and `receive` raise.
        """
        under_way = 0
        for feeds in inputs:
            if under_way == in_flight:
                yield self._next()
                under_way -= 1
            self.send(name, feeds, version=version)
            under_way += 1
        for _ in range(under_way):
            yield self._next()

    def close(self) -> None:
        """End the call, with what is under way. Closing again does nothing."""
        self._stream.close(wait_s=0)

    def __iter__(self) -> Iterator[Answer]:
        """Yield answers until the server ends the stream, which it does some time after `finish`."""
        while (answer := self.receive()) is not None:
            yield answer

    def __enter__(self) -> InferStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> Answer:
        answer = self.receive()
        if answer is None:
            raise ended_early(self._stream.target)
        return answer

    def _take(self, message: StreamedAnswer) -> None:
        self._stream.changed.wait_for(lambda: len(self._answers) < MOST_WAITING_ANSWERS or self._stream.closed)
        self._answers.append(message.read(self._stream.target))


def no_answer(target: str) -> DeadlineError:
    """Return the error for an answer that did not come in time."""
    return DeadlineError(
        f"{target}: no answer on the stream in the time allowed",
        fix="allow more time, or look whether the server is overloaded",
    )


def ended_early(target: str) -> StateError:
    """Return the error for a stream that was finished while `infer_each` waited."""
    return StateError(f"{target}: the stream was finished before all was answered", fix="finish it afterwards")
