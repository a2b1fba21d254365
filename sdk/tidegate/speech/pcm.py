"""Samples as numbers: between int16 as it is sent and float32 as it is computed.

Full scale is 1.0 in float32 and 32768 in int16: int16 -> float32 -> int16
gives back every value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputError

FULL_SCALE = 32768.0
"""int16 steps per 1.0"""


def float32_from_int16(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return int16 samples of any shape as float32 in [-1, 1)."""
    return np.multiply(samples, np.float32(1.0 / FULL_SCALE), dtype=np.float32)


def int16_from_float32(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return float samples of any shape as int16: rounded to the nearest step, clipped at full scale.

    NaN has no meaning here: run `check_finite` on what comes from outside first.
    """
    steps = np.rint(samples * np.float32(FULL_SCALE))
    return np.asarray(np.clip(steps, -FULL_SCALE, FULL_SCALE - 1), dtype=np.int16)


def mono(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix float32 [n, channels] to float32 [n] by the mean, so that full scale stays full scale."""
    if frames.shape[1] == 1:
        return np.ascontiguousarray(frames[:, 0])
    return np.asarray(frames.mean(axis=1), dtype=np.float32)


def check_audio(samples: NDArray[Any], what: str = "audio") -> NDArray[np.float32]:
    """Return `samples` if they are float32 of one axis.

    Raises:
        InputError: another dtype or number of axes, or no array.
    """
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        found = f"{samples.dtype} {list(samples.shape)}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise InputError(
            f"{what} is {found}; expected a numpy array of float32 with one axis",
            fix="mix to one channel, and convert int16 with tidegate.speech.pcm.float32_from_int16",
        )
    return samples


def check_finite(samples: NDArray[np.floating[Any]], *, first_sample: int, sample_rate_hz: int, origin: str) -> None:
    """Refuse NaN and infinities, naming the first of them.

    Args:
        samples: float, first axis is time.
        first_sample: position of `samples[0]` in the stream.
        sample_rate_hz: turns the position into a time for the message.
        origin: file or stream, for the message.

    Raises:
        InputError: a value is NaN or infinite.
    """
    finite = np.isfinite(samples)
    if finite.all():
        return
    index = int(np.argwhere(~finite)[0][0])
    position = first_sample + index
    value = float(np.ravel(samples[index])[~np.ravel(finite[index])][0])
    raise InputError(
        f"{origin}: sample {position} ({position / sample_rate_hz:.3f} s) is {value}; expected finite numbers",
        fix="export the audio again, or write it as 16-bit PCM",
    )
