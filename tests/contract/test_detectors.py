"""Every detector of the registry, and the suite itself: it must fail on a deaf detector and on a credulous one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.endpoint import SegmentEnded, SegmentStarted
from tidegate.edge.gate import Gate
from tidegate.edge.prefilter import KINDS, Detector, make_detector
from tidegate.edge.sources import WavSource
from tidegate.speech.pcm import int16_from_float32
from tidegate.speech.resample import StreamResampler
from tidegate.testing.detector_contract import DetectorContract, Recording

DATA = Path(__file__).parents[1] / "data"
EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"


@cache
def five_words() -> Recording:
    """Telephone speech: the file is kept at 8 kHz and brought to the detectors' 16 kHz."""
    source = WavSource(DATA / "five_words.wav")
    resampler = StreamResampler(source.sample_rate_hz, 16_000)
    audio = [*(resampler.push(chunk) for chunk in source.chunks()), resampler.finish()]
    samples = int16_from_float32(np.concatenate(audio))
    words = json.loads((DATA / "five_words.json").read_text())["words"]
    return Recording(samples, 16_000, tuple((word["start_s"], word["end_s"]) for word in words))


class Suite(DetectorContract):
    settings: PrefilterSettings

    def make(self) -> Detector:
        return make_detector(self.settings)

    def recording(self) -> Recording:
        return five_words()


class TestEnergy(Suite):
    settings = PrefilterSettings(kind="energy")


class TestEnergy10ms(Suite):
    settings = PrefilterSettings(kind="energy", options={"frame_ms": 10})


class TestEnergy30ms(Suite):
    settings = PrefilterSettings(kind="energy", options={"frame_ms": 30})


class TestWebrtcMode0(Suite):
    settings = PrefilterSettings(kind="webrtc", options={"mode": 0})


class TestWebrtcMode1(Suite):
    settings = PrefilterSettings(kind="webrtc")


class TestWebrtcMode2(Suite):
    settings = PrefilterSettings(kind="webrtc", options={"mode": 2})


class TestWebrtcMode3(Suite):
    settings = PrefilterSettings(kind="webrtc", options={"mode": 3, "frame_ms": 10})


class TestWebrtc30ms(Suite):
    settings = PrefilterSettings(kind="webrtc", options={"frame_ms": 30})


class TestWebrtcAndEnergy(Suite):
    settings = PrefilterSettings(kind="webrtc+energy")


class Constant(DetectorContract):
    """Always the same answer, and otherwise well behaved."""

    def __init__(self, answer: bool) -> None:
        self._answer = answer

    def make(self) -> Detector:
        return ConstantDetector(self._answer)

    def recording(self) -> Recording:
        return five_words()


class ConstantDetector:
    name = "constant"
    sample_rate_hz = 16_000
    frame_samples = 320

    def __init__(self, answer: bool) -> None:
        self._answer = answer

    def is_speech(self, frame: NDArray[np.int16]) -> bool:
        return self._answer

    def reset(self) -> None:
        pass


def test_every_kind_of_the_registry_has_a_suite() -> None:
    assert {suite.settings.kind for suite in Suite.__subclasses__()} >= set(KINDS)


@pytest.mark.parametrize("kind", [*KINDS, "webrtc+energy"])
def test_every_word_of_the_example_lies_in_a_segment(kind: str) -> None:
    with WavSource(EXAMPLE / "demo.wav") as source:
        gate = Gate(PrefilterSettings(kind=kind, hangover_ms=300), source.sample_rate_hz)
        events = [event for chunk in source.chunks() for event in gate.push(chunk)] + gate.flush()
    starts = [event.start_sample / 16_000 for event in events if isinstance(event, SegmentStarted)]
    ends = [event.end_sample / 16_000 for event in events if isinstance(event, SegmentEnded)]
    spans = list(zip(starts, ends, strict=True))
    words = json.loads((EXAMPLE / "demo_truth.json").read_text())["words"]
    assert words
    for word in words:
        inside_s = sum(max(0.0, min(end, word["end_s"]) - max(start, word["start_s"])) for start, end in spans)
        assert inside_s >= 0.9 * (word["end_s"] - word["start_s"]), word
    assert gate.account.bytes_not_sent > 0


def test_every_detector_keeps_the_protocol() -> None:
    assert all(isinstance(make_detector(PrefilterSettings(kind=kind)), Detector) for kind in KINDS)


@pytest.mark.parametrize(
    ("answer", "promise"),
    [
        (False, "test_every_word_is_found"),
        (False, "test_every_word_is_found_30_db_quieter"),
        (False, "test_every_word_is_found_in_noise_10_db_below_it"),
        (True, "test_pauses_are_held_back"),
        (True, "test_digital_silence_is_never_speech"),
        (True, "test_digital_silence_after_speech_is_not_speech"),
        (True, "test_steady_loud_noise_is_not_speech_for_ever"),
        (True, "test_a_constant_offset_is_not_speech"),
    ],
)
def test_the_suite_fails_on_a_deaf_and_on_a_credulous_detector(answer: bool, promise: str) -> None:
    with pytest.raises(AssertionError):
        getattr(Constant(answer), promise)()
