"""The calls for speech, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from tidegate.client.answer import check_expected, latest_in
from tidegate.client.async_batch import AsyncBatch
from tidegate.client.async_connection import AsyncConnection
from tidegate.client.async_recognition import AsyncRecognizeStream
from tidegate.client.batch import check_in_flight
from tidegate.client.channel import check_timeout
from tidegate.client.recognized import RecognizedSegment, SpeechRequest, config_request
from tidegate.client.recordings import (
    RecognizedRecording,
    Recording,
    Stretches,
    check_size,
    read_segments,
    recognize_request,
)
from tidegate.errors import TidegateError
from tidegate.wire.pairing import SignalPath
from tidegate.wire.report import Headers, Latest


class AsyncSpeechClient:
    """What an `AsyncClient` does with speech."""

    def __init__(self, connection: AsyncConnection, report: Callable[[], Headers] | None) -> None:
        """Take the connection and what says what runs on this device; see `AsyncClient`."""
        self._connection = connection
        self._report = report
        self._latest: Latest | None = None

    @property
    def latest(self) -> Latest | None:
        """The newest release for this device that the server named last; None before, and without a report.

        Nothing signed it: it says that a check of the channel is worthwhile, and no more.
        """
        return self._latest

    @property
    def target(self) -> str:
        """The server's address as it was given."""
        return self._connection.target

    async def recognize(
        self,
        *,
        sample_rate_hz: int,
        model: str = "",
        version: str = "",
        maximum_search_results: int = 3,
        device_bundle: str = "",
        signal_path: SignalPath | None = None,
        interim_results: bool = False,
        interim_interval_ms: int = 0,
        speech_start_timeout_ms: int = 0,
        idle_timeout_ms: int = 0,
    ) -> AsyncRecognizeStream:
        """Open a stream for speech segments; see `Client.recognize`."""
        request = SpeechRequest(
            sample_rate_hz=sample_rate_hz,
            model=model,
            version=version,
            maximum_search_results=maximum_search_results,
            device_bundle=device_bundle,
            signal_path=signal_path,
            interim_results=interim_results,
            interim_interval_ms=interim_interval_ms,
            speech_start_timeout_ms=speech_start_timeout_ms,
            idle_timeout_ms=idle_timeout_ms,
        )
        stream = AsyncRecognizeStream(self._connection, timeout_s=self._timeout_s(None), headers=self._headers())
        await stream.accept(config_request(request))
        try:
            self._note_accepted(request, stream.answer_headers)
        except TidegateError:
            await stream.close()
            raise
        return stream

    async def recognize_recording(
        self,
        samples: NDArray[np.int16],
        *,
        sample_rate_hz: int,
        segments: Stretches = (),
        model: str = "",
        version: str = "",
        maximum_search_results: int = 3,
        device_bundle: str = "",
        signal_path: SignalPath | None = None,
        timeout_s: float | None = None,
    ) -> tuple[RecognizedSegment, ...]:
        """Recognise one recording with one call; see `Client.recognize_recording`."""
        from tidegate.wire.services import SPEECH

        request = SpeechRequest(sample_rate_hz, model, version, maximum_search_results, device_bundle, signal_path)
        message = recognize_request(request, samples, segments)
        response = await self._connection.call(
            SPEECH,
            "Recognize",
            check_size(message, self._connection.settings.maximum_message_bytes, self.target),
            self._timeout_s(timeout_s),
            headers=self._headers(),
            on_headers=lambda headers: self._note_accepted(request, headers),
        )
        return read_segments(response)

    def recognize_batch(
        self,
        recordings: Iterable[Recording] | AsyncIterable[Recording],
        *,
        sample_rate_hz: int,
        model: str = "",
        version: str = "",
        maximum_search_results: int = 3,
        device_bundle: str = "",
        signal_path: SignalPath | None = None,
        in_flight: int = 4,
        answer_timeout_s: float = 60.0,
    ) -> AsyncGenerator[RecognizedRecording, None]:
        """Recognise many recordings with one call; see `Client.recognize_batch`.

        An ordinary iterable is read in the event loop: it should not wait. To stop early, `aclose` the iterator, or
        open it with `contextlib.aclosing`.
        """
        request = SpeechRequest(sample_rate_hz, model, version, maximum_search_results, device_bundle, signal_path)
        return self._batch(request, recordings, check_in_flight(in_flight), check_timeout(answer_timeout_s))

    async def _batch(
        self,
        request: SpeechRequest,
        recordings: Iterable[Recording] | AsyncIterable[Recording],
        in_flight: int,
        answer_timeout_s: float,
    ) -> AsyncGenerator[RecognizedRecording, None]:
        batch = AsyncBatch(
            self._connection,
            in_flight=in_flight,
            timeout_s=self._timeout_s(None),
            answer_timeout_s=answer_timeout_s,
            headers=self._headers(),
        )
        try:
            self._note_accepted(request, await batch.accept(request))
            async with aclosing(batch.recognize_each(recordings)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            await batch.close()

    def _headers(self) -> Headers:
        return self._report() if self._report else ()

    def _note_accepted(self, request: SpeechRequest, headers: Headers) -> None:
        """Keep what the server said of releases, and hold the device's side against what it expects."""
        self._note_latest(headers)
        check_expected(request.signal_path, headers, device_bundle=request.device_bundle, target=self.target)

    def _note_latest(self, headers: Headers) -> None:
        self._latest = latest_in(headers) or self._latest

    def _timeout_s(self, timeout_s: float | None) -> float:
        return self._connection.settings.timeout_s if timeout_s is None else check_timeout(timeout_s)
