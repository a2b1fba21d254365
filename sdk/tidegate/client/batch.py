"""Many recordings over one call, for threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from tidegate.client.connection import Connection
from tidegate.client.duplex import Duplex
from tidegate.client.recognized import SpeechRequest
from tidegate.client.recordings import (
    RecognizedRecording,
    Recording,
    batch_config,
    batch_recording,
    check_size,
    read_recording,
)
from tidegate.errors import ConfigError, DeadlineError, TidegateError, UnavailableError
from tidegate.wire.report import Headers


class Batch:
    """Made by `Client.recognize_batch`: one BatchRecognize call."""

    def __init__(
        self, connection: Connection, *, in_flight: int, timeout_s: float, answer_timeout_s: float, headers: Headers
    ) -> None:
        """Open the call; `accept` sends the config.

        Args:
            connection: to the server.
            in_flight: recordings that may be sent and not answered.
            timeout_s: for the server to accept the config.
            answer_timeout_s: for each answer.
            headers: sent when the call opens.
        """
        from tidegate.wire.services import SPEECH

        self._in_flight = in_flight
        self._maximum_message_bytes = connection.settings.maximum_message_bytes
        self._timeout_s = timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._under_way: deque[str] = deque()
        self._answers: deque[Any] = deque()
        self._stream = Duplex(
            connection,
            SPEECH,
            "BatchRecognize",
            # What waits for the network is bounded by in_flight already.
            largest_queue_bytes=in_flight * self._maximum_message_bytes,
            take=self._answers.append,
            headers=headers,
        )

    def accept(self, request: SpeechRequest) -> Headers:
        """Send the config and return the headers with which the server has accepted it."""
        from tidegate.wire.services import ACCEPTED_HEADER

        self._stream.put(batch_config(request))
        self._stream.wait_until_accepted(ACCEPTED_HEADER, self._timeout_s)
        return self._stream.answer_headers or ()

    def recognize_each(self, recordings: Iterable[Recording]) -> Iterator[RecognizedRecording]:
        """Send recordings as answers come, and yield one answer for each, in order."""
        for recording in recordings:
            try:
                self._send(recording)
            except TidegateError:
                # What was answered before the call broke, or before this recording was refused, is not lost.
                while self._has_answer():
                    yield self._next()
                raise
            # Before the next recording is read, which may take a while and memory.
            while len(self._under_way) == self._in_flight or self._has_answer():
                yield self._next()
        self._stream.finish_sending()
        while self._under_way:
            yield self._next()
        # All is answered: let the server end the call, which counts as cancelled otherwise.
        self._stream.close()

    def close(self) -> None:
        """End the call, with what is under way."""
        self._stream.close(wait_s=0)

    def _send(self, recording: Recording) -> None:
        message = check_size(batch_recording(recording), self._maximum_message_bytes, self._stream.target)
        self._stream.put(message)
        self._under_way.append(recording.id)

    def _has_answer(self) -> bool:
        with self._stream.changed:
            return bool(self._answers)

    def _next(self) -> RecognizedRecording:
        with self._stream.changed:
            self._stream.changed.wait_for(lambda: self._answers or not self._stream.is_open, self._answer_timeout_s)
            if not self._answers:
                self._stream.check_usable()
                raise no_answer(self._stream.target, self._under_way[0], self._answer_timeout_s, self._stream.ended)
            response = self._answers.popleft()
        return read_recording(response, self._under_way.popleft(), self._stream.target)


def check_in_flight(in_flight: int) -> int:
    """Return the number of recordings that may be under way.

    Raises:
        ConfigError: less than 1.
    """
    if in_flight < 1:
        raise ConfigError(f"in_flight is {in_flight}; expected 1 or more", fix="4 is the usual number")
    return in_flight


def no_answer(target: str, recording_id: str, timeout_s: float, ended: bool) -> UnavailableError:
    """Return the error for a recording without an answer: the server ended the call, or took too long."""
    if ended:
        return UnavailableError(
            f"{target}: the server ended the call before it answered recording {recording_id!r}",
            fix="send what has no answer again",
        )
    return DeadlineError(
        f"{target}: no answer for recording {recording_id!r} in {timeout_s:g} s",
        fix="allow more with answer_timeout_s, or look whether the server is overloaded",
    )
