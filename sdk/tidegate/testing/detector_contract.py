"""What every voice activity detector must do: subclass `DetectorContract`, say how to make yours, run pytest.

    class TestMine(DetectorContract):
        def make(self) -> Detector:
            return MyDetector(MyOptions())

        def recording(self) -> Recording:
            return my_recording

The recording is real speech with pauses, so a deaf detector fails, and one that calls everything speech fails too.
"""

# ruff: noqa: D102 - the name of each promise says what it holds a detector to

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputError

Samples = NDArray[np.int16]

LATE_S = 0.3
"""a decision may come this late, as after a window that the detector listens to"""

FOUND_S = 0.1
"""so much of each word must be called speech: more than any endpointer asks for before it opens a segment"""


class Detector(Protocol):
    """The Protocol under test, as tidegate.edge.prefilter states it."""

    @property
    def name(self) -> str:
        """Not empty."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the frames."""

    @property
    def frame_samples(self) -> int:
        """Length of every frame."""

    def is_speech(self, frame: Samples) -> bool:
        """Decide on int16 [frame_samples]."""

    def reset(self) -> None:
        """Forget the past."""


@dataclass(frozen=True)
class Recording:
    """Speech with its truth. It begins with at least 0.5 s without speech, and has a pause of at least 1 s."""

    samples: Samples
    """int16 [n] at `sample_rate_hz`"""
    sample_rate_hz: int
    words: tuple[tuple[float, float], ...]
    """start and end in seconds, rising"""


class DetectorContract:
    """The suite; every method that begins with `test_` is one promise."""

    def make(self) -> Detector:
        """Return a new detector with its default settings."""
        raise NotImplementedError

    def recording(self) -> Recording:
        """Return real speech at the detector's rate."""
        raise NotImplementedError

    def test_it_says_what_it_is(self) -> None:
        detector = self.make()
        assert detector.name
        assert detector.frame_samples > 0
        assert detector.sample_rate_hz == self.recording().sample_rate_hz

    def test_every_word_is_found(self) -> None:
        self._assert_words_found(self.recording().samples)

    def test_every_word_is_found_30_db_quieter(self) -> None:
        quiet = np.rint(self.recording().samples * 10 ** (-30 / 20)).astype(np.int16)
        self._assert_words_found(quiet)

    def test_every_word_is_found_in_noise_10_db_below_it(self) -> None:
        self._assert_words_found(self._noisy(self.recording(), snr_db=10.0))

    def test_pauses_are_held_back(self) -> None:
        recording = self.recording()
        # A little hiss, as every room has; pure zeros are another promise.
        decisions = self._decisions(self.make(), self._noisy(recording, snr_db=50.0))
        pauses = self._pause_frames(recording, len(decisions))
        assert pauses.any(), "the recording has no pause to judge"
        assert decisions[pauses].mean() < 0.1

    def test_digital_silence_is_never_speech(self) -> None:
        detector = self.make()
        assert not self._decisions(detector, np.zeros(3 * detector.sample_rate_hz, np.int16)).any()

    def test_digital_silence_after_speech_is_not_speech(self) -> None:
        detector = self.make()
        rate_hz = detector.sample_rate_hz
        speech = self.recording().samples
        decisions = self._decisions(detector, np.concatenate([speech, np.zeros(2 * rate_hz, np.int16)]))
        assert not decisions[-rate_hz // detector.frame_samples :].any()

    def test_steady_loud_noise_is_not_speech_for_ever(self) -> None:
        detector = self.make()
        noise = np.random.default_rng(5).normal(0.0, 3277.0, 8 * detector.sample_rate_hz)
        decisions = self._decisions(detector, np.clip(noise, -32768, 32767).astype(np.int16))
        assert decisions[len(decisions) // 2 :].mean() < 0.02

    def test_a_constant_offset_is_not_speech(self) -> None:
        detector = self.make()
        rng = np.random.default_rng(6)
        hiss = rng.normal(0.0, 4.0, 6 * detector.sample_rate_hz) + 6000.0
        decisions = self._decisions(detector, hiss.astype(np.int16))
        assert decisions[len(decisions) // 2 :].mean() < 0.02

    def test_decisions_are_plain_bools_and_frames_stay_as_they_are(self) -> None:
        detector = self.make()
        frame = self.recording().samples[: detector.frame_samples].copy()
        before = frame.copy()
        assert type(detector.is_speech(frame)) is bool
        assert np.array_equal(frame, before)

    def test_a_read_only_frame_is_accepted(self) -> None:
        detector = self.make()
        frame = np.zeros(detector.frame_samples, np.int16)
        frame.flags.writeable = False
        assert detector.is_speech(frame) is False

    def test_two_detectors_decide_alike(self) -> None:
        samples = self._noisy(self.recording(), snr_db=10.0)
        assert np.array_equal(self._decisions(self.make(), samples), self._decisions(self.make(), samples))

    def test_reset_forgets_everything(self) -> None:
        detector = self.make()
        samples = self._noisy(self.recording(), snr_db=10.0)
        first = self._decisions(detector, samples)
        loud = np.random.default_rng(7).normal(0.0, 8000.0, 2 * detector.sample_rate_hz)
        self._decisions(detector, np.clip(loud, -32768, 32767).astype(np.int16))
        detector.reset()
        assert np.array_equal(self._decisions(detector, samples), first)

    def test_wrong_frames_are_refused(self) -> None:
        detector = self.make()
        size = detector.frame_samples
        wrong: dict[str, Any] = {
            "one short": np.zeros(size - 1, np.int16),
            "one long": np.zeros(size + 1, np.int16),
            "empty": np.zeros(0, np.int16),
            "float32": np.zeros(size, np.float32),
            "uint16": np.zeros(size, np.uint16),
            "two axes": np.zeros((1, size), np.int16),
            "bytes": bytes(2 * size),
        }
        for name, frame in wrong.items():
            assert _refused(detector, frame), f"{name} was accepted"

    def test_a_refused_frame_leaves_no_trace(self) -> None:
        detector, other = self.make(), self.make()
        samples = self.recording().samples
        half = len(samples) // 2 // detector.frame_samples * detector.frame_samples
        self._decisions(detector, samples[:half])
        self._decisions(other, samples[:half])
        assert _refused(detector, np.zeros(1, np.int16))
        assert np.array_equal(self._decisions(detector, samples[half:]), self._decisions(other, samples[half:]))

    def _assert_words_found(self, samples: Samples) -> None:
        detector = self.make()
        decisions = self._decisions(detector, samples)
        frame_s = detector.frame_samples / detector.sample_rate_hz
        for start_s, end_s in self.recording().words:
            during = decisions[round(start_s / frame_s) : round((end_s + LATE_S) / frame_s)]
            found_s = during.sum() * frame_s
            assert found_s >= FOUND_S, f"{start_s:.2f}-{end_s:.2f} s: only {found_s:.2f} s found"

    @staticmethod
    def _decisions(detector: Detector, samples: Samples) -> NDArray[np.bool_]:
        size = detector.frame_samples
        frames = samples[: len(samples) // size * size].reshape(-1, size)
        return np.array([detector.is_speech(frame) for frame in frames], dtype=np.bool_)

    def _pause_frames(self, recording: Recording, count: int) -> NDArray[np.bool_]:
        """Mark the frames of pauses of at least 1 s, from 0.5 s after a word to the next one."""
        frame_s = self.make().frame_samples / recording.sample_rate_hz
        marked = np.zeros(count, dtype=np.bool_)
        ends = [end_s for _, end_s in recording.words]
        starts = [start_s for start_s, _ in recording.words[1:]] + [len(recording.samples) / recording.sample_rate_hz]
        for end_s, start_s in zip(ends, starts, strict=True):
            if start_s - end_s >= 1.0:
                marked[int((end_s + 0.5) / frame_s) : int((start_s - 0.05) / frame_s)] = True
        return marked

    @staticmethod
    def _noisy(recording: Recording, snr_db: float) -> Samples:
        """Add white noise so many decibels below the words."""
        samples = recording.samples.astype(np.float64)
        rate_hz = recording.sample_rate_hz
        words = np.concatenate([samples[int(a * rate_hz) : int(b * rate_hz)] for a, b in recording.words])
        level = np.sqrt(np.mean(np.square(words))) * 10 ** (-snr_db / 20)
        noise = np.random.default_rng(4).normal(0.0, level, len(samples))
        return np.clip(np.rint(samples + noise), -32768, 32767).astype(np.int16)


def _refused(detector: Detector, frame: Any) -> bool:
    try:
        detector.is_speech(frame)
    except InputError:
        return True
    return False
