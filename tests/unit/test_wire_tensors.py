from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.bundle.dtypes import NAMES, numpy_dtype
from tidegate.errors import InputError
from tidegate.wire import messages
from tidegate.wire.tensors import from_raw, read_inputs, read_outputs, to_raw, write_inputs, write_outputs, write_typed

FIXED_SIZE = sorted(NAMES - {"BYTES"})
TYPED = sorted(set(FIXED_SIZE) - {"FP16", "BF16"})
AWKWARD = [b"", b"\x00", b"\xff\xfe", "é".encode(), b"abc\x00", b"x" * 300]

shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def any_array(names: list[str]) -> st.SearchStrategy[NDArray[Any]]:
    return st.sampled_from(names).flatmap(array_of)


def array_of(name: str) -> st.SearchStrategy[NDArray[Any]]:
    if name == "BF16":  # hypothesis knows numpy's own types
        return arrays.arrays(np.uint16, shapes).map(lambda words: words.view(numpy_dtype(name)))
    return arrays.arrays(numpy_dtype(name), shapes)


def bytes_array(items: list[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


def request_with(*tensors: dict[str, Any], raw: tuple[bytes, ...] = ()) -> Any:
    return messages.ModelInferRequest(inputs=list(tensors), raw_input_contents=list(raw))


def tensor(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (2,), **contents: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    return described | ({"contents": contents} if contents else {})


@settings(deadline=None)
@given(any_array(FIXED_SIZE))
def test_raw_round_trip_keeps_every_bit(array: NDArray[Any]) -> None:
    request = messages.ModelInferRequest()
    write_inputs(request, {"x": array})
    (back,) = read_inputs(messages.ModelInferRequest.FromString(request.SerializeToString())).values()
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@settings(deadline=None)
@given(any_array(TYPED))
def test_typed_round_trip_keeps_every_value(array: NDArray[Any]) -> None:
    request = messages.ModelInferRequest()
    write_typed(request.inputs.add(), "x", array)
    back = read_inputs(messages.ModelInferRequest.FromString(request.SerializeToString()))["x"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_round_trip_raw_and_typed(items: list[bytes]) -> None:
    array = bytes_array(items, (len(items),))
    raw, typed = messages.ModelInferRequest(), messages.ModelInferRequest()
    write_inputs(raw, {"x": array})
    write_typed(typed.inputs.add(), "x", array)
    assert read_inputs(raw)["x"].tolist() == items
    assert read_inputs(typed)["x"].tolist() == items


def test_bytes_on_the_wire_have_a_four_byte_little_endian_length() -> None:
    array = bytes_array([b"ab", b"", "é"], (3, 1))  # type: ignore[list-item]
    assert to_raw(array) == b"\x02\0\0\0ab" + b"\0\0\0\0" + b"\x02\0\0\0\xc3\xa9"
    assert from_raw(to_raw(array), "BYTES", [3, 1]).tolist() == [[b"ab"], [b""], ["é".encode()]]


def test_awkward_bytes_survive() -> None:
    array = bytes_array(AWKWARD, (2, 3))
    assert from_raw(to_raw(array), "BYTES", (2, 3)).tolist() == array.tolist()


def test_raw_is_little_endian_whatever_the_array_is() -> None:
    assert to_raw(np.array([1], ">i4")) == b"\x01\0\0\0"
    assert to_raw(np.array([[1, 2], [3, 4]], np.uint8).T) == b"\x01\x03\x02\x04"


def test_reading_raw_does_not_copy() -> None:
    raw = np.arange(6, dtype=np.float32).tobytes()
    array = from_raw(raw, "FP32", [2, 3])
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))


def test_raw_contents_belong_to_the_inputs_in_their_order() -> None:
    first, second = np.array([1.0], np.float32), np.array([2, 3], np.int64)
    request = messages.ModelInferRequest()
    write_inputs(request, {"b": first, "a": second})
    assert [entry.name for entry in request.inputs] == ["b", "a"]
    assert list(request.raw_input_contents) == [first.tobytes(), second.tobytes()]


def test_answers_are_read_raw_and_typed() -> None:
    raw, typed = messages.ModelInferResponse(), messages.ModelInferResponse()
    write_outputs(raw, {"y": np.array([1.5], np.float64)})
    write_typed(typed.outputs.add(), "y", np.array([1.5], np.float64))
    assert read_outputs(raw)["y"].tolist() == read_outputs(typed)["y"].tolist() == [1.5]


ONE_F32 = np.float32(1).tobytes()

REFUSED: dict[str, tuple[Any, str]] = {
    "one byte short": (request_with(tensor(), raw=(b"1234567",)), "7 raw bytes; FP32 [2] takes 8"),
    "four bytes long": (request_with(tensor(), raw=(b"x" * 12,)), "12 raw bytes; FP32 [2] takes 8"),
    "raw and typed": (
        request_with(tensor(fp32_contents=[1, 2]), raw=(b"x" * 8,)),
        "has typed contents and the message",
    ),
    "raw and empty typed": (
        request_with(tensor() | {"contents": messages.InferTensorContents()}, raw=(b"x" * 8,)),
        "expected one of the two",
    ),
    "two blobs for one input": (request_with(tensor(), raw=(b"x" * 8, b"x" * 8)), "2 raw contents for 1 inputs"),
    "one blob for two inputs": (
        request_with(tensor("a"), tensor("b"), raw=(b"x" * 8,)),
        "1 raw contents for 2 inputs",
    ),
    "typed too few": (request_with(tensor(fp32_contents=[1])), "has 1 elements in fp32_contents; FP32 [2] takes 2"),
    "typed too many": (request_with(tensor(fp32_contents=[1, 2, 3])), "has 3 elements"),
    "no data": (request_with(tensor()), "has 0 elements"),
    "wrong typed field": (request_with(tensor(fp64_contents=[1, 2])), "has fp64_contents; expected fp32_contents"),
    "two typed fields": (request_with(tensor(fp32_contents=[1, 2], int_contents=[1])), "has int_contents"),
    "negative size": (request_with(tensor(shape=(-1, 2)), raw=(b"x" * 8,)), "shape [-1, 2]; sizes are 0 or more"),
    "too many dimensions": (request_with(tensor(shape=(1,) * 65), raw=(ONE_F32,)), "65 dimensions"),
    "product over 64 bits": (
        request_with(tensor(shape=(2**40, 2**40)), raw=(b"",)),
        "more than 281474976710656 elements",
    ),
    "a huge axis beside an empty one": (request_with(tensor(shape=(0, 2**62)), raw=(b"",)), "elements"),
    "unknown datatype": (request_with(tensor(datatype="FLOAT"), raw=(b"x" * 8,)), "'FLOAT'"),
    "empty datatype": (request_with(tensor(datatype=""), raw=(b"x" * 8,)), "''"),
    "bf16 typed": (request_with(tensor(datatype="BF16", fp32_contents=[1, 2])), "BF16 has none"),
    "bf16 too long": (request_with(tensor(datatype="BF16"), raw=(b"x" * 8,)), "8 raw bytes; BF16 [2] takes 4"),
    "fp16 typed": (request_with(tensor(datatype="FP16", fp32_contents=[1, 2])), "FP16 has none"),
    "same name twice": (request_with(tensor(fp32_contents=[1, 2]), tensor(fp32_contents=[1, 2])), "more than once"),
    "int8 over its range": (request_with(tensor(datatype="INT8", int_contents=[1, 128])), "values from 1 to 128"),
    "uint16 over its range": (request_with(tensor(datatype="UINT16", uint_contents=[0, 65536])), "0 to 65536"),
    "bool that is 2": (request_with(tensor(datatype="BOOL"), raw=(b"\x01\x02",)), "other than 0 and 1"),
    "bytes length past the end": (
        request_with(tensor(datatype="BYTES"), raw=(b"\x01\0\0\0a\xff\0\0\0b",)),
        "element 1 at byte 5 runs past the 10 bytes",
    ),
    "bytes length cut": (request_with(tensor(datatype="BYTES"), raw=(b"\x01\0\0\0a\x01",)), "element 1 at byte 5"),
    "bytes too few": (request_with(tensor(datatype="BYTES"), raw=(b"\x01\0\0\0a",)), "has 1 BYTES elements"),
    "bytes too many": (request_with(tensor(datatype="BYTES", shape=(0,)), raw=(b"\0\0\0\0",)), "its shape takes 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_names_the_input(case: str) -> None:
    request, text = REFUSED[case]
    with pytest.raises(InputError) as caught:
        read_inputs(request)
    assert text in caught.value.message
    assert "input" in caught.value.message or "datatype" in caught.value.message
    assert caught.value.fix


def test_zero_sized_axes_are_tensors_like_any_other() -> None:
    assert from_raw(b"", "FP32", [0, 64]).shape == (0, 64)
    assert read_inputs(request_with(tensor(shape=(0, 4))))["x"].shape == (0, 4)


def test_a_bytes_element_that_is_neither_bytes_nor_str_is_refused() -> None:
    with pytest.raises(InputError, match="holds a int"):
        write_inputs(messages.ModelInferRequest(), {"x": np.array([b"a", 3], object)})


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_short_floats_have_no_typed_form(datatype: str) -> None:
    with pytest.raises(InputError, match=f"{datatype}, which has no typed contents"):
        write_typed(messages.ModelInferRequest().inputs.add(), "x", np.zeros(1, numpy_dtype(datatype)))


@settings(deadline=None)
@given(
    st.sampled_from([*FIXED_SIZE, "BYTES", "?"]),
    st.lists(st.integers(-2, 9), max_size=4),
    st.binary(max_size=64),
)
def test_any_bytes_give_an_array_or_an_input_error(datatype: str, shape: list[int], raw: bytes) -> None:
    try:
        array = from_raw(raw, datatype, shape)
    except InputError:
        return
    assert list(array.shape) == shape
    assert to_raw(array) == raw
