"""The noise conditions of the test."""

from __future__ import annotations

from dataclasses import dataclass

import augment
import numpy as np
from noises import EVENTS, STEADY, Noise, random_noise
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Condition:
    """What is added to the speech."""

    snr_db: float | None
    """Speech above noise (RMS of the speech itself), or None for no noise."""
    kinds: tuple[Noise, ...] = STEADY
    """One of these is drawn for each window or segment."""

    def add_to(self, audio: Float, speech_rms: float, rng: np.random.Generator) -> Float:
        """Return ``audio`` with the noise of this condition."""
        if self.snr_db is None:
            return audio
        noise = random_noise(audio.size, rng, self.kinds)
        return augment.mix_at_snr(audio, noise, self.snr_db, speech_rms)


CONDITIONS: dict[str, Condition] = {
    "quiet": Condition(None),
    "20 dB": Condition(20.0),
    "10 dB": Condition(10.0),
    "5 dB": Condition(5.0),
    "10 dB events": Condition(10.0, EVENTS),
}
