"""Triton's extensions on a real server: streams, configuration, statistics, classification, control, settings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from tests.served import identity_bundle, linear_bundle, simple_bundle, slow_bundle
from tests.waiting import wait_until

from tidegate.bundle import Bundle, write_bundle
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud.batching import BatchSettings
from tidegate.cloud.core import Caller
from tidegate.cloud.limits import is_public
from tidegate.cloud.queueing import QueueSettings
from tidegate.cloud.repository import LoadSettings, RepositorySettings
from tidegate.cloud.trace_log import LOGGER
from tidegate.errors import InputError, TidegateError
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE
from tidegate.wire.tensors import read_outputs, write_inputs

Call = Callable[[str, Any], Any]

LABELS = ("low", "middle", "high", "top")


def labelled(bundle: Path) -> Path:
    """Write a copy of a bundle whose classes have names."""
    with Bundle.open(bundle) as opened:
        manifest = opened.manifest
        files = {file.path: opened.read(file.path) for file in opened.files}
    out = bundle.with_name("labelled.tide")
    write_bundle(replace(manifest, name="labelled", labels=LABELS), files, out)
    return out


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("bundles")
    linear = [linear_bundle(directory, version=version) for version in ("1.0.0", "1.1.0")]
    identities = [identity_bundle(directory, dtype) for dtype in ("BYTES", "BOOL", "INT8", "FP32")]
    bundles = [*linear, labelled(linear[0]), simple_bundle(directory), slow_bundle(directory), *identities]
    queue = QueueSettings(maximum_length=500, timeout_s=2.5, priority_levels=3, default_priority=2)
    batching = BatchSettings(maximum_rows=32, preferred_rows=(8, 16), maximum_delay_ms=1.5, queue=queue)
    with Server(bundles, repository=RepositorySettings(loading=LoadSettings(batching=batching))) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


@pytest.fixture(scope="module")
def call(channel: grpc.Channel) -> Call:
    return caller_of(channel)


def caller_of(channel: grpc.Channel) -> Call:
    def make(name: str, request: Any) -> Any:
        method = OPEN_INFERENCE.method(name)
        stub = channel.unary_unary(OPEN_INFERENCE.path(method), response_deserializer=method.response.FromString)
        return stub(request if isinstance(request, bytes) else request.SerializeToString(), timeout=120)

    return make


@contextmanager
def open_call(server: Server) -> Iterator[Call]:
    with grpc.insecure_channel(server.address) as opened:
        yield caller_of(opened)


def infer_request(model: str, arrays: dict[str, NDArray[Any]], **fields: Any) -> Any:
    request = messages.ModelInferRequest(model_name=model, **fields)
    write_inputs(request, arrays)
    return request


def good(**fields: Any) -> Any:
    return infer_request("linear", {"x": np.ones((1, 4), np.float32)}, **fields)


def refused(call: Call, name: str, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(name, request)
    return caught.value.code().name, caught.value.details()


# Streams


def stream(channel: grpc.Channel, requests: Iterator[bytes], *, timeout_s: float = 120) -> Any:
    path = OPEN_INFERENCE.path(OPEN_INFERENCE.method("ModelStreamInfer"))
    answers = channel.stream_stream(path, response_deserializer=messages.ModelStreamInferResponse.FromString)
    return answers(requests, timeout=timeout_s)


def test_a_stream_answers_in_order_and_says_that_each_is_final(channel: grpc.Channel) -> None:
    count = 300  # more than may be in flight at once
    answers = list(stream(channel, (good(id=str(number)).SerializeToString() for number in range(count))))
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(count)]
    assert not any(answer.error_message for answer in answers)
    assert all(answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers)
    np.testing.assert_array_equal(read_outputs(answers[-1].infer_response)["y"], np.ones((1, 4), np.float32))


def test_whatever_is_wrong_in_a_stream_is_answered_and_the_stream_goes_on(channel: grpc.Channel) -> None:
    wrong = [
        good(model_version="9.9.9", id="version").SerializeToString(),
        b"\x0a\xff\xff\xff\xff\x0f",
        infer_request("linear", {"x": np.ones((1, 5), np.float32)}, id="size").SerializeToString(),
        good(id="good").SerializeToString(),
    ]
    version, malformed, size, last = stream(channel, iter(wrong))
    assert ("9.9.9" in version.error_message, version.infer_response.id) == (True, "version")
    assert "not a valid ModelInferRequest" in malformed.error_message
    assert ("[1, 5]" in size.error_message, size.infer_response.id) == (True, "size")
    assert (last.error_message, last.infer_response.id) == ("", "good")


def test_a_stream_is_answered_while_it_is_still_written(channel: grpc.Channel) -> None:
    may_go_on = threading.Event()

    def requests() -> Iterator[bytes]:
        yield good(id="first").SerializeToString()
        assert may_go_on.wait(120)
        yield good(id="second").SerializeToString()

    answers = stream(channel, requests())
    assert next(answers).infer_response.id == "first"
    may_go_on.set()
    assert next(answers).infer_response.id == "second"
    assert list(answers) == []


def test_a_stream_that_its_caller_leaves_leaves_no_work_behind(server: Server, channel: grpc.Channel) -> None:
    turns = np.array([100_000], np.int64)
    raw = infer_request("slow", {"turns": turns}).SerializeToString()
    count = 200
    before = server.repository.find("slow").statistics.read().executions
    answers = stream(channel, iter([raw] * count))
    next(answers)
    answers.cancel()
    # What waited for the caller is dropped, so a request behind it does not wait for all these runs.
    with open_call(server) as call:
        assert call("ModelInfer", infer_request("slow", {"turns": turns})).model_name == "slow"
    assert server.repository.find("slow").statistics.read().executions - before < count


# Configuration and statistics


def test_the_configuration_is_that_of_the_bundle_and_its_batching(call: Call) -> None:
    config = call("ModelConfig", messages.ModelConfigRequest(name="linear")).config
    assert (config.name, config.platform, config.backend) == ("linear", "onnx", "onnxruntime")
    assert config.max_batch_size == 32
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.input] == [("x", 11, [4])]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("y", [4]), ("total", [1])]
    batching = config.dynamic_batching
    assert list(batching.preferred_batch_size) == [8, 16]
    assert batching.max_queue_delay_microseconds == 1500
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    assert batching.default_queue_policy.max_queue_size == 500
    assert batching.default_queue_policy.default_timeout_microseconds == 2_500_000
    assert config.parameters["version"].string_value == "1.1.0"


def test_a_model_that_is_not_batched_has_whole_shapes(call: Call) -> None:
    config = call("ModelConfig", messages.ModelConfigRequest(name="slow")).config
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in config.input] == [[1]]


def test_bytes_are_tritons_strings_and_labels_are_named(call: Call) -> None:
    config = call("ModelConfig", messages.ModelConfigRequest(name="identity-bytes")).config
    assert [tensor.data_type for tensor in config.input] == [13]
    config = call("ModelConfig", messages.ModelConfigRequest(name="labelled")).config
    assert [bool(tensor.label_filename) for tensor in config.output] == [True, False]


@pytest.mark.parametrize("method", ["ModelConfig", "ModelStatistics"])
def test_what_is_not_there_has_neither(call: Call, method: str) -> None:
    request = OPEN_INFERENCE.method(method).request
    assert refused(call, method, request(name="nobody"))[0] == "NOT_FOUND"
    assert refused(call, method, request(name="linear", version="7.0.0"))[0] == "NOT_FOUND"


def statistics(call: Call, name: str = "", version: str = "") -> dict[tuple[str, str], Any]:
    found = call("ModelStatistics", messages.ModelStatisticsRequest(name=name, version=version)).model_stats
    return {(one.name, one.version): one for one in found}


def test_statistics_count_requests_runs_and_rows(call: Call) -> None:
    key = ("linear", "1.0.0")
    before = statistics(call, *key)[key]
    for rows in (1, 5, 5):
        call("ModelInfer", infer_request("linear", {"x": np.ones((rows, 4), np.float32)}, model_version="1.0.0"))
    after = statistics(call, *key)[key]
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_count - before.inference_count == 11
    assert after.execution_count - before.execution_count == 3
    assert {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}[5] == 2
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert sum(getattr(after.inference_stats, part).ns for part in parts) <= after.inference_stats.success.ns
    assert after.last_inference > 0
    assert after.inference_stats.HasField("cache_hit")


def test_statistics_of_one_version_all_of_a_model_and_all_models(call: Call) -> None:
    assert statistics(call, "linear", "1.0.0").keys() == {("linear", "1.0.0")}
    assert statistics(call, "linear").keys() == {("linear", "1.0.0"), ("linear", "1.1.0")}
    assert {name for name, _ in statistics(call)} >= {"linear", "simple", "slow", "labelled"}


# Classification


def classify(call: Call, model: str, array: NDArray[Any], count: int, output: str = "y", name: str = "x") -> Any:
    request = infer_request(model, {name: array}, outputs=[{"name": output}])
    request.outputs[0].parameters["classification"].int64_param = count
    return call("ModelInfer", request)


def test_the_highest_of_each_row_with_its_label(call: Call) -> None:
    rows = np.array([[0.5, 2, -1, 0.25], [1, 1, 1, 3]], np.float32)
    response = classify(call, "labelled", rows, 2)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [2, 2])
    assert read_outputs(response)["y"].tolist() == [
        [b"2.000000:1:middle", b"0.500000:0:low"],
        [b"3.000000:3:top", b"1.000000:0:low"],
    ]


def test_without_labels_and_with_more_than_there_are(call: Call) -> None:
    found = read_outputs(classify(call, "identity-int8", np.array([[-128, 127, 0]], np.int8), 9))
    assert found["y"].tolist() == [[b"127:1", b"0:2", b"-128:0"]]


def test_no_number_comes_last(call: Call) -> None:
    found = read_outputs(classify(call, "identity-fp32", np.array([[np.nan, 1, np.inf]], np.float32), 3))
    assert found["y"].tolist() == [[b"inf:2", b"1.000000:1", b"nan:0"]]


def test_no_rows_have_no_classes(call: Call) -> None:
    assert list(classify(call, "labelled", np.zeros((0, 4), np.float32), 2).outputs[0].shape) == [0, 2]


def test_the_other_outputs_stay_as_they_are(call: Call) -> None:
    request = good(outputs=[{"name": "total"}, {"name": "y"}])
    request.outputs[1].parameters["classification"].int64_param = 1
    outputs = read_outputs(call("ModelInfer", request))
    assert (outputs["total"].tolist(), outputs["y"].tolist()) == ([[4.0]], [[b"1.000000:0"]])


def test_a_model_without_rows_has_one_ranking(call: Call) -> None:
    response = classify(call, "slow", np.array([3], np.int64), 1, output="sum", name="turns")
    assert read_outputs(response)["sum"].tolist() == [b"3.000000:0"]


@pytest.mark.parametrize(
    ("model", "array", "count", "mentioned"),
    [
        ("identity-bytes", np.array([[b"a"]], object), 1, "BYTES"),
        ("identity-bool", np.array([[True]]), 1, "BOOL"),
        ("linear", np.ones((1, 4), np.float32), 0, "classification"),
        ("linear", np.ones((1, 4), np.float32), -1, "classification"),
    ],
)
def test_what_cannot_be_classified_is_refused_before_the_model(
    call: Call, model: str, array: NDArray[Any], count: int, mentioned: str
) -> None:
    before = statistics(call, model)
    with pytest.raises(grpc.RpcError) as caught:
        classify(call, model, array, count)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert mentioned in caught.value.details()
    after = statistics(call, model)
    assert {key: one.execution_count for key, one in after.items()} == {
        key: one.execution_count for key, one in before.items()
    }


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_tensor_in_shared_memory_is_refused(call: Call, side: str) -> None:
    request = good(outputs=[{"name": "y"}])
    getattr(request, side)[0].parameters["shared_memory_region"].string_param = "region"
    code, details = refused(call, "ModelInfer", request)
    assert (code, "shared memory" in details) == ("INVALID_ARGUMENT", True)


# Control


def test_unload_and_load_on_command(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path), simple_bundle(tmp_path)]) as server, open_call(server) as call:
        call("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="linear"))
        assert not call("ModelReady", messages.ModelReadyRequest(name="linear")).ready
        assert call("ModelReady", messages.ModelReadyRequest(name="simple")).ready
        states = {one.name: one.state for one in call("RepositoryIndex", messages.RepositoryIndexRequest()).models}
        assert states == {"linear": "UNAVAILABLE", "simple": "READY"}
        call("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="linear"))
        assert call("ModelInfer", good()).model_version == "1.0.0"


def test_one_version_by_parameter(tmp_path: Path) -> None:
    bundles = [linear_bundle(tmp_path, version=version) for version in ("1.0.0", "2.0.0")]
    with Server(bundles) as server, open_call(server) as call:
        request = messages.RepositoryModelUnloadRequest(model_name="linear")
        request.parameters["version"].string_param = "2.0.0"
        request.parameters["unload_dependents"].bool_param = True
        call("RepositoryModelUnload", request)
        assert call("ModelInfer", good()).model_version == "1.0.0"


def test_what_is_in_flight_is_answered_before_the_model_goes(tmp_path: Path) -> None:
    with Server([slow_bundle(tmp_path)]) as server, grpc.insecure_channel(server.address) as channel:
        raw = infer_request("slow", {"turns": np.array([300_000], np.int64)}).SerializeToString()
        path = OPEN_INFERENCE.path(OPEN_INFERENCE.method("ModelInfer"))
        flying = [channel.unary_unary(path).future(raw, timeout=60) for _ in range(3)]
        wait_until(lambda: server.work_under_way == len(flying))
        caller_of(channel)("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="slow"))
        assert [messages.ModelInferResponse.FromString(one.result()).model_name for one in flying] == ["slow"] * 3


def test_commands_that_are_wrong_change_nothing(call: Call) -> None:
    load, unload = messages.RepositoryModelLoadRequest, messages.RepositoryModelUnloadRequest
    configured = load(model_name="linear")
    configured.parameters["config"].string_param = "{}"
    assert refused(call, "RepositoryModelLoad", configured)[0] == "INVALID_ARGUMENT"
    assert refused(call, "RepositoryModelLoad", load())[0] == "INVALID_ARGUMENT"
    code, details = refused(call, "RepositoryModelLoad", load(model_name="nobody"))
    assert (code, "failed to load 'nobody'" in details) == ("NOT_FOUND", True)
    assert refused(call, "RepositoryModelUnload", unload(model_name="nobody"))[0] == "NOT_FOUND"
    assert refused(call, "RepositoryModelUnload", unload(repository_name="other", model_name="linear"))[0] == (
        "UNIMPLEMENTED"
    )
    index = messages.RepositoryIndexRequest(repository_name="other")
    assert refused(call, "RepositoryIndex", index)[0] == "UNIMPLEMENTED"
    assert call("ModelInfer", good()).model_version == "1.1.0"


def test_control_can_be_switched_off(tmp_path: Path) -> None:
    settings = ServerSettings(model_control=False)
    with Server([linear_bundle(tmp_path)], settings=settings) as server, open_call(server) as call:
        for name, request in (
            ("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="linear")),
            ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="linear")),
            ("LogSettings", switched(log_info=True)),
        ):
            code, details = refused(call, name, request)
            assert (code, "model control is off" in details) == ("UNAVAILABLE", True)
        assert call("ModelInfer", good()).model_version == "1.0.0"
        assert "log_info" in call("LogSettings", messages.LogSettingsRequest()).settings


def test_what_would_reach_one_process_of_several_is_refused(tmp_path: Path) -> None:
    settings = ServerSettings(share_port=True)
    with Server([linear_bundle(tmp_path)], settings=settings) as server, open_call(server) as call:
        for name, request in (
            ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="linear")),
            ("LogSettings", switched(log_info=True)),
        ):
            code, details = refused(call, name, request)
            assert (code, "several processes share this port" in details) == ("UNAVAILABLE", True)
        assert call("ModelInfer", good()).model_version == "1.0.0"


class Porter:
    """A guard that lets one model pass and writes down everything."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def permit(self, caller: Caller, action: str, model: str) -> None:
        if model != "linear":
            raise InputError(f"{model} is not yours", fix="ask for linear")

    def done(self, caller: Caller, action: str, model: str, error: TidegateError | None) -> None:
        self.seen.append((action, model, "" if error is None else type(error).__name__))


def test_guards_decide_and_learn_what_came_of_it(tmp_path: Path) -> None:
    porter = Porter()
    bundles = [linear_bundle(tmp_path), simple_bundle(tmp_path)]
    with Server(bundles, guards=[porter]) as server, open_call(server) as call:
        unload = messages.RepositoryModelUnloadRequest
        assert refused(call, "RepositoryModelUnload", unload(model_name="simple"))[0] == "INVALID_ARGUMENT"
        call("RepositoryModelUnload", unload(model_name="linear"))
        assert refused(call, "RepositoryModelUnload", unload(model_name="linear"))[0] == "NOT_FOUND"
    name = "RepositoryModelUnload"
    assert porter.seen == [(name, "simple", "InputError"), (name, "linear", ""), (name, "linear", "NotFoundError")]


@pytest.mark.parametrize(
    ("listen", "public"),
    [
        ("127.0.0.1:8001", False),
        ("127.8.0.1:0", False),
        ("localhost:8001", False),
        ("[::1]:8001", False),
        ("unix:/run/tidegate.sock", False),
        ("0.0.0.0:8001", True),
        ("[::]:8001", True),
        ("192.168.1.7:8001", True),
        ("models.example.com:8001", True),
    ],
)
def test_which_addresses_are_public(listen: str, public: bool) -> None:
    assert is_public(listen) is public


# Settings, and what is not offered


@pytest.fixture
def level() -> Iterator[logging.Logger]:
    logger = logging.getLogger(LOGGER)
    before = logger.level
    logger.setLevel(logging.WARNING)
    yield logger
    logger.setLevel(before)


def switched(**settings: bool | int | str) -> Any:
    request = messages.LogSettingsRequest()
    for name, value in settings.items():
        kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(request.settings[name], kind, value)
    return request


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, logging.WARNING),
        ({"log_info": True}, logging.INFO),
        ({"log_verbose_level": 1}, logging.DEBUG),
        ({"log_verbose_level": 0}, logging.WARNING),
        ({"log_warning": False}, logging.ERROR),
        ({"log_error": False}, logging.CRITICAL + 1),
        ({"log_info": True, "log_verbose_level": 0}, logging.INFO),
        ({"log_error": True}, logging.WARNING),
        ({"log_file": "", "log_format": "default"}, logging.WARNING),
    ],
)
def test_log_settings_are_one_threshold(
    call: Call, level: logging.Logger, settings: dict[str, Any], expected: int
) -> None:
    answer = call("LogSettings", switched(**settings)).settings
    assert level.level == expected
    assert answer["log_info"].bool_param == (expected <= logging.INFO)
    assert answer["log_error"].bool_param == (expected <= logging.ERROR)
    assert answer["log_verbose_level"].uint32_param == int(expected <= logging.DEBUG)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"log_info": True, "log_error": False}, "INVALID_ARGUMENT"),
        ({"log_info": 1}, "INVALID_ARGUMENT"),
        ({"log_colour": True}, "INVALID_ARGUMENT"),
        ({"log_file": "elsewhere"}, "UNIMPLEMENTED"),
    ],
)
def test_log_settings_that_cannot_be(call: Call, level: logging.Logger, settings: dict[str, Any], code: str) -> None:
    assert refused(call, "LogSettings", switched(**settings))[0] == code
    assert level.level == logging.WARNING


@pytest.mark.parametrize(
    "method",
    ["TraceSetting"]
    + [f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")],
)
def test_what_is_not_offered_says_so(call: Call, method: str) -> None:
    code, details = refused(call, method, b"")
    assert (code, "not offered" in details) == ("UNIMPLEMENTED", True)
