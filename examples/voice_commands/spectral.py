"""Perturbations of log-mel windows that make one synthesiser sound like many: pure numpy.

A synthesiser betrays itself by its timing, by how sharp its formants are, by
how smoothly it moves and by its timbre.  Each function changes one of these at
random, for a batch of windows float32 [n, frames, bands], so that a network
cannot lean on them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Rng = np.random.Generator


def perturb(log_mel: Float, rng: Rng) -> Float:
    """Apply all perturbations, each to a random part of the batch."""
    shaken = warp_time_and_frequency(log_mel, rng)
    shaken = change_contrast(shaken, rng)
    shaken = colour(shaken, rng)
    return mask(shaken, rng)


def warp_time_and_frequency(log_mel: Float, rng: Rng, frames: float = 7.0, bands: float = 1.6) -> Float:
    """Bend both axes smoothly: phones get longer and shorter, formants move apart and together.

    Nearest frame in time; linear interpolation between bands.
    """
    count, steps, width = log_mel.shape
    rows = _bent(count, steps, frames, rng).round().astype(np.int64)
    columns = _bent(count, width, bands, rng)
    below = np.minimum(columns.astype(np.int64), width - 2)
    share = (columns - below).astype(np.float32)[:, None, :]
    index = np.arange(count)[:, None]
    timed = log_mel[index, rows]
    low = np.take_along_axis(timed, below[:, None, :], axis=2)
    high = np.take_along_axis(timed, below[:, None, :] + 1, axis=2)
    return np.asarray(low + share * (high - low), dtype=np.float32)


def change_contrast(log_mel: Float, rng: Rng) -> Float:
    """Sharpen or blur along frequency (formant width) and along time (smoothness of motion)."""
    count = len(log_mel)
    across = rng.uniform(-0.7, 0.5, (count, 1, 1)).astype(np.float32)
    along = rng.uniform(-0.7, 0.3, (count, 1, 1)).astype(np.float32)
    along[rng.random(count) < 0.5] = 0.0
    across_mean = log_mel @ _blur_matrix(log_mel.shape[2])
    changed = log_mel + across * (log_mel - across_mean)
    along_mean = _blur_matrix(log_mel.shape[1]).T @ changed
    return np.asarray(changed + along * (changed - along_mean), dtype=np.float32)


def colour(log_mel: Float, rng: Rng) -> Float:
    """Add a smooth random timbre (about +-6 dB) and scale the dynamic range."""
    count, _, width = log_mel.shape
    knots = rng.normal(0, 0.8, (count, 6))
    places = np.linspace(0, 5, width)
    left = np.minimum(places.astype(np.int64), 4)
    curve = knots[:, left] + (places - left) * (knots[:, left + 1] - knots[:, left])
    loudest = log_mel.max(axis=(1, 2), keepdims=True)
    scale = rng.uniform(0.85, 1.2, (count, 1, 1)).astype(np.float32)
    offset = loudest * (1 - scale) + curve[:, None, :].astype(np.float32)
    return np.asarray(log_mel * scale + offset, dtype=np.float32)


def mask(log_mel: Float, rng: Rng) -> Float:
    """Flatten a few bands of some windows, after SpecAugment (Park et al., 2019)."""
    for row in np.flatnonzero(rng.random(len(log_mel)) < 0.3):
        first, width = int(rng.integers(0, log_mel.shape[2])), int(rng.integers(1, 5))
        log_mel[row, :, first : first + width] = log_mel[row].mean()
    return log_mel


def _bent(count: int, length: int, most: float, rng: Rng) -> NDArray[np.float64]:
    """Return ``count`` smooth monotone-enough maps of 0..length-1 to itself, off by about ``most``."""
    place = np.linspace(0, np.pi, length)
    waves = np.stack([np.sin(place), np.sin(2 * place), np.sin(3 * place) / 2])
    bent = np.arange(length) + rng.uniform(-most, most, (count, 3)) @ waves / 1.5
    return np.clip(bent, 0, length - 1)


def _blur_matrix(length: int) -> Float:
    """Return the matrix of a moving average over five entries (fewer at the ends)."""
    near = np.abs(np.subtract.outer(np.arange(length), np.arange(length))) <= 2
    return np.asarray(near / near.sum(axis=0, keepdims=True), dtype=np.float32)
