from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.edge.prefilter.energy import EnergyDetector, EnergyOptions
from tidegate.edge.prefilter.floor import FloorTracker
from tidegate.errors import ConfigError

FRAME_S = 0.02


def decisions(audio: NDArray[np.float64], options: EnergyOptions | None = None) -> NDArray[np.bool_]:
    detector = EnergyDetector(options)
    samples = np.clip(np.rint(audio * 32768), -32768, 32767).astype(np.int16)
    size = detector.frame_samples
    return np.array([detector.is_speech(frame) for frame in samples[: len(samples) // size * size].reshape(-1, size)])


def noise(seconds: float, level: float = 0.003) -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(0.0, level, int(seconds * 16_000))


def with_buzz(audio: NDArray[np.float64], start_s: float, end_s: float, level: float = 0.05) -> NDArray[np.float64]:
    """Add a buzz of 140 Hz with harmonics, as a vowel has."""
    time_s = np.arange(len(audio)) / 16_000
    during = (time_s >= start_s) & (time_s < end_s)
    buzz = np.asarray(sum(np.sin(2 * np.pi * 140 * k * time_s) / k for k in range(1, 20)))
    return np.asarray(audio + level * during * buzz, dtype=np.float64)


def at(found: NDArray[np.bool_], start_s: float, end_s: float) -> NDArray[np.bool_]:
    return found[round(start_s / FRAME_S) : round(end_s / FRAME_S)]


def test_what_rises_above_the_floor_is_speech() -> None:
    found = decisions(with_buzz(noise(4.0), 2.0, 2.4))
    assert not at(found, 0.0, 2.0).any()
    assert at(found, 2.06, 2.4).all()
    assert not at(found, 2.6, 4.0).any()


@pytest.mark.parametrize("gain_db", [20, 0, -10, -20, -30])
def test_the_level_does_not_matter(gain_db: int) -> None:
    audio = with_buzz(noise(3.0), 1.0, 1.4)
    reference = decisions(audio)
    assert np.mean(decisions(np.clip(audio * 10 ** (gain_db / 20), -1, 1)) != reference) < 0.03


def test_loud_noise_from_the_first_sample_is_not_speech() -> None:
    assert not decisions(noise(5.0, level=0.2)).any()


def test_hum_is_not_speech_and_hides_none() -> None:
    time_s = np.arange(4 * 16_000) / 16_000
    hum = 0.1 * np.sin(2 * np.pi * 50 * time_s) + 0.05 * np.sin(2 * np.pi * 100 * time_s)
    assert not decisions(noise(4.0) + hum).any()
    assert at(decisions(with_buzz(noise(4.0) + hum, 2.0, 2.4)), 2.06, 2.4).all()


def test_a_stream_that_begins_inside_speech_tells_so_when_the_word_ends() -> None:
    found = decisions(with_buzz(noise(2.0, 0.0005), 0.0, 0.3))
    assert at(found, 0.3, 0.5).sum() >= 5
    assert not at(found, 0.8, 2.0).any()


def test_after_louder_noise_sets_in_it_is_speech_for_no_longer_than_the_window() -> None:
    audio = np.concatenate([noise(3.0, 0.003), noise(6.0, 0.03)])
    found = decisions(audio)
    assert at(found, 3.1, 3.5).all()
    assert not at(found, 3.0 + 2.6, 9.0).any()


def test_long_speech_with_short_dips_stays_speech() -> None:
    audio = noise(12.0)
    for start_s in np.arange(1.0, 11.0, 0.4):
        audio = with_buzz(audio, float(start_s), float(start_s) + 0.33)
    assert at(decisions(audio), 1.1, 11.0).mean() > 0.85


def test_hysteresis_keeps_speech_on_between_the_two_thresholds() -> None:
    rng = np.random.default_rng(2)
    gain = np.repeat([1.0, 4.0, 1.4, 1.0], [32_000, 4_800, 8_000, 16_000])
    audio = rng.normal(0.0, 0.01, gain.size) * gain
    with_hysteresis = decisions(audio, EnergyOptions(on_db=9.0, off_db=3.0))
    without = decisions(audio, EnergyOptions(on_db=9.0, off_db=9.0))
    assert at(with_hysteresis, 2.4, 2.75).all()
    assert not at(without, 2.4, 2.75).any()


@pytest.mark.parametrize(
    "changed",
    [
        {"frame_ms": 25},
        {"on_db": 0.0},
        {"on_db": 3.0},
        {"off_db": 0.0},
        {"window_ms": 100},
        {"smoothing_ms": -1},
        {"start_ms": -1},
        {"fall_db": 0.0},
    ],
)
def test_options_that_cannot_be_meant(changed: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changed))):
        EnergyOptions(**changed)  # type: ignore[arg-type]


@given(st.lists(st.floats(-80, 0), min_size=1, max_size=200), st.integers(8, 40))
def test_the_floor_is_the_minimum_of_at_least_the_window(levels: list[float], window: int) -> None:
    tracker = FloorTracker(window, blocks=8)
    block = max(1, window // 8)
    for index, level in enumerate(levels):
        floor = float(tracker.update(np.array([level]))[0])
        # The window moves on by blocks: between 8 and 9 of them are seen.
        assert floor <= min(levels[max(0, index + 1 - 8 * block) : index + 1])
        assert floor >= min(levels[max(0, index + 1 - 9 * block) : index + 1])


def test_the_floor_keeps_bands_apart() -> None:
    tracker = FloorTracker(80)
    tracker.update(np.array([-50.0, -20.0]))
    assert tracker.update(np.array([-30.0, -60.0])).tolist() == [-50.0, -60.0]
