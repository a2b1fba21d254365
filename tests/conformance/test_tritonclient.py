"""Triton's own Python client, imported beside our messages in one process, calls our server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tests.served import identity_bundle, linear_bundle, simple_bundle
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tidegate.client import Client
from tidegate.cloud import Server
from tidegate.wire import messages


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("bundles")
    identities = [identity_bundle(directory, dtype) for dtype in ("INT64", "BYTES", "FP16", "BOOL")]
    with Server([linear_bundle(directory), simple_bundle(directory), *identities]) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.address) as opened:
        yield opened


def infer(client: Any, model: str, arrays: dict[str, NDArray[Any]], **options: Any) -> Any:
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return client.infer(model, inputs, client_timeout=120, **options)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "1.0.0")
    assert not client.is_model_ready("linear", "2.0.0")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "tidegate"
    model = client.get_model_metadata("simple")
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in model.inputs] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert "linear" in {found.name for found in client.get_model_repository_index().models}


def test_fp32_with_id_and_requested_outputs(client: Any) -> None:
    wanted = [triton.InferRequestedOutput("total")]
    answer = infer(client, "linear", {"x": np.ones((3, 4), np.float32)}, request_id="a1", outputs=wanted)
    np.testing.assert_array_equal(answer.as_numpy("total"), np.full((3, 1), 4, np.float32))
    assert answer.as_numpy("y") is None
    assert (answer.get_response().id, answer.get_response().model_version) == ("a1", "1.0.0")


def test_tritons_simple_example(client: Any) -> None:
    rows, ones = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)
    answer = infer(client, "simple", {"INPUT0": rows, "INPUT1": ones})
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), rows + 1)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), rows - 1)


@pytest.mark.parametrize(
    ("model", "array"),
    [
        ("identity-int64", np.array([[2**62, -1]], np.int64)),
        ("identity-fp16", np.array([[0.5, -2]], np.float16)),
        ("identity-bool", np.array([[True, False]])),
        ("identity-bytes", np.array([[b"", "é".encode(), b"abc"]], object)),
    ],
)
def test_datatypes(client: Any, model: str, array: NDArray[Any]) -> None:
    np.testing.assert_array_equal(infer(client, model, {"x": array}).as_numpy("y"), array)


def test_errors_have_the_status_codes_of_triton(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        infer(client, "nobody", {"x": np.ones((1, 4), np.float32)})
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        infer(client, "linear", {"x": np.ones((1, 5), np.float32)})
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_both_clients_in_one_process_call_the_same_server(server: Server, client: Any) -> None:
    array = np.arange(4, dtype=np.float32).reshape(1, 4)
    with Client(server.address) as ours:
        np.testing.assert_array_equal(
            ours.infer("linear", {"x": array})["y"], infer(client, "linear", {"x": array}).as_numpy("y")
        )


@pytest.mark.parametrize(
    "name",
    [
        "ModelInferRequest",
        "ModelInferResponse",
        "ModelMetadataRequest",
        "ModelMetadataResponse",
        "ModelReadyRequest",
        "ServerMetadataResponse",
        "InferParameter",
        "InferTensorContents",
        "RepositoryIndexRequest",
        "RepositoryIndexResponse",
    ],
)
def test_our_fields_are_those_of_triton(name: str) -> None:
    def fields(message: Any) -> dict[int, tuple[str, int]]:
        return {field.number: (field.name, field.type) for field in message.DESCRIPTOR.fields}

    ours, theirs = fields(getattr(messages, name)), fields(getattr(service_pb2, name))
    # `properties` is the protocol's own; Triton has no field of that number.
    assert {number: field for number, field in ours.items() if field[0] != "properties"} == theirs
