"""Inputs are held against the model's metadata before they are sent, and a changed model is never refused for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.oip_servers import described, echo, oip_server

from tidegate.bundle.manifest import TensorSpec
from tidegate.client import Client
from tidegate.errors import InputError, ModelError, NotFoundError, TidegateError
from tidegate.runtime.validation import checked_array
from tidegate.wire import messages

ONES = np.ones((2, 4), np.float32)


class Counted:
    """A server's method that counts its calls and can be exchanged."""

    def __init__(self, behaviour: Callable[[Any, Any], Any]) -> None:
        self.behaviour = behaviour
        self.calls = 0

    def __call__(self, request: Any, context: Any) -> Any:
        self.calls += 1
        return self.behaviour(request, context)


@pytest.fixture
def metadata() -> Counted:
    return Counted(described(("x", "FP32", [-1, 4])))


@pytest.fixture
def infer() -> Counted:
    return Counted(echo)


@pytest.fixture
def client(metadata: Counted, infer: Counted) -> Iterator[Client]:
    with oip_server({"ModelMetadata": metadata, "ModelInfer": infer}) as target, Client(target) as opened:
        yield opened


def test_metadata_is_asked_for_once(client: Client, metadata: Counted, infer: Counted) -> None:
    for _ in range(5):
        np.testing.assert_array_equal(client.infer("m", {"x": ONES})["x"], ONES)
    assert (metadata.calls, infer.calls) == (1, 5)
    client.infer("m", {"x": ONES}, version="2")
    assert metadata.calls == 2, "another version is another model"


@pytest.mark.parametrize(
    "wrong",
    [ONES.astype(np.float64), ONES[:, :3], ONES[0], [[1.0, 2.0, 3.0, 4.0]], np.array([["a"]])],
    ids=["dtype", "axis", "rank", "no array", "strings"],
)
def test_a_wrong_input_is_refused_in_the_words_of_the_runtime_and_not_sent(
    client: Client, infer: Counted, wrong: Any
) -> None:
    with pytest.raises(InputError) as local:
        checked_array(TensorSpec(name="x", dtype="FP32", shape=(-1, 4)), wrong)
    with pytest.raises(InputError) as remote:
        client.infer("m", {"x": wrong})
    assert remote.value.message == f"{client.target}: model 'm': {local.value.message}"
    assert remote.value.fix == local.value.fix
    assert infer.calls == 0


@pytest.mark.parametrize("feeds", [{}, {"z": ONES}, {"x": ONES, "z": ONES}])
def test_wrong_names_are_refused(client: Client, infer: Counted, feeds: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(InputError, match="the model's inputs are 'x'"):
        client.infer("m", feeds)
    assert infer.calls == 0


def test_an_unknown_output_is_refused_where_the_server_states_its_outputs(client: Client, metadata: Counted) -> None:
    def with_output(request: Any, context: Any) -> Any:
        answer = described(("x", "FP32", [-1, 4]))(request, context)
        answer.outputs.add(name="y", datatype="FP32", shape=[-1])
        return answer

    metadata.behaviour = with_output
    with pytest.raises(InputError, match="no output 'z'; the model's outputs are 'y'"):
        client.infer("m", {"x": ONES}, outputs=["z"])


def test_a_model_that_changed_takes_its_new_inputs_at_once(client: Client, metadata: Counted, infer: Counted) -> None:
    client.infer("m", {"x": ONES})
    metadata.behaviour = described(("x", "FP64", [-1, 4]))
    client.infer("m", {"x": ONES.astype(np.float64)})
    client.infer("m", {"x": ONES.astype(np.float64)})
    assert (metadata.calls, infer.calls) == (2, 3)


def test_what_the_server_refuses_is_asked_for_again(client: Client, metadata: Counted, infer: Counted) -> None:
    def refuse(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input 'x' has dtype FP32; expected FP64")

    client.infer("m", {"x": ONES})
    infer.behaviour = refuse
    with pytest.raises(InputError, match="expected FP64"):
        client.infer("m", {"x": ONES})
    metadata.behaviour, infer.behaviour = described(("x", "FP64", [-1, 4])), echo
    with pytest.raises(InputError, match="expected float64"):
        client.infer("m", {"x": ONES})


def test_without_a_check_the_server_is_left_to_decide(metadata: Counted, infer: Counted) -> None:
    with (
        oip_server({"ModelMetadata": metadata, "ModelInfer": infer}) as target,
        Client(target, check_inputs=False) as client,
    ):
        client.infer("m", {"anything": ONES})
    assert (metadata.calls, infer.calls) == (0, 1)


@pytest.mark.parametrize("states", [[], [("x", "FP8", [-1, 4])]], ids=["no inputs", "datatype beyond the protocol"])
def test_a_server_that_states_too_little_checks_by_itself(
    client: Client, metadata: Counted, infer: Counted, states: list[tuple[str, str, list[int]]]
) -> None:
    metadata.behaviour = described(*states)
    client.infer("m", {"z": ONES})
    client.infer("m", {"z": ONES})
    assert (metadata.calls, infer.calls) == (1, 2)


def test_a_server_without_metadata_is_asked_once() -> None:
    infer = Counted(echo)
    with oip_server({"ModelInfer": infer}) as target, Client(target) as client:
        client.infer("m", {"x": ONES})
        client.infer("m", {"x": ONES})
    assert infer.calls == 2


def test_an_unknown_model_is_not_found_before_anything_is_sent(
    client: Client, metadata: Counted, infer: Counted
) -> None:
    def missing(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "no model 'm'")

    metadata.behaviour = missing
    with pytest.raises(NotFoundError):
        client.infer("m", {"x": ONES})
    assert infer.calls == 0


# What comes back.


@pytest.mark.parametrize(
    "array",
    [
        np.array([[True, False]]),
        np.array([[-0.5, np.inf]], np.float16),
        np.array([[1.5, -2, 3e38]], ml_dtypes.bfloat16),
        np.array([[b"", b"\x00\xff", "é".encode()]], object),
        np.empty((0, 3), np.int64),
        np.array(7, np.uint8),
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
    ],
    ids=["bool", "fp16", "bf16", "bytes", "empty", "scalar", "not contiguous"],
)
def test_arrays_go_and_come_back(array: NDArray[Any]) -> None:
    with oip_server({"ModelInfer": echo}) as target, Client(target) as client:
        found = client.infer("m", {"x": array, "second": ONES})
    assert found["x"].dtype == array.dtype
    np.testing.assert_array_equal(found["x"], array)
    np.testing.assert_array_equal(found["second"], ONES)


def answering(response: Any) -> Callable[[Any, Any], Any]:
    return lambda request, context: response


def test_typed_answers_and_empty_typed_contents_beside_raw_ones_are_read() -> None:
    typed = messages.ModelInferResponse()
    typed.outputs.add(name="y", datatype="INT8", shape=[2]).contents.int_contents.extend([-128, 127])
    both = messages.ModelInferResponse(raw_output_contents=[b"\x01\x00"])
    both.outputs.add(name="y", datatype="INT16", shape=[1]).contents.SetInParent()
    for response, expected in ((typed, [-128, 127]), (both, [1])):
        with oip_server({"ModelInfer": answering(response)}) as target, Client(target) as client:
            assert client.infer("m", {})["y"].tolist() == expected


def test_an_answer_that_breaks_the_protocol_is_the_servers_fault() -> None:
    short = messages.ModelInferResponse(model_name="m", raw_output_contents=[b"\x01"])
    short.outputs.add(name="y", datatype="INT16", shape=[1])
    with (
        oip_server({"ModelInfer": answering(short)}) as target,
        Client(target) as client,
        pytest.raises(ModelError, match="breaks the protocol: output 'y' has 1 raw bytes"),
    ):
        client.infer("m", {})


def test_an_answer_comes_with_version_id_and_parameters() -> None:
    def answer(request: Any, context: Any) -> Any:
        assert {name: value.WhichOneof("parameter_choice") for name, value in request.parameters.items()} == {
            "priority": "int64_param",
            "greedy": "bool_param",
            "temperature": "double_param",
            "language": "string_param",
        }
        response = echo(request)
        response.parameters["priority"].CopyFrom(request.parameters["priority"])
        return response

    parameters: dict[str, bool | int | float | str] = {
        "priority": 2, "greedy": True, "temperature": 0.5, "language": "en",
    }  # fmt: skip
    with oip_server({"ModelInfer": answer}) as target, Client(target) as client:
        found = client.infer_answer("m", {"x": ONES}, request_id="r1", parameters=parameters)
    assert (found.model, found.version, found.request_id, found.parameters) == ("m", "3", "r1", {"priority": 2})
    assert found.is_final
    np.testing.assert_array_equal(found.outputs["x"], ONES)


def test_a_parameter_of_no_kind_is_refused() -> None:
    with (
        oip_server({"ModelInfer": echo}) as target,
        Client(target) as client,
        pytest.raises(TidegateError, match="parameter 'p' is a list"),
    ):
        client.infer("m", {}, parameters={"p": []})  # type: ignore[dict-item]
