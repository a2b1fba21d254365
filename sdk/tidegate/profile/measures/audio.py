"""Audio, a recording a row: level, duration, clipping, speech."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.arrays import Array
from tidegate.profile.measures.column import Column, Floats, flat

FRAME_MS = 20
SILENCE_DBFS = -120.0
"""Level of digital silence."""
CLIPPED = 0.999
"""A sample of at least this magnitude is at full scale."""
SPEECH_FLOOR_DBFS = -50.0
SPEECH_ABOVE_NOISE_DB = 6.0
"""A frame is speech when it is louder than the floor, and by this than the clip's noise, its 10 % quantile."""


def audio_columns(array: Array, sample_rate_hz: int, lengths: NDArray[np.int64] | None) -> dict[str, Column]:
    """Measure recordings.

    Args:
        array: [rows, ..., samples], float in [-1, 1] or integer PCM; axes between must have length 1.
        sample_rate_hz: of the samples.
        lengths: samples of each row before the padding, int64 [rows]; None: all of them.

    Returns:
        `level_dbfs` (RMS against a magnitude of 1), `duration_s`, `clipping_share` and `speech_fraction` (0 to 1).
        A row without samples has a duration only; a row with NaN is null.
    """
    measured = np.zeros((4, len(array)))
    for row, samples in enumerate(flat(array)):
        signal = _floats(samples if lengths is None else samples[: lengths[row]])
        measured[:, row] = _measure(signal, sample_rate_hz)
    empty = measured[1] == 0
    level, duration, clipping, speech = measured
    return {
        "level_dbfs": Column(level, empty),
        "duration_s": Column.full(duration),
        "clipping_share": Column(clipping, empty),
        "speech_fraction": Column(speech, empty),
    }


def _floats(samples: Array) -> Floats:
    if samples.dtype.kind == "i":
        return samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float64)


def _measure(signal: Floats, sample_rate_hz: int) -> tuple[float, float, float, float]:
    if not len(signal):
        return 0.0, 0.0, 0.0, 0.0
    power = float(np.mean(signal**2))
    if not np.isfinite(power):
        return np.nan, len(signal) / sample_rate_hz, np.nan, np.nan
    clipping = float(np.mean(np.abs(signal) >= CLIPPED))
    return _dbfs(np.array(power)).item(), len(signal) / sample_rate_hz, clipping, _speech(signal, sample_rate_hz)


def _speech(signal: Floats, sample_rate_hz: int) -> float:
    frame = min(max(1, sample_rate_hz * FRAME_MS // 1000), len(signal))
    frames = signal[: len(signal) // frame * frame].reshape(-1, frame)
    levels = _dbfs(np.mean(frames**2, axis=1))
    noise = float(np.quantile(levels, 0.1))
    return float(np.mean(levels > max(SPEECH_FLOOR_DBFS, noise + SPEECH_ABOVE_NOISE_DB)))


def _dbfs(power: Floats) -> Floats:
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (SILENCE_DBFS / 10.0))))
