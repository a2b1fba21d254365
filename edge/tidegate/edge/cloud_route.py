"""A server decides what a segment says, and the model on this device stands behind it.

The server hears a segment while it is spoken: its bytes go out from the onset on. The device keeps a copy of the audio
of every segment that the server has not answered. When the server goes away, or does not answer in time, the device's
model is given each of those segments whole; none is lost. Then the server is left alone for a back-off. After it a new
stream is opened in the background, and the next segment goes there.

A stream that ends while nobody speaks, as servers end idle ones, is no failure: another one is opened at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from tidegate.edge.backoff import Backoff
from tidegate.edge.cloud_link import CloudLink, Stream
from tidegate.edge.cloud_segment import CloudSegment, from_server
from tidegate.edge.cloud_settings import CloudSettings
from tidegate.edge.device import DeviceModel, extended
from tidegate.edge.endpoint import SegmentEnded, SegmentEvent, SegmentStarted
from tidegate.edge.results import SegmentResult
from tidegate.errors import DeadlineError, StateError, TidegateError, UnavailableError

if TYPE_CHECKING:
    from tidegate.client import RecognizedSegment

LARGEST_BACKLOG = 2
"""Finished segments that may wait for the server. A file read faster than it plays is slowed down to this; a speaker
cannot reach it while the server answers within its deadline."""


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
        self._segments: deque[CloudSegment] = deque()
        self._link = CloudLink(open_stream, self._backoff, background, clock)
        self._renew = renew
        self._attempt(self._link.open_now)

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the network, over all streams."""
        return self._link.bytes_sent

    def handle(self, event: SegmentEvent) -> None:
        """Keep a copy of the audio and send it on; without a server, decide here when the segment ends."""
        if isinstance(event, SegmentStarted):
            self._find_stream()
            # What the open stream was told of this device holds for each segment on it. With no model here, nothing can
            # have changed but its standing, and the server is all there is.
            at_server = self._link.stream is not None and (self._device is None or not self._renew())
            self._segments.append(CloudSegment(extended(None, event, self._clock()), at_server, self._device))
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

    def _find_stream(self) -> None:
        """Before a segment: take a stream, and wait for one that is being opened if nobody else can decide."""
        self._take_answers()
        self._connect_between_segments()
        if self._device is None:
            self._attempt(self._link.wait_until_open)

    def _send(self, event: SegmentEvent) -> None:
        """Forward one event; whatever the stream refuses, the copy is complete."""
        assert self._link.stream is not None
        try:
            _forward(event, self._link.stream)
        except TidegateError as error:
            if isinstance(event, SegmentStarted) and self._device is None and self._ended_in_silence(1):
                self._attempt(lambda: self._begin_again(event))
            else:
                self._fall_back(error)

    def _begin_again(self, event: SegmentStarted) -> None:
        """Open another stream and begin the segment on it. Raises what opening and sending raise."""
        self._link.give_up()
        self._link.open_now()
        assert self._link.stream is not None
        _forward(event, self._link.stream)

    def _ended_in_silence(self, segments: int = 0) -> bool:
        """Tell whether the stream was good for a while and no more than so many segments depend on it."""
        return len(self._segments) <= segments and self._link.age_s >= self._settings.first_backoff_s

    def _take_answers(self) -> None:
        if self._link.stream is None:
            return
        try:
            answers = self._link.stream.poll()
        except TidegateError as error:
            if self._ended_in_silence():
                self._link.give_up()
                self._link.renew()
            else:
                self._fall_back(error)
            return
        for answer in answers:
            self._accept(answer)

    def _wait_for(self, segment: CloudSegment) -> None:
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
                segment.result = self._after_answer(
                    from_server(segment.utterance, answer, sample_rate_hz=self._sample_rate_hz, now_s=self._clock())
                )
        if is_success and self._backoff.failing:
            self._on_warning(f"{self._settings.target}: the server answers again; segments go there again")
            self._backoff.succeeded()

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

    def _on_device(self, segment: CloudSegment, why: TidegateError | None = None) -> SegmentResult:
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

    def _deadline_s(self, segment: CloudSegment) -> float:
        assert segment.utterance.ended_at_s is not None
        return segment.utterance.ended_at_s + self._settings.timeout_s

    def _waiting(self) -> list[CloudSegment]:
        """Segments that have ended and have no result, oldest first."""
        return [s for s in self._segments if s.result is None and s.utterance.ended_at_s is not None]

    def _decided(self) -> list[SegmentResult]:
        """Take the results from the front, so that they stay in order of segments."""
        results: list[SegmentResult] = []
        while self._segments and (result := self._segments[0].result) is not None:
            results.append(result)
            self._segments.popleft()
        return results


def _forward(event: SegmentEvent, stream: Stream) -> None:
    if isinstance(event, SegmentStarted):
        stream.begin(event.segment_id, event.start_sample)
    if isinstance(event, SegmentEnded):
        stream.end(event.segment_id, event.end_sample)
    else:
        stream.send(event.start_sample, event.audio)
