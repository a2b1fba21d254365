"""WAV files as a server takes them: int16, with the segments that a gate found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Bundle
from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.endpoint import SegmentEnded, SegmentStarted
from tidegate.edge.gate import Gate
from tidegate.edge.sources import WavSource
from tidegate.edge.versions import prefilter_of
from tidegate.speech.pcm import int16_from_float32


@dataclass(frozen=True, eq=False)
class Wave:
    """One file."""

    path: Path
    samples: NDArray[np.int16]
    """[n], mixed to one channel"""
    sample_rate_hz: int
    segments: tuple[tuple[int, int], ...]
    """first sample and the sample after the last one, of each; none where the gate heard nobody"""


def gate_of(bundle: Path) -> PrefilterSettings:
    """Return the settings of a bundle's gate.

    Raises:
        NotFoundError: no such bundle.
        TidegateError: it cannot be used, or has no gate.
    """
    with Bundle.open(bundle) as opened:
        return prefilter_of(opened.manifest)


def read_wave(path: Path, gate: PrefilterSettings | None) -> Wave:
    """Read a file and find its segments.

    Args:
        path: a WAV file.
        gate: finds the segments; None: the whole file is one.

    Raises:
        NotFoundError: no such file.
        InputError: not a WAV, cut off, or no audio.
        ResourceError: the file cannot be read.
    """
    with WavSource(path) as source:
        rate_hz = source.sample_rate_hz
        audio = np.concatenate(list(source.chunks()))
    segments = ((0, len(audio)),) if gate is None else _segments(audio, Gate(gate, rate_hz))
    return Wave(path, int16_from_float32(audio), rate_hz, segments)


def _segments(audio: NDArray[np.float32], gate: Gate) -> tuple[tuple[int, int], ...]:
    """Return what the gate lets through, in samples of the file."""
    events = [*gate.push(audio), *gate.flush()]
    starts = [event.start_sample for event in events if isinstance(event, SegmentStarted)]
    ends = [event.end_sample for event in events if isinstance(event, SegmentEnded)]

    def in_file(sample: int) -> int:
        return min(round(sample * gate.source_rate_hz / gate.sample_rate_hz), len(audio))

    return tuple((in_file(start), in_file(end)) for start, end in zip(starts, ends, strict=True))
