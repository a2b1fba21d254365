"""What is measured on each kind of tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidegate.bundle import FrontEnd, Manifest, Signature, TensorSpec, Variant
from tidegate.errors import ConfigError, InputError
from tidegate.profile import Options, TensorRule, profile_from
from tidegate.profile.cells import bin_edges, bins_of, top_categories
from tidegate.profile.document import TensorKind
from tidegate.profile.measures.audio import audio_columns
from tidegate.profile.measures.image import image_columns
from tidegate.profile.measures.scores import score_columns
from tidegate.profile.measures.table import array_columns
from tidegate.profile.measures.text import text_columns
from tidegate.profile.tensors import input_rule, measure, output_rule

RATE_HZ = 16_000
QUICK = Options(replicates=1000, window_rows=(100,))


def tone(level: float, seconds: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE_HZ)) / RATE_HZ)


def strings(*texts: str) -> np.ndarray[Any, np.dtype[np.object_]]:
    made = np.empty(len(texts), dtype=object)
    made[:] = [text.encode() for text in texts]
    return made


def values(columns: Any, name: str) -> Any:
    return columns[name].values.tolist()


def test_level_is_the_rms_against_full_scale() -> None:
    rows = np.stack([tone(1.0), tone(0.1), np.zeros(RATE_HZ)])
    assert values(audio_columns(rows, RATE_HZ, None), "level_dbfs") == pytest.approx([-3.01, -23.01, -120.0], abs=0.01)
    pcm = np.rint(tone(0.1) * 32768).astype(np.int16)[None]
    assert values(audio_columns(pcm, RATE_HZ, None), "level_dbfs") == pytest.approx([-23.01], abs=0.01)


def test_duration_and_level_go_by_the_stated_length() -> None:
    rows = np.stack([np.concatenate([tone(0.5, 0.5), np.zeros(RATE_HZ // 2)]), np.zeros(RATE_HZ)])
    columns = audio_columns(rows, RATE_HZ, np.array([RATE_HZ // 2, 0]))
    assert values(columns, "duration_s") == [0.5, 0.0]
    assert columns["level_dbfs"].values[0] == pytest.approx(-9.03, abs=0.01)
    assert columns["level_dbfs"].missing.tolist() == [False, True]
    assert columns["duration_s"].missing.tolist() == [False, False]


def test_clipping_counts_samples_at_full_scale() -> None:
    clipped = np.clip(tone(2.0), -1, 1)[None]
    # |2 sin| >= 0.999 for 1 - 2 asin(0.4995) / pi of the time.
    expected = 1 - 2 * np.arcsin(0.4995) / np.pi
    assert values(audio_columns(clipped, RATE_HZ, None), "clipping_share") == pytest.approx([expected], abs=0.01)


def test_speech_is_what_stands_out_of_the_noise() -> None:
    noise = np.random.default_rng(0).normal(size=RATE_HZ) * 0.005
    half = noise + np.where(np.arange(RATE_HZ) < RATE_HZ // 2, tone(0.3), 0.0)
    columns = audio_columns(np.stack([half, noise, np.zeros(RATE_HZ)]), RATE_HZ, None)
    assert values(columns, "speech_fraction") == pytest.approx([0.5, 0.0, 0.0], abs=0.02)


def test_nan_in_audio_is_null_not_missing() -> None:
    rows = tone(0.1)[None].copy()
    rows[0, 7] = np.nan
    column = audio_columns(rows, RATE_HZ, None)["level_dbfs"]
    assert column.numbers()[1:] == (0, 1)


@pytest.mark.parametrize("channels_first", [False, True])
def test_brightness_contrast_and_blur(channels_first: bool) -> None:
    checker = np.indices((16, 16)).sum(axis=0) % 2 * 255
    grey = np.full((16, 16), 51)
    soft = np.tile(np.linspace(0, 255, 16), (16, 1))
    images = np.stack([checker, grey, soft]).astype(np.uint8)[..., None].repeat(3, axis=-1)
    stored = np.moveaxis(images, -1, 1) if channels_first else images
    columns = image_columns(stored, channels_first=channels_first)
    assert values(columns, "brightness") == pytest.approx([0.5, 0.2, 0.5], abs=0.01)
    assert values(columns, "contrast")[:2] == pytest.approx([0.5, 0.0], abs=1e-9)
    blur = values(columns, "laplacian_variance")
    assert blur[0] == pytest.approx(16.0)  # the Laplacian of a checkerboard is ±4
    assert blur[1] == pytest.approx(0.0)
    assert blur[2] < 0.001


def test_text_is_measured_in_characters_and_their_classes() -> None:
    columns = text_columns(strings("ab1 ", "", "ßä!?"))
    assert columns["length"].values[[0, 2]].tolist() == [4.0, 4.0]
    assert columns["length"].missing.tolist() == [False, True, False]
    shares = {name: columns[f"share/{name}"].values[[0, 2]].tolist() for name in ("letter", "digit", "space", "other")}
    assert shares == {"letter": [0.5, 0.5], "digit": [0.25, 0.0], "space": [0.25, 0.0], "other": [0.0, 0.5]}
    assert columns["share/non_ascii"].values[[0, 2]].tolist() == [0.0, 0.5]


def test_scores_give_top_label_confidence_and_entropy() -> None:
    rows = np.array([[0.5, 0.5, 0.0], [0.0, 0.1, 0.9], [np.nan, 0.5, 0.5]])
    columns = score_columns(rows, ("a", "b", "c"), logits=False)
    assert columns["top_label"].categories() == (["a", "c"], 1, 0)
    assert columns["confidence"].values[:2].tolist() == [0.5, 0.9]
    assert columns["entropy"].values[0] == pytest.approx(np.log(2))
    assert columns["entropy"].numbers()[1:] == (0, 1)
    assert columns["probability/c"].values[1] == 0.9


def test_logits_go_through_a_softmax() -> None:
    logits = np.log(np.array([[0.2, 0.8], [0.6, 0.4]])) + 500
    columns = score_columns(logits, ("no", "yes"), logits=True)
    assert columns["probability/yes"].values.tolist() == pytest.approx([0.8, 0.4])


def test_a_wide_array_is_measured_as_a_whole() -> None:
    columns = array_columns(np.array([[1.0, 3.0], [np.inf, 0.0]]))
    assert {name: column.values[0] for name, column in columns.items()} == {
        "mean": 2.0, "deviation": 1.0, "minimum": 1.0, "maximum": 3.0,
    }  # fmt: skip
    assert columns["mean"].numbers()[2] == 1


def manifest(inside_graph: bool = True) -> Manifest:
    variant = Variant(id="v", backend="onnx", precision="fp32", file="v.onnx", sha256="0" * 64, size_bytes=0)
    return Manifest(
        schema="tidegate.bundle/1",
        name="m",
        version="1.0.0",
        signature=Signature(
            inputs=(TensorSpec(name="audio", dtype="FP32", shape=(-1, 800)),),
            outputs=(TensorSpec(name="p", dtype="FP32", shape=(-1, 2)),),
        ),
        labels=("no", "yes"),
        front_end=FrontEnd(kind="audio", sample_rate_hz=8000, inside_graph=inside_graph),
        variants=(variant,),
    )


INPUTS: list[tuple[str, Any, Manifest | None, TensorKind]] = [
    ("audio", np.zeros((9, 800), np.float32), manifest(), "audio"),
    ("audio", np.zeros((9, 1, 800), np.int16), manifest(), "audio"),
    ("audio", np.zeros((9, 800), np.float32), manifest(inside_graph=False), "array"),
    ("other", np.zeros((9, 3), np.float32), manifest(), "table"),
    ("x", np.zeros((9, 8, 8, 3), np.uint8), None, "image"),
    ("x", np.zeros((9, 3, 8, 8), np.float32), None, "image"),
    ("x", np.zeros((9, 8, 8, 9), np.float32), None, "array"),
    ("x", np.zeros((9, 64), np.float32), None, "table"),
    ("x", np.zeros((9, 65), np.float32), None, "array"),
    ("x", np.zeros(9, np.int64), None, "table"),
    ("x", strings("a"), None, "text"),
]


@pytest.mark.parametrize(("name", "array", "known", "kind"), INPUTS)
def test_the_kind_of_an_input(name: str, array: Any, known: Manifest | None, kind: TensorKind) -> None:
    assert input_rule(name, array, known, None, 0).kind == kind


def test_the_sample_rate_is_that_of_the_front_end_unless_stated() -> None:
    audio = np.zeros((9, 800), np.float32)
    assert input_rule("audio", audio, manifest(), None, 0).sample_rate_hz == 8000
    assert input_rule("audio", audio, None, "audio", 44_100).sample_rate_hz == 44_100
    with pytest.raises(InputError, match="sample rate"):
        input_rule("audio", audio, None, "audio", 0)


OUTPUTS: list[tuple[Any, tuple[str, ...], tuple[str, bool]]] = [
    (np.array([[3.0, -2.0]]), ("no", "yes"), ("scores", True)),
    (np.array([[0.3, 0.7]]), ("no", "yes"), ("scores", False)),
    (np.array([[0.3, 0.7]]), (), ("scores", False)),
    (np.array([[0.3, 0.9]]), (), ("table", False)),
    (np.array([3]), (), ("table", False)),
    (np.zeros((2, 100)), (), ("array", False)),
    (strings("a"), (), ("text", False)),
]


@pytest.mark.parametrize(("array", "labels", "expected"), OUTPUTS)
def test_the_kind_of_an_output(array: Any, labels: tuple[str, ...], expected: tuple[str, bool]) -> None:
    rule = output_rule("y", array, labels, first=True)
    assert (rule.kind, rule.logits) == expected


MISFITS: list[tuple[TensorRule, Any]] = [
    (TensorRule(side="input", name="x", kind="table"), strings("a")),
    (TensorRule(side="input", name="x", kind="text"), np.zeros(3)),
    (TensorRule(side="input", name="x", kind="image"), np.zeros((3, 4))),
    (TensorRule(side="input", name="x", kind="audio", sample_rate_hz=8000), np.zeros((3, 2, 4))),
    (TensorRule(side="output", name="x", kind="scores", labels=("a", "b")), np.zeros((3, 4))),
    (TensorRule(side="output", name="x", kind="table"), np.float64(3)),
]


@pytest.mark.parametrize(("rule", "array"), MISFITS)
def test_an_array_of_another_form_is_refused(rule: TensorRule, array: Any) -> None:
    with pytest.raises(InputError) as error:
        measure(rule, array)
    assert rule.tensor in error.value.message


def test_bins_have_open_ends_and_equal_shares() -> None:
    sample = np.random.default_rng(0).normal(size=10_000)
    edges = bin_edges(sample)
    counts = np.bincount(bins_of(sample, edges), minlength=len(edges) + 1)
    assert len(counts) == 22
    assert counts[[0, -1]].tolist() == [0, 0]
    assert counts[1:-1].min() >= 499
    assert bins_of(np.array([sample.min() - 1, sample.min(), sample.max(), sample.max() + 1]), edges).tolist() == [
        0, 1, 20, 21,
    ]  # fmt: skip


def test_few_different_values_have_a_bin_each() -> None:
    edges = bin_edges(np.array([0.0, 0.0, 5.0, 2.0]))
    assert bins_of(np.array([-1.0, 0.0, 1.0, 2.0, 5.0, 5.1]), edges).tolist() == [0, 1, 1, 2, 3, 4]


def test_many_equal_categories_have_no_count_of_their_own() -> None:
    equal = [f"c{number}" for number in range(1000)] * 10
    top, other, distinct = top_categories(equal)
    assert (top, sum(other), distinct) == ((), 10_000, 1000)
    top, other, distinct = top_categories([*equal, *["big"] * 500])
    assert [category.value for category in top] == ["big"]
    assert len(top_categories(list("abcdefghijklmnop"))[0]) == 16


def test_prose_stays_out_of_the_profile() -> None:
    prose = strings(*[f"dear friend number {number}" for number in range(100)])
    codes = strings(*[f"m{number % 4}" for number in range(100)])
    names = [f.name for f in profile_from({"prose": prose, "code": codes}, {}, options=QUICK).features]
    assert "input/prose/value" not in names
    assert "input/prose/share/digit" in names
    assert [name for name in names if name.startswith("input/code")] == ["input/code/value", "input/code/length"]


def test_too_few_or_unequal_rows_are_refused() -> None:
    with pytest.raises(InputError, match="at least 50"):
        profile_from({"x": np.zeros((49, 1))}, {}, options=QUICK)
    with pytest.raises(InputError, match="50 rows"):
        profile_from({"x": np.zeros((60, 1))}, {"y": np.zeros((50, 1))}, options=QUICK)
    with pytest.raises(InputError, match="no arrays"):
        profile_from({}, {}, options=QUICK)
    with pytest.raises(ConfigError, match="nobody"):
        profile_from({"x": np.zeros((60, 1))}, {}, options=Options(kinds={"nobody": "image"}))


@pytest.mark.parametrize(
    "settings",
    [{"false_alarm_rate": 0.0}, {"false_alarm_rate": 0.2}, {"window_rows": ()}, {"window_rows": (5, 100)},
     {"window_rows": (400, 100)}, {"replicates": 10}, {"seed": -1}],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Options(**settings)
