"""The endpointer: from frame decisions to segments of audio. Pure; times are counts of samples.

`TABLE` is the whole behaviour: (state, event) -> (next state, action). An event is what one frame, or the end of the
stream, means in view of the counters (`_event`); an action says what becomes of the frame.

A segment begins `pre_roll_ms` before the first frame of the speech that opened it, but never before the end of the
segment before it and never before sample 0. It ends after `hangover_ms` without speech, at the hard maximum, or with
the stream. Audio goes out as it arrives, so a segment can be streamed long before it ends; only the last third of the
hang-over is held until it is known whether speech goes on. If so it is sent; if not it belongs to the pre-roll of the
next segment. Otherwise a word that begins while the hang-over runs out would lose its soft onset to the segment before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.errors import ConfigError, InputError, StateError

EndReason = Literal["silence", "maximum", "end_of_stream"]
Audio = NDArray[np.int16]


@dataclass(frozen=True)
class SegmentStarted:
    """Somebody speaks; carries the pre-roll and the speech up to now."""

    segment_id: int
    """rises by one from 1"""
    start_sample: int
    """position of `audio[0]` in the stream"""
    audio: Audio
    """int16 [n]"""


@dataclass(frozen=True)
class SegmentAudio:
    """The segment goes on; follows the audio before it without a gap."""

    segment_id: int
    start_sample: int
    """position of `audio[0]` in the stream"""
    audio: Audio
    """int16 [n]"""


@dataclass(frozen=True)
class SegmentEnded:
    """The segment is over; its audio was [start_sample, end_sample)."""

    segment_id: int
    end_sample: int
    """one past the last sample"""
    reason: EndReason


SegmentEvent = SegmentStarted | SegmentAudio | SegmentEnded


class State(Enum):
    """Where the endpointer stands."""

    SILENCE = "silence"
    """no segment is open"""
    STARTING = "starting"
    """speech is heard, not yet enough of it"""
    SPEECH = "speech"
    """a segment is open and speech goes on"""
    ENDING = "ending"
    """a segment is open and quiet lasts not yet long enough"""


class Event(Enum):
    """What the next frame, or the end of the stream, means."""

    QUIET = "quiet"
    LONG_QUIET = "long_quiet"
    """a quiet frame in the last third of the hang-over"""
    SPEECH = "speech"
    ENOUGH_SPEECH = "enough_speech"
    """a frame of speech with which the minimum is reached"""
    ENOUGH_QUIET = "enough_quiet"
    """a quiet frame with which the hang-over is reached"""
    MAXIMUM = "maximum"
    """a frame with which an open segment reaches its hard limit"""
    FLUSH = "flush"
    """the stream is over"""


class Action(Enum):
    """What becomes of the frame."""

    KEEP = "keep"
    """hold it: pre-roll, or the rest of a hang-over"""
    OPEN = "open"
    """begin a segment with the pre-roll and this frame"""
    SEND = "send"
    """into the open segment, after what is held"""
    SEND_AND_CUT = "send_and_cut"
    """into the open segment, after what is held; it ends by its length"""
    CLOSE_AND_KEEP = "close_and_keep"
    """end the open segment by silence, in front of what is held; hold the frame too"""
    CLOSE = "close"
    """send what is held and end the open segment with the stream"""
    FORGET = "forget"
    """drop the pre-roll"""


TABLE: dict[tuple[State, Event], tuple[State, Action]] = {
    (State.SILENCE, Event.QUIET): (State.SILENCE, Action.KEEP),
    (State.SILENCE, Event.SPEECH): (State.STARTING, Action.KEEP),
    (State.SILENCE, Event.ENOUGH_SPEECH): (State.SPEECH, Action.OPEN),
    (State.SILENCE, Event.FLUSH): (State.SILENCE, Action.FORGET),
    (State.STARTING, Event.QUIET): (State.SILENCE, Action.KEEP),
    (State.STARTING, Event.SPEECH): (State.STARTING, Action.KEEP),
    (State.STARTING, Event.ENOUGH_SPEECH): (State.SPEECH, Action.OPEN),
    (State.STARTING, Event.FLUSH): (State.SILENCE, Action.FORGET),
    (State.SPEECH, Event.QUIET): (State.ENDING, Action.SEND),
    (State.SPEECH, Event.SPEECH): (State.SPEECH, Action.SEND),
    (State.SPEECH, Event.ENOUGH_SPEECH): (State.SPEECH, Action.SEND),
    (State.SPEECH, Event.ENOUGH_QUIET): (State.SILENCE, Action.CLOSE_AND_KEEP),
    # Cut in the middle of speech: the next frame of speech opens the next segment at once, where this one ended,
    # because the run of speech goes on counting.
    (State.SPEECH, Event.MAXIMUM): (State.STARTING, Action.SEND_AND_CUT),
    (State.SPEECH, Event.FLUSH): (State.SILENCE, Action.CLOSE),
    (State.ENDING, Event.QUIET): (State.ENDING, Action.SEND),
    (State.ENDING, Event.SPEECH): (State.SPEECH, Action.SEND),
    (State.ENDING, Event.ENOUGH_SPEECH): (State.SPEECH, Action.SEND),
    (State.ENDING, Event.LONG_QUIET): (State.ENDING, Action.KEEP),
    (State.ENDING, Event.ENOUGH_QUIET): (State.SILENCE, Action.CLOSE_AND_KEEP),
    (State.ENDING, Event.MAXIMUM): (State.STARTING, Action.SEND_AND_CUT),
    (State.ENDING, Event.FLUSH): (State.SILENCE, Action.CLOSE),
}


def step(state: State, event: Event) -> tuple[State, Action]:
    """Look up one transition.

    Raises:
        StateError: the pair is not in `TABLE`.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise StateError(
            f"the endpointer has no transition for {event.name} in {state.name}", fix="please report this: it is a bug"
        ) from None


class Endpointer:
    """One stream of frames with their decisions; see the module's text.

    Durations are rounded to whole frames: pre-roll, minimum and hang-over up, the maximum down. At most pre-roll plus
    minimum is held in memory, so a third of the hang-over is held only as far as that goes.

    Args:
        settings: durations; `kind` and `options` are not looked at.
        frame_samples: length of a frame.
        sample_rate_hz: rate of the frames.

    Raises:
        ConfigError: a negative duration, or a maximum that does not exceed pre-roll plus minimum.
    """

    def __init__(self, settings: PrefilterSettings, frame_samples: int, sample_rate_hz: int) -> None:
        self._frame_samples = frame_samples
        self._minimum_frames = max(1, _frames_up(settings, "minimum_speech_ms", frame_samples, sample_rate_hz))
        self._hangover_frames = max(1, _frames_up(settings, "hangover_ms", frame_samples, sample_rate_hz))
        pre_roll_frames = _frames_up(settings, "pre_roll_ms", frame_samples, sample_rate_hz)
        self._maximum_frames = settings.maximum_segment_ms * sample_rate_hz // (1000 * frame_samples)
        if self._maximum_frames <= pre_roll_frames + self._minimum_frames:
            raise ConfigError(
                f"maximum_segment_ms is {settings.maximum_segment_ms}; expected more than pre_roll_ms plus "
                f"minimum_speech_ms ({settings.pre_roll_ms} + {settings.minimum_speech_ms}) and one frame",
                fix="raise maximum_segment_ms; 10000 is usual",
            )
        capacity = pre_roll_frames + self._minimum_frames - 1
        self._kept: deque[Audio] = deque(maxlen=capacity)
        # The frame with which the hang-over is reached always belongs to what comes after the segment.
        self._sent_quiet_frames = self._hangover_frames - max(1, min(self._hangover_frames // 3, capacity))
        self.reset()

    def reset(self) -> None:
        """Begin a new stream at sample 0 with segment 1."""
        self._kept.clear()
        self._state = State.SILENCE
        self._position = 0
        self._segment_id = 0
        self._segment_frames = 0
        self._speech_run = 0
        self._quiet_run = 0
        self._over = False

    def push(self, frame: Audio, is_speech: bool) -> list[SegmentEvent]:
        """Take the next frame, int16 [frame_samples], and return what follows from it.

        A shorter frame is allowed as the last one of the stream.

        Raises:
            InputError: empty, too long, or not int16 with one axis.
            StateError: after a short frame or `flush`.
        """
        self._check(frame)
        self._count(is_speech)
        events = self._advance(self._event(is_speech), frame)
        self._over = len(frame) < self._frame_samples
        return events

    def flush(self) -> list[SegmentEvent]:
        """End the stream: an open segment ends here. Only `reset` may follow, or `flush` again, which does nothing."""
        self._over = True
        return self._advance(Event.FLUSH, np.zeros(0, np.int16))

    @property
    def is_open(self) -> bool:
        """Whether a segment is open."""
        return self._state in (State.SPEECH, State.ENDING)

    def take_over(self, before: Endpointer) -> None:
        """Go on in the stream of another endpointer, which has other durations or another frame length.

        What it holds is cut into frames anew from its end, so that at most less than a frame of the pre-roll goes.

        Raises:
            StateError: a segment is open there, and it would be cut in two.
        """
        if before.is_open:
            raise StateError("a segment is open", fix="change the settings between segments")
        self.reset()
        self._state, self._over = before._state, before._over
        self._position, self._segment_id = before._position, before._segment_id
        scale = before._frame_samples / self._frame_samples
        self._speech_run, self._quiet_run = int(before._speech_run * scale), int(before._quiet_run * scale)
        held = np.concatenate([*before._kept, np.zeros(0, np.int16)])
        whole = len(held) - len(held) % self._frame_samples
        self._kept.extend(np.split(held[len(held) - whole :], max(whole // self._frame_samples, 1)) if whole else [])

    def _count(self, is_speech: bool) -> None:
        self._speech_run = self._speech_run + 1 if is_speech else 0
        self._quiet_run = 0 if is_speech else self._quiet_run + 1

    def _event(self, is_speech: bool) -> Event:
        """Say what the frame means; the quiet that ends a segment comes before its maximum."""
        is_open = self._state in (State.SPEECH, State.ENDING)
        if not is_speech and is_open and self._quiet_run >= self._hangover_frames:
            return Event.ENOUGH_QUIET
        if is_open and self._segment_frames + len(self._kept) + 1 >= self._maximum_frames:
            return Event.MAXIMUM
        if not is_speech:
            return Event.LONG_QUIET if is_open and self._quiet_run > self._sent_quiet_frames else Event.QUIET
        return Event.ENOUGH_SPEECH if self._speech_run >= self._minimum_frames else Event.SPEECH

    def _advance(self, event: Event, frame: Audio) -> list[SegmentEvent]:
        self._state, action = step(self._state, event)
        events = self._perform(action, frame)
        self._position += len(frame)
        if action in (Action.KEEP, Action.CLOSE_AND_KEEP):
            # A copy: the frame may be a view into a chunk of any length.
            self._kept.append(frame.copy())
        return events

    def _perform(self, action: Action, frame: Audio) -> list[SegmentEvent]:
        if action is Action.OPEN:
            return [self._opened(frame)]
        if action is Action.SEND:
            return [self._sent(frame)]
        if action is Action.SEND_AND_CUT:
            end_sample = self._position + len(frame)
            return [self._sent(frame), SegmentEnded(self._segment_id, end_sample, "maximum")]
        if action is Action.CLOSE_AND_KEEP:
            return [SegmentEnded(self._segment_id, self._position - self._held_samples(), "silence")]
        if action is Action.CLOSE:
            rest: list[SegmentEvent] = [self._sent(frame)] if self._kept else []
            return [*rest, SegmentEnded(self._segment_id, self._position, "end_of_stream")]
        if action is Action.FORGET:
            self._kept.clear()
        return []

    def _opened(self, frame: Audio) -> SegmentStarted:
        self._segment_id += 1
        self._segment_frames = len(self._kept) + 1
        start_sample, audio = self._released(frame)
        return SegmentStarted(self._segment_id, start_sample, audio)

    def _sent(self, frame: Audio) -> SegmentAudio:
        self._segment_frames += len(self._kept) + 1
        start_sample, audio = self._released(frame)
        return SegmentAudio(self._segment_id, start_sample, audio)

    def _released(self, frame: Audio) -> tuple[int, Audio]:
        """Return what is held, with `frame` behind it, and where it begins."""
        start_sample = self._position - self._held_samples()
        audio = np.concatenate([*self._kept, frame]) if self._kept else frame
        self._kept.clear()
        return start_sample, audio

    def _held_samples(self) -> int:
        return sum(len(frame) for frame in self._kept)

    def _check(self, frame: Audio) -> None:
        if self._over:
            raise StateError("the stream has ended", fix="call reset() before the next stream")
        is_audio = isinstance(frame, np.ndarray) and frame.dtype == np.int16 and frame.ndim == 1
        if not is_audio or not 0 < len(frame) <= self._frame_samples:
            found = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise InputError(
                f"the frame is {found}; expected int16 [{self._frame_samples}]", fix="cut the stream into frames first"
            )


def _frames_up(settings: PrefilterSettings, name: str, frame_samples: int, sample_rate_hz: int) -> int:
    duration_ms = int(getattr(settings, name))
    if duration_ms < 0:
        raise ConfigError(f"{name} is {duration_ms}; expected 0 or more", fix="correct the prefilter settings")
    return -(-duration_ms * sample_rate_hz // (1000 * frame_samples))
