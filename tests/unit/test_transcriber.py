"""The transcriber on a real ONNX graph: what it accepts, refuses, and how it calls the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.bundle import DecoderSettings, FrontEnd, Manifest, Signature, TensorSpec
from tidegate.errors import BundleError, InputError, ModelError
from tidegate.runtime import Model, load
from tidegate.speech import Transcriber
from tidegate.speech.transcriber import WINDOWS_PER_CALL

Say = Callable[..., NDArray[np.float32]]
RATE_HZ = 16_000


class Recorder:
    """A model that hands each call on to another one, notes its shape, and may have a fixed batch."""

    def __init__(self, model: Model | None, manifest: Manifest | None) -> None:
        self._model = model
        self.manifest = manifest
        self.variant_id = "recorded"
        self.batches: list[int] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        assert self._model is not None
        self.batches.append(len(feeds["audio"]))
        return self._model.run(feeds)


def transcriber_of(manifest: Manifest | None, model: Model | None = None) -> Transcriber:
    return Transcriber(cast("Model", Recorder(model, manifest)))


def changed(manifest: Manifest, **fields: Any) -> Manifest:
    return msgspec.structs.replace(manifest, **fields)


def test_words_and_times(tone_bundle: Path, say: Say) -> None:
    with load(tone_bundle) as model:
        transcript = Transcriber(model).transcribe(say([("yes", 0.4), ("no", 1.9)], 3.0))
    assert transcript.text == "yes no"
    times_s = [time_s for word in transcript.words for time_s in (word.start_s, word.end_s)]
    assert times_s == pytest.approx([0.4, 0.9, 1.9, 2.4], abs=0.15)
    assert transcript.confidence > 0.9


def test_a_word_said_twice_in_one_breath(tone_bundle: Path, say: Say) -> None:
    with load(tone_bundle) as model:
        transcript = Transcriber(model).transcribe(say([("yes", 0.4), ("yes", 1.1)], 2.0))
    assert transcript.text == "yes yes"
    times_s = [time_s for word in transcript.words for time_s in (word.start_s, word.end_s)]
    assert times_s == pytest.approx([0.4, 0.9, 1.1, 1.6], abs=0.3)
    assert times_s == sorted(times_s)


@pytest.mark.parametrize(("words", "label"), [([], "silence"), ([("unknown", 0.3)], "unknown")])
def test_rejected_label(tone_bundle: Path, say: Say, words: list[tuple[str, float]], label: str) -> None:
    with load(tone_bundle) as model:
        transcript = Transcriber(model).transcribe(say(words, 1.2))
    assert (transcript.text, transcript.label) == ("", label)


@pytest.mark.parametrize("start_s", [0.0, 0.5])
def test_a_word_at_either_end_is_heard(tone_bundle: Path, say: Say, start_s: float) -> None:
    with load(tone_bundle) as model:
        assert Transcriber(model).transcribe(say([("up", start_s)], 1.0)).text == "up"


def test_one_sample_is_enough(tone_bundle: Path) -> None:
    with load(tone_bundle) as model:
        assert Transcriber(model).transcribe(np.zeros(1, np.float32)).label == "silence"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.zeros(16, np.float64), "float64"),
        (np.zeros(16, np.int16), "int16"),
        (np.zeros((2, 16), np.float32), r"\[2, 16\]"),
        (np.array([0, np.nan], np.float32), "NaN"),
        (np.array([0, np.inf], np.float32), "infinite"),
    ],
)
def test_refused_samples(tone_bundle: Path, samples: NDArray[np.float32], message: str) -> None:
    with load(tone_bundle) as model, pytest.raises(InputError, match=message) as caught:
        Transcriber(model).transcribe(samples)
    assert caught.value.fix


def test_a_free_batch_always_gets_the_same_number_of_windows(tone_bundle: Path, say: Say) -> None:
    with load(tone_bundle) as model:
        recorder = Recorder(model, model.manifest)
        transcriber = Transcriber(cast("Model", recorder))
        assert transcriber.transcribe(say([("yes", 0.3)], 1.0)).text == "yes"
        assert transcriber.transcribe(say([("yes", 3.9)], 5.0)).text == "yes"
    assert recorder.batches == [WINDOWS_PER_CALL] * (11 + 51)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_gives_the_same_transcript(
    tone_bundle: Path, tone_manifest: Manifest, say: Say, batch: int
) -> None:
    samples = say([("yes", 0.3), ("no", 1.9)], 3.0)
    fixed = TensorSpec(name="audio", dtype="FP32", shape=(batch, RATE_HZ))
    manifest = changed(tone_manifest, signature=changed_inputs(tone_manifest, fixed))
    with load(tone_bundle) as model:
        recorder = Recorder(model, manifest)
        fixed_transcript = Transcriber(cast("Model", recorder)).transcribe(samples)
        free_transcript = Transcriber(model).transcribe(samples)
    assert fixed_transcript.text == free_transcript.text == "yes no"
    assert fixed_transcript.confidence == pytest.approx(free_transcript.confidence, abs=1e-5)
    assert set(recorder.batches) == {batch}


def changed_inputs(manifest: Manifest, *inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=manifest.signature.outputs)


def audio(dtype: str = "FP32", shape: tuple[int, ...] = (-1, RATE_HZ)) -> TensorSpec:
    return TensorSpec(name="audio", dtype=dtype, shape=shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: changed(m, front_end=None), "no audio front end"),
        (lambda m: changed(m, decoder=None), "no decoder"),
        (lambda m: changed(m, labels=()), "no labels"),
        (lambda m: changed(m, labels=m.labels[1:]), r"shape \[-1, 6\], expected \[-1, 5\]"),
        (lambda m: changed(m, signature=changed_inputs(m)), "0 inputs and 1 outputs"),
        (lambda m: changed(m, signature=changed_inputs(m, audio("INT16"))), "INT16"),
        (lambda m: changed(m, signature=changed_inputs(m, audio(shape=(RATE_HZ,)))), "expected FP32"),
        (lambda m: changed(m, signature=changed_inputs(m, audio(shape=(-1, 8000)))), "takes 8000 samples"),
        (lambda m: changed(m, signature=changed_inputs(m, audio(shape=(0, RATE_HZ)))), "batch of 0"),
        (
            lambda m: changed(m, front_end=FrontEnd(kind="audio", sample_rate_hz=RATE_HZ, inside_graph=False)),
            "outside the graph",
        ),
        (lambda m: changed(m, decoder=DecoderSettings(kind="keywords", window_ms=500)), "gives 8000"),
        (lambda m: changed(m, decoder=DecoderSettings(kind="keywords", hop_ms=0)), "hop_ms is 0"),
        (lambda m: changed(m, decoder=DecoderSettings(kind="keywords", smoothing_windows=0)), "smoothing_windows is 0"),
        (lambda m: changed(m, decoder=DecoderSettings(kind="keywords", minimum_windows=0)), "minimum_windows is 0"),
        (lambda m: changed(m, decoder=DecoderSettings(kind="keywords", threshold=0.0)), "threshold is 0"),
    ],
)
def test_a_bundle_that_is_not_for_speech(
    tone_manifest: Manifest, change: Callable[[Manifest], Manifest], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        transcriber_of(change(tone_manifest))
    assert caught.value.message.startswith("tones 1.2.3 is not a speech model")
    assert caught.value.fix


def test_a_bare_model_is_not_for_speech() -> None:
    with pytest.raises(BundleError, match="bare model file"):
        transcriber_of(None)


def test_a_model_that_answers_nan(tone_manifest: Manifest) -> None:
    class Broken(Recorder):
        def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {"probabilities": np.full((len(feeds["audio"]), 6), np.nan, np.float32)}

    transcriber = Transcriber(cast("Model", Broken(None, tone_manifest)))
    with pytest.raises(ModelError, match="NaN"):
        transcriber.transcribe(np.zeros(100, np.float32))
