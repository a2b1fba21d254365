from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.errors import ConfigError, InputError, StateError
from tidegate.speech.resample import StreamResampler

RATES_HZ = [4_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000, 12_345]


def resample(
    audio: NDArray[np.float32], rate_in_hz: int, cuts: list[int], rate_out_hz: int = 16_000
) -> NDArray[np.float32]:
    resampler = StreamResampler(rate_in_hz, rate_out_hz)
    parts = [resampler.push(chunk) for chunk in np.split(audio, sorted(cuts))]
    return np.concatenate([*parts, resampler.finish()])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(RATES_HZ), st.integers(0, 9_000), st.data())
def test_chunks_change_nothing_and_the_length_is_exact(rate_hz: int, count: int, data: st.DataObject) -> None:
    audio = np.random.default_rng(count).normal(0, 0.1, count).astype(np.float32)
    cuts = data.draw(st.lists(st.integers(0, count), max_size=30))
    whole = resample(audio, rate_hz, [])
    assert np.array_equal(resample(audio, rate_hz, cuts), whole)
    assert abs(len(whole) - count * 16_000 / rate_hz) <= 0.5


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_tone_keeps_its_level_and_its_time(rate_hz: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(resample(tone, rate_hz, [])[400:-400] - expected[400:-400]).max() < 1e-3


def test_what_lies_above_the_new_band_is_removed_and_not_folded() -> None:
    tone = np.sin(2 * np.pi * 10_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(resample(tone, 48_000, [])[400:-400]).max() < 1e-3


def test_equal_rates_pass_through() -> None:
    audio = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    assert np.array_equal(resample(audio, 16_000, [3, 500]), audio)


def test_after_finish_it_is_closed() -> None:
    resampler = StreamResampler(8_000, 16_000)
    resampler.finish()
    with pytest.raises(StateError):
        resampler.push(np.zeros(1, np.float32))
    with pytest.raises(StateError):
        resampler.finish()


@pytest.mark.parametrize("samples", [np.zeros(4, np.int16), np.zeros((4, 1), np.float32), np.zeros(4)])
def test_what_is_not_float32_mono_is_refused(samples: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match="expected a numpy array of float32"):
        StreamResampler(8_000, 16_000).push(samples)


@pytest.mark.parametrize("rate_hz", [0, 999, 768_001, True])
def test_rates_that_cannot_be_meant(rate_hz: int) -> None:
    with pytest.raises(ConfigError, match="expected a whole number from 1000 to 768000"):
        StreamResampler(rate_hz, 16_000)
