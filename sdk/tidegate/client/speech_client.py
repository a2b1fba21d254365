"""The calls for speech, for threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

import numpy as np
from numpy.typing import NDArray

from tidegate.client.answer import check_expected, latest_in
from tidegate.client.batch import Batch, check_in_flight
from tidegate.client.channel import check_timeout
from tidegate.client.connection import Connection
from tidegate.client.recognition import RecognizeStream
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


class SpeechClient:
    """What a `Client` does with speech."""

    def __init__(self, connection: Connection, report: Callable[[], Headers] | None) -> None:
        """Take the connection and what says what runs on this device; see `Client`."""
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

    def recognize(
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
    ) -> RecognizeStream:
        """Open a stream for speech segments and wait until the server has accepted it.

        Args:
            sample_rate_hz: rate of the audio that will be sent; the server resamples.
            model: empty for the server's speech model.
            version: empty for the server's choice.
            maximum_search_results: per segment; 0 for none.
            device_bundle: NAME VERSION of what runs on the device, for the server's records.
            signal_path: front end and prefilter of the device's bundle; a server's model that was made for others is
                refused. None: not checked here.
            interim_results: have the server say what it understands while a segment is still being spoken; taken with
                `RecognizeStream.interim` or `wait(on_interim=...)`.
            interim_interval_ms: least audio between two interim results of a segment; 0: the server's choice.
            speech_start_timeout_ms: the server ends the stream with a DeadlineError when no segment has begun by then;
                0: never.
            idle_timeout_ms: the same when nothing comes for so long between two segments; 0: the server's choice.

        Raises:
            NotFoundError: the server has no such speech model.
            InputError: the sample rate or another number is refused.
            ResourceError: the server has all the streams that it takes.
            StateError: the device's front end or prefilter and the server's model do not belong together.
            UnavailableError: the server cannot be reached; DeadlineError: it did not answer in the client's time.
        """
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
        stream = RecognizeStream(
            self._connection, config_request(request), timeout_s=self._timeout_s(None), headers=self._headers()
        )
        try:
            self._note_accepted(request, stream.answer_headers)
        except TidegateError:
            stream.close()
            raise
        return stream

    def recognize_recording(
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
        """Recognise one recording with one call (Recognize). It is not sent again when the server goes away.

        Args:
            samples: int16 [n], one channel.
            sample_rate_hz: its rate; the server resamples.
            segments: where somebody speaks, as pairs of the first sample and the sample after the last one, in order
                and without overlap; the server finds no pauses. Empty: the whole recording is one segment.
            model: as for `recognize`, as are version, maximum_search_results, device_bundle and signal_path.
            version: empty for the server's choice.
            maximum_search_results: per segment; 0 for none.
            device_bundle: NAME VERSION of what runs on the device, for the server's records.
            signal_path: front end and prefilter of the device's bundle.
            timeout_s: deadline of this call, the time that the model takes included; None for the client's.

        Returns:
            One answer for each segment, in order; `segment_id` counts from 0, times from the recording's beginning.

        Raises:
            InputError: not int16 [n], no sample, or a segment that is not in the recording.
            ResourceError: a segment is longer than the server takes (30 s unless it says otherwise), or the recording
                is larger than a message may be.
            NotFoundError, StateError, UnavailableError, DeadlineError: as for `recognize`.
        """
        from tidegate.wire.services import SPEECH

        request = SpeechRequest(sample_rate_hz, model, version, maximum_search_results, device_bundle, signal_path)
        message = recognize_request(request, samples, segments)
        response = self._connection.call(
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
        recordings: Iterable[Recording],
        *,
        sample_rate_hz: int,
        model: str = "",
        version: str = "",
        maximum_search_results: int = 3,
        device_bundle: str = "",
        signal_path: SignalPath | None = None,
        in_flight: int = 4,
        answer_timeout_s: float = 60.0,
    ) -> Generator[RecognizedRecording, None, None]:
        """Recognise many recordings with one call (BatchRecognize), and yield one answer for each, in order.

        Nothing is sent before the first answer is asked for. `recordings` is read as answers are taken, so at most
        `in_flight` recordings and answers are held at once, however many there are. What is wrong with one recording
        is the `error` of its answer. What ends the call is raised, after the answers that had come: what has none yet
        may be sent again with a new call. To stop early, `close` the iterator.

        Args:
            recordings: read in the thread that takes the answers.
            sample_rate_hz: of all of them.
            model: as for `recognize`, as are version, maximum_search_results, device_bundle and signal_path.
            version: empty for the server's choice; one version answers the whole batch unless it is unloaded.
            maximum_search_results: per segment; 0 for none.
            device_bundle: NAME VERSION of what runs on the device, for the server's records.
            signal_path: front end and prefilter of the device's bundle.
            in_flight: recordings that may be sent and not answered.
            answer_timeout_s: for each answer.

        Raises:
            ConfigError: `in_flight` or `answer_timeout_s` cannot be meant.
            InputError: the samples of a recording are not int16 [n].
            ResourceError: a recording is larger than a message may be.
            DeadlineError: no answer in `answer_timeout_s`, or the server did not accept the call in the client's time.
            UnavailableError: the server cannot be reached, went away or drains.
            NotFoundError, StateError: as for `recognize`.
        """
        request = SpeechRequest(sample_rate_hz, model, version, maximum_search_results, device_bundle, signal_path)
        return self._batch(request, recordings, check_in_flight(in_flight), check_timeout(answer_timeout_s))

    def _batch(
        self, request: SpeechRequest, recordings: Iterable[Recording], in_flight: int, answer_timeout_s: float
    ) -> Generator[RecognizedRecording, None, None]:
        batch = Batch(
            self._connection,
            in_flight=in_flight,
            timeout_s=self._timeout_s(None),
            answer_timeout_s=answer_timeout_s,
            headers=self._headers(),
        )
        try:
            self._note_accepted(request, batch.accept(request))
            yield from batch.recognize_each(recordings)
        finally:
            batch.close()

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
