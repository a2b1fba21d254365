"""One segment's audio, and the model on the device that recognises it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.manifest import Manifest
from tidegate.edge.endpoint import SegmentAudio, SegmentEvent, SegmentStarted
from tidegate.edge.results import SegmentResult
from tidegate.errors import InputError, ModelError, ResourceError
from tidegate.speech import Catalogue, Transcript
from tidegate.speech.pcm import float32_from_int16
from tidegate.speech.resample import StreamResampler


@dataclass
class Utterance:
    """The audio of one segment, kept until somebody has decided what it says."""

    segment_id: int
    start_sample: int
    parts: list[NDArray[np.int16]] = field(default_factory=list)
    end_sample: int = 0
    ended_at_s: float | None = None
    """on the pipeline's clock; None while the segment goes on"""

    def samples(self) -> NDArray[np.float32]:
        """Return all of it, float32 [n] in [-1, 1]."""
        return float32_from_int16(np.concatenate(self.parts))


@dataclass
class Costs:
    """CPU time of this thread."""

    model_cpu_s: float = 0.0
    """in the model and the decoder"""
    search_cpu_s: float = 0.0


class SegmentTranscriber(Protocol):
    """What recognises a segment; `tidegate.speech.Transcriber` does."""

    @property
    def sample_rate_hz(self) -> int: ...  # noqa: D102
    def transcribe(self, samples: NDArray[np.float32]) -> Transcript: ...  # noqa: D102


class DeviceModel:
    """The transcriber and the catalogue of the bundle on this device."""

    def __init__(
        self,
        manifest: Manifest,
        variant_id: str,
        transcriber: SegmentTranscriber,
        catalogue: Catalogue | None,
        *,
        maximum_results: int,
        sample_rate_hz: int,
        costs: Costs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is loaded already.

        Args:
            manifest: names the bundle in results.
            variant_id: the variant that `transcriber` runs.
            transcriber: recognises.
            catalogue: gives search results; None for none.
            maximum_results: search results a segment.
            sample_rate_hz: rate of the utterances; resampled when the model wants another.
            costs: added to; shared by the versions that follow one another in one run. None for new ones.
            clock: the pipeline's monotonic clock, in seconds.
        """
        self._manifest = manifest
        self._variant_id = variant_id
        self._transcriber = transcriber
        self._catalogue = catalogue
        self._maximum_results = maximum_results
        self._sample_rate_hz = sample_rate_hz
        self._clock = clock
        self.costs = Costs() if costs is None else costs

    @property
    def name(self) -> str:
        """Bundle, version and variant, for messages."""
        return f"{self._manifest.name} {self._manifest.version} ({self._variant_id})"

    def recognise(self, utterance: Utterance) -> SegmentResult:
        """Decide here what a finished utterance says; a model that fails gives a result with a `problem`."""
        started_s = time.thread_time()
        problem = ""
        try:
            transcript = self._transcriber.transcribe(self._at_the_models_rate(utterance.samples()))
        except (ModelError, InputError, ResourceError) as error:
            transcript, problem = Transcript("", 0.0), error.message or type(error).__name__
        recognised_s = time.thread_time()
        results = (
            self._catalogue.search(transcript.text, self._maximum_results) if self._catalogue and not problem else ()
        )
        self.costs.model_cpu_s += recognised_s - started_s
        self.costs.search_cpu_s += time.thread_time() - recognised_s

        start_s = utterance.start_sample / self._sample_rate_hz
        transcript = transcript.shifted(start_s)
        return SegmentResult(
            segment_id=utterance.segment_id,
            start_s=start_s,
            end_s=utterance.end_sample / self._sample_rate_hz,
            text=transcript.text,
            label=transcript.label,
            confidence=transcript.confidence,
            decided_by="edge",
            latency_ms=latency_ms(utterance, self._clock()),
            bundle=self._manifest.name,
            version=self._manifest.version,
            variant=self._variant_id,
            words=transcript.words,
            search_results=results,
            problem=problem,
        )

    def _at_the_models_rate(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._transcriber.sample_rate_hz == self._sample_rate_hz:
            return samples
        resampler = StreamResampler(self._sample_rate_hz, self._transcriber.sample_rate_hz)
        return np.concatenate([resampler.push(samples), resampler.finish()])


def latency_ms(utterance: Utterance, now_s: float) -> float:
    """Return the time since the utterance's last audio was handed in; 0 while it goes on."""
    return 0.0 if utterance.ended_at_s is None else (now_s - utterance.ended_at_s) * 1000


def extended(utterance: Utterance | None, event: SegmentEvent, now_s: float) -> Utterance:
    """Return the utterance with what `event` adds; a start begins a new one."""
    if isinstance(event, SegmentStarted):
        return Utterance(event.segment_id, event.start_sample, [event.audio])
    assert utterance is not None
    if isinstance(event, SegmentAudio):
        utterance.parts.append(event.audio)
    else:
        utterance.end_sample = event.end_sample
        utterance.ended_at_s = now_s
    return utterance
