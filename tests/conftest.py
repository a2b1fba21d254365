"""A speech bundle whose words are tones: a real ONNX graph, small enough to build for each test run.

Each word is a pure tone of half a second; the model measures the energy of each tone in its window. So a test can
write down what is said and when, and know what has to come out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from tidegate.bundle import (
    Asset,
    DecoderSettings,
    FrontEnd,
    Manifest,
    PrefilterSettings,
    Signature,
    TensorSpec,
    Variant,
    digest,
    write_bundle,
)

# No test asserts a time, so neither does hypothesis: a busy machine is no failure.
hypothesis.settings.register_profile("tidegate", deadline=None)
hypothesis.settings.load_profile("tidegate")

RATE_HZ = 16_000
TONE_HZ = {"unknown": 3000, "yes": 500, "no": 900, "up": 1400, "down": 2100}
TONE_S = 0.5

Say = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="session")
def say() -> Say:
    """Return `say([("yes", 1.0), ...], duration_s)`: those words at those times over a low noise, float32 at 16 kHz."""

    def make(words: Sequence[tuple[str, float]], duration_s: float) -> NDArray[np.float32]:
        samples = np.random.default_rng(7).normal(0, 0.001, round(duration_s * RATE_HZ))
        time_s = np.arange(round(TONE_S * RATE_HZ)) / RATE_HZ
        for word, start_s in words:
            first = round(start_s * RATE_HZ)
            samples[first : first + len(time_s)] += 0.3 * np.sin(2 * np.pi * TONE_HZ[word] * time_s)
        return samples.astype(np.float32)

    return make


@pytest.fixture(scope="session")
def tone_manifest() -> Manifest:
    """Return what the bundle of tones says about itself."""
    return _tone_release()[0]


@pytest.fixture(scope="session")
def tone_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the bundle of tones."""
    path = tmp_path_factory.mktemp("tones") / "tones.tide"
    write_bundle(*_tone_release(), path)
    return path


@pytest.fixture(scope="session")
def tone_release() -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the files of the bundle of tones, to be changed by a test."""
    return _tone_release()


def _tone_release() -> tuple[Manifest, dict[str, bytes]]:
    model = _tone_model()
    catalogue = "".join(
        json.dumps({"id": word, "title": f"Say {word}", "text": f"An entry for {word}."}) + "\n" for word in TONE_HZ
    ).encode()
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name="tones",
        version="1.2.3",
        signature=Signature(
            inputs=(TensorSpec(name="audio", dtype="FP32", shape=(-1, RATE_HZ), finite=True),),
            outputs=(TensorSpec(name="probabilities", dtype="FP32", shape=(-1, len(TONE_HZ) + 1)),),
        ),
        labels=("silence", *TONE_HZ),
        front_end=FrontEnd(kind="audio", sample_rate_hz=RATE_HZ, inside_graph=True),
        prefilter=PrefilterSettings(kind="energy"),
        decoder=DecoderSettings(kind="keywords"),
        variants=(
            Variant(
                id="onnx-fp32",
                backend="onnx",
                precision="fp32",
                file="variants/tones.onnx",
                sha256=digest(model),
                size_bytes=len(model),
            ),
        ),
        assets={"catalogue": Asset(file="assets/catalogue.jsonl", sha256=digest(catalogue), size_bytes=len(catalogue))},
    )
    return manifest, {"variants/tones.onnx": model, "assets/catalogue.jsonl": catalogue}


def _tone_model() -> bytes:
    """Energy at each tone's frequency, in the log domain, against a constant for silence; then softmax."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    time_s = np.arange(RATE_HZ) / RATE_HZ
    waves = [f(2 * np.pi * hz * time_s) for hz in TONE_HZ.values() for f in (np.cos, np.sin)]
    constants = {
        "waves": np.stack(waves, axis=1).astype(np.float32),
        "pairs": np.kron(np.eye(len(TONE_HZ)), np.ones((2, 1))).astype(np.float32),
        "one": np.array([1.0], np.float32),
        "three": np.array([3.0], np.float32),
        # A little more than half of a tone of amplitude 0.3 must lie in the window.
        "silence": np.array([[3 * np.log(5e5)]], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["audio", "waves"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["squares"]),
        helper.make_node("MatMul", ["squares", "pairs"], ["energy"]),
        helper.make_node("Add", ["energy", "one"], ["positive"]),
        helper.make_node("Log", ["positive"], ["log"]),
        helper.make_node("Mul", ["log", "three"], ["tones"]),
        helper.make_node("ReduceMean", ["tones"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["mean", "mean"], ["zeros"]),
        helper.make_node("Add", ["zeros", "silence"], ["quiet"]),
        helper.make_node("Concat", ["quiet", "tones"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["batch", RATE_HZ])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(TONE_HZ) + 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
