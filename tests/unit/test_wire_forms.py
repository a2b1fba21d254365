"""Requests and answers of a form that was met before: the same as parsing and encoding them, or not taken at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tidegate.errors import InputError
from tidegate.wire import messages
from tidegate.wire.forms import FORMS_KEPT, LARGEST_HEAD_BYTES, AnswerForms, RequestForms, varint
from tidegate.wire.tensors import read_inputs, read_outputs, write_inputs, write_outputs

FIXED = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
TENSORS = st.dictionaries(
    st.text(max_size=6), FIXED.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)), min_size=1, max_size=3
)


def request(arrays: Mapping[str, NDArray[Any]], **fields: Any) -> Any:
    message = messages.ModelInferRequest(model_name="m", **fields)
    write_inputs(message, arrays)
    return message


def learnt(message: Any, about: str = "known") -> RequestForms[str]:
    forms = RequestForms[str]()
    read_inputs(message)
    forms.learn(message.SerializeToString(), message, about)
    return forms


@given(TENSORS)
def test_another_request_of_the_form_is_read_as_parsing_reads_it(arrays: dict[str, NDArray[Any]]) -> None:
    forms = learnt(request(arrays))
    other = request({name: array[..., ::-1] if array.ndim else array for name, array in arrays.items()})
    found = forms.read(other.SerializeToString())
    assert found is not None
    about, read = found
    parsed = read_inputs(other)
    assert about == "known"
    assert list(read) == list(parsed)
    for name, array in parsed.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()
        assert read[name].flags.aligned


@given(TENSORS, st.binary(max_size=80), st.integers(0, 400))
def test_bytes_that_are_taken_mean_what_parsing_says(arrays: dict[str, NDArray[Any]], noise: bytes, place: int) -> None:
    message = request(arrays)
    raw = message.SerializeToString()
    forms = learnt(message)
    changed = raw[:place] + noise + raw[place + len(noise) :]
    found = forms.read(changed)
    if found is None:
        return
    parsed = read_inputs(messages.ModelInferRequest.FromString(changed))
    assert {name: array.tobytes() for name, array in found[1].items()} == {
        name: array.tobytes() for name, array in parsed.items()
    }


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(request({"x": np.zeros(4, np.float32)}, id="7"), id="with an id"),
        pytest.param(request({"x": np.zeros(4, np.bool_)}), id="BOOL, whose bytes are checked"),
        pytest.param(request({"x": np.array([b"a", b"bc"], object)}), id="BYTES, whose length varies"),
        pytest.param(request({"x" * LARGEST_HEAD_BYTES: np.zeros(4, np.float32)}), id="a head that is too large"),
    ],
)
def test_what_has_no_form_is_parsed_each_time(message: Any) -> None:
    assert learnt(message).read(message.SerializeToString()) is None


def test_typed_contents_are_parsed_each_time() -> None:
    message = messages.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype="INT32", shape=[2])
    tensor.contents.int_contents.extend([1, 2])
    assert learnt(message).read(message.SerializeToString()) is None


def test_fields_in_another_order_are_parsed_each_time() -> None:
    message = request({"x": np.zeros(4, np.float32)})
    raw = message.SerializeToString()
    turned = raw[3:] + raw[:3]
    assert messages.ModelInferRequest.FromString(turned) == message
    forms = RequestForms[str]()
    forms.learn(turned, message, "known")
    assert forms.read(turned) is None


def test_another_model_of_a_name_as_long_is_another_form() -> None:
    first, second = request({"x": np.zeros(4, np.float32)}), request({"x": np.zeros(4, np.float32)})
    second.model_name = "n"
    forms = learnt(first, "first")
    assert forms.read(second.SerializeToString()) is None
    forms.learn(second.SerializeToString(), second, "second")
    assert [forms.read(one.SerializeToString())[0] for one in (first, second)] == ["first", "second"]  # type: ignore[index]


def test_forms_are_bounded() -> None:
    forms = RequestForms[int]()
    for size in range(1, FORMS_KEPT + 10):
        message = request({"x": np.zeros(size, np.float32)})
        forms.learn(message.SerializeToString(), message, size)
    assert len(forms._by_length) <= FORMS_KEPT


@given(
    st.dictionaries(
        st.text(max_size=6),
        st.sampled_from([np.float32, np.bool_, np.int16]).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)),
        max_size=3,
    ),
    st.text(max_size=200),
)
def test_an_answer_is_what_protobuf_writes(outputs: dict[str, NDArray[Any]], request_id: str) -> None:
    expected = messages.ModelInferResponse(model_name="m", model_version="1.0.0", id=request_id)
    write_outputs(expected, outputs)
    forms = AnswerForms()
    for _ in range(2):
        found = messages.ModelInferResponse.FromString(forms.encoded("m", "1.0.0", request_id, outputs))
        assert found == expected


def test_answers_of_every_memory_layout_and_of_text() -> None:
    outputs = {
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "big-endian": np.arange(3, dtype=">i4"),
        "text": np.array([b"a", "ü"], object),
        "scalar": np.array(3.0),
    }
    response = messages.ModelInferResponse.FromString(AnswerForms().encoded("m", "1", "", outputs))
    read = read_outputs(response)
    assert read["turned"].tolist() == outputs["turned"].tolist()
    assert read["big-endian"].tolist() == [0, 1, 2]
    assert read["text"].tolist() == [b"a", "ü".encode()]
    assert read["scalar"] == 3
    with pytest.raises(InputError, match="no datatype"):
        AnswerForms().encoded("m", "1", "", {"x": np.zeros(2, np.complex64)})


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (2**21, b"\x80\x80\x80\x01")],
)
def test_varint(number: int, expected: bytes) -> None:
    assert varint(number) == expected
