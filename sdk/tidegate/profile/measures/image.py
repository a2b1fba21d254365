"""Images, one a row: brightness, contrast, blur."""

from __future__ import annotations

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.profile.measures.column import Column, Floats, in_chunks, width

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue, ITU-R BT.601."""


def image_columns(array: Array, *, channels_first: bool) -> dict[str, Column]:
    """Measure images [rows, height, width, channels], [rows, channels, height, width] or [rows, height, width].

    Unsigned integers are divided by their largest value; floats are taken as they are.

    Returns:
        `brightness` (mean of the luma), `contrast` (its standard deviation) and `laplacian_variance` (of the
        4-neighbour Laplacian; low when the image is blurred, Pech-Pacheco et al., ICPR 2000). NaN inside makes a row
        null.
    """
    parts = [_measure(array[rows], channels_first) for rows in in_chunks(len(array), width(array))]
    brightness, contrast, blur = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
    return {
        "brightness": Column.full(brightness),
        "contrast": Column.full(contrast),
        "laplacian_variance": Column.full(blur),
    }


def _measure(images: Array, channels_first: bool) -> Floats:
    """Return [3, rows]."""
    luma = _luma(images, channels_first)
    with np.errstate(invalid="ignore", over="ignore"):
        inner = luma[:, 1:-1, 1:-1]
        laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4.0 * inner
        blur = laplacian.var(axis=(1, 2)) if laplacian.size else np.zeros(len(luma))
        return np.stack([luma.mean(axis=(1, 2)), luma.std(axis=(1, 2)), blur])


def _luma(images: Array, channels_first: bool) -> Floats:
    values = images.astype(np.float64)
    if images.dtype.kind == "u":
        values /= float(np.iinfo(images.dtype).max)
    if values.ndim == 3:
        return values
    channels = np.moveaxis(values, 1, -1) if channels_first else values
    if channels.shape[-1] >= 3:  # a fourth channel is transparency
        return np.asarray(channels[..., :3] @ LUMA)
    return channels[..., 0]
