"""From a bundle on the disk to a running variant, with every way that it can be refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.models import make_dense_onnx, tflite

from tidegate.bundle import Bundle, Manifest, Signature, TensorSpec, Variant, digest, write_bundle
from tidegate.errors import (
    BundleError,
    ConfigError,
    DependencyError,
    InputError,
    IntegrityError,
    ModelError,
    NotFoundError,
)
from tidegate.runtime import installed_backends, load, runnable_variants
from tidegate.testing.backend_contract import BIAS

ROWS = np.zeros((1, 64), np.float32)
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=(1, 64), finite=True),),
    outputs=(TensorSpec(name="y", dtype="FP32", shape=(1, 10)),),
)

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(contents: dict[str, bytes] | None = None, signature: Signature = SIGNATURE, **changes: Any) -> Path:
        files = contents or {
            "tflite-fp32": tflite("dense").read_bytes(),
            "onnx-fp32": make_dense_onnx(tmp_path / "dense.onnx", "rows").read_bytes(),
            "tflite-int8": tflite("dense_int8").read_bytes(),
        }
        manifest = Manifest(
            schema="tidegate.bundle/1",
            name="dense",
            version="1.0.0",
            signature=signature,
            variants=tuple(variant(id, content) for id, content in files.items()),
        )
        manifest = msgspec.structs.replace(manifest, **changes)
        path = tmp_path / "dense.tide"
        write_bundle(manifest, {f"variants/{id}": content for id, content in files.items()}, path)
        return path

    return make


def variant(id: str, content: bytes, **fields: Any) -> Variant:
    return Variant(
        id=id,
        backend="onnx" if id.startswith("onnx") else "litert",
        precision=id.split("-")[-1],
        file=f"variants/{id}",
        sha256=digest(content),
        size_bytes=len(content),
        **fields,
    )


@pytest.mark.parametrize(
    ("id", "backend"), [("tflite-fp32", "litert"), ("onnx-fp32", "onnx"), ("tflite-int8", "litert")]
)
def test_each_variant(make: Make, id: str, backend: str) -> None:
    with load(make(), variant=id) as model:
        assert (model.variant_id, model.backend) == (id, backend)
        assert model.manifest is not None
        assert model.manifest.name == "dense"
        assert model.signature == SIGNATURE
        np.testing.assert_allclose(model(ROWS)[0], BIAS, atol=0.05)


def test_the_first_variant_in_the_manifests_order(make: Make) -> None:
    path = make()
    with load(path) as model:
        assert model.variant_id == "tflite-fp32"
    with load(path, backend="onnx") as model:
        assert model.variant_id == "onnx-fp32"


def test_an_opened_bundle_stays_open(make: Make) -> None:
    with Bundle.open(make()) as bundle, load(bundle) as model, load(bundle, variant="onnx-fp32") as other:
        assert model(ROWS).shape == other(ROWS).shape
        assert bundle.read("variants/onnx-fp32")


@pytest.mark.parametrize("id", ["tflite-fp32", "onnx-fp32", "tflite-int8"])
def test_finite_is_the_manifests_promise(make: Make, id: str) -> None:
    bad = ROWS.copy()
    bad[0, 1] = np.nan
    with load(make(), variant=id) as model:
        for _ in range(2):
            for call in (lambda: model(bad), lambda: model.run({"x": bad})):
                with pytest.raises(InputError, match="'x' holds 1 NaN"):
                    call()
            model(ROWS)


def test_raw_states_the_integers(make: Make) -> None:
    with load(make(), variant="tflite-int8", raw=True) as model:
        assert model.signature.inputs[0].dtype == "INT8"
        assert model(ROWS.astype(np.int8)).dtype == np.int8


def test_a_manifest_narrower_than_its_file_holds(make: Make) -> None:
    with load(make(), variant="onnx-fp32") as model, pytest.raises(InputError, match=r"\[2, 64\]; expected \[1, 64\]"):
        model(np.zeros((2, 64), np.float32))


def test_unknown_variant_and_backend(make: Make) -> None:
    path = make()
    with pytest.raises(NotFoundError, match="tflite-fp32, onnx-fp32, tflite-int8"):
        load(path, variant="fp64")
    with pytest.raises(NotFoundError, match=r"no variant 'onnx-fp32' for backend 'litert'"):
        load(path, variant="onnx-fp32", backend="litert")
    with pytest.raises(ConfigError, match="no backend 'torch'"):
        load(path, backend="torch")


@pytest.mark.parametrize("id", ["tflite-fp32", "onnx-fp32"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (TensorSpec(name="audio", dtype="FP32", shape=(1, 64)), "inputs: the manifest says audio, the file has x"),
        (
            TensorSpec(name="x", dtype="INT16", shape=(1, 64)),
            "input 'x': the manifest says INT16 [1, 64], the file has FP32",
        ),
        (
            TensorSpec(name="x", dtype="FP32", shape=(1, 65)),
            "input 'x': the manifest says FP32 [1, 65], the file has FP32",
        ),
    ],
)
def test_manifest_and_file_disagree(make: Make, id: str, given: TensorSpec, words: str) -> None:
    path = make(signature=Signature(inputs=(given,), outputs=SIGNATURE.outputs))
    with pytest.raises(BundleError) as caught:
        load(path, variant=id)
    assert f"{path}: variant {id}: manifest and model file disagree about {words}" in caught.value.message


@pytest.mark.parametrize("id", ["tflite-fp32", "onnx-fp32"])
def test_a_variant_that_is_no_model(make: Make, id: str) -> None:
    with pytest.raises(ModelError, match=rf"dense\.tide: variant {id}:? .*(cannot load this|is not a TFLite model)"):
        load(make({id: b"not a model" * 9}))


def test_a_changed_byte(make: Make) -> None:
    path = make()
    data = bytearray(path.read_bytes())
    place = bytes(data).index(tflite("dense").read_bytes()) + 3000
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="tflite-fp32"):
        load(path)


def test_a_missing_runtime(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """`None` in `sys.modules` is Python's own way to make an import fail."""
    path = make()
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    assert list(installed_backends()) == ["onnx"]
    with Bundle.open(path) as bundle:
        assert [item.id for item in runnable_variants(bundle.manifest)] == ["onnx-fp32"]
    with load(path) as model:
        assert model.variant_id == "onnx-fp32"
    with pytest.raises(DependencyError, match=r"tflite-fp32: no runtime for \.tflite models") as caught:
        load(path, variant="tflite-fp32")
    assert 'pip install "tidegate[litert]"' in str(caught.value.fix)
    with pytest.raises(DependencyError):
        load(tflite("dense"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert installed_backends() == {}
    with pytest.raises(DependencyError, match="no variant can run here") as caught:
        load(path)
    assert 'pip install "tidegate[litert]"' in str(caught.value.fix)
    assert 'pip install "tidegate[onnx]"' in str(caught.value.fix)


def test_a_runtime_that_is_too_old(make: Make) -> None:
    content = tflite("dense").read_bytes()
    newer = variant("tflite-fp32", content, minimum_runtime="999.0")
    path = make({"tflite-fp32": content}, variants=(newer,))
    with pytest.raises(DependencyError, match=r"tflite-fp32: needs version 999\.0, found "):
        load(path)
    with Bundle.open(path) as bundle:
        assert runnable_variants(bundle.manifest) == ()
