from __future__ import annotations

import sys

import numpy as np
import pytest

from tidegate.bundle.manifest import PrefilterSettings
from tidegate.edge.prefilter import make_detector
from tidegate.edge.prefilter.level import LevelNormaliser
from tidegate.edge.prefilter.webrtc import WebrtcDetector, WebrtcOptions
from tidegate.errors import ConfigError, DependencyError, InputError


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(DependencyError, match="webrtcvad-wheels") as caught:
        make_detector(PrefilterSettings(kind="webrtc"))
    assert caught.value.fix is not None
    assert "tidegate[audio]" in caught.value.fix


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_every_mode_and_frame_length_runs(mode: int, frame_ms: int) -> None:
    detector = WebrtcDetector(WebrtcOptions(mode=mode, frame_ms=frame_ms))
    assert detector.frame_samples == 16 * frame_ms
    assert detector.is_speech(np.zeros(detector.frame_samples, np.int16)) is False


@pytest.mark.parametrize("size", [0, 161, 319, 321, 512])
def test_a_wrong_length_is_refused_with_both_lengths(size: int) -> None:
    with pytest.raises(InputError, match=rf"int16 \[{size}\]; expected int16 \[320\]"):
        WebrtcDetector().is_speech(np.zeros(size, np.int16))


@pytest.mark.parametrize(
    "changed", [{"frame_ms": 15}, {"mode": 4}, {"mode": -1}, {"normalise": 2}, {"floor_dbfs": 0.0}]
)
def test_options_that_cannot_be_meant(changed: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changed))):
        WebrtcOptions(**changed)  # type: ignore[arg-type]


def test_without_the_normaliser_the_library_hears_the_samples_as_they_are() -> None:
    import webrtcvad

    rng = np.random.default_rng(0)
    frames = np.clip(rng.normal(0.0, 6000.0, (100, 320)), -32768, 32767).astype(np.int16)
    detector = WebrtcDetector(WebrtcOptions(mode=2, normalise=0))
    library = webrtcvad.Vad(2)
    assert [detector.is_speech(frame) for frame in frames] == [
        library.is_speech(frame.tobytes(), 16_000) for frame in frames
    ]


@pytest.mark.parametrize("level", [30.0, 300.0, 3000.0])
def test_the_normaliser_moves_any_background_to_one_level(level: float) -> None:
    normaliser = LevelNormaliser(-40.0, 20)
    rng = np.random.default_rng(0)
    out = [normaliser.scaled(np.rint(rng.normal(0.0, level, 320)).astype(np.int16)) for _ in range(200)]
    settled = np.concatenate(out[100:]).astype(np.float64)
    assert 20 * np.log10(settled.std() / 32768) == pytest.approx(-40.0, abs=2.0)


def test_the_normaliser_clips_and_does_not_wrap() -> None:
    normaliser = LevelNormaliser(-20.0, 20)
    rng = np.random.default_rng(0)
    for _ in range(100):
        normaliser.scaled(np.rint(rng.normal(0.0, 20.0, 320)).astype(np.int16))
    loud = (20_000 * np.sign(np.sin(2 * np.pi * 440 * (np.arange(320) + 0.5) / 16_000))).astype(np.int16)
    scaled = normaliser.scaled(loud)
    assert set(np.sign(scaled)[loud > 0]) == {1}
    assert scaled.max() == 32_767
    assert scaled.min() == -32_768


def test_the_normaliser_leaves_digital_silence_and_learns_nothing_from_it() -> None:
    normaliser, fresh = LevelNormaliser(-40.0, 20), LevelNormaliser(-40.0, 20)
    zeros = np.zeros(320, np.int16)
    for _ in range(100):
        assert not normaliser.scaled(zeros).any()
    hiss = np.rint(np.random.default_rng(0).normal(0.0, 100.0, 320)).astype(np.int16)
    assert np.array_equal(normaliser.scaled(hiss), fresh.scaled(hiss))
