"""One recognition stream as a state machine, without a transport.

CONFIGURING --config--> IDLE --start--> SEGMENT --end--> IDLE
                                        SEGMENT --audio--> SEGMENT
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tidegate.cloud.repository import Repository, ServedModel
from tidegate.errors import InputError, ResourceError, StateError
from tidegate.speech import SearchResult, Transcriber, Transcript
from tidegate.speech.pcm import float32_from_int16
from tidegate.speech.resample import StreamResampler
from tidegate.wire.pairing import SignalPath, check_pair, misfit

LOWEST_RATE_HZ = 4_000
HIGHEST_RATE_HZ = 192_000
MOST_SEARCH_RESULTS = 100
SAMPLE_BYTES = 2


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


@dataclass(frozen=True)
class StreamSettings:
    """What the client asks for at the beginning."""

    sample_rate_hz: int
    """of the audio it will send"""
    model: str = ""
    version: str = ""
    maximum_search_results: int = 0
    device: SignalPath | None = None
    """front end and prefilter of the bundle on the device; None: it did not report itself"""
    device_bundle: str = ""
    """NAME VERSION, for messages"""

    def __post_init__(self) -> None:
        if not LOWEST_RATE_HZ <= self.sample_rate_hz <= HIGHEST_RATE_HZ:
            raise InputError(
                f"sample_rate_hz is {self.sample_rate_hz}; expected {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}",
                fix="state the rate of the audio that is sent",
            )
        if not 0 <= self.maximum_search_results <= MOST_SEARCH_RESULTS:
            raise InputError(
                f"maximum_search_results is {self.maximum_search_results}; expected 0 to {MOST_SEARCH_RESULTS}",
                fix="ask for fewer",
            )


@dataclass(frozen=True)
class SegmentAnswer:
    """One recognised segment; times count from the moment the device began to listen."""

    segment_id: int
    start_s: float
    end_s: float
    transcript: Transcript
    search_results: tuple[SearchResult, ...]
    served: ServedModel
    received_bytes: int
    compute_ms: float


@dataclass
class _Segment:
    """The open segment."""

    id: int
    start_sample: int
    resampler: StreamResampler
    samples: int = 0
    """received, at the client's rate"""
    parts: list[NDArray[np.float32]] = field(default_factory=list)
    """at the model's rate"""


class Session:
    """One stream, from its config to its end. Used by one thread."""

    def __init__(self, repository: Repository, *, maximum_segment_s: float) -> None:
        """Begin; nothing is known of the client yet.

        Args:
            repository: the models to choose from.
            maximum_segment_s: a longer segment ends the stream, which bounds what it can hold.
        """
        self._repository = repository
        self._maximum_segment_s = maximum_segment_s
        self._settings: StreamSettings | None = None
        self._served: ServedModel | None = None
        self._segment: _Segment | None = None
        self._last_id = -1
        self.state = State.CONFIGURING

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
        settings, _, transcriber_rate_hz = self._configured()
        self._segment = _Segment(segment_id, sample, StreamResampler(settings.sample_rate_hz, transcriber_rate_hz))

    def audio(self, sample: int, content: bytes) -> None:
        """Take audio of the open segment: int16 little-endian, contiguous.

        Raises:
            InputError: no segment is open, half a sample, or a gap.
            ResourceError: the segment is longer than this server takes.
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
        count = len(content) // SAMPLE_BYTES
        self._check_length(segment, count)
        segment.samples += count
        segment.parts.append(segment.resampler.push(float32_from_int16(np.frombuffer(content, "<i2").astype(np.int16))))

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

    def _step(self, event: Event) -> None:
        following = TABLE.get((self.state, event))
        if following is None:
            possible = [known.value for state, known in TABLE if state is self.state]
            raise InputError(
                f"the stream is {self.state.value} and got {event.value}; expected {' or '.join(possible)}",
                fix="send config first, then for each segment SEGMENT_START, audio, SEGMENT_END",
            )
        self.state = following

    def _answer(self, segment: _Segment, end_sample: int) -> SegmentAnswer:
        settings, served, _ = self._configured()
        self._segment = None
        if not segment.samples:
            raise InputError(f"segment {segment.id} has no audio", fix="send the audio between its start and its end")
        samples = np.concatenate([*segment.parts, segment.resampler.finish()])
        began_s = time.perf_counter()
        transcript = _transcriber(served).transcribe(samples)
        compute_ms = (time.perf_counter() - began_s) * 1e3
        start_s = segment.start_sample / settings.sample_rate_hz
        return SegmentAnswer(
            segment_id=segment.id,
            start_s=start_s,
            end_s=end_sample / settings.sample_rate_hz,
            transcript=transcript.shifted(start_s),
            search_results=_search(served, transcript, settings.maximum_search_results),
            served=served,
            received_bytes=segment.samples * SAMPLE_BYTES,
            compute_ms=compute_ms,
        )

    def _check_length(self, segment: _Segment, more: int) -> None:
        settings, _, _ = self._configured()
        length_s = (segment.samples + more) / settings.sample_rate_hz
        if length_s > self._maximum_segment_s:
            raise ResourceError(
                f"segment {segment.id} is {length_s:.1f} s long; this server takes {self._maximum_segment_s:g} s",
                fix="end segments earlier (prefilter maximum_segment_ms), or serve with a higher limit",
            )

    def _configured(self) -> tuple[StreamSettings, ServedModel, int]:
        if self._settings is None or self._served is None:
            raise StateError("the stream has no config", fix="call configure first")
        return self._settings, self._served, _transcriber(self._served).sample_rate_hz

    def _open_segment(self) -> _Segment:
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


def _transcriber(served: ServedModel) -> Transcriber:
    if served.transcriber is None:
        raise StateError(f"model {served.name!r} is not a speech model", fix="choose it with Repository.find_speech")
    return served.transcriber


def _search(served: ServedModel, transcript: Transcript, limit: int) -> tuple[SearchResult, ...]:
    if served.catalogue is None or not transcript.text or not limit:
        return ()
    return served.catalogue.search(transcript.text, limit)
