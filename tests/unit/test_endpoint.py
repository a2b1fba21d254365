from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.endpoint import (
    TABLE,
    Action,
    Endpointer,
    Event,
    SegmentAudio,
    SegmentEnded,
    SegmentEvent,
    SegmentStarted,
    State,
    step,
)
from tidegate.errors import ConfigError, InputError, StateError

FRAME = 160
RATE_HZ = 16_000
# In frames of 10 ms: pre-roll 3, minimum 2, hang-over 4 (of which 3 are sent at once), maximum 12.
SETTINGS = PrefilterSettings(
    kind="energy", pre_roll_ms=30, minimum_speech_ms=20, hangover_ms=40, maximum_segment_ms=120
)

UNLISTED = {
    (State.SILENCE, Event.LONG_QUIET),
    (State.STARTING, Event.LONG_QUIET),
    (State.SPEECH, Event.LONG_QUIET),
    (State.SILENCE, Event.ENOUGH_QUIET),
    (State.SILENCE, Event.MAXIMUM),
    (State.STARTING, Event.ENOUGH_QUIET),
    (State.STARTING, Event.MAXIMUM),
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_is_listed_or_raises(state: State, event: Event) -> None:
    if (state, event) in UNLISTED:
        with pytest.raises(StateError, match=f"{event.name} in {state.name}"):
            step(state, event)
    else:
        following, action = step(state, event)
        assert isinstance(following, State)
        assert isinstance(action, Action)


def test_the_table_holds_nothing_else() -> None:
    assert set(TABLE) | UNLISTED == set(product(State, Event))


def run(decisions: str, settings: PrefilterSettings = SETTINGS, rest: int = 0) -> list[SegmentEvent]:
    """Play frames ('#' speech, '.' quiet) whose samples count up from 0; `rest`: length of a shorter last frame."""
    endpointer = Endpointer(settings, FRAME, RATE_HZ)
    total = len(decisions) * FRAME - (FRAME - rest if rest else 0)
    stream = np.arange(total, dtype=np.int64).astype(np.int16)
    events: list[SegmentEvent] = []
    for index, decision in enumerate(decisions):
        events += endpointer.push(stream[index * FRAME : (index + 1) * FRAME], decision == "#")
    return events + endpointer.flush()


def segments(events: list[SegmentEvent]) -> list[tuple[int, int, str]]:
    """Return (start sample, end sample, reason) of each segment."""
    starts = [event.start_sample for event in events if isinstance(event, SegmentStarted)]
    ends = [(event.end_sample, event.reason) for event in events if isinstance(event, SegmentEnded)]
    return [(start, end, reason) for start, (end, reason) in zip(starts, ends, strict=True)]


@pytest.mark.parametrize(
    ("name", "decisions", "expected"),
    [
        ("nothing", "", []),
        ("only quiet", "..........", []),
        ("too short", ".....#....", []),
        ("too short, twice", "...#.#.#..", []),
        ("pre-roll and hang-over", "......##........", [(3, 11, "silence")]),
        ("never before sample 0", ".##.......", [(0, 6, "silence")]),
        ("speech from the first frame", "##........", [(0, 5, "silence")]),
        ("a pause shorter than the hang-over", "..##.##.......", [(0, 10, "silence")]),
        ("the pre-roll stops at the segment before", "....##....##....", [(1, 9, "silence"), (9, 15, "silence")]),
        ("ends inside speech", ".....####", [(2, 9, "end_of_stream")]),
        ("ends inside the hang-over", ".....##...", [(2, 10, "end_of_stream")]),
        ("ends with too little speech", ".....#", []),
        (
            "cut at the maximum, speech goes on",
            "....####################....",
            [(1, 13, "maximum"), (13, 25, "maximum")],
        ),
        (
            "cut, then one more frame of speech",
            "...##########" + "#" + "....",
            [(0, 12, "maximum"), (12, 17, "silence")],
        ),
        ("cut, then quiet", "...#########......", [(0, 12, "maximum")]),
        ("cut in a pause, speech goes on", "...#######..##....", [(0, 12, "maximum"), (12, 17, "silence")]),
        ("quiet wins over the maximum", "...#####....", [(0, 11, "silence")]),
    ],
)
def test_segments(name: str, decisions: str, expected: list[tuple[int, int, str]]) -> None:
    assert segments(run(decisions)) == [(start * FRAME, end * FRAME, reason) for start, end, reason in expected]


def test_audio_goes_out_as_it_arrives() -> None:
    endpointer = Endpointer(SETTINGS, FRAME, RATE_HZ)
    frame = np.zeros(FRAME, np.int16)
    assert endpointer.push(frame, True) == []
    (started,) = endpointer.push(frame, True)
    assert isinstance(started, SegmentStarted)
    assert len(started.audio) == 2 * FRAME
    for index in (2, 3, 4):
        (audio,) = endpointer.push(frame, False)
        assert isinstance(audio, SegmentAudio)
        assert (audio.segment_id, audio.start_sample) == (1, index * FRAME)


def test_the_end_of_the_hang_over_is_the_pre_roll_of_the_next_segment() -> None:
    settings = PrefilterSettings(kind="energy", pre_roll_ms=40, minimum_speech_ms=10, hangover_ms=90)
    assert segments(run("....#.........#.........", settings)) == [
        (0, 11 * FRAME, "silence"),
        (11 * FRAME, 21 * FRAME, "silence"),
    ]
    # One frame less of quiet, and what was held is sent.
    assert segments(run("....#........#.........", settings)) == [(0, 20 * FRAME, "silence")]


def test_segment_ids_rise_by_one_from_one() -> None:
    events = run("..##......##......##..")
    assert [event.segment_id for event in events if isinstance(event, SegmentStarted)] == [1, 2, 3]


def test_a_short_last_frame_keeps_its_length() -> None:
    assert segments(run("....##", rest=37)) == [(1 * FRAME, 5 * FRAME + 37, "end_of_stream")]


def test_durations_are_rounded_to_whole_frames() -> None:
    settings = PrefilterSettings(
        kind="energy", pre_roll_ms=25, minimum_speech_ms=15, hangover_ms=35, maximum_segment_ms=129
    )
    for decisions in ("......##........", "....####################....", ".....#...."):
        assert segments(run(decisions, settings)) == segments(run(decisions))


def test_zero_durations_mean_one_frame_without_pre_roll() -> None:
    settings = PrefilterSettings(
        kind="energy", pre_roll_ms=0, minimum_speech_ms=0, hangover_ms=0, maximum_segment_ms=100
    )
    assert segments(run("...#...", settings)) == [(3 * FRAME, 4 * FRAME, "silence")]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pre_roll_ms": -1}, "pre_roll_ms is -1"),
        ({"minimum_speech_ms": -1}, "minimum_speech_ms is -1"),
        ({"hangover_ms": -5}, "hangover_ms is -5"),
        ({"maximum_segment_ms": 50}, "maximum_segment_ms is 50"),
        ({"maximum_segment_ms": -1}, "maximum_segment_ms is -1"),
    ],
)
def test_settings_that_cannot_be_meant(changed: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {
        "pre_roll_ms": 30,
        "minimum_speech_ms": 20,
        "hangover_ms": 40,
        "maximum_segment_ms": 120,
        **changed,
    }
    with pytest.raises(ConfigError, match=said):
        Endpointer(PrefilterSettings(kind="energy", **values), FRAME, RATE_HZ)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros(0, np.int16),
        np.zeros(FRAME + 1, np.int16),
        np.zeros(FRAME, np.float32),
        np.zeros((1, FRAME), np.int16),
    ],
)
def test_wrong_frames_are_refused(frame: NDArray[np.int16]) -> None:
    with pytest.raises(InputError, match=r"expected int16 \[160\]"):
        Endpointer(SETTINGS, FRAME, RATE_HZ).push(frame, True)


def test_nothing_follows_the_end_until_reset() -> None:
    endpointer = Endpointer(SETTINGS, FRAME, RATE_HZ)
    endpointer.push(np.zeros(FRAME - 1, np.int16), False)
    with pytest.raises(StateError):
        endpointer.push(np.zeros(FRAME, np.int16), False)
    assert endpointer.flush() == []
    assert endpointer.flush() == []
    with pytest.raises(StateError):
        endpointer.push(np.zeros(FRAME, np.int16), False)
    endpointer.reset()
    assert endpointer.push(np.zeros(FRAME, np.int16), False) == []


decision_strings = st.text(alphabet=".#", max_size=120)
durations = st.builds(
    lambda pre, minimum, hangover, extra: PrefilterSettings(
        kind="energy",
        pre_roll_ms=pre * 10,
        minimum_speech_ms=minimum * 10,
        hangover_ms=hangover * 10,
        maximum_segment_ms=(pre + max(minimum, 1) + extra) * 10,
    ),
    st.integers(0, 8),
    st.integers(0, 5),
    st.integers(0, 8),
    st.integers(1, 20),
)


@given(decision_strings, durations, st.integers(0, FRAME - 1))
def test_audio_of_a_segment_is_the_stream_between_its_ends(
    decisions: str, settings: PrefilterSettings, rest: int
) -> None:
    opened: dict[int, int] = {}
    position = 0
    previous_end = 0
    for event in run(decisions, settings, rest):
        if isinstance(event, SegmentStarted):
            assert event.start_sample >= previous_end
            opened[event.segment_id] = position = event.start_sample
        if isinstance(event, SegmentEnded):
            assert event.end_sample == position
            assert position - opened[event.segment_id] <= settings.maximum_segment_ms * RATE_HZ // 1000
            previous_end = position
        else:
            assert event.start_sample == position
            expected = np.arange(position, position + len(event.audio)).astype(np.int16)
            assert np.array_equal(event.audio, expected)
            position += len(event.audio)


@given(decision_strings, durations)
def test_every_run_of_enough_speech_lies_in_segments(decisions: str, settings: PrefilterSettings) -> None:
    inside = np.zeros(len(decisions) * FRAME, dtype=bool)
    for start, end, _ in segments(run(decisions, settings)):
        inside[start:end] = True
    covered = np.asarray(inside.reshape(-1, FRAME).all(axis=1))
    minimum = max(1, settings.minimum_speech_ms // 10)
    start = 0
    for index in range(len(decisions) + 1):
        if index == len(decisions) or decisions[index] == ".":
            if index - start >= minimum:
                assert covered[start:index].all()
            start = index + 1


@given(decision_strings, durations)
def test_memory_is_bounded(decisions: str, settings: PrefilterSettings) -> None:
    endpointer = Endpointer(settings, FRAME, RATE_HZ)
    limit = settings.pre_roll_ms // 10 + max(1, settings.minimum_speech_ms // 10)
    big = np.zeros(1_000_000, np.int16)
    for decision in decisions:
        endpointer.push(big[:FRAME], decision == "#")
        assert len(endpointer._kept) <= limit
        # No frame keeps the chunk alive from which it was cut.
        assert all(frame.base is None for frame in endpointer._kept)
