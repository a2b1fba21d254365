"""Speech as what rises above the background: band energies over a tracked floor, with hysteresis. Only numpy.

The decision depends on ratios of levels alone, so a gain of -30 dB changes nothing until the signal drowns in the
steps of 16 bits. Several bands are tracked apart: a vowel stands out of white noise in the low band, an "s" out of
hum and rumble in the high one. Below 150 Hz nothing is heard, so mains hum does not hide speech.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tidegate.edge.prefilter.floor import FloorTracker
from tidegate.edge.prefilter.protocol import SAMPLE_RATE_HZ, check_frame, frame_length
from tidegate.errors import ConfigError

BAND_EDGES_HZ = (150, 600, 1500, 3500, 7600)
LOWEST_LEVEL_DB = -80.0
"""Per band, relative to full scale: what is quieter counts as this quiet, so digital silence is no floor that the
dither or hiss of a quiet microphone would tower over."""
LATE_MS = 200
"""how long the frames after a sound with which the stream began count as speech"""


@dataclass(frozen=True)
class EnergyOptions:
    """Settings of the energy detector."""

    frame_ms: int = 20
    """length of a frame: 10, 20 or 30"""
    on_db: float = 9.0
    """a band must rise this far above its floor for speech to begin"""
    off_db: float = 6.0
    """speech goes on while a band stays this far above its floor"""
    window_ms: int = 2000
    """the floor is the lowest level of this long"""
    smoothing_ms: int = 30
    """time constant of the level's smoothing"""
    start_ms: int = 1000
    """for this long after the start a fall of the level tells that the stream began inside speech"""
    fall_db: float = 12.0
    """such a fall, in any band"""

    def __post_init__(self) -> None:
        if self.frame_ms not in (10, 20, 30):
            raise ConfigError(f"frame_ms is {self.frame_ms}; expected 10, 20 or 30", fix="use 20")
        if not 0 < self.off_db <= self.on_db:
            raise ConfigError(
                f"on_db is {self.on_db:g} and off_db is {self.off_db:g}; expected 0 < off_db <= on_db",
                fix="start from on_db 9 and off_db 6",
            )
        if not 200 <= self.window_ms <= 60_000:
            raise ConfigError(f"window_ms is {self.window_ms}; expected 200 to 60000", fix="use 2000")
        if not 0 <= self.smoothing_ms <= 500:
            raise ConfigError(f"smoothing_ms is {self.smoothing_ms}; expected 0 to 500", fix="use 30")
        if not 0 <= self.start_ms <= 10_000:
            raise ConfigError(f"start_ms is {self.start_ms}; expected 0 (off) to 10000", fix="use 1000")
        if not 6 <= self.fall_db <= 60:
            raise ConfigError(f"fall_db is {self.fall_db:g}; expected 6 to 60", fix="use 12")


class EnergyDetector:
    """Band energy over a tracked floor; see the module's text."""

    Options: ClassVar[type[EnergyOptions]] = EnergyOptions
    name = "energy"
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, options: EnergyOptions | None = None) -> None:
        self.options = options or EnergyOptions()
        self.frame_samples = frame_length(self.options.frame_ms)
        self._window = np.hanning(self.frame_samples).astype(np.float32) / np.float32(32768.0)
        edges = np.array(BAND_EDGES_HZ) * self.frame_samples // SAMPLE_RATE_HZ
        self._edges = np.maximum(edges, 1)
        # Mean power per bin: white noise of one level reads the same in every band and at every frame length.
        self._scale = 1.0 / (np.diff(self._edges) * float(np.sum(np.square(self._window * 32768.0))))
        self._lowest = 10 ** (LOWEST_LEVEL_DB / 10)
        self._keep = float(np.exp(-self.options.frame_ms / max(self.options.smoothing_ms, 1e-9)))
        self._floor = FloorTracker(self.options.window_ms // self.options.frame_ms)
        self._level_db: NDArray[np.float64] | None = None
        self._speaking = False
        self._begin()

    def is_speech(self, frame: NDArray[np.int16]) -> bool:
        """Decide on int16 [frame_samples]."""
        check_frame(frame, self.frame_samples)
        level_db = self._smoothed(10 * np.log10(self._band_power(frame)))
        excess_db = float(np.max(level_db - self._floor.update(level_db)))
        self._speaking = excess_db >= (self.options.off_db if self._speaking else self.options.on_db)
        return self._speaking or self._began_in_speech(level_db)

    def reset(self) -> None:
        """Forget floor and state."""
        self._floor.reset()
        self._level_db = None
        self._speaking = False
        self._begin()

    def _smoothed(self, level_db: NDArray[np.float64]) -> NDArray[np.float64]:
        """Smooth in decibels: smoothed power would take longer to fall, the louder the sound was."""
        if self._level_db is not None:
            level_db = self._keep * self._level_db + (1 - self._keep) * level_db
        self._level_db = level_db
        return level_db

    def _begin(self) -> None:
        self._start_frames_left = self.options.start_ms // self.options.frame_ms
        self._late_frames_left = 0
        self._loudest_db: NDArray[np.float64] | None = None

    def _began_in_speech(self, level_db: NDArray[np.float64]) -> bool:
        """Call speech, late, what a stream began with.

        While the first sound lasts, a word and steady noise look alike: the floor is as high as the sound. When the
        level falls by more than noise ever does, it was a word, and for `LATE_MS` the frames count as speech. The
        endpointer's pre-roll brings the word itself.
        """
        if self._start_frames_left == 0:
            return self._take_late_frame()
        self._start_frames_left -= 1
        if self._speaking:
            self._start_frames_left = 0
            return False
        self._loudest_db = level_db if self._loudest_db is None else np.maximum(self._loudest_db, level_db)
        if float(np.max(self._loudest_db - level_db)) < self.options.fall_db:
            return False
        self._start_frames_left = 0
        self._late_frames_left = LATE_MS // self.options.frame_ms
        return self._take_late_frame()

    def _take_late_frame(self) -> bool:
        if self._late_frames_left == 0:
            return False
        self._late_frames_left -= 1
        return True

    def _band_power(self, frame: NDArray[np.int16]) -> NDArray[np.float64]:
        spectrum = np.fft.rfft(frame * self._window)
        power = spectrum.real**2 + spectrum.imag**2
        bands = np.add.reduceat(power, self._edges)[:-1] * self._scale
        return np.asarray(np.maximum(bands, self._lowest), dtype=np.float64)
