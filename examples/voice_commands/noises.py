"""Sounds that are not speech, made from random numbers: pure numpy, float32 [n] at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000

Float = NDArray[np.float32]
Rng = np.random.Generator


def coloured(samples: int, exponent: float, rng: Rng) -> Float:
    """Return noise whose power falls as 1 / f^exponent (0 white, 1 pink, 2 brown)."""
    size = 1 << int(np.ceil(np.log2(max(samples, 2))))
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ), 20.0)
    return _unit(np.fft.irfft(spectrum * frequency ** (-exponent / 2), size)[:samples])


def hum(samples: int, rng: Rng) -> Float:
    """Return mains hum at 50 or 60 Hz with random harmonics and a little hiss."""
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    base_hz = float(rng.choice([50.0, 60.0])) * (1 + rng.uniform(-0.01, 0.01))
    wave = np.zeros(samples)
    for harmonic in range(1, int(rng.integers(4, 16))):
        phase = rng.uniform(0, 2 * np.pi)
        wave += rng.random() / harmonic * np.sin(2 * np.pi * base_hz * harmonic * time_s + phase)
    return _unit(wave + 0.02 * rng.standard_normal(samples))


def clicks(samples: int, rng: Rng) -> Float:
    """Return knocks and key clicks: short decaying resonances at random times."""
    wave = 1e-3 * rng.standard_normal(samples)
    for _ in range(int(rng.integers(2, 7) * samples / SAMPLE_RATE_HZ) + 1):
        start = int(rng.integers(0, samples))
        length = min(int(rng.uniform(0.003, 0.08) * SAMPLE_RATE_HZ), samples - start)
        time_s = np.arange(length) / SAMPLE_RATE_HZ
        ring = np.sin(2 * np.pi * rng.uniform(150, 5000) * time_s) + rng.standard_normal(length)
        wave[start : start + length] += rng.uniform(0.1, 1) * ring * np.exp(-time_s * rng.uniform(40, 600))
    return _unit(wave)


def tones(samples: int, rng: Rng) -> Float:
    """Return something like music: overlapping notes with harmonics, or plain beeps."""
    wave = 1e-4 * rng.standard_normal(samples)
    scale_hz = 220 * 2 ** (rng.integers(-12, 24) / 12)
    position = 0
    while position < samples:
        length = min(int(rng.uniform(0.08, 0.6) * SAMPLE_RATE_HZ), samples - position)
        time_s = np.arange(length) / SAMPLE_RATE_HZ
        for _ in range(int(rng.integers(1, 4))):
            note_hz = scale_hz * 2 ** (rng.integers(-7, 13) / 12)
            envelope = np.exp(-time_s * rng.uniform(0.5, 12)) * np.minimum(time_s * 80, 1)
            for harmonic in range(1, int(rng.integers(2, 8))):
                wave[position : position + length] += (
                    envelope * rng.random() / harmonic * np.sin(2 * np.pi * note_hz * harmonic * time_s)
                )
        position += int(length * rng.uniform(0.4, 1.5)) + 1
    return _unit(wave)


def car(samples: int, rng: Rng) -> Float:
    """Return steady driving noise: steep low-frequency noise with an engine note."""
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    engine = np.sin(2 * np.pi * rng.uniform(40, 140) * time_s + 2 * np.sin(2 * np.pi * 0.3 * time_s))
    hiss = coloured(samples, 0.7, rng) * rng.uniform(0.02, 0.15)
    return _unit(coloured(samples, float(rng.uniform(1.6, 2.4)), rng) + 0.3 * engine + hiss)


def gusts(samples: int, rng: Rng) -> Float:
    """Return noise of random colour that swells and fades, like wind or traffic."""
    knots = max(3, samples // 3200)
    swell = np.interp(np.arange(samples), np.linspace(0, samples, knots), rng.uniform(-18, 0, knots))
    return _unit(coloured(samples, float(rng.uniform(0.3, 2.0)), rng) * 10 ** (swell / 20))


def any_colour(samples: int, rng: Rng) -> Float:
    """Return steady noise between white and brown."""
    return coloured(samples, float(rng.choice([0.0, 1.0, 2.0, rng.uniform(0, 2)])), rng)


Noise = Callable[[int, Rng], Float]

STEADY: tuple[Noise, ...] = (any_colour, any_colour, any_colour, hum, car, gusts)
EVENTS: tuple[Noise, ...] = (clicks, tones)
NOISES: tuple[Noise, ...] = STEADY + EVENTS


def random_noise(samples: int, rng: Rng, kinds: tuple[Noise, ...] = NOISES) -> Float:
    """Return one of the noises, with unit RMS."""
    return kinds[int(rng.integers(len(kinds)))](samples, rng)


def _unit(wave: NDArray[np.float64] | Float) -> Float:
    rms = float(np.sqrt(np.mean(np.square(wave))))
    return np.asarray(wave / max(rms, 1e-9), dtype=np.float32)
