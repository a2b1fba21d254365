"""Several detectors that must agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.prefilter.protocol import Detector, check_frame


class AllOf:
    """Speech is what every part calls speech. All parts hear every frame, so that each keeps its own past.

    Args:
        parts: two or more, with one rate and frame length.
    """

    def __init__(self, parts: Sequence[Detector]) -> None:
        self.parts = tuple(parts)
        self.name = "+".join(part.name for part in self.parts)
        self.sample_rate_hz = self.parts[0].sample_rate_hz
        self.frame_samples = self.parts[0].frame_samples

    def is_speech(self, frame: NDArray[np.int16]) -> bool:
        """Decide on int16 [frame_samples]."""
        check_frame(frame, self.frame_samples)
        decisions = [part.is_speech(frame) for part in self.parts]
        return all(decisions)

    def reset(self) -> None:
        """Reset every part."""
        for part in self.parts:
            part.reset()
