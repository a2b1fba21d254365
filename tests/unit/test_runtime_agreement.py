"""Manifest against model file, without any model."""

from __future__ import annotations

import pytest

from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import BundleError
from tidegate.runtime.agreement import agreed_signature


def spec(dtype: str = "FP32", shape: tuple[int, ...] = (-1, 4), name: str = "x", *, finite: bool = False) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, finite=finite)


def signature(given: TensorSpec, wanted: TensorSpec) -> Signature:
    return Signature(inputs=(given,), outputs=(wanted,))


AGREE = [
    (spec(), spec(), "the same"),
    (spec(shape=(1, 4)), spec(shape=(-1, 4)), "the file is freer"),
    (spec(finite=True), spec(), "the manifest asks for more"),
]


@pytest.mark.parametrize(("promised", "found", "why"), AGREE)
def test_inputs_that_agree(promised: TensorSpec, found: TensorSpec, why: str) -> None:
    agreed = agreed_signature(signature(promised, spec()), signature(found, spec()), origin="m")
    assert agreed.inputs == (promised,), why


@pytest.mark.parametrize(
    ("promised", "found"),
    [
        ((-1, 4), (-1, 4)),
        ((1, 4), (-1, 4)),
        ((-1, 4), (1, 4)),
        ((2, 3), ()),
    ],
)
def test_outputs_that_agree(promised: tuple[int, ...], found: tuple[int, ...]) -> None:
    agreed = agreed_signature(signature(spec(), spec(shape=promised)), signature(spec(), spec(shape=found)), origin="m")
    assert agreed.outputs == (spec(shape=promised),)


@pytest.mark.parametrize(
    ("promised", "found", "words"),
    [
        (spec(), spec(name="y"), "inputs: the manifest says x, the file has y"),
        (spec("FP64"), spec(), "input 'x': the manifest says FP64 [any, 4], the file has FP32 [any, 4]"),
        (spec(), spec(shape=(1, 4)), "input 'x': the manifest says FP32 [any, 4], the file has FP32 [1, 4]"),
        (spec(shape=(4,)), spec(), "input 'x': the manifest says FP32 [4], the file has FP32 [any, 4]"),
        (spec(), spec("INT8"), "input 'x': the manifest says FP32 [any, 4], the file has INT8 [any, 4]"),
    ],
)
def test_inputs_that_disagree(promised: TensorSpec, found: TensorSpec, words: str) -> None:
    with pytest.raises(BundleError, match="m: manifest and model file disagree about") as caught:
        agreed_signature(signature(promised, spec()), signature(found, spec()), origin="m")
    assert words in caught.value.message


@pytest.mark.parametrize("found", [spec(shape=(-1, 5)), spec(shape=(4,)), spec("FP16"), spec(name="z")])
def test_outputs_that_disagree(found: TensorSpec) -> None:
    with pytest.raises(BundleError, match="disagree about output"):
        agreed_signature(signature(spec(), spec()), signature(spec(), found), origin="m")


def test_raw_integers_stand_for_the_promised_floats() -> None:
    promised, found = signature(spec(finite=True), spec()), signature(spec("INT8"), spec("UINT8"))
    agreed = agreed_signature(promised, found, origin="m", raw=True)
    assert (agreed.inputs[0].dtype, agreed.outputs[0].dtype) == ("INT8", "UINT8")
    with pytest.raises(BundleError):
        agreed_signature(promised, signature(spec("INT64"), spec()), origin="m", raw=True)


def test_a_quantised_input_is_finite_though_the_manifest_does_not_ask() -> None:
    agreed = agreed_signature(signature(spec(), spec()), signature(spec(finite=True), spec()), origin="m")
    assert agreed.inputs[0].finite
