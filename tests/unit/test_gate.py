from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.gate import Gate, GateAccount, SegmentAudio, SegmentEnded, SegmentEvent, SegmentStarted
from tidegate.errors import ConfigError, InputError, StateError
from tidegate.speech.pcm import int16_from_float32
from tidegate.speech.resample import StreamResampler

Float = NDArray[np.float32]
SETTINGS = PrefilterSettings(kind="energy", pre_roll_ms=100, hangover_ms=200)


def bursts(rate_hz: int, seconds: float = 3.0, at: Sequence[float] = (0.6, 1.5)) -> Float:
    """Return hiss with bursts of 0.25 s of a buzz: enough of a word for the energy detector."""
    rng = np.random.default_rng(3)
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    audio = rng.normal(0.0, 0.001, time_s.size)
    for start_s in at:
        during = (time_s >= start_s) & (time_s < start_s + 0.25)
        audio[during] += sum(0.05 * np.sin(2 * np.pi * 140 * k * time_s[during]) for k in range(1, 12))
    return audio.astype(np.float32)


def play(audio: Float, rate_hz: int, cuts: Sequence[int] = ()) -> tuple[list[SegmentEvent], GateAccount]:
    gate = Gate(SETTINGS, rate_hz)
    events: list[SegmentEvent] = []
    for chunk in np.split(audio, sorted(cuts)):
        events += gate.push(chunk)
    events += gate.flush()
    return events, gate.account


def plain(events: list[SegmentEvent]) -> list[tuple[object, ...]]:
    """Return events as comparable values."""
    return [
        (event.segment_id, event.end_sample, event.reason)
        if isinstance(event, SegmentEnded)
        else (type(event).__name__, event.segment_id, event.start_sample, event.audio.tobytes())
        for event in events
    ]


def spans(events: list[SegmentEvent]) -> list[tuple[int, int]]:
    starts = [event.start_sample for event in events if isinstance(event, SegmentStarted)]
    ends = [event.end_sample for event in events if isinstance(event, SegmentEnded)]
    return list(zip(starts, ends, strict=True))


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_times_are_right_at_every_rate(rate_hz: int) -> None:
    events, account = play(bursts(rate_hz), rate_hz)
    found = [(start / 16_000, end / 16_000) for start, end in spans(events)]
    assert len(found) == 2
    for (start_s, end_s), at_s in zip(found, (0.6, 1.5), strict=True):
        assert start_s == pytest.approx(at_s - 0.1, abs=0.04)
        assert end_s == pytest.approx(at_s + 0.25 + 0.14, abs=0.13)
    assert account.samples_total == round(3.0 * 16_000)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_how_the_stream_is_cut_into_chunks_changes_nothing(rate_hz: int, data: st.DataObject) -> None:
    audio = bursts(rate_hz, seconds=2.0)[: data.draw(st.integers(0, 2 * rate_hz))]
    cuts = data.draw(st.lists(st.integers(0, audio.size), max_size=40))
    whole, whole_account = play(audio, rate_hz)
    cut, cut_account = play(audio, rate_hz, cuts)
    assert plain(cut) == plain(whole)
    assert cut_account.frames_passed == whole_account.frames_passed
    assert cut_account.samples_total == whole_account.samples_total


def test_single_samples_as_chunks_change_nothing() -> None:
    audio = bursts(16_000, seconds=1.0, at=(0.5,))
    assert plain(play(audio, 16_000, range(audio.size))[0]) == plain(play(audio, 16_000)[0])


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_what_is_delivered_is_the_resampled_stream(rate_hz: int) -> None:
    audio = bursts(rate_hz)
    resampler = StreamResampler(rate_hz, 16_000)
    stream = int16_from_float32(np.concatenate([resampler.push(audio), resampler.finish()]))
    events, _ = play(audio, rate_hz, range(0, audio.size, 777))
    delivered: dict[int, list[NDArray[np.int16]]] = {}
    for event in events:
        if not isinstance(event, SegmentEnded):
            delivered.setdefault(event.segment_id, []).append(event.audio)
    found = spans(events)
    assert len(found) == 2
    for (start, end), parts in zip(found, delivered.values(), strict=True):
        assert np.array_equal(np.concatenate(parts), stream[start:end])


def test_segments_are_ordered_and_do_not_overlap() -> None:
    found = spans(play(bursts(16_000, 6.0, (0.5, 0.95, 1.4, 3.0, 3.6, 5.8)), 16_000)[0])
    flat = [sample for span in found for sample in span]
    assert flat == sorted(flat)


def test_a_stream_that_ends_inside_speech_gets_its_end_at_the_last_sample() -> None:
    # 0.7 s and 37 samples: the last frame is a short one.
    audio = bursts(16_000)[: 11_200 + 37]
    events, account = play(audio, 16_000)
    ended = events[-1]
    assert isinstance(ended, SegmentEnded)
    assert (ended.end_sample, ended.reason) == (11_237, "end_of_stream")
    last = events[-2]
    assert isinstance(last, SegmentAudio)
    assert len(last.audio) == 37
    assert account.samples_total == 11_237
    assert account.frames_total == 36


def test_the_account_adds_up() -> None:
    audio = bursts(16_000)
    events, account = play(audio, 16_000)
    passed = sum(end - start for start, end in spans(events))
    assert account.samples_total == audio.size
    assert account.samples_passed == passed
    assert account.bytes_passed == 2 * passed
    assert account.bytes_not_sent == 2 * (audio.size - passed)
    assert account.frames_total == 150
    assert account.frames_passed + account.frames_held_back == 150
    assert account.frames_passed == passed // 320
    assert 0 < account.frames_speech < account.frames_passed
    assert account.segments == 2
    assert account.audio_s == 3.0
    assert account.detector_cpu_s > 0
    assert account.resample_cpu_s > 0


def test_an_empty_stream_is_no_segment() -> None:
    events, account = play(np.zeros(0, np.float32), 48_000)
    assert events == []
    assert account.samples_total == 0
    assert account.bytes_not_sent == 0


def test_little_is_held_in_memory() -> None:
    gate = Gate(SETTINGS, 16_000)
    for _ in range(5):
        gate.push(np.zeros(160_007, np.float32))
        assert len(gate._rest) < gate.frame_samples
        assert gate._rest.base is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_place(value: float) -> None:
    gate = Gate(SETTINGS, 8_000)
    gate.push(np.zeros(8_000, np.float32))
    chunk = np.zeros(100, np.float32)
    chunk[7] = value
    with pytest.raises(InputError, match=r"sample 8007 \(1\.001 s\) is -?(nan|inf)"):
        gate.push(chunk)


@pytest.mark.parametrize(
    "chunk", [np.zeros(10, np.int16), np.zeros(10, np.float64), np.zeros((10, 2), np.float32), [0.0, 0.0]]
)
def test_what_is_not_float32_mono_is_refused(chunk: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match="expected a numpy array of float32 with one axis"):
        Gate(SETTINGS, 16_000).push(chunk)


def test_loud_samples_are_clipped() -> None:
    gate = Gate(PrefilterSettings(kind="energy"), 16_000)
    events = gate.push(
        np.concatenate([np.zeros(1600, np.float32), np.full(6400, 3.0, np.float32) * bursts(16_000)[9600:16000] * 100])
    )
    events += gate.flush()
    peaks = [int(np.abs(event.audio.astype(np.int32)).max()) for event in events if not isinstance(event, SegmentEnded)]
    assert max(peaks) in (32_767, 32_768)


def test_after_flush_the_gate_is_closed() -> None:
    gate = Gate(SETTINGS, 16_000)
    gate.flush()
    with pytest.raises(StateError):
        gate.push(np.zeros(1, np.float32))
    with pytest.raises(StateError):
        gate.flush()


@pytest.mark.parametrize("rate_hz", [0, -16_000, 999, 10_000_000, 16_000.5])
def test_rates_that_cannot_be_meant(rate_hz: int) -> None:
    with pytest.raises(ConfigError, match="Hz; expected a whole number"):
        Gate(SETTINGS, rate_hz)


@pytest.mark.parametrize(
    ("prefilter", "said"),
    [
        (PrefilterSettings(kind="magic"), "unknown prefilter kind 'magic'; known: energy, webrtc"),
        (PrefilterSettings(kind="webrtc+"), "unknown prefilter kind ''"),
        (
            PrefilterSettings(kind="energy", options={"loudness": 1.0}),
            "no option 'loudness'; known: fall_db, frame_ms, off_db, on_db, smoothing_ms, start_ms, window_ms",
        ),
        (PrefilterSettings(kind="energy", options={"mode": 2}), "no option 'mode'"),
        (PrefilterSettings(kind="energy", options={"frame_ms": 20.5}), "frame_ms is 20.5; expected a whole number"),
        (PrefilterSettings(kind="energy", options={"frame_ms": float("nan")}), "frame_ms is nan"),
        (PrefilterSettings(kind="energy", options={"on_db": float("nan")}), "on_db is nan"),
        (PrefilterSettings(kind="energy", options={"frame_ms": 25}), "frame_ms is 25; expected 10, 20 or 30"),
        (PrefilterSettings(kind="energy", options={"on_db": 3.0, "off_db": 6.0}), "expected 0 < off_db <= on_db"),
        (PrefilterSettings(kind="webrtc", options={"mode": 4}), "mode is 4; expected 0, 1, 2 or 3"),
        (PrefilterSettings(kind="webrtc+energy", options={"frame_ms": 11}), "frame_ms is 11"),
    ],
)
def test_prefilter_settings_that_cannot_be_meant(prefilter: PrefilterSettings, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Gate(prefilter, 16_000)
    assert said in caught.value.message
