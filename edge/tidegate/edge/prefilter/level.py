"""A slow gain that moves the background to one level, for detectors that depend on the level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.prefilter.floor import FloorTracker

LOWEST_LEVEL_DBFS = -75.0
"""A background below this counts as this: digital silence asks for no infinite gain."""

START_MS = 1000
START_MARGIN_DB = 15.0
"""A stream may begin inside speech: at first the background is taken to be this far below what is heard."""


class LevelNormaliser:
    """Scale frames so that the noise floor lies at `floor_dbfs`.

    Measured for webrtcvad: it takes any steady noise above about -30 dBFS for speech, for ever, and misses speech that
    is 30 dB too quiet. With the background at -40 dBFS both go away.

    Args:
        floor_dbfs: where the background is moved to (rms, relative to full scale).
        frame_ms: length of the frames, for the time constants.
        maximum_gain_db: no more than this is added or taken away.
        window_ms: the background is the lowest level of this long.
    """

    def __init__(
        self, floor_dbfs: float, frame_ms: int, *, maximum_gain_db: float = 40.0, window_ms: int = 2000
    ) -> None:
        self._floor_dbfs = floor_dbfs
        self._maximum_gain_db = maximum_gain_db
        self._floor = FloorTracker(window_ms // frame_ms)
        self._start_frames = START_MS // frame_ms
        self._frames = 0

    def scaled(self, frame: NDArray[np.int16]) -> NDArray[np.int16]:
        """Return int16 [n] with the gain of this moment, clipped at full scale."""
        samples = frame.astype(np.float32)
        # The variance, not the power: a constant offset is no sound.
        if not frame.any():
            # Digital silence says nothing about the background: devices give it before they record.
            return frame
        level_dbfs = 10 * np.log10(max(float(np.var(samples)) / 32768.0**2, 10 ** (LOWEST_LEVEL_DBFS / 10)))
        floor_dbfs = float(self._floor.update(np.array([level_dbfs]))[0])
        self._frames += 1
        if self._frames <= self._start_frames:
            floor_dbfs -= START_MARGIN_DB
        gain_db = float(np.clip(self._floor_dbfs - floor_dbfs, -self._maximum_gain_db, self._maximum_gain_db))
        scaled = np.rint(samples * np.float32(10 ** (gain_db / 20)))
        return np.asarray(np.clip(scaled, -32768, 32767), dtype=np.int16)

    def reset(self) -> None:
        """Forget the background."""
        self._floor.reset()
        self._frames = 0
