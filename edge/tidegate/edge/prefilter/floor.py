"""How loud the background is, from the recent minimum of the level."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float64]


class FloorTracker:
    """The minimum of a level over the last `window_frames`, for several bands at once.

    Speech falls back to the background between its syllables and words, steady noise never rises above itself: so
    the lowest level of the last seconds is the background's. It follows a fall at once, and a rise after one window.
    The idea, and the ring of block minima that keeps the cost per frame constant, are from R. Martin, "Noise power
    spectral density estimation based on optimal smoothing and minimum statistics", IEEE Trans. Speech and Audio
    Processing 9(5), 2001.

    Args:
        window_frames: how far back the minimum looks.
        blocks: parts of the window; the window moves on by one block at a time.
    """

    def __init__(self, window_frames: int, blocks: int = 8) -> None:
        self._block_frames = max(1, window_frames // blocks)
        self._minima: deque[Levels] = deque(maxlen=blocks)
        self._current: Levels | None = None
        self._frames = 0

    def update(self, level: Levels) -> Levels:
        """Take the level of the next frame, float64 [bands]; return the floor, float64 [bands]."""
        self._current = level if self._current is None else np.minimum(self._current, level)
        floor = self._current
        for minimum in self._minima:
            floor = np.minimum(floor, minimum)
        self._frames += 1
        if self._frames == self._block_frames:
            self._minima.append(self._current)
            self._current = None
            self._frames = 0
        return floor

    def reset(self) -> None:
        """Forget everything."""
        self._minima.clear()
        self._current = None
        self._frames = 0
