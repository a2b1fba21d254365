"""What a training window of the voice-commands example is taught, and the spectral perturbations."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands"


@pytest.fixture
def timelines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script timelines.py with the scripts that it imports, under their plain names for this test only."""
    for name in ("words", "augment", "noises", "timelines"):
        spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return sys.modules["timelines"]


def load(name: str) -> ModuleType:
    """Import one script of the example by its path."""
    spec = importlib.util.spec_from_file_location(f"voice_commands_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


spectral = load("spectral")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"silence": 1.0}),
        ([("go", 6_000, 10_000)], {"go": 1.0}),
        ([("go", 0, 4_000)], {"go": 1.0}),
        ([("go", 12_000, 16_000)], {"go": 1.0}),
        ([("go", 12_500, 16_500)], {"go": 1.0}),
        ([("go", 14_000, 18_000)], {"unknown": 1.0}),
        ([("go", 15_500, 19_500)], {"silence": 1.0}),
        ([("go", 13_200, 17_200)], {"go": 0.5, "unknown": 0.5}),
        ([("unknown", 6_000, 10_000)], {"unknown": 1.0}),
        ([("yes", 1_000, 5_000), ("no", 7_000, 10_000)], {"no": 1.0}),
        ([("yes", 7_000, 10_000), ("no", 12_000, 16_000)], {"yes": 1.0}),
        ([("yes", -3_000, 1_000), ("no", 10_000, 14_000)], {"no": 1.0}),
        ([("go", -20_000, -16_000)], {"silence": 1.0}),
    ],
)
def test_window_target(timelines: ModuleType, words: list[tuple[str, int, int]], expected: dict[str, float]) -> None:
    start = 32_000
    spans = [timelines.Span(label, start + first, start + last) for label, first, last in words]
    target = timelines.window_target(spans, start)
    labels = timelines.LABELS
    found = {labels[i]: float(p) for i, p in enumerate(target) if p > 0}
    assert found == pytest.approx(expected, abs=1e-5)


def test_timeline_holds_each_utterance_where_its_span_says(timelines: ModuleType) -> None:
    rng = np.random.default_rng(0)
    spoken = [("yes", np.full(3_000, 0.5, np.float32)), ("table", np.full(5_000, 0.5, np.float32))]
    timeline = timelines.lay_out(spoken, rng)
    assert [span.label for span in timeline.spans] == ["yes", "unknown"]
    outside = timeline.audio.copy()
    for span in timeline.spans:
        assert (timeline.audio[span.start : span.end] > 0).all()
        outside[span.start : span.end] = 0
    assert not outside.any()


def test_window_starts_lie_on_the_hop_grid_inside_the_timeline(timelines: ModuleType) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        timeline = timelines.lay_out([("go", np.full(int(rng.integers(2_000, 20_000)), 0.1, np.float32))], rng)
        starts = timelines.window_starts(timeline, rng)
        assert starts
        assert all(0 <= s <= timeline.audio.size - 16_000 and s % 160 == 0 for s in starts)


def test_perturbed_windows_keep_shape_and_differ_from_each_other() -> None:
    same = np.repeat(np.random.default_rng(0).standard_normal((1, 98, 40)), 4, axis=0).astype(np.float32)
    shaken = spectral.perturb(same, np.random.default_rng(1))
    assert shaken.shape == same.shape
    assert shaken.dtype == np.float32
    assert np.isfinite(shaken).all()
    assert not np.allclose(shaken[0], shaken[1])


def test_time_and_frequency_warp_of_nothing_is_the_identity() -> None:
    windows = np.random.default_rng(0).standard_normal((3, 98, 40)).astype(np.float32)
    same = spectral.warp_time_and_frequency(windows, np.random.default_rng(0), frames=0.0, bands=0.0)
    np.testing.assert_allclose(same, windows, atol=1e-6)


def test_contrast_leaves_a_flat_window_alone() -> None:
    flat = np.full((2, 98, 40), -3.0, np.float32)
    np.testing.assert_allclose(spectral.change_contrast(flat, np.random.default_rng(0)), flat, atol=1e-4)
