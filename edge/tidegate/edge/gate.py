"""The gate: audio in any chunks and at any rate in, segments of speech out, and an account of what was held back."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.endpoint import Endpointer, SegmentAudio, SegmentEnded, SegmentEvent, SegmentStarted
from tidegate.edge.prefilter import Detector, make_detector
from tidegate.errors import ConfigError, StateError
from tidegate.speech.pcm import check_audio, check_finite, int16_from_float32
from tidegate.speech.resample import StreamResampler

BYTES_PER_SAMPLE = 2


@dataclass(frozen=True)
class GateAccount:
    """What went in, what passed, what it cost. Samples and bytes are those of 16-bit audio at the gate's rate."""

    frames_total: int = 0
    """frames judged, the last one may be shorter"""
    frames_speech: int = 0
    """frames that the detector called speech"""
    samples_total: int = 0
    samples_passed: int = 0
    """samples that lie in segments"""
    segments: int = 0
    """segments that have started"""
    resample_cpu_s: float = 0.0
    """CPU time of resampling and conversion to int16"""
    detector_cpu_s: float = 0.0
    """CPU time of the frame decisions"""
    sample_rate_hz: int = 16_000
    frame_samples: int = 320

    @property
    def frames_passed(self) -> int:
        """Frames that lie in segments."""
        return -(-self.samples_passed // self.frame_samples)

    @property
    def frames_held_back(self) -> int:
        """Frames that lie in no segment."""
        return self.frames_total - self.frames_passed

    @property
    def bytes_total(self) -> int:
        """What sending everything would have cost."""
        return self.samples_total * BYTES_PER_SAMPLE

    @property
    def bytes_passed(self) -> int:
        """Bytes of audio in segments."""
        return self.samples_passed * BYTES_PER_SAMPLE

    @property
    def bytes_not_sent(self) -> int:
        """Bytes of audio held back."""
        return self.bytes_total - self.bytes_passed

    @property
    def audio_s(self) -> float:
        """Length of the stream so far."""
        return self.samples_total / self.sample_rate_hz


class Gate:
    """Resample once, cut into frames, detect, endpoint. How the stream is cut into chunks changes nothing.

    Args:
        settings: the prefilter of the bundle.
        source_rate_hz: rate of the chunks.
        detector: used instead of the one that `settings` names.

    Raises:
        ConfigError: settings or a rate that cannot be meant.
        DependencyError: the detector's package, or soxr where the rates differ, is not installed.
    """

    def __init__(self, settings: PrefilterSettings, source_rate_hz: int, *, detector: Detector | None = None) -> None:
        self._settings = settings
        self._detector = detector or make_detector(settings)
        self.sample_rate_hz = self._detector.sample_rate_hz
        self.frame_samples = self._detector.frame_samples
        self.source_rate_hz = source_rate_hz
        self._endpointer = Endpointer(settings, self.frame_samples, self.sample_rate_hz)
        self._resampler = StreamResampler(source_rate_hz, self.sample_rate_hz)
        self._rest = np.zeros(0, np.int16)
        self._taken = 0
        self._flushed = False
        self._frames_total = 0
        self._frames_speech = 0
        self._samples_total = 0
        self._samples_passed = 0
        self._segments = 0
        self._resample_cpu_s = 0.0
        self._detector_cpu_s = 0.0

    def push(self, chunk: NDArray[np.float32]) -> list[SegmentEvent]:
        """Take the next chunk, float32 [n] in [-1, 1] at `source_rate_hz`; return the events it completes.

        Values beyond [-1, 1] are clipped. Times in the events are samples at `sample_rate_hz`.

        Raises:
            InputError: not float32 with one axis, NaN or infinity.
            StateError: after `flush`.
        """
        self._check_open()
        self._check_chunk(chunk)
        samples = self._converted(chunk, last=False)
        frames = self._framed(samples)
        return self._passed(frames, self._decided(frames))

    def flush(self) -> list[SegmentEvent]:
        """End the stream; an open segment ends at its last sample. A rest shorter than a frame is judged padded with
        silence, and goes out as short as it is.

        Raises:
            StateError: called twice.
        """
        self._check_open()
        self._flushed = True
        frames = self._framed(self._converted(np.zeros(0, np.float32), last=True))
        events = self._passed(frames, self._decided(frames))
        if len(self._rest):
            padded = np.pad(self._rest, (0, self.frame_samples - len(self._rest)))
            events += self._passed([self._rest], self._decided([padded]))
        ended = self._endpointer.flush()
        return events + ended

    @property
    def is_between_segments(self) -> bool:
        """Whether no segment is open."""
        return not self._endpointer.is_open

    def change(self, settings: PrefilterSettings) -> None:
        """Go on in the same stream with other settings. No audio is lost; the detector keeps what it has learned unless
        its kind or options change. Frames of the account are those of the new length from now on.

        Raises:
            StateError: a segment is open, or the gate has been flushed.
            ConfigError: settings that cannot be meant, or a detector of another rate; the old ones stay.
            DependencyError: the detector's package is not installed; the old settings stay.
        """
        self._check_open()
        before = self._settings
        same_detector = (settings.kind, settings.options) == (before.kind, before.options)
        detector = self._detector if same_detector else make_detector(settings)
        if detector.sample_rate_hz != self.sample_rate_hz:
            raise ConfigError(
                f"prefilter {settings.kind!r} hears {detector.sample_rate_hz} Hz; "
                f"this stream has {self.sample_rate_hz} Hz",
                fix="listen to the source anew",
            )
        endpointer = Endpointer(settings, detector.frame_samples, self.sample_rate_hz)
        endpointer.take_over(self._endpointer)
        self._settings, self._detector, self._endpointer = settings, detector, endpointer
        if detector.frame_samples != self.frame_samples:
            self.frame_samples = detector.frame_samples
            self._frames_total = -(-self._samples_total // self.frame_samples)

    @property
    def account(self) -> GateAccount:
        """What went in and what passed, up to now."""
        return GateAccount(
            frames_total=self._frames_total,
            frames_speech=self._frames_speech,
            samples_total=self._samples_total,
            samples_passed=self._samples_passed,
            segments=self._segments,
            resample_cpu_s=self._resample_cpu_s,
            detector_cpu_s=self._detector_cpu_s,
            sample_rate_hz=self.sample_rate_hz,
            frame_samples=self.frame_samples,
        )

    def _check_open(self) -> None:
        if self._flushed:
            raise StateError("the gate has been flushed", fix="make a new Gate for a new stream")

    def _check_chunk(self, chunk: NDArray[np.float32]) -> None:
        check_audio(chunk, "the chunk")
        check_finite(chunk, first_sample=self._taken, sample_rate_hz=self.source_rate_hz, origin="the stream")
        self._taken += len(chunk)

    def _converted(self, chunk: NDArray[np.float32], *, last: bool) -> NDArray[np.int16]:
        started = time.thread_time()
        resampled = self._resampler.finish() if last else self._resampler.push(chunk)
        samples = int16_from_float32(resampled)
        self._resample_cpu_s += time.thread_time() - started
        return samples

    def _framed(self, samples: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        """Cut into whole frames; what is left waits in `_rest`."""
        joined = np.concatenate([self._rest, samples])
        count = len(joined) // self.frame_samples
        self._rest = joined[count * self.frame_samples :].copy()
        return list(joined[: count * self.frame_samples].reshape(count, self.frame_samples))

    def _decided(self, frames: list[NDArray[np.int16]]) -> list[bool]:
        started = time.thread_time()
        decisions = [self._detector.is_speech(frame) for frame in frames]
        self._detector_cpu_s += time.thread_time() - started
        return decisions

    def _passed(self, frames: list[NDArray[np.int16]], decisions: list[bool]) -> list[SegmentEvent]:
        events: list[SegmentEvent] = []
        for frame, is_speech in zip(frames, decisions, strict=True):
            events += self._endpointer.push(frame, is_speech)
            self._samples_total += len(frame)
        self._frames_total += len(frames)
        self._frames_speech += sum(decisions)
        self._segments += sum(isinstance(event, SegmentStarted) for event in events)
        self._samples_passed += sum(len(event.audio) for event in events if not isinstance(event, SegmentEnded))
        return events


__all__ = ["BYTES_PER_SAMPLE", "Gate", "GateAccount", "SegmentAudio", "SegmentEnded", "SegmentEvent", "SegmentStarted"]
