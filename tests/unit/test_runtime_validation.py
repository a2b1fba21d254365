"""The checks in front of every model, without any runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bundle.dtypes import NAMES, numpy_dtype
from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import InputError
from tidegate.runtime.validation import checked_array, checked_feeds, describe_shape

SPEC = TensorSpec(name="x", dtype="FP32", shape=(-1, 2))
TWO = Signature(inputs=(SPEC, TensorSpec(name="n", dtype="INT64", shape=())), outputs=())


def test_feeds_come_back_in_the_signatures_order() -> None:
    x, n = np.zeros((3, 2), np.float32), np.array(4)
    assert [array is given for array, given in zip(checked_feeds(TWO, {"n": n, "x": x}), (x, n), strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "input 'x' is missing; input 'n' is missing; the model's inputs are 'x', 'n'"),
        ({"x": 1, "n": 1, "m": 1}, "there is no input 'm'; the model's inputs are 'x', 'n'"),
        ({"X": 1, "n": 1}, "input 'x' is missing; there is no input 'X'; the model's inputs are 'x', 'n'"),
    ],
)
def test_names(feeds: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_feeds(TWO, feeds)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1.0, 2.0]], "input 'x' is a list; expected a numpy array of float32"),
        (np.float32(1), "input 'x' is a float32; expected a numpy array of float32"),
        (np.zeros((1, 2)), "input 'x' has dtype float64; expected float32"),
        (np.zeros((1, 2), ">f4"), "input 'x' has dtype >f4; expected float32"),
        (np.zeros(2, np.float32), "input 'x' has shape [2]; expected [any, 2]"),
        (np.zeros((2, 3), np.float32), "input 'x' has shape [2, 3]; expected [any, 2]"),
    ],
)
def test_one_array(value: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_array(SPEC, value)
    assert caught.value.message == words
    assert caught.value.fix


@given(
    declared=st.lists(st.integers(-1, 3), max_size=4).map(tuple),
    found=st.lists(st.integers(0, 3), max_size=4).map(tuple),
)
def test_a_shape_fits_when_rank_and_every_fixed_axis_agree(declared: tuple[int, ...], found: tuple[int, ...]) -> None:
    spec = TensorSpec(name="x", dtype="UINT8", shape=declared)
    array = np.zeros(found, np.uint8)
    if len(declared) == len(found) and all(d in (-1, f) for d, f in zip(declared, found, strict=True)):
        assert checked_array(spec, array) is array
    else:
        with pytest.raises(InputError):
            checked_array(spec, array)


@pytest.mark.parametrize("stated", [name for name in sorted(NAMES) if name != "BYTES"])
@pytest.mark.parametrize("given", [name for name in sorted(NAMES) if name != "BYTES"])
def test_only_the_very_dtype_is_taken(stated: str, given: str) -> None:
    array = np.zeros(1, numpy_dtype(given))
    spec = TensorSpec(name="x", dtype=stated, shape=(1,))
    if stated == given:
        assert checked_array(spec, array) is array
    else:
        with pytest.raises(InputError, match=f"has dtype {array.dtype}; expected {numpy_dtype(stated)}"):
            checked_array(spec, array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_finite_counts_what_is_not(datatype: str) -> None:
    dtype = numpy_dtype(datatype)
    spec = TensorSpec(name="x", dtype=datatype, shape=(-1,), finite=True)
    largest = 3.3e38 if datatype == "BF16" else np.finfo(dtype).max
    good = np.array([largest, -largest, 0], dtype)
    assert checked_array(spec, good) is good
    with pytest.raises(InputError, match="'x' holds 2 NaN and 1 infinite"):
        checked_array(spec, np.array([np.nan, 0, -np.inf, np.nan], dtype))
    with pytest.raises(InputError, match="'x' holds 1 infinite"):
        checked_array(spec, np.array([np.inf], dtype))


def test_finite_says_nothing_about_integers() -> None:
    spec = TensorSpec(name="x", dtype="INT8", shape=(1,), finite=True)
    array = np.array([-128], np.int8)
    assert checked_array(spec, array) is array


@pytest.mark.parametrize(
    "array",
    [
        np.array([[b"a", "gr\u00fcn"]], object),
        np.array([[b"a", "gr\u00fcn".encode()]]),
        np.array([["a", "gr\u00fcn"]]),
    ],
)
def test_strings_become_bytes(array: Any) -> None:
    found = checked_array(TensorSpec(name="s", dtype="BYTES", shape=(1, -1)), array)
    assert found.dtype == object
    assert found.tolist() == [[b"a", "gr\u00fcn".encode()]]
    assert [type(item) for item in found.ravel()] == [bytes, bytes]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([b"a", 1, None], object), "input 's' holds NoneType, int; expected bytes or str in every place"),
        (np.zeros(3, np.uint8), "input 's' has dtype uint8; expected BYTES: an object array of bytes"),
        (np.array([[b"a"]]), "input 's' has shape [1, 1]; expected [any]"),
    ],
)
def test_what_is_no_string(array: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_array(TensorSpec(name="s", dtype="BYTES", shape=(-1,)), array)
    assert caught.value.message == words


def test_describe_shape() -> None:
    assert describe_shape(()) == "[]"
    assert describe_shape((-1, 3)) == "[any, 3]"
