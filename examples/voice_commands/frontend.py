"""The log-mel front end: a numpy reference and the same as plain graph operations.

1 s of 16 kHz audio -> 98 frames of 30 ms every 10 ms -> Hann window -> power
spectrum (512-point DFT, bins 0..255) -> 40 mel bands -> natural logarithm.

Inside the graph the DFT is factorised after Cooley and Tukey (1965): with
n = 32 n1 + n2 and k = k1 + 16 k2 it is a 16-point DFT over n1, a twiddle factor
and a 32-point DFT over n2, that is, two small matrix products.  The constants
take 9 kB where the plain 480 x 512 matrix would take 983 kB, and only reshape,
transpose, multiply and matmul occur, which every converter knows.

Level: :func:`normalise` subtracts the loudest value of the window, so a gain
changes nothing; digital silence gives zeros and no NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 16_000
HOP_SAMPLES = 160
FRAME_SAMPLES = 480
FRAMES = 98
FFT_SIZE = 512
BINS = 256
MEL_BANDS = 40
LOWEST_HZ = 60.0
HIGHEST_HZ = 7_600.0
POWER_FLOOR = 1e-7
DYNAMIC_RANGE_NEPER = 13.0

Float = NDArray[np.float32]


def mel_matrix(warp: float = 1.0) -> Float:
    """Return triangular mel filters, float32 [256 bins, 40 bands], each with unit sum.

    Mel scale after O'Shaughnessy (1987): 1127 ln(1 + f / 700).  ``warp`` other
    than 1 stretches the frequency axis (vocal tract length perturbation, after
    Jaitly and Hinton, 2013); it serves augmentation only.
    """
    low, high = (1127 * np.log1p(f / 700) for f in (LOWEST_HZ, HIGHEST_HZ))
    edges_hz = 700 * np.expm1(np.linspace(low, high, MEL_BANDS + 2) / 1127) * warp
    bins_hz = np.arange(BINS) * SAMPLE_RATE_HZ / FFT_SIZE
    rising = (bins_hz[:, None] - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[2:] - bins_hz[:, None]) / (edges_hz[2:] - edges_hz[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    return (weights / np.maximum(weights.sum(axis=0), 1e-6)).astype(np.float32)


def mel_groups(groups: int = 4) -> list[tuple[int, int, Float]]:
    """Return the mel matrix as blocks (first bin, last bin + 1, weights [bins, bands]).

    A band covers few bins, so four blocks hold all non-zero weights in 12 kB
    where the whole matrix takes 41 kB in every model file.
    """
    blocks = []
    for bands in np.array_split(np.arange(MEL_BANDS), groups):
        columns = mel_matrix()[:, bands]
        used = np.flatnonzero(columns.any(axis=1))
        blocks.append((int(used[0]), int(used[-1]) + 1, columns[used[0] : used[-1] + 1]))
    return blocks


def hann() -> Float:
    """Return the periodic Hann window, float32 [480]."""
    n = np.arange(FRAME_SAMPLES)
    return (0.5 - 0.5 * np.cos(2 * np.pi * n / FRAME_SAMPLES)).astype(np.float32)


def power_spectrogram(audio: Float) -> Float:
    """Return the power spectrum of each frame: float32 [frames, 256] of audio float32 [n]."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, FRAME_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * hann(), FFT_SIZE)[:, :BINS]
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)


def log_mel(audio: Float, mel: Float | None = None) -> Float:
    """Return the log-mel spectrogram, float32 [frames, 40], of audio float32 [n]."""
    weights = mel_matrix() if mel is None else mel
    return np.log(power_spectrogram(audio) @ weights + np.float32(POWER_FLOOR))


def normalise(log_mel_window: Float) -> Float:
    """Map log-mel [98, 40] to [98, 40, 2]: level below the loudest value, and the
    same minus its mean over time (which removes steady noise and spectral tilt)."""
    below = log_mel_window - log_mel_window.max() + DYNAMIC_RANGE_NEPER
    level = np.maximum(below, 0.0) / DYNAMIC_RANGE_NEPER
    return np.stack([level, level - level.mean(axis=0)], axis=-1).astype(np.float32)


def dft_constants() -> dict[str, Float]:
    """Return the constants of the factorised DFT.

    ``first`` [15, 32]: 16-point DFT over n1 < 15 (a frame of 480 samples ends
    there), real parts then imaginary parts.  ``twiddle_re`` and ``twiddle_im``
    [32, 16].  ``second`` [64, 32]: 32-point DFT over n2 from (re, im) to (re, im)
    for the 16 values of k2 below the Nyquist frequency.
    """
    n1, k1 = np.arange(15)[:, None], np.arange(16)[None, :]
    angle = -2 * np.pi * n1 * k1 / 16
    first = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    n2 = np.arange(32)[:, None]
    twiddle = np.exp(-2j * np.pi * n2 * k1 / FFT_SIZE)
    angle = -2 * np.pi * n2 * np.arange(16)[None, :] / 32
    cos, sin = np.cos(angle), np.sin(angle)
    second = np.concatenate([np.concatenate([cos, sin], axis=1), np.concatenate([-sin, cos], axis=1)], axis=0)
    parts = {
        "first": first,
        "twiddle_re": twiddle.real,
        "twiddle_im": twiddle.imag,
        "second": second,
    }
    return {name: value.astype(np.float32) for name, value in parts.items()}


def factorised_power(frames: Float) -> Float:
    """Return |DFT|^2 of windowed frames [m, 480] as [m, 256] in the order (k1, k2).

    The numpy twin of the graph; entry ``16 * k1 + k2`` is bin ``k1 + 16 * k2``.
    """
    constants = dft_constants()
    split = frames.reshape(-1, 15, 32).transpose(0, 2, 1) @ constants["first"]
    re, im = split[..., :16], split[..., 16:]
    turned_re = re * constants["twiddle_re"] - im * constants["twiddle_im"]
    turned_im = re * constants["twiddle_im"] + im * constants["twiddle_re"]
    turned = np.concatenate([turned_re, turned_im], axis=1).transpose(0, 2, 1)
    spectrum = turned @ constants["second"]
    power = spectrum[..., :16] ** 2 + spectrum[..., 16:] ** 2
    return np.asarray(power.reshape(-1, BINS), dtype=np.float32)


def bin_order() -> NDArray[np.int64]:
    """Return the bin number of each column of :func:`factorised_power`, int64 [256]."""
    k1, k2 = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    return np.asarray((k1 + 16 * k2).reshape(-1), dtype=np.int64)


def graph_log_mel(audio: Any) -> Any:
    """Add the front end to a TensorFlow graph: audio [-1, 16000] -> log-mel [-1, 98, 40]."""
    import tensorflow as tf

    constants = dft_constants()
    hops = tf.reshape(audio, [-1, WINDOW_SAMPLES // HOP_SAMPLES, HOP_SAMPLES])
    frames = tf.concat([hops[:, :98], hops[:, 1:99], hops[:, 2:100]], axis=2) * hann()
    split = tf.transpose(tf.reshape(frames, [-1, 15, 32]), [0, 2, 1])
    split = tf.reshape(tf.matmul(tf.reshape(split, [-1, 15]), constants["first"]), [-1, 32, 32])
    re, im = split[:, :, :16], split[:, :, 16:]
    turned_re = re * constants["twiddle_re"] - im * constants["twiddle_im"]
    turned_im = re * constants["twiddle_im"] + im * constants["twiddle_re"]
    turned = tf.transpose(tf.concat([turned_re, turned_im], axis=1), [0, 2, 1])
    spectrum = tf.matmul(tf.reshape(turned, [-1, 64]), constants["second"])
    power = tf.square(spectrum[:, :16]) + tf.square(spectrum[:, 16:])
    by_bin = tf.transpose(tf.reshape(power, [-1, 16, 16]), [0, 2, 1])
    by_bin = tf.reshape(by_bin, [-1, BINS])
    bands = [tf.matmul(by_bin[:, first:last], weights) for first, last, weights in mel_groups()]
    log_mel_frames = tf.math.log(tf.concat(bands, axis=1) + POWER_FLOOR)
    return tf.reshape(log_mel_frames, [-1, FRAMES, MEL_BANDS])


def graph_normalise(log_mel_windows: Any) -> Any:
    """The graph form of :func:`normalise`: [-1, 98, 40] -> [-1, 98, 40, 2]."""
    from keras import ops

    loudest = ops.max(log_mel_windows, axis=(1, 2), keepdims=True)
    below = log_mel_windows - loudest + DYNAMIC_RANGE_NEPER
    level = ops.maximum(below, 0.0) / DYNAMIC_RANGE_NEPER
    return ops.stack([level, level - ops.mean(level, axis=1, keepdims=True)], axis=-1)
