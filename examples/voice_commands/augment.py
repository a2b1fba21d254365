"""What happens to sound between a mouth and a model: pure numpy, every draw from ``rng``.

Audio is float32 [n] at 16 kHz in [-1, 1] throughout.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000

Float = NDArray[np.float32]
Rng = np.random.Generator


def level_rms(audio: Float) -> float:
    """Return the root mean square of ``audio`` (0 for an empty array)."""
    return float(np.sqrt(np.mean(np.square(audio)))) if audio.size else 0.0


def apply_gain(audio: Float, gain_db: float) -> Float:
    """Return ``audio`` scaled by ``gain_db`` decibels."""
    return np.asarray(audio * np.float32(10 ** (gain_db / 20)), dtype=np.float32)


def mix_at_snr(speech: Float, noise: Float, snr_db: float, speech_rms: float) -> Float:
    """Add ``noise`` so that ``speech_rms`` lies ``snr_db`` above its level."""
    scale = speech_rms / max(level_rms(noise), 1e-9) * 10 ** (-snr_db / 20)
    return np.asarray(speech + noise * np.float32(scale), dtype=np.float32)


def room_response(rt60_s: float, direct_to_reverberant_db: float, rng: Rng) -> Float:
    """Return a synthetic impulse response: a direct path and exponentially decaying noise.

    The tail falls by 60 dB in ``rt60_s`` (Polack's statistical model, 1988) and
    starts after a random 2..12 ms.  Unit energy.
    """
    length = int(min(rt60_s, 0.5) * SAMPLE_RATE_HZ)
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length) * 10 ** (-3 * time_s / rt60_s)
    tail[: int(rng.uniform(0.002, 0.012) * SAMPLE_RATE_HZ)] = 0.0
    tail *= 10 ** (-direct_to_reverberant_db / 20) / max(float(np.linalg.norm(tail)), 1e-9)
    tail[0] = 1.0
    return np.asarray(tail / np.linalg.norm(tail), dtype=np.float32)


def convolve(audio: Float, response: Float) -> Float:
    """Convolve by FFT and keep the length of ``audio``."""
    size = 1 << int(np.ceil(np.log2(audio.size + response.size)))
    spectrum = np.fft.rfft(audio, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: audio.size].astype(np.float32)


def filter_curve(audio: Float, points_hz: Float, gains_db: Float) -> Float:
    """Apply a zero-phase magnitude curve given by points (linear between them, in dB)."""
    size = 1 << int(np.ceil(np.log2(max(audio.size, 2))))
    frequency_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    curve = 10 ** (np.interp(frequency_hz, points_hz, gains_db) / 20)
    return np.fft.irfft(np.fft.rfft(audio, size) * curve, size)[: audio.size].astype(np.float32)


def random_equaliser(audio: Float, rng: Rng, depth_db: float = 7.0) -> Float:
    """Apply a random smooth curve and tilt of about ``depth_db`` decibels."""
    points_hz = np.array([0, 150, 400, 900, 1800, 3200, 5000, 8000], dtype=np.float32)
    tilt = rng.uniform(-depth_db, depth_db) * np.linspace(-1, 1, points_hz.size)
    gains_db = tilt + rng.uniform(-depth_db, depth_db, points_hz.size) * 0.6
    gains_db[0] -= rng.uniform(0, 12)
    return filter_curve(audio, points_hz, gains_db.astype(np.float32))


def band_limit(audio: Float, edge_hz: float) -> Float:
    """Remove what lies above ``edge_hz``, as a source with a lower sample rate would."""
    points = np.array([0, edge_hz * 0.92, edge_hz, 8000], dtype=np.float32)
    return filter_curve(audio, points, np.array([0, 0, -70, -90], dtype=np.float32))


def mu_law(audio: Float, levels: int = 256) -> Float:
    """Quantise after the mu-law of ITU-T G.711 (mu = 255) to ``levels`` steps and back."""
    squeezed = np.sign(audio) * np.log1p(255 * np.minimum(np.abs(audio), 1)) / np.log(256)
    steps = np.round(squeezed * (levels / 2 - 1)) / (levels / 2 - 1)
    return (np.sign(steps) * np.expm1(np.abs(steps) * np.log(256)) / 255).astype(np.float32)


def coarse(audio: Float, bits: int) -> Float:
    """Quantise linearly to ``bits`` bits."""
    scale = np.float32(2 ** (bits - 1) - 1)
    return np.asarray(np.round(audio * scale) / scale, dtype=np.float32)


def soft_clip(audio: Float, drive: float) -> Float:
    """Saturate as an overdriven microphone does; ``drive`` 1 is mild, 4 strong."""
    return np.asarray(np.tanh(audio * drive) / np.tanh(drive), dtype=np.float32)


def envelope_wobble(audio: Float, rng: Rng, depth_db: float) -> Float:
    """Change the loudness slowly and at random by up to ``depth_db`` in either direction."""
    knots = max(2, audio.size // 1600)
    curve = np.interp(
        np.arange(audio.size),
        np.linspace(0, audio.size, knots),
        rng.uniform(-depth_db, depth_db, knots),
    )
    return np.asarray(audio * 10 ** (curve / 20), dtype=np.float32)


def damage_channel(audio: Float, rng: Rng) -> Float:
    """Pass ``audio`` through a random recording channel (often none)."""
    draw = rng.random()
    if draw < 0.10:
        audio = band_limit(audio, float(rng.uniform(3400, 4000)))
    elif draw < 0.15:
        audio = band_limit(audio, float(rng.uniform(5000, 7000)))
    draw = rng.random()
    if draw < 0.06:
        audio = mu_law(audio)
    elif draw < 0.12:
        audio = coarse(audio, int(rng.integers(8, 12)))
    elif draw < 0.20:
        audio = soft_clip(audio, float(rng.uniform(1, 4)))
    return audio
