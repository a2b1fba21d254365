"""One recognition stream as a state machine, without a transport.

CONFIGURING --config--> IDLE --start--> SEGMENT --end--> IDLE
                                        SEGMENT --audio--> SEGMENT
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import Enum

from tidegate.cloud.core import LOCAL, Caller
from tidegate.cloud.repository import Repository, ServedModel
from tidegate.cloud.speech_model import SegmentModel, Turns
from tidegate.cloud.speech_segment import SAMPLE_BYTES, OpenSegment, SegmentAnswer
from tidegate.cloud.speech_settings import SpeechSettings, StreamSettings
from tidegate.errors import InputError, ResourceError, StateError
from tidegate.wire.pairing import SignalPath, check_pair, misfit

__all__ = ["TABLE", "Event", "SegmentAnswer", "Session", "State", "StreamSettings"]


class State(Enum):
    """Where a stream stands."""

    CONFIGURING = "waiting for config"
    IDLE = "between segments"
    SEGMENT = "inside a segment"
    FINISHED = "finished"


class Event(Enum):
    """What a client can send."""

    CONFIG = "config"
    START = "voice_activity SEGMENT_START"
    AUDIO = "audio"
    END = "voice_activity SEGMENT_END"
    FINISH = "the end of the stream"


TABLE: dict[tuple[State, Event], State] = {
    (State.CONFIGURING, Event.CONFIG): State.IDLE,
    (State.CONFIGURING, Event.FINISH): State.FINISHED,
    (State.IDLE, Event.START): State.SEGMENT,
    (State.IDLE, Event.FINISH): State.FINISHED,
    (State.SEGMENT, Event.AUDIO): State.SEGMENT,
    (State.SEGMENT, Event.END): State.IDLE,
    # The device stopped in the middle of a word on purpose: what was said up to there is answered.
    (State.SEGMENT, Event.FINISH): State.FINISHED,
}
"""Every step there is; a pair that is not listed is the client's error."""


class Session:
    """One stream, from its config to its end. Used by one thread; `close` it."""

    def __init__(
        self,
        repository: Repository,
        *,
        maximum_segment_s: float,
        limits: SpeechSettings | None = None,
        turns: Turns | None = None,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
        caller: Caller = LOCAL,
        keep_audio: bool = False,
        on_left: Callable[[OpenSegment], None] = lambda segment: None,
    ) -> None:
        """Begin; nothing is known of the client yet.

        Args:
            repository: the models to choose from.
            maximum_segment_s: a longer segment ends the stream, which bounds what it can hold.
            limits: of the server.
            turns: of the server; None for a session that has the server for itself.
            computing: entered around every run of a model.
            caller: whose deadline counts.
            keep_audio: whether final answers carry the audio they are about.
            on_left: told of a segment that was begun and not answered, when the session is closed.
        """
        self._repository = repository
        self._maximum_segment_s = maximum_segment_s
        self._limits = limits or SpeechSettings()
        self._turns = turns or Turns(self._limits.turns)
        self._computing = computing
        self._caller = caller
        self._keep_audio = keep_audio
        self._on_left = on_left
        self._settings: StreamSettings | None = None
        self._served: ServedModel | None = None
        self._segment: OpenSegment | None = None
        self._last_id = -1
        self.state = State.CONFIGURING

    @property
    def configured(self) -> StreamSettings:
        """What the client asked for, after its config."""
        return self._configured()[0]

    @property
    def settings(self) -> StreamSettings | None:
        """What the client asked for; None before its config."""
        return self._settings

    def configure(self, settings: StreamSettings) -> ServedModel:
        """Choose the model and return it.

        Raises:
            InputError: configured before.
            NotFoundError: no such speech model.
            StateError: none of the versions that may be chosen belongs to the device's front end and prefilter.
        """
        self._step(Event.CONFIG)
        self._settings = settings
        self._served = _chosen(self._repository, settings)
        return self._served

    def start(self, segment_id: int, sample: int) -> None:
        """Open a segment.

        Raises:
            InputError: not between segments, the id does not rise, or the sample is negative.
        """
        self._step(Event.START)
        if segment_id <= self._last_id:
            raise InputError(
                f"segment {segment_id} follows segment {self._last_id}; ids rise within a stream",
                fix="number the segments upwards",
            )
        if sample < 0:
            raise InputError(f"segment {segment_id} starts at sample {sample}", fix="count samples from 0")
        self._last_id = segment_id
        settings, served = self._configured()
        model = SegmentModel(served, self._turns, self._computing, self._caller)
        self._segment = OpenSegment(segment_id, sample, settings, model, keep_audio=self._keep_audio)

    def audio(self, sample: int, content: bytes) -> SegmentAnswer | None:
        """Take audio of the open segment: int16 little-endian, contiguous.

        Returns:
            An interim result, when the client asked for them, enough audio has come since the last one was due, and it
            says something new; else None.

        Raises:
            InputError: no segment is open, half a sample, or a gap.
            ResourceError: the segment is longer than this server takes, or the model's queue is full.
            ModelError: the model failed.
        """
        self._step(Event.AUDIO)
        segment = self._open_segment()
        if len(content) % SAMPLE_BYTES:
            raise InputError(f"audio has {len(content)} bytes; expected whole 16-bit samples", fix="send whole samples")
        expected = segment.start_sample + segment.samples
        if sample != expected:
            raise InputError(
                f"audio of segment {segment.id} is at sample {sample}; expected {expected}",
                fix="send a segment's audio without gaps; end the segment where silence is skipped",
            )
        self._check_length(segment, len(content) // SAMPLE_BYTES)
        segment.take(content)
        settings, _ = self._configured()
        return segment.interim(self._limits) if settings.interim_results else None

    def end(self, segment_id: int, sample: int) -> SegmentAnswer:
        """Close the open segment and recognise it.

        Raises:
            InputError: no segment is open, another one is, it has no audio, or it ends before it starts.
            ModelError: the model failed.
        """
        self._step(Event.END)
        segment = self._open_segment()
        if segment_id != segment.id:
            raise InputError(
                f"SEGMENT_END is for segment {segment_id}; segment {segment.id} is open", fix="end the open segment"
            )
        if sample < segment.start_sample:
            raise InputError(
                f"segment {segment.id} ends at sample {sample}, before its start at {segment.start_sample}",
                fix="give the sample after the segment's last one",
            )
        return self._answer(segment, sample)

    def finish(self) -> SegmentAnswer | None:
        """End the stream; return the answer for a segment that was still open, if it has audio."""
        self._step(Event.FINISH)
        segment = self._segment
        return self._answer(segment, segment.start_sample + segment.samples) if segment and segment.samples else None

    def close(self) -> None:
        """Let go of the open segment, if there is one, and of what it holds. Closing again does nothing."""
        segment = self._let_go()
        if segment is not None:
            self._on_left(segment)

    def _let_go(self) -> OpenSegment | None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()
        return segment

    def _step(self, event: Event) -> None:
        following = TABLE.get((self.state, event))
        if following is None:
            possible = [known.value for state, known in TABLE if state is self.state]
            raise InputError(
                f"the stream is {self.state.value} and got {event.value}; expected {' or '.join(possible)}",
                fix="send config first, then for each segment SEGMENT_START, audio, SEGMENT_END",
            )
        self.state = following

    def _answer(self, segment: OpenSegment, end_sample: int) -> SegmentAnswer:
        if not segment.samples:
            raise InputError(f"segment {segment.id} has no audio", fix="send the audio between its start and its end")
        answer = segment.answer(end_sample)
        self._let_go()
        return answer

    def _check_length(self, segment: OpenSegment, more: int) -> None:
        settings, _ = self._configured()
        length_s = (segment.samples + more) / settings.sample_rate_hz
        if length_s > self._maximum_segment_s:
            raise ResourceError(
                f"segment {segment.id} is {length_s:.1f} s long; this server takes {self._maximum_segment_s:g} s",
                fix="end segments earlier (prefilter maximum_segment_ms), or serve with a higher limit",
            )

    def _configured(self) -> tuple[StreamSettings, ServedModel]:
        if self._settings is None or self._served is None:
            raise StateError("the stream has no config", fix="call configure first")
        return self._settings, self._served

    def _open_segment(self) -> OpenSegment:
        if self._segment is None:
            raise StateError("no segment is open", fix="call start first")
        return self._segment


def _chosen(repository: Repository, settings: StreamSettings) -> ServedModel:
    """Return the version asked for; without one, the highest that belongs to the device."""
    served = repository.find_speech(settings.model, settings.version)
    if settings.device is None:
        return served
    versions = (settings.version,) if settings.version else reversed(repository.versions(served.name))
    for version in versions:
        candidate = repository.find_speech(served.name, version)
        if not misfit(settings.device, SignalPath.of(candidate.manifest)):
            return candidate
    check_pair(
        settings.device,
        SignalPath.of(served.manifest),
        device_bundle=settings.device_bundle,
        server_model=f"{served.name} {served.version}",
    )
    return served
