"""What the augmentation of the voice-commands example promises."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"


def load(name: str) -> ModuleType:
    """Import one script of the example by its path."""
    spec = importlib.util.spec_from_file_location(f"voice_commands_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


augment = load("augment")
noises = load("noises")


@given(snr_db=st.floats(-5, 40), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_mix_at_snr_reaches_the_asked_ratio(snr_db: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech = (0.2 * rng.standard_normal(8_000)).astype(np.float32)
    noise = rng.standard_normal(8_000).astype(np.float32)
    mixed = augment.mix_at_snr(speech, noise, snr_db, augment.level_rms(speech))
    added = augment.level_rms(mixed - speech)
    assert 20 * np.log10(augment.level_rms(speech) / added) == pytest.approx(snr_db, abs=0.05)


@given(gain_db=st.floats(-60, 20))
@settings(deadline=None)
def test_gain_is_in_decibels(gain_db: float) -> None:
    audio = np.full(100, 0.1, np.float32)
    ratio = augment.level_rms(augment.apply_gain(audio, gain_db)) / 0.1
    assert 20 * np.log10(ratio) == pytest.approx(gain_db, abs=1e-3)


@pytest.mark.parametrize("rt60_s", [0.1, 0.3, 0.5])
def test_room_response_decays_by_60_db_in_rt60(rt60_s: float) -> None:
    rng = np.random.default_rng(3)
    tails = np.mean([np.square(augment.room_response(rt60_s, -20.0, rng)) for _ in range(200)], axis=0)
    early = tails[300:500].mean()
    offset = int(0.5 * rt60_s * 16_000)
    late = tails[300 + offset : 500 + offset].mean()
    assert 10 * np.log10(early / late) == pytest.approx(30.0, abs=2.0)


def test_room_response_has_unit_energy() -> None:
    response = augment.room_response(0.3, 5.0, np.random.default_rng(0))
    assert np.linalg.norm(response) == pytest.approx(1.0, abs=1e-5)


def test_convolve_with_an_impulse_changes_nothing() -> None:
    audio = np.random.default_rng(0).standard_normal(1_000).astype(np.float32)
    impulse = np.zeros(50, np.float32)
    impulse[0] = 1.0
    np.testing.assert_allclose(augment.convolve(audio, impulse), audio, atol=1e-5)


def test_band_limit_removes_what_lies_above() -> None:
    time_s = np.arange(16_384) / 16_000
    low, high = (np.sin(2 * np.pi * f * time_s).astype(np.float32) for f in (1_000, 6_000))
    limited = augment.band_limit(low + high, 4_000.0)
    assert augment.level_rms(limited - low) < 0.05


@pytest.mark.parametrize("levels", [64, 256])
def test_mu_law_keeps_quiet_sound_better_than_linear_steps(levels: int) -> None:
    audio = np.linspace(-0.01, 0.01, 500, dtype=np.float32)
    squeezed = np.abs(augment.mu_law(audio, levels) - audio).max()
    linear = np.abs(augment.coarse(audio, int(np.log2(levels))) - audio).max()
    assert squeezed < linear


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_channel_keeps_length_and_stays_finite(seed: int) -> None:
    rng = np.random.default_rng(seed)
    audio = (0.3 * rng.standard_normal(4_000)).astype(np.float32)
    damaged = augment.damage_channel(audio, rng)
    assert damaged.shape == audio.shape
    assert damaged.dtype == np.float32
    assert np.isfinite(damaged).all()


@pytest.mark.parametrize("kind", noises.NOISES, ids=lambda kind: kind.__name__)
def test_noises_have_unit_level_and_repeat_with_the_seed(kind: object) -> None:
    assert callable(kind)
    first, second = (kind(16_000, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (16_000,)
    assert augment.level_rms(first) == pytest.approx(1.0, abs=1e-3)


def test_brown_noise_is_darker_than_white() -> None:
    def share_above_2_khz(exponent: float) -> float:
        noise = noises.coloured(16_384, exponent, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(noise)) ** 2
        return float(power[2_048:].sum() / power.sum())

    assert share_above_2_khz(2.0) < 0.05 < 0.5 < share_above_2_khz(0.0)
