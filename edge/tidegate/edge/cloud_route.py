"""A server decides what a segment says, and the model on this device stands behind it.

The server hears a segment while it is spoken: its bytes go out from the onset on. The device keeps a copy of the audio
of every segment that the server has not answered. When the server goes away, or does not answer in time, the device's
model is given each of those segments whole; none is lost. Then the server is left alone for a back-off. After it a new
stream is opened in the background, and the next segment goes there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate.edge.backoff import Backoff
from tidegate.edge.cloud_link import CloudLink, Stream
from tidegate.edge.device import DeviceModel, Utterance, extended, latency_ms
from tidegate.edge.endpoint import SegmentEnded, SegmentEvent, SegmentStarted
from tidegate.edge.results import SegmentResult
from tidegate.errors import ConfigError, DeadlineError, StateError, TidegateError, UnavailableError

if TYPE_CHECKING:
    from tidegate.client import RecognizedSegment

LARGEST_BACKLOG = 2
"""Finished segments that may wait for the server. A file read faster than it plays is slowed down to this; a speaker
cannot reach it while the server answers within its deadline."""


@dataclass(frozen=True)
class CloudSettings:
    """How far the server is trusted."""

    target: str
    """HOST:PORT, for messages"""
    timeout_s: float = 2.0
    """longest wait for an answer, from the end of the segment"""
    first_backoff_s: float = 1.0
    """rest after a failure"""
    largest_backoff_s: float = 30.0
    """the rest doubles with each failure in a row, up to this"""

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 60:
            raise ConfigError(
                f"cloud_timeout_s is {self.timeout_s}; expected more than 0, at most 60", fix="2 seconds are usual"
            )
        if not 0 < self.first_backoff_s <= self.largest_backoff_s:
            raise ConfigError(
                f"first_backoff_s is {self.first_backoff_s} and largest_backoff_s {self.largest_backoff_s}; "
                "expected 0 < first <= largest",
                fix="1 and 30 seconds are usual",
            )


@dataclass
class _Segment:
    """A segment that has not been given back yet."""

    utterance: Utterance
    at_server: bool
    device: DeviceModel | None
    """that was active when it started; decides if the server does not"""
    result: SegmentResult | None = None


class CloudRecogniser:
    """A server, with the device's model behind it."""

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        device: DeviceModel | None,
        settings: CloudSettings,
        *,
        sample_rate_hz: int,
        on_warning: Callable[[str], None],
        why_no_device: str = "",
        after_answer: Callable[[SegmentResult], SegmentResult] = lambda result: result,
        renew: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        background: Executor | None = None,
    ) -> None:
        """Open the first stream, so that the connection stands before somebody speaks.

        Args:
            open_stream: gives a new stream; raises UnavailableError when it cannot.
            device: decides when the server does not; None when it cannot run here.
            settings: deadline and back-off.
            sample_rate_hz: rate of the events' audio.
            on_warning: told once when the device takes over, and once when the server answers again.
            why_no_device: for the error that is raised when the server fails and `device` is None.
            after_answer: last change to a server's result, such as search results of the device's own.
            renew: asked between segments whether the stream should be replaced by a new one, such as when another model
                runs on the device since it was opened.
            clock: monotonic, in seconds.
            background: opens later streams and closes broken ones, which may wait for the network; default: one thread.

        Raises:
            UnavailableError: the server fails and there is no device model. So do the other methods.
        """
        self._device = device
        self._settings = settings
        self._sample_rate_hz = sample_rate_hz
        self._on_warning = on_warning
        self._why_no_device = why_no_device
        self._after_answer = after_answer
        self._clock = clock
        self._backoff = Backoff(settings.first_backoff_s, settings.largest_backoff_s, clock)
        self._segments: deque[_Segment] = deque()
        self._link = CloudLink(open_stream, self._backoff, background)
        self._renew = renew
        self._attempt(self._link.open_now)

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the network, over all streams."""
        return self._link.bytes_sent

    def handle(self, event: SegmentEvent) -> None:
        """Keep a copy of the audio and send it on; without a server, decide here when the segment ends."""
        if isinstance(event, SegmentStarted):
            self._connect_between_segments()
            # What the open stream was told of this device holds for each segment on it. With no model here, nothing can
            # have changed but its standing, and the server is all there is.
            at_server = self._link.stream is not None and (self._device is None or not self._renew())
            self._segments.append(_Segment(extended(None, event, self._clock()), at_server, self._device))
        else:
            extended(self._segments[-1].utterance, event, self._clock())
        segment = self._segments[-1]
        if segment.at_server:
            self._send(event)
        elif isinstance(event, SegmentEnded):
            segment.result = self._on_device(segment)

    def ready(self) -> list[SegmentResult]:
        """Take the answers that have come, without waiting unless the backlog is full."""
        self._connect_between_segments()
        self._take_answers()
        self._check_deadline()
        while len(waiting := self._waiting()) > LARGEST_BACKLOG:
            self._wait_for(waiting[0])
        return self._decided()

    def finish(self) -> list[SegmentResult]:
        """Wait for every segment that has ended, each until its own deadline."""
        self._take_answers()
        while waiting := self._waiting():
            self._wait_for(waiting[0])
        return self._decided()

    def change(self, device: DeviceModel | None) -> None:
        """Take another model for the segments that start from now on; those before keep theirs."""
        self._device = device

    @property
    def is_idle(self) -> bool:
        """Whether no segment waits for its result."""
        return not self._segments

    def close(self) -> None:
        """End the stream."""
        self._link.close()

    def _attempt(self, connect: Callable[[], None]) -> None:
        try:
            connect()
        except TidegateError as error:
            self._fall_back(error)

    def _connect_between_segments(self) -> None:
        """Take a new stream where there is none, or where the open one was opened under what is no longer so.

        A stream that has segments to answer is not exchanged.
        """
        if self._link.stream is not None:
            if self._segments:
                return
            if self._renew():
                self._link.renew()
        self._attempt(self._link.open_again)

    def _send(self, event: SegmentEvent) -> None:
        """Forward one event; whatever the stream refuses, the copy is complete."""
        stream = self._link.stream
        assert stream is not None
        try:
            if isinstance(event, SegmentStarted):
                stream.begin(event.segment_id, event.start_sample)
            if isinstance(event, SegmentEnded):
                stream.end(event.segment_id, event.end_sample)
            else:
                stream.send(event.start_sample, event.audio)
        except TidegateError as error:
            self._fall_back(error)

    def _take_answers(self) -> None:
        if self._link.stream is None:
            return
        try:
            answers = self._link.stream.poll()
        except TidegateError as error:
            self._fall_back(error)
            return
        for answer in answers:
            self._accept(answer)

    def _wait_for(self, segment: _Segment) -> None:
        """Wait for one answer until its deadline; afterwards the segment is decided, by whomever."""
        assert self._link.stream is not None
        try:
            answer = self._link.stream.wait(
                segment.utterance.segment_id, max(self._deadline_s(segment) - self._clock(), 0.0)
            )
        except TidegateError as error:
            self._fall_back(error)
            return
        self._accept(answer)
        self._take_answers()

    def _check_deadline(self) -> None:
        """The oldest waiting segment has the earliest deadline."""
        waiting = self._waiting()
        if waiting and self._clock() > self._deadline_s(waiting[0]):
            self._fall_back(
                DeadlineError(
                    f"{self._settings.target}: no answer {self._settings.timeout_s:g} s after the end of segment "
                    f"{waiting[0].utterance.segment_id}"
                )
            )

    def _accept(self, answer: RecognizedSegment, *, is_success: bool = True) -> None:
        for segment in self._segments:
            if segment.utterance.segment_id == answer.segment_id and segment.at_server and segment.result is None:
                segment.result = self._after_answer(self._from_server(segment.utterance, answer))
        if is_success and self._backoff.failing:
            self._on_warning(f"{self._settings.target}: the server answers again; segments go there again")
            self._backoff.succeeded()

    def _from_server(self, utterance: Utterance, answer: RecognizedSegment) -> SegmentResult:
        return SegmentResult(
            segment_id=utterance.segment_id,
            start_s=utterance.start_sample / self._sample_rate_hz,
            end_s=utterance.end_sample / self._sample_rate_hz,
            text=answer.transcript.text,
            label=answer.transcript.label,
            confidence=answer.transcript.confidence,
            decided_by="cloud",
            latency_ms=latency_ms(utterance, self._clock()),
            bundle=answer.model,
            version=answer.version,
            variant=answer.variant,
            words=answer.transcript.words,
            search_results=answer.search_results,
        )

    def _fall_back(self, error: TidegateError) -> None:
        """The server failed: warn once, rest, and give the device every segment that has no answer."""
        already_failing = self._backoff.failing
        rest_s = self._backoff.failed()
        for answer in self._link.give_up():
            self._accept(answer, is_success=False)
        if self._device is not None and not already_failing:
            self._on_warning(
                f"{error.message}; going on with the model on this device, {self._device.name}; "
                f"the server is tried again in {rest_s:g} s"
            )
        for segment in self._segments:
            if segment.result is not None or not segment.at_server:
                continue
            segment.at_server = False
            if segment.utterance.ended_at_s is not None:
                segment.result = self._on_device(segment, error)
        if self._device is None:
            raise self._helpless(error)

    def _on_device(self, segment: _Segment, why: TidegateError | None = None) -> SegmentResult:
        if segment.device is None:
            raise self._helpless(why)
        return segment.device.recognise(segment.utterance)

    def _helpless(self, why: TidegateError | None) -> UnavailableError:
        said = why.message if why else f"{self._settings.target}: the server failed before"
        # A server that refuses, such as a pair that does not belong together, says itself what to do.
        refused = why.fix if isinstance(why, StateError) else None
        return UnavailableError(
            f"{said}; and this device cannot go on alone: {self._why_no_device}",
            fix=f"{refused or 'start the server again'}, or install a runtime for the bundle: "
            "pip install 'tidegate[litert]'",
        )

    def _deadline_s(self, segment: _Segment) -> float:
        assert segment.utterance.ended_at_s is not None
        return segment.utterance.ended_at_s + self._settings.timeout_s

    def _waiting(self) -> list[_Segment]:
        """Segments that have ended and have no result, oldest first."""
        return [s for s in self._segments if s.result is None and s.utterance.ended_at_s is not None]

    def _decided(self) -> list[SegmentResult]:
        """Take the results from the front, so that they stay in order of segments."""
        results: list[SegmentResult] = []
        while self._segments and (result := self._segments[0].result) is not None:
            results.append(result)
            self._segments.popleft()
        return results
