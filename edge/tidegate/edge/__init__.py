"""The device side: sources, prefilter, endpointer, pipeline."""

from tidegate.edge.pacing import PacedSource
from tidegate.edge.pipeline import Listener
from tidegate.edge.results import SegmentResult, Summary
from tidegate.edge.sources import AudioSource, MicrophoneSource, StdinSource, WavSource

__all__ = [
    "AudioSource",
    "Listener",
    "MicrophoneSource",
    "PacedSource",
    "SegmentResult",
    "StdinSource",
    "Summary",
    "WavSource",
]
