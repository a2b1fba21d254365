"""A segment recognised piece by piece says what it says as a whole, and calls the model as often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.bundle import Manifest, Signature, TensorSpec
from tidegate.errors import InputError, StateError
from tidegate.runtime import Model, load
from tidegate.speech import Transcriber
from tidegate.speech.incremental import IncrementalTranscription

Say = Callable[..., NDArray[np.float32]]
RATE_HZ = 16_000


class Counting:
    """A model that hands each call on to another one and notes how many rows it had."""

    def __init__(self, model: Model, manifest: Manifest | None) -> None:
        self._model = model
        self.manifest = manifest
        self.variant_id = model.variant_id
        self.rows: list[int] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.rows.append(len(feeds["audio"]))
        return self._model.run(feeds)


@pytest.fixture(scope="module")
def model(tone_bundle: Path) -> Iterator[Model]:
    with load(tone_bundle) as loaded:
        yield loaded


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=12), st.integers(1, 3))
@settings(max_examples=25)
def test_however_it_is_cut(model: Model, cuts: list[int], seed: int) -> None:
    samples = np.random.default_rng(seed).normal(0, 0.1, max(1, sum(cuts))).astype(np.float32)
    transcriber = Transcriber(model)
    whole = transcriber.probabilities(samples)
    piecewise = IncrementalTranscription(transcriber)
    first = 0
    for cut in cuts:
        piecewise.push(samples[first : first + cut])
        first += cut
    piecewise.push(samples[first:])
    assert piecewise.finish() == transcriber.transcribe(samples)
    assert np.array_equal(np.concatenate(piecewise._rows), whole)


def test_a_result_on_the_way_costs_no_call_of_the_model(model: Model, say: Say) -> None:
    counting = Counting(model, model.manifest)
    transcriber = Transcriber(counting)
    samples = say([("yes", 0.3), ("no", 1.6)], 3.0)
    transcriber.transcribe(samples)
    calls = len(counting.rows)
    counting.rows.clear()
    piecewise = IncrementalTranscription(transcriber)
    said = []
    assert piecewise.so_far() is None
    for first in range(0, len(samples), 1600):
        piecewise.push(samples[first : first + 1600])
        so_far = piecewise.so_far()
        said.append("" if so_far is None else so_far.text)
    assert piecewise.finish().text == "yes no"
    assert len(counting.rows) == calls
    assert list(dict.fromkeys(said)) == ["", "yes", "yes no"]
    assert piecewise.duration_s == 3.0


def test_a_model_with_a_fixed_batch_is_only_called_for_whole_ones(tone_manifest: Manifest, model: Model) -> None:
    signature = Signature(
        inputs=(TensorSpec(name="audio", dtype="FP32", shape=(4, RATE_HZ), finite=True),),
        outputs=tone_manifest.signature.outputs,
    )
    fixed = Counting(model, msgspec.structs.replace(tone_manifest, signature=signature))
    transcriber = Transcriber(fixed)
    samples = np.random.default_rng(5).normal(0, 0.1, 20_011).astype(np.float32)
    expected = transcriber.transcribe(samples)
    calls = list(fixed.rows)
    fixed.rows.clear()
    piecewise = IncrementalTranscription(transcriber)
    for first in range(0, len(samples), 977):
        piecewise.push(samples[first : first + 977])
    assert piecewise.finish() == expected
    assert fixed.rows == calls == [4] * len(calls)


def test_wrong_audio_and_wrong_order(model: Model) -> None:
    piecewise = IncrementalTranscription(Transcriber(model))
    for wrong in (np.zeros(3, np.float64), np.zeros((2, 2), np.float32), np.array([np.nan], np.float32)):
        with pytest.raises(InputError, match="expected finite float32"):
            piecewise.push(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the segment is empty"):
        piecewise.finish()
    piecewise.push(np.zeros(10, np.float32))
    piecewise.finish()
    with pytest.raises(StateError, match="was finished"):
        piecewise.push(np.zeros(1, np.float32))
    with pytest.raises(StateError, match="was finished"):
        piecewise.finish()
