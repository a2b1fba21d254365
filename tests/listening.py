"""Audio for tests that listen."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidegate.speech.pcm import int16_from_float32

RATE_HZ = 16_000


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    """Write float32 samples in [-1, 1] as a mono WAV at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(int16_from_float32(samples).tobytes())
