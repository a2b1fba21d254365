"""The cheap stage in front of the model: who speaks goes on, the rest is held back."""

from tidegate.edge.prefilter.protocol import Detector
from tidegate.edge.prefilter.registry import KINDS, make_detector

__all__ = ["KINDS", "Detector", "make_detector"]
