"""The front end of the voice-commands example: the numpy reference against a plain FFT."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"


def load(name: str) -> ModuleType:
    """Import one script of the example by its path."""
    spec = importlib.util.spec_from_file_location(f"voice_commands_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


frontend = load("frontend")


def test_factorised_dft_equals_the_fft() -> None:
    frames = np.random.default_rng(0).standard_normal((5, 480)).astype(np.float32)
    expected = np.abs(np.fft.rfft(frames, 512)[:, :256]) ** 2
    factorised = frontend.factorised_power(frames)
    np.testing.assert_allclose(factorised, expected[:, frontend.bin_order()], rtol=1e-4, atol=1e-3)


def test_bin_order_names_every_bin_once() -> None:
    assert sorted(frontend.bin_order().tolist()) == list(range(256))


@pytest.mark.parametrize("frequency_hz", [125.0, 440.0, 1000.0, 3000.0, 6500.0])
def test_a_tone_is_loudest_in_the_band_around_it(frequency_hz: float) -> None:
    time_s = np.arange(16_000) / 16_000
    audio = (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)
    band = int(frontend.log_mel(audio).mean(axis=0).argmax())
    weights = frontend.mel_matrix()[:, band]
    centre_hz = float(weights.argmax()) * 16_000 / 512
    assert abs(centre_hz - frequency_hz) < 0.1 * frequency_hz + 32


def test_log_mel_of_one_second_has_98_frames() -> None:
    assert frontend.log_mel(np.zeros(16_000, np.float32)).shape == (98, 40)


def test_mel_groups_are_the_whole_mel_matrix() -> None:
    rebuilt = np.zeros((256, 40), np.float32)
    band = 0
    for first, last, weights in frontend.mel_groups():
        rebuilt[first:last, band : band + weights.shape[1]] = weights
        band += weights.shape[1]
    np.testing.assert_array_equal(rebuilt, frontend.mel_matrix())


def test_every_mel_band_sums_to_one() -> None:
    np.testing.assert_allclose(frontend.mel_matrix().sum(axis=0), 1.0, atol=1e-5)


@pytest.mark.parametrize("gain_db", [-10.0, -20.0, -30.0])
def test_gain_hardly_changes_the_normalised_window(gain_db: float) -> None:
    rng = np.random.default_rng(1)
    audio = (0.3 * rng.standard_normal(16_000)).astype(np.float32)
    quiet = audio * np.float32(10 ** (gain_db / 20))
    loud_input, quiet_input = (frontend.normalise(frontend.log_mel(a)) for a in (audio, quiet))
    np.testing.assert_allclose(quiet_input, loud_input, atol=5e-3)


def test_digital_silence_gives_finite_constant_input() -> None:
    normalised = frontend.normalise(frontend.log_mel(np.zeros(16_000, np.float32)))
    assert np.isfinite(normalised).all()
    assert np.ptp(normalised[..., 0]) == 0.0
    np.testing.assert_allclose(normalised[..., 1], 0.0, atol=1e-5)


def test_frequency_warp_moves_the_bands() -> None:
    centres = [frontend.mel_matrix(warp)[:, 30].argmax() for warp in (0.9, 1.0, 1.1)]
    assert centres == sorted(centres)
    assert centres[0] < centres[2]
