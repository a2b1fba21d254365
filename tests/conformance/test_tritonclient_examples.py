"""What the examples of Triton's client repository do, done again against our server: the same calls on the same models.

Adapted are the Python examples over gRPC whose models a bundle can be: `simple`, `simple_int8`, `simple_string` and
`simple_identity`. Sequence models keep state between requests, decoupled ones answer one request several times; a
bundle does neither. Shared memory is refused, which is tested as well.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf import json_format
from msgspec.structs import replace
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.served import identity_bundle, linear_bundle, simple_bundle, slow_bundle
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tidegate.bundle import Bundle, Manifest, Signature, TensorSpec, Variant, digest, write_bundle
from tidegate.cloud import Server
from tidegate.wire import messages

ROW = np.arange(16).reshape(1, 16)

LABELS = tuple(f"label {number}" for number in range(4))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("bundles")
    bundles = [
        simple_bundle(directory),
        sum_and_difference(directory, "simple_int8", "INT8", TensorProto.INT8),
        strings_bundle(directory),
        renamed(identity_bundle(directory, "BYTES"), "simple_identity"),
        renamed(linear_bundle(directory), "classes", labels=LABELS),
        slow_bundle(directory),
    ]
    with Server(bundles) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.address) as opened:
        yield opened


def renamed(bundle: Path, name: str, **fields: Any) -> Path:
    with Bundle.open(bundle) as opened:
        manifest = opened.manifest
        files = {file.path: opened.read(file.path) for file in opened.files}
    out = bundle.with_name(f"{name}.tide")
    write_bundle(replace(manifest, name=name, **fields), files, out)
    return out


def sum_and_difference(directory: Path, name: str, dtype: str, element: int) -> Path:
    return written(
        directory,
        name,
        dtype,
        element,
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
    )


def strings_bundle(directory: Path) -> Path:
    """Numbers as text in, sum and difference as text out."""
    text, number = TensorProto.STRING, TensorProto.INT32
    nodes = [
        helper.make_node("Cast", ["INPUT0"], ["a"], to=number),
        helper.make_node("Cast", ["INPUT1"], ["b"], to=number),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Cast", ["sum"], ["OUTPUT0"], to=text),
        helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=text),
    ]
    return written(directory, "simple_string", "BYTES", TensorProto.STRING, nodes)


def written(directory: Path, name: str, dtype: str, element: int, nodes: list[Any]) -> Path:
    values = {
        side: [helper.make_tensor_value_info(f"{side}{number}", element, ["rows", 16]) for number in (0, 1)]
        for side in ("INPUT", "OUTPUT")
    }
    graph = helper.make_graph(nodes, name, values["INPUT"], values["OUTPUT"])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    inputs, outputs = (
        tuple(TensorSpec(name=f"{side}{number}", dtype=dtype, shape=(-1, 16)) for number in (0, 1))
        for side in ("INPUT", "OUTPUT")
    )
    variant = Variant(
        id="onnx-as-is",
        backend="onnx",
        precision="as-is",
        file="variants/model.onnx",
        sha256=digest(model),
        size_bytes=len(model),
    )
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name=name,
        version="1.0.0",
        signature=Signature(inputs=inputs, outputs=outputs),
        variants=(variant,),
    )
    path = directory / f"{name}.tide"
    write_bundle(manifest, {variant.file: model}, path)
    return path


def tensor(name: str, array: NDArray[Any]) -> Any:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def pair(dtype: Any = np.int32) -> list[Any]:
    return [tensor("INPUT0", ROW.astype(dtype)), tensor("INPUT1", np.ones((1, 16), dtype))]


def check_pair(answer: Any, dtype: Any = np.int32) -> None:
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), (ROW + 1).astype(dtype))
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), (ROW - 1).astype(dtype))


def test_infer_with_headers_compression_parameters_and_statistics(client: Any) -> None:
    before = client.get_inference_statistics("simple").model_stats[0].inference_stats.success.count
    check_pair(client.infer("simple", pair(), headers={"test": "1"}, compression_algorithm="gzip"))
    check_pair(client.infer("simple", pair(), parameters={"note": "x", "number": 3, "flag": True}))
    (found,) = client.get_inference_statistics("simple").model_stats
    assert found.name == "simple"
    assert found.inference_stats.success.count - before == 2


def test_health_and_metadata_and_configuration(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    metadata = client.get_server_metadata(as_json=True)
    assert {"statistics", "model_configuration", "binary_tensor_data"} <= set(metadata["extensions"])
    assert client.get_model_metadata("simple").name == "simple"
    with pytest.raises(InferenceServerException, match="wrong_model"):
        client.get_model_metadata("wrong_model")
    assert client.get_model_config("simple").config.name == "simple"
    with pytest.raises(InferenceServerException, match="wrong_model"):
        client.get_model_config("wrong_model")


def test_eight_bits(client: Any) -> None:
    check_pair(client.infer("simple_int8", pair(np.int8)), np.int8)


def test_strings(client: Any) -> None:
    texts = np.array([[str(number).encode() for number in ROW[0]]], object)
    ones = np.array([[b"1"] * 16], object)
    answer = client.infer("simple_string", [tensor("INPUT0", texts), tensor("INPUT1", ones)])
    assert [int(text) for text in answer.as_numpy("OUTPUT0")[0]] == [number + 1 for number in range(16)]
    assert [int(text) for text in answer.as_numpy("OUTPUT1")[0]] == [number - 1 for number in range(16)]


@pytest.mark.parametrize("texts", [[b"a\0b", b"\0"], ["é", "", "x" * 1000]])
def test_identity_of_bytes(client: Any, texts: list[Any]) -> None:
    array = np.array([texts], object)
    answer = client.infer("simple_identity", [tensor("x", array)]).as_numpy("y")
    assert [item if isinstance(texts[0], bytes) else item.decode() for item in answer[0]] == texts


def test_callbacks(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(8):
        client.async_infer("simple", pair(), callback=lambda result, error: answers.put((result, error)))
    for _ in range(8):
        result, error = answers.get(timeout=120)
        assert error is None
        check_pair(result)


def test_a_time_out_of_the_caller(client: Any) -> None:
    endless = [tensor("turns", np.array([250_000], np.int64))]
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        client.infer("slow", endless, client_timeout=0.05)
    check_pair(client.infer("simple", pair(), client_timeout=120))


def test_a_stream_with_an_error_in_the_middle(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for name in ("simple", "nobody", "simple"):
        client.async_stream_infer(name, pair(), request_id=name, enable_empty_final_response=True)
    found = [answers.get(timeout=120) for _ in range(3)]
    client.stop_stream()
    check_pair(found[0][0])
    assert "nobody" in str(found[1][1])
    check_pair(found[2][0])
    assert found[2][0].get_response().parameters["triton_final_response"].bool_param


def test_model_control(client: Any) -> None:
    client.unload_model("simple_int8")
    assert not client.is_model_ready("simple_int8")
    client.load_model("simple_int8")
    assert client.is_model_ready("simple_int8")
    with pytest.raises(InferenceServerException, match="failed to load"):
        client.load_model("wrong_model_name")
    index = {model.name: model.state for model in client.get_model_repository_index().models}
    assert index["simple_int8"] == "READY"


def test_classes_with_labels(client: Any) -> None:
    rows = np.array([[0.1, 0.7, 0.15, 0.05]], np.float32)
    wanted = [triton.InferRequestedOutput("y", class_count=2)]
    found = client.infer("classes", [tensor("x", rows)], outputs=wanted).as_numpy("y")
    assert found.tolist() == [[b"0.700000:1:label 1", b"0.150000:2:label 2"]]


def test_contents_in_typed_fields(server: Server) -> None:
    """With the bare stub, as the examples of explicit contents do."""
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="simple")
        for name, values in (("INPUT0", range(16)), ("INPUT1", [1] * 16)):
            made = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
            made.contents.int_contents.extend(values)
        response = stub.ModelInfer(request, timeout=120)
        np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[0], np.int32), ROW[0] + 1)
        request.raw_input_contents.append(ROW.astype(np.int32).tobytes())
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=120)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_asyncio(server: Server) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(server.address) as client:
            assert await client.is_model_ready("simple")
            for answer in await asyncio.gather(*(client.infer("simple", pair()) for _ in range(16))):
                check_pair(answer)

            async def requests() -> Any:
                for number in range(3):
                    yield {"model_name": "simple", "inputs": pair(), "request_id": str(number)}

            stream = client.stream_infer(requests())
            seen = [result.get_response().id async for result, error in stream if error is None]
            assert seen == ["0", "1", "2"]

    asyncio.run(ask())


def test_keep_alive(server: Server) -> None:
    options = triton.KeepAliveOptions(keepalive_time_ms=2**31 - 1, keepalive_timeout_ms=20000)
    with triton.InferenceServerClient(server.address, keepalive_options=options) as client:
        check_pair(client.infer("simple", pair()))


def test_log_settings(client: Any) -> None:
    assert set(client.get_log_settings(as_json=True)["settings"]) >= {"log_error", "log_info", "log_verbose_level"}


def test_shared_memory_and_trace_settings_are_refused(client: Any) -> None:
    for ask in (
        client.get_system_shared_memory_status,
        client.unregister_system_shared_memory,
        client.unregister_cuda_shared_memory,
        lambda: client.register_system_shared_memory("region", "/region", 64),
        client.get_trace_settings,
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


EXTENSIONS = sorted(
    name
    for name in vars(messages)
    if name[0].isupper() and hasattr(service_pb2, name) and hasattr(getattr(messages, name), "DESCRIPTOR")
)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_every_message_of_ours_is_tritons_field_by_field(name: str) -> None:
    assert differences(getattr(messages, name).DESCRIPTOR, getattr(service_pb2, name).DESCRIPTOR) == []


def test_our_configuration_is_tritons_as_far_as_it_goes(client: Any, server: Server) -> None:
    assert differences(messages.ModelConfig.DESCRIPTOR, model_config_pb2.ModelConfig.DESCRIPTOR) == []
    # Triton's own parser reads all of it: nothing is left over under an unknown number.
    config = client.get_model_config("classes").config
    shown = json_format.MessageToDict(config, preserving_proto_field_name=True)
    assert shown["max_batch_size"] == 64
    assert shown["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}]


def differences(ours: Any, theirs: Any, seen: frozenset[str] = frozenset()) -> list[str]:
    """Return the fields of our message that are another thing in Triton's, those inside it included."""
    if ours.full_name in seen:
        return []
    found = []
    by_number = {field.number: field for field in theirs.fields}
    for field in ours.fields:
        other = by_number.get(field.number)
        if other is None and field.name == "properties":
            continue  # the protocol's own; Triton has no field of that number
        if other is None or (other.name, other.type, other.is_repeated) != (field.name, field.type, field.is_repeated):
            found.append(f"{ours.full_name}.{field.name} = {field.number}")
        elif field.message_type is not None:
            found += differences(field.message_type, other.message_type, seen | {ours.full_name})
        elif field.enum_type is not None:
            numbers = {value.name: value.number for value in other.enum_type.values}
            found += [value.name for value in field.enum_type.values if numbers.get(value.name) != value.number]
    return found
