"""One segment of a stream: audio in, results out while it is spoken and at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from tidegate.cloud.repository import ServedModel
from tidegate.cloud.speech_model import SegmentModel
from tidegate.cloud.speech_settings import SpeechSettings, StreamSettings
from tidegate.cloud.speech_stages import COMPUTE, Stages
from tidegate.speech import SearchResult, Transcript
from tidegate.speech.incremental import IncrementalTranscription
from tidegate.speech.pcm import float32_from_int16
from tidegate.speech.resample import StreamResampler

SAMPLE_BYTES = 2


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
    is_final: bool = True
    stability: float = 1.0
    """of an interim result: see `agreement`"""
    audio: bytes = b""
    """what was received, int16 little-endian at the client's rate; only of a final answer, when the segment keeps it"""
    stages: Stages = field(default_factory=Stages)
    """where the time went"""


class OpenSegment:
    """The open segment. Holds its version of the model until `close`. Used by one thread."""

    def __init__(
        self, segment_id: int, start_sample: int, settings: StreamSettings, model: SegmentModel, *, keep_audio: bool
    ) -> None:
        """Begin without audio.

        Args:
            segment_id: the client's.
            start_sample: of its first sample.
            settings: of the stream.
            model: taken over; freed here when the segment cannot begin.
            keep_audio: whether the final answer carries the audio.

        Raises:
            DependencyError: the audio has to be resampled and soxr is not installed.
        """
        self.id = segment_id
        self.start_sample = start_sample
        self.samples = 0
        """received, at the client's rate"""
        self.stages = model.stages
        self._settings = settings
        self._model = model
        try:
            transcriber = model.transcriber()
            self._resampler = StreamResampler(settings.sample_rate_hz, transcriber.sample_rate_hz)
        except BaseException:
            model.release()
            raise
        self._recognised = IncrementalTranscription(transcriber)
        self._keep_audio = keep_audio
        self._kept: list[bytes] = []
        self._looked_at_sample = 0
        self._shown: Transcript | None = None
        self._stability = 0.0

    def take(self, content: bytes) -> None:
        """Take audio, int16 little-endian, and recognise as far as it allows.

        Raises:
            ModelError: the model failed.
            ResourceError: its queue is full.
            UnavailableError: the caller is gone, or out of time.
        """
        self.samples += len(content) // SAMPLE_BYTES
        if self._keep_audio:
            self._kept.append(content)
        began_ns = time.monotonic_ns()
        samples = self._resampler.push(float32_from_int16(np.frombuffer(content, "<i2").astype(np.int16)))
        self.stages.prepared(began_ns)
        self._recognised.push(samples)

    def interim(self, limits: SpeechSettings) -> SegmentAnswer | None:
        """Return what is understood so far, if it is time for that and differs from what was said last."""
        settings = self._settings
        interval_ms = max(settings.interim_interval_ms or limits.interim_interval_ms, limits.shortest_interim_ms)
        if (self.samples - self._looked_at_sample) * 1000 < interval_ms * settings.sample_rate_hz:
            return None
        self._looked_at_sample = self.samples
        began_ns = time.monotonic_ns()
        transcript = self._recognised.so_far()
        self.stages.decoded(began_ns, shown=False)
        if transcript is None:
            return None
        stability = agreement(self._shown, transcript)
        before = "" if self._shown is None else self._shown.text
        if transcript.text == before and (not before or stability == self._stability):
            return None
        self._shown, self._stability = transcript, stability
        return self._said(transcript, self.start_sample + self.samples, is_final=False, stability=stability)

    def answer(self, end_sample: int) -> SegmentAnswer:
        """Return the final answer; raises as `take`."""
        stages = self.stages
        stages.ended_ns = time.monotonic_ns()
        samples = self._resampler.finish()
        stages.prepared(stages.ended_ns)
        self._recognised.push(samples)
        began_ns = time.monotonic_ns()
        transcript = self._recognised.finish()
        stages.decoded(began_ns, shown=True)
        found = self._search(transcript)
        stages.answered_ns = time.monotonic_ns()
        return self._said(transcript, end_sample, found=found, audio=b"".join(self._kept))

    def close(self) -> None:
        """Let the model go. Closing again does nothing."""
        self._model.release()

    def _search(self, transcript: Transcript) -> tuple[SearchResult, ...]:
        catalogue, limit = self._model.served.catalogue, self._settings.maximum_search_results
        if catalogue is None or not transcript.text or not limit:
            return ()
        began_ns = time.monotonic_ns()
        found = catalogue.search(transcript.text, limit)
        self.stages.searched(began_ns)
        return found

    def _said(
        self,
        transcript: Transcript,
        end_sample: int,
        *,
        found: tuple[SearchResult, ...] = (),
        is_final: bool = True,
        stability: float = 1.0,
        audio: bytes = b"",
    ) -> SegmentAnswer:
        rate_hz = self._settings.sample_rate_hz
        start_s = self.start_sample / rate_hz
        return SegmentAnswer(
            segment_id=self.id,
            start_s=start_s,
            end_s=end_sample / rate_hz,
            transcript=transcript.shifted(start_s),
            search_results=found,
            served=self._model.served,
            received_bytes=self.samples * SAMPLE_BYTES,
            compute_ms=self.stages.spent_ns[COMPUTE] / 1e6,
            is_final=is_final,
            stability=stability,
            audio=audio,
            stages=self.stages,
        )


def agreement(before: Transcript | None, now: Transcript) -> float:
    """Return the share of `now`'s words, from the first on, that `before` had as well; 0 without words.

    Two results in a row that agree are the usual sign that a streaming recogniser has made up its mind (local
    agreement: Liu, Spanakis and Niehues, "Low-latency sequence-to-sequence speech recognition and translation by
    partial hypothesis selection", Interspeech 2020).
    """
    if not now.words:
        return 0.0
    known = before.words if before is not None else ()
    same = 0
    for old, new in zip(known, now.words, strict=False):
        if old.text != new.text:
            break
        same += 1
    return same / len(now.words)
