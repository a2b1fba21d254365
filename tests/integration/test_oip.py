"""The Open Inference Protocol on a real server: every row that servers in the field get wrong.

Requests are built message by message, as a foreign client would, so that wrong ones can be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.served import ONNX_TYPES, identity_bundle, linear_bundle, simple_bundle

from tidegate.cloud import Server, ServerSettings
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE
from tidegate.wire.tensors import read_outputs, write_inputs, write_typed

LIMIT_BYTES = 2**20

Call = Callable[[str, Any], Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("bundles")
    versions = [
        linear_bundle(directory, version=version, factor=factor)
        for version, factor in (("1.9.0", 9.0), ("1.10.0", 10.0), ("1.10.0-rc.1", 1.0))
    ]
    identities = [identity_bundle(directory, dtype) for dtype in ONNX_TYPES]
    settings = ServerSettings(maximum_message_bytes=LIMIT_BYTES)
    with Server([*versions, simple_bundle(directory), *identities], settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)]) as opened:
        yield opened


@pytest.fixture(scope="module")
def call(channel: grpc.Channel) -> Call:
    """Return `call(method, request)`; a request of bytes is sent as it is."""

    def make(name: str, request: Any, **options: Any) -> Any:
        method = OPEN_INFERENCE.method(name)
        stub = channel.unary_unary(OPEN_INFERENCE.path(method), response_deserializer=method.response.FromString)
        return stub(request if isinstance(request, bytes) else request.SerializeToString(), timeout=120, **options)

    return make


def infer_request(arrays: dict[str, NDArray[Any]], model: str = "linear", **fields: Any) -> Any:
    request = messages.ModelInferRequest(model_name=model, **fields)
    write_inputs(request, arrays)
    return request


def good(**fields: Any) -> Any:
    return infer_request({"x": np.ones((2, 4), np.float32)}, **fields)


def changed(change: Callable[[Any], object]) -> Any:
    """Return a good request after one thing in it was made wrong."""
    request = good()
    change(request)
    return request


def typed(change: Callable[[Any], object]) -> Any:
    request = messages.ModelInferRequest(model_name="linear")
    write_typed(request.inputs.add(), "x", np.ones((2, 4), np.float32))
    change(request)
    return request


def add_input(request: Any, name: str) -> None:
    write_inputs(request, {name: np.ones((2, 4), np.float32)})


def test_live_ready_and_server_metadata(call: Call) -> None:
    assert call("ServerLive", messages.ServerLiveRequest()).live
    assert call("ServerReady", messages.ServerReadyRequest()).ready
    server = call("ServerMetadata", messages.ServerMetadataRequest())
    assert server.name == "tidegate"
    assert server.version
    assert "binary_tensor_data" in server.extensions


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("linear", "", True),
        ("linear", "1.9.0", True),
        ("linear", "2.0.0", False),
        ("nobody", "", False),
        ("", "", False),
    ],
)
def test_model_ready_answers_for_unknown_models_too(call: Call, name: str, version: str, ready: bool) -> None:
    assert call("ModelReady", messages.ModelReadyRequest(name=name, version=version)).ready is ready


def test_model_metadata_is_filled(call: Call) -> None:
    model = call("ModelMetadata", messages.ModelMetadataRequest(name="linear"))
    assert model.name == "linear"
    assert list(model.versions) == ["1.9.0", "1.10.0-rc.1", "1.10.0"]
    assert model.platform == "onnx"
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in model.inputs] == [("x", "FP32", [-1, 4])]
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in model.outputs] == [
        ("y", "FP32", [-1, 4]),
        ("total", "FP32", [-1, 1]),
    ]
    assert model.properties["version"] == "1.10.0"
    assert model.properties["variant"] == "onnx-as-is"


@pytest.mark.parametrize(("name", "version"), [("nobody", ""), ("linear", "7.0.0")])
def test_metadata_of_what_is_not_there_is_not_found(call: Call, name: str, version: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call("ModelMetadata", messages.ModelMetadataRequest(name=name, version=version))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_index_lists_every_version(call: Call) -> None:
    listed = call("RepositoryIndex", messages.RepositoryIndexRequest()).models
    assert [model.version for model in listed if model.name == "linear"] == ["1.9.0", "1.10.0-rc.1", "1.10.0"]
    assert {model.state for model in listed} == {"READY"}


def test_an_answer_has_id_model_and_version(call: Call) -> None:
    response = call("ModelInfer", good(id="request 7 é"))
    assert (response.id, response.model_name, response.model_version) == ("request 7 é", "linear", "1.10.0")
    outputs = read_outputs(response)
    np.testing.assert_array_equal(outputs["y"], np.full((2, 4), 10, np.float32))
    np.testing.assert_array_equal(outputs["total"], np.full((2, 1), 40, np.float32))


@pytest.mark.parametrize(("version", "factor"), [("1.9.0", 9), ("1.10.0", 10), ("1.10.0-rc.1", 1), ("", 10)])
def test_the_version_asked_for_answers_and_empty_is_the_highest(call: Call, version: str, factor: float) -> None:
    response = call("ModelInfer", good(model_version=version))
    assert response.model_version == (version or "1.10.0")
    assert read_outputs(response)["y"][0, 0] == factor


def test_only_the_requested_outputs_in_the_order_asked_for(call: Call) -> None:
    wanted = [{"name": "total"}, {"name": "y"}]
    assert [found.name for found in call("ModelInfer", good(outputs=wanted)).outputs] == ["total", "y"]
    assert [found.name for found in call("ModelInfer", good(outputs=wanted[:1])).outputs] == ["total"]
    assert len(call("ModelInfer", good(outputs=wanted[:1])).raw_output_contents) == 1


def test_raw_entries_follow_the_order_of_the_inputs(call: Call) -> None:
    rows = np.arange(16, dtype=np.int32).reshape(1, 16)
    backwards = infer_request({"INPUT1": np.ones((1, 16), np.int32), "INPUT0": rows}, model="simple")
    outputs = read_outputs(call("ModelInfer", backwards))
    np.testing.assert_array_equal(outputs["OUTPUT0"], rows + 1)
    np.testing.assert_array_equal(outputs["OUTPUT1"], rows - 1)


def test_a_typed_request_is_answered_raw_like_any_other(call: Call) -> None:
    response = call("ModelInfer", typed(lambda request: None))
    assert len(response.raw_output_contents) == 2
    assert not any(output.HasField("contents") for output in response.outputs)


def sample(dtype: str) -> NDArray[Any]:
    if dtype == "BYTES":
        array = np.empty((2, 3), object)
        array[:] = [[b"", b"plain", "é".encode()], [b"x" * 300, b"tab\t", b" "]]
        return array
    kind = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BOOL": np.bool_}.get(dtype)
    if kind is np.bool_:
        return np.array([[True, False, True], [False, False, True]])
    if kind is not None:
        return np.array([[0, -1.5, np.inf], [-np.inf, np.nan, 2]], kind)
    integer = np.dtype(dtype.lower())
    limits = np.iinfo(integer)
    return np.array([[0, 1, 2], [limits.min, limits.max, 7]], integer)


@pytest.mark.parametrize("dtype", ONNX_TYPES)
def test_every_datatype_there_and_back_raw(call: Call, dtype: str) -> None:
    array = sample(dtype)
    response = call("ModelInfer", infer_request({"x": array}, model=f"identity-{dtype.lower()}"))
    assert response.outputs[0].datatype == dtype
    np.testing.assert_array_equal(read_outputs(response)["y"], array)


@pytest.mark.parametrize("dtype", sorted(set(ONNX_TYPES) - {"FP16"}))
def test_every_datatype_typed(call: Call, dtype: str) -> None:
    array = sample(dtype)
    request = messages.ModelInferRequest(model_name=f"identity-{dtype.lower()}")
    write_typed(request.inputs.add(), "x", array)
    np.testing.assert_array_equal(read_outputs(call("ModelInfer", request))["y"], array)


def test_no_rows_in_no_rows_out(call: Call) -> None:
    outputs = read_outputs(call("ModelInfer", infer_request({"x": np.zeros((0, 4), np.float32)})))
    assert outputs["y"].shape == (0, 4)


def test_gzip_is_understood(call: Call) -> None:
    response = call("ModelInfer", good(), compression=grpc.Compression.Gzip)  # type: ignore[call-arg]
    assert read_outputs(response)["y"].shape == (2, 4)


INVALID = "INVALID_ARGUMENT"

WRONG: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "unknown model": (good(model="nobody"), "NOT_FOUND", ("nobody", "linear")),
    "no model": (messages.ModelInferRequest(), "NOT_FOUND", ("''",)),
    "unknown version": (good(model_version="7.0.0"), "NOT_FOUND", ("7.0.0", "1.10.0")),
    "unknown output": (good(outputs=[{"name": "z"}]), INVALID, ("'z'", "'y'", "'total'")),
    "output asked for twice": (good(outputs=[{"name": "y"}, {"name": "y"}]), INVALID, ("'y'", "more than once")),
    "raw and typed": (
        changed(lambda request: request.inputs[0].contents.fp32_contents.extend([1.0] * 8)),
        INVALID,
        ("'x'", "typed contents", "raw contents"),
    ),
    "raw one byte short": (
        changed(lambda request: request.raw_input_contents.__setitem__(0, b"x" * 31)),
        INVALID,
        ("'x'", "31", "32"),
    ),
    "raw four bytes long": (
        changed(lambda request: request.raw_input_contents.__setitem__(0, b"x" * 36)),
        INVALID,
        ("'x'", "36", "32"),
    ),
    "two blobs for one input": (
        changed(lambda request: request.raw_input_contents.append(b"x" * 32)),
        INVALID,
        ("2 raw contents", "1 inputs"),
    ),
    "typed too few": (
        typed(lambda request: request.inputs[0].contents.fp32_contents.pop()),
        INVALID,
        ("'x'", "7 elements", "takes 8"),
    ),
    "no data": (
        typed(lambda request: request.inputs[0].ClearField("contents")),
        INVALID,
        ("'x'", "0 elements", "takes 8"),
    ),
    "typed in another field": (
        typed(lambda request: request.inputs[0].contents.int_contents.extend([1])),
        INVALID,
        ("'x'", "int_contents", "fp32_contents"),
    ),
    "wrong size": (infer_request({"x": np.ones((2, 5), np.float32)}), INVALID, ("'x'", "[2, 5]", "4]")),
    "wrong rank": (infer_request({"x": np.ones(4, np.float32)}), INVALID, ("'x'", "[4]")),
    "wrong datatype": (infer_request({"x": np.ones((2, 4))}), INVALID, ("'x'", "float64", "float32")),
    "datatype that does not exist": (
        changed(lambda request: setattr(request.inputs[0], "datatype", "FLOAT")),
        INVALID,
        ("FLOAT", "FP32"),
    ),
    "fp16 typed": (
        typed(lambda request: setattr(request.inputs[0], "datatype", "FP16")),
        INVALID,
        ("'x'", "FP16"),
    ),
    "negative size": (
        changed(lambda request: request.inputs[0].shape.__setitem__(0, -1)),
        INVALID,
        ("'x'", "[-1, 4]"),
    ),
    "wrong input name": (infer_request({"z": np.ones((2, 4), np.float32)}), INVALID, ("'x'", "'z'")),
    "extra input": (changed(lambda request: add_input(request, "z")), INVALID, ("'z'", "'x'")),
    "input twice": (changed(lambda request: add_input(request, "x")), INVALID, ("'x'", "more than once")),
    "no inputs": (messages.ModelInferRequest(model_name="linear"), INVALID, ("'x'",)),
    "malformed protobuf": (b"\x0a\xff\xff\xff", INVALID, ("inference.ModelInferRequest",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_says_why_and_the_server_serves_on(call: Call, case: str) -> None:
    request, code, mentioned = WRONG[case]
    with pytest.raises(grpc.RpcError) as caught:
        call("ModelInfer", request)
    assert caught.value.code().name == code
    details = caught.value.details()
    assert [text for text in mentioned if text not in details] == []
    assert ". What to do: " in details
    assert read_outputs(call("ModelInfer", good()))["y"].shape == (2, 4)


def test_an_oversized_request_is_refused_and_the_server_serves_on(call: Call) -> None:
    rows = np.ones((LIMIT_BYTES // 16 + 1, 4), np.float32)
    with pytest.raises(grpc.RpcError) as caught:
        call("ModelInfer", infer_request({"x": rows}))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call("ServerLive", messages.ServerLiveRequest()).live


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelExplain")(b"", timeout=120)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_knows_the_server_the_services_and_the_models(channel: grpc.Channel) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", OPEN_INFERENCE.name, "tidegate.v1.Speech", "linear", "linear/1.9.0", "simple"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=120)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=120)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_every_service(channel: grpc.Channel, version: str) -> None:
    from google.protobuf import descriptor_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=OPEN_INFERENCE.name),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tidegate.v1.Speech"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody.Knows"),
    ]
    listed, inference, speech, unknown = ask(iter(requests), timeout=120)
    services = {service.name for service in listed.list_services_response.service}
    assert {OPEN_INFERENCE.name, "tidegate.v1.Speech", "grpc.health.v1.Health"} <= services
    for answer, package in ((inference, "inference"), (speech, "tidegate.v1")):
        raw = answer.file_descriptor_response.file_descriptor_proto[0]
        assert descriptor_pb2.FileDescriptorProto.FromString(raw).package == package
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
