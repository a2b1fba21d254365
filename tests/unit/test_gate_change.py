"""A gate that goes on with other settings in the middle of a stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.endpoint import Endpointer, SegmentEnded, SegmentEvent, SegmentStarted
from tidegate.edge.gate import Gate
from tidegate.errors import ConfigError, StateError

RATE_HZ = 16_000
FRAME = 320
SHORT = PrefilterSettings(kind="energy", pre_roll_ms=100, minimum_speech_ms=40, hangover_ms=60, maximum_segment_ms=400)
LONG = PrefilterSettings(kind="energy", pre_roll_ms=200, minimum_speech_ms=60, hangover_ms=120, maximum_segment_ms=600)


def frames_of(decisions: list[bool], length: int) -> list[tuple[NDArray[np.int16], bool]]:
    """Return frames whose samples count up, so that every sample can be told from the others."""
    return [
        (np.arange(at * length, (at + 1) * length, dtype=np.int64).astype(np.int16), said)
        for at, said in enumerate(decisions)
    ]


def is_a_stream(events: list[SegmentEvent]) -> None:
    """Check that ids rise by one, and that every segment's samples are the stream's own, without gap or overlap."""
    end, expected_id, position = 0, 1, 0
    for event in events:
        assert event.segment_id == expected_id
        if isinstance(event, SegmentEnded):
            assert event.end_sample == position
            end, expected_id = position, expected_id + 1
            continue
        assert event.start_sample >= end
        assert isinstance(event, SegmentStarted) or event.start_sample == position
        wanted = np.arange(event.start_sample, event.start_sample + len(event.audio), dtype=np.int64).astype(np.int16)
        np.testing.assert_array_equal(event.audio, wanted)
        position = event.start_sample + len(event.audio)


@given(st.lists(st.booleans(), max_size=120), st.integers(0, 120))
def test_the_same_settings_change_nothing(decisions: list[bool], moment: int) -> None:
    untouched, changed = Endpointer(SHORT, FRAME, RATE_HZ), Endpointer(SHORT, FRAME, RATE_HZ)
    for at, (frame, said) in enumerate(frames_of(decisions, FRAME)):
        if at >= moment and not changed.is_open:
            before, changed = changed, Endpointer(SHORT, FRAME, RATE_HZ)
            changed.take_over(before)
        expected, found = untouched.push(frame, said), changed.push(frame, said)
        assert list(map(repr, found)) == list(map(repr, expected))


@given(st.lists(st.booleans(), max_size=150), st.integers(0, 150), st.booleans())
def test_other_settings_and_frames_keep_one_stream(decisions: list[bool], moment: int, halves: bool) -> None:
    endpointer = Endpointer(SHORT, FRAME, RATE_HZ)
    events: list[SegmentEvent] = []
    is_changed = False
    for at, (frame, said) in enumerate(frames_of(decisions, FRAME)):
        if at >= moment and not is_changed and not endpointer.is_open:
            before, endpointer = endpointer, Endpointer(LONG, FRAME // 2 if halves else FRAME, RATE_HZ)
            endpointer.take_over(before)
            is_changed = True
        for part in np.split(frame, 2) if is_changed and halves else [frame]:
            events += endpointer.push(part, said)
    is_a_stream(events + endpointer.flush())


def test_an_open_segment_is_not_cut_in_two() -> None:
    endpointer = Endpointer(SHORT, FRAME, RATE_HZ)
    for frame, said in frames_of([True] * 4, FRAME):
        endpointer.push(frame, said)
    assert endpointer.is_open
    with pytest.raises(StateError, match="a segment is open"):
        Endpointer(LONG, FRAME, RATE_HZ).take_over(endpointer)


def test_the_detector_keeps_what_it_has_learned_unless_it_changes() -> None:
    gate = Gate(SHORT, RATE_HZ)
    detector = gate._detector
    gate.change(LONG)
    assert gate._detector is detector
    gate.change(PrefilterSettings(kind="webrtc"))
    assert gate._detector is not detector


def test_settings_that_cannot_be_followed_leave_the_old_ones() -> None:
    gate = Gate(SHORT, RATE_HZ)
    with pytest.raises(ConfigError):
        gate.change(PrefilterSettings(kind="telepathy"))
    with pytest.raises(ConfigError):
        gate.change(PrefilterSettings(kind="energy", maximum_segment_ms=1))
    tone = (0.3 * np.sin(np.arange(RATE_HZ) / 10)).astype(np.float32)
    silence = np.zeros(RATE_HZ, np.float32)
    assert gate.push(np.concatenate([silence, tone, silence]))


def test_the_account_goes_on() -> None:
    gate = Gate(PrefilterSettings(kind="webrtc", options={"frame_ms": 20}), RATE_HZ)
    gate.push(np.zeros(RATE_HZ, np.float32))
    gate.change(PrefilterSettings(kind="webrtc", options={"frame_ms": 10}))
    gate.push(np.zeros(RATE_HZ, np.float32))
    account = gate.account
    assert (account.samples_total, account.frames_total, account.frame_samples) == (2 * RATE_HZ, 200, 160)
    assert account.frames_held_back == 200
