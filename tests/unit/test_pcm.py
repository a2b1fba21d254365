from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import InputError
from tidegate.speech.pcm import check_finite, float32_from_int16, int16_from_float32, mono


def test_every_int16_comes_back() -> None:
    every = np.arange(-32_768, 32_768).astype(np.int16)
    assert np.array_equal(int16_from_float32(float32_from_int16(every)), every)


def test_full_scale_is_one() -> None:
    assert float32_from_int16(np.array([-32_768, 0, 16_384], np.int16)).tolist() == [-1.0, 0.0, 0.5]


@given(st.floats(-1000.0, 1000.0, width=32))
def test_float32_is_rounded_and_clipped(value: float) -> None:
    expected = min(32_767, max(-32_768, round(value * 32_768)))
    assert int16_from_float32(np.array([value], np.float32))[0] == expected


def test_mono_is_the_mean_and_keeps_full_scale() -> None:
    frames = np.array([[1.0, 1.0], [1.0, -1.0], [0.5, 0.0]], np.float32)
    mixed = mono(frames)
    assert mixed.tolist() == [1.0, 0.0, 0.25]
    assert mixed.dtype == np.float32


def test_one_channel_is_itself() -> None:
    assert mono(np.array([[0.1], [0.2]], np.float32)).tolist() == pytest.approx([0.1, 0.2])


def test_the_first_value_that_is_not_finite_is_named() -> None:
    samples = np.zeros((4, 2), np.float32)
    samples[2, 1] = np.nan
    samples[3, 0] = np.inf
    with pytest.raises(InputError, match=r"song\.wav: sample 102 \(1\.020 s\) is nan"):
        check_finite(samples, first_sample=100, sample_rate_hz=100, origin="song.wav")
