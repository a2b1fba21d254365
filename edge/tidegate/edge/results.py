"""What the pipeline gives back: one `SegmentResult` a segment, and a `Summary` at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tidegate.speech.transcript import SearchResult, Word

DecidedBy = Literal["edge", "cloud"]

BYTES_PER_SAMPLE = 2
"""Audio goes over the wire as signed 16-bit samples, one channel."""


@dataclass(frozen=True)
class SegmentResult:
    """What one segment holds, who said so, and how long that took. Times count from the start of listening."""

    segment_id: int
    start_s: float
    """first sample of the segment, pre-roll included"""
    end_s: float
    """behind its last sample, hang-over included"""
    text: str
    """the words; empty when none was recognised, then see `label`"""
    label: str
    """without a word: the rejected label that fits best, such as `silence` or `unknown`"""
    confidence: float
    decided_by: DecidedBy
    latency_ms: float
    """from the moment the segment's last audio was handed in to this result"""
    bundle: str
    """name of the bundle that decided"""
    version: str
    variant: str
    words: tuple[Word, ...] = ()
    search_results: tuple[SearchResult, ...] = ()
    problem: str = ""
    """why the device's model failed on the segment; empty when it did not. `text` and `label` are empty then"""


@dataclass(frozen=True)
class Summary:
    """What one run of the pipeline took and what the gate saved."""

    duration_s: float
    """audio heard"""
    wall_s: float
    real_time_factor: float
    """wall_s / duration_s; under 1 is faster than the audio plays"""
    segments: int
    segments_edge: int
    """decided by the device's model"""
    segments_cloud: int
    segments_rejected: int
    """without a word, whoever decided"""
    segments_failed: int
    """on which the device's model failed, so that nobody decided"""
    frames_total: int
    frames_held_back: int
    """frames of the detector that went neither to the model nor to the server"""
    bytes_total: int
    """16-bit audio heard"""
    bytes_held_back: int
    """16-bit audio that the gate kept from going on"""
    bytes_sent: int
    """what went to the server: that audio, and the messages around it; 0 on the device"""
    held_back_share: float
    """bytes_held_back / bytes_total"""
    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU time of each stage on the listening thread; `other_threads` is what the rest of the process used, such as the
    network"""

    def __str__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """Return it as lines for people."""
        failed = f"; {self.segments_failed} failed" if self.segments_failed else ""
        stages = ", ".join(f"{stage.replace('_', ' ')} {seconds * 1000:.0f}" for stage, seconds in self.cpu_s.items())
        return "\n".join(
            [
                f"{self.duration_s:.1f} s of audio in {self.wall_s:.2f} s "
                f"(real-time factor {self.real_time_factor:.3f})",
                f"segments: {self.segments} ({self.segments_edge} decided on the device, {self.segments_cloud} in the "
                f"cloud, {self.segments_rejected} without a word{failed})",
                f"held back by the gate: {self.frames_held_back} of {self.frames_total} frames, "
                f"{self.bytes_held_back} of {self.bytes_total} bytes ({self.held_back_share:.1%}); "
                f"sent to a server: {self.bytes_sent} bytes",
                f"CPU time in ms: {stages}",
            ]
        )
