"""The pure parts of `build`: one signature for all variants, generated inputs, precision told from weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models import make_dense_onnx, make_onnx, tflite

from tidegate.bundle import Signature, TensorSpec
from tidegate.bundle.dtypes import NAMES, numpy_dtype
from tidegate.convert.fixture import random_inputs
from tidegate.convert.precision import precision_of
from tidegate.convert.signatures import common_signature
from tidegate.convert.variant_ids import variant_ids
from tidegate.errors import BundleError, ConfigError


def signature(*shape: int, dtype: str = "FP32", output: tuple[int, ...] = (1,), finite: bool = False) -> Signature:
    return Signature(
        inputs=(TensorSpec(name="x", dtype=dtype, shape=shape, finite=finite),),
        outputs=(TensorSpec(name="y", dtype="FP32", shape=output),),
    )


@pytest.mark.parametrize(
    ("first", "second", "common", "notes"),
    [
        (signature(-1, 4), signature(-1, 4), signature(-1, 4), 0),
        (signature(-1, 4), signature(1, 4), signature(1, 4), 1),
        (signature(1, -1), signature(-1, 4), signature(1, 4), 1),
        (signature(4, output=()), signature(4, output=(1, 3)), signature(4, output=(1, 3)), 0),
        (signature(4), signature(4, finite=True), signature(4, finite=True), 0),
        (signature(), signature(), signature(), 0),
    ],
)
def test_the_bundle_promises_what_both_can_do(
    first: Signature, second: Signature, common: Signature, notes: int
) -> None:
    said: list[str] = []
    assert common_signature({"a": first, "b": second}, said.append) == common
    assert len(said) == notes


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (signature(1, 5), r"is FP32 \[1, 4\] in variant 'a', but FP32 \[1, 5\] in variant 'b'"),
        (signature(1, 4, 1), r"but FP32 \[1, 4, 1\] in variant 'b'"),
        (signature(1, 4, dtype="INT8"), r"but INT8 \[1, 4\] in variant 'b'"),
        (signature(), r"but FP32 \[\] in variant 'b'"),
        (Signature(inputs=(), outputs=()), "name their inputs differently: 'x' in 'a',  in 'b'"),
    ],
)
def test_variants_that_disagree(second: Signature, complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        common_signature({"a": signature(1, 4), "b": second}, print)


def test_order_is_the_first_variants() -> None:
    a, b = (TensorSpec(name=name, dtype="FP32", shape=(1,)) for name in "ab")
    found = common_signature(
        {"one": Signature(inputs=(a, b), outputs=(a,)), "two": Signature(inputs=(b, a), outputs=(a,))}, print
    )
    assert [spec.name for spec in found.inputs] == ["a", "b"]


@given(st.sampled_from(sorted(NAMES)), st.lists(st.integers(-1, 5), max_size=3), st.integers(0, 99))
def test_generated_inputs_fit_and_repeat(dtype: str, shape: list[int], seed: int) -> None:
    wanted = signature(*shape, dtype=dtype)
    array = random_inputs(wanted, seed)["x"]
    assert array.dtype == numpy_dtype(dtype)
    assert array.shape == tuple(1 if size == -1 else size for size in shape)
    assert array.tolist() == random_inputs(wanted, seed)["x"].tolist()
    if dtype == "BYTES":
        assert all(isinstance(word, bytes) for word in array.ravel().tolist())


def test_inputs_that_cannot_be_generated() -> None:
    with pytest.raises(ConfigError, match="would take 4398046511104 bytes"):
        random_inputs(signature(1 << 40), 0)


@pytest.mark.parametrize(
    ("name", "precision"),
    [("dense", "fp32"), ("batch", "fp32"), ("no_signature", "fp32"), ("dense_int8", "int8"), ("column_FP32", "")],
)
def test_precision_of_tflite(name: str, precision: str) -> None:
    assert precision_of(tflite(name).read_bytes(), "litert") == precision


@pytest.mark.parametrize(
    ("nodes", "weights", "precision"),
    [
        ([("MatMul", ["x", "w"], ["y"])], np.ones((4, 4), np.float32), "fp32"),
        ([("MatMul", ["x", "w"], ["y"])], np.ones((4, 4), np.float16), "fp16"),
        ([("QuantizeLinear", ["x", "w"], ["y"])], np.ones(1, np.float32), "int8"),
        ([("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], np.ones(1, np.float32), "dynamic-int8"),
        ([("Identity", ["x"], ["y"])], np.ones(1, np.int64), ""),
    ],
)
def test_precision_of_onnx(
    tmp_path: Path, nodes: list[tuple[str, list[str], list[str]]], weights: np.ndarray, precision: str
) -> None:
    path = make_onnx(tmp_path / "m.onnx", nodes, {"x": ("FP32", [4, 4])}, {"y": ("FP32", [4, 4])}, {"w": weights})
    assert precision_of(path.read_bytes(), "onnx") == precision


@given(st.binary(max_size=400), st.sampled_from(["onnx", "litert"]))
def test_precision_of_noise_is_no_error(noise: bytes, backend: str) -> None:
    assert isinstance(precision_of(noise, "onnx" if backend == "onnx" else "litert"), str)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8))
def test_precision_of_a_damaged_model_is_no_error(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(tflite("dense_int8").read_bytes())
    for at, value in changes:
        raw[at % len(raw)] = value
    assert isinstance(precision_of(bytes(raw), "litert"), str)


def test_ids_of_bare_models(tmp_path: Path) -> None:
    onnx = make_dense_onnx(tmp_path / "a=b.onnx")
    found = variant_ids([str(tflite("dense_int8")), f"mine={onnx}", str(onnx), str(tflite("column_BOOL"))])
    assert list(found) == ["tflite-int8", "mine", "onnx-fp32", "tflite"]
    assert found["mine"] == found["onnx-fp32"] == onnx
    with pytest.raises(ConfigError, match="would both be variant 'onnx-fp32'"):
        variant_ids([str(onnx), str(onnx)])
