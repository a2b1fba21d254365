"""The conformance suite: our server passes all of it, and each check fails on a server that is wrong in its way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.wrong_servers import (
    Fault,
    Forward,
    Outcome,
    StreamFault,
    answering,
    changing,
    forgetting,
    refusing,
    wrong_server,
)
from tests.served import linear_bundle

from tidegate.cli.main import main
from tidegate.cloud import Server
from tidegate.conformance import CHECKS, Run, Source, Verdict, run, write_models
from tidegate.conformance.subject import parse_input
from tidegate.wire import messages

MODELS = ("linear", "simple", "identity_bytes", "identity_fp16")
"""Between them they give an occasion for every check."""

OURS_DOES_NOT_OFFER = {"settings.trace", "shared-memory.system", "shared-memory.cuda", "datatype.bytes.not-text"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("models")
    with Server([linear_bundle(directory), *write_models(directory)]) as running:
        yield running


def failures(found: Run) -> dict[str, str]:
    return {result.check.name: result.finding.found for result in found.results if result.finding.verdict is FAIL}


def passes(found: Run) -> set[str]:
    return {result.check.name for result in found.results if result.finding.verdict is Verdict.PASS}


FAIL = Verdict.FAIL


def test_our_server_passes_every_check_on_one_model_or_another(server: Server) -> None:
    passed: set[str] = set()
    for model in MODELS:
        found = run(server.address, model=model, control=True)
        assert failures(found) == {}
        passed |= passes(found)
    assert {check.name for check in CHECKS} - passed == OURS_DOES_NOT_OFFER


def test_names_are_unique_and_every_check_says_who_says_so() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(check.rule and check.expected for check in CHECKS)


def untouched(name: str, raw: bytes, forward: Forward) -> Outcome:
    """Change nothing."""
    return forward(raw)


def accepting_everything(name: str, raw: bytes, forward: Forward) -> Outcome:
    """Never refuse: what is wrong is answered like what is right."""
    outcome = forward(raw)
    if outcome.code == "OK":
        return outcome
    if name == "ModelInfer":
        return Outcome("OK", raw=messages.ModelInferResponse(model_name="x").SerializeToString())
    if name == "ModelMetadata":
        return Outcome("OK", raw=messages.ModelMetadataResponse(name="x").SerializeToString())
    return Outcome("OK")


def always_internal(name: str, raw: bytes, forward: Forward) -> Outcome:
    """Refuse what is wrong, with INTERNAL."""
    outcome = forward(raw)
    return outcome if outcome.code in ("OK", "UNIMPLEMENTED") else Outcome("INTERNAL", "Internal server error")


def gone_after_the_first_refusal() -> Fault:
    """Refuse one request and answer no inference after it."""
    refused = False

    def fault(name: str, raw: bytes, forward: Forward) -> Outcome:
        nonlocal refused
        if name == "ModelInfer" and refused:
            return Outcome("UNAVAILABLE", "gone")
        outcome = forward(raw)
        refused = refused or (name == "ModelInfer" and outcome.code != "OK")
        return outcome

    return fault


def exchanging_answers() -> Fault:
    """Give each caller the id of the one before."""
    last = ""

    def fault(name: str, raw: bytes, forward: Forward) -> Outcome:
        nonlocal last
        outcome = forward(raw)
        if name != "ModelInfer" or outcome.code != "OK":
            return outcome
        response = messages.ModelInferResponse.FromString(outcome.raw)
        response.id, last = last, response.id
        return Outcome("OK", raw=response.SerializeToString())

    return fault


def broken_after(calls: int) -> Fault:
    """Answer only the first few inferences, then fail."""
    left = calls

    def fault(name: str, raw: bytes, forward: Forward) -> Outcome:
        nonlocal left
        if name == "ModelInfer":
            left -= 1
            if left < 0:
                return Outcome("INTERNAL", "broken")
        return forward(raw)

    return fault


def losing_first_output(response: Any) -> None:
    del response.outputs[0], response.raw_output_contents[0]


def turning_outputs(response: Any) -> None:
    outputs, raws = list(response.outputs)[::-1], list(response.raw_output_contents)[::-1]
    del response.outputs[:], response.raw_output_contents[:]
    response.outputs.extend(outputs)
    response.raw_output_contents.extend(raws)


def inputs_by_position(name: str, raw: bytes, forward: Forward) -> Outcome:
    """Take inputs by their place and not by their name."""
    if name == "ModelInfer":
        request = messages.ModelInferRequest.FromString(raw)
        if {tensor.name for tensor in request.inputs} == {"INPUT0", "INPUT1"}:
            for number, tensor in enumerate(request.inputs):
                tensor.name = f"INPUT{number}"
            raw = request.SerializeToString()
    return forward(raw)


def spoiling_bytes(response: Any) -> None:
    """Flip the lowest bit of every byte of the answer's raw contents."""
    response.raw_output_contents[:] = [bytes(byte ^ 1 for byte in raw) for raw in response.raw_output_contents]


def typed_differs(name: str, raw: bytes, forward: Forward) -> Outcome:
    """Answer typed requests with other values than raw ones."""
    outcome = forward(raw)
    if name == "ModelInfer" and outcome.code == "OK":
        request = messages.ModelInferRequest.FromString(raw)
        if not request.raw_input_contents:
            response = messages.ModelInferResponse.FromString(outcome.raw)
            spoiling_bytes(response)
            return Outcome("OK", raw=response.SerializeToString())
    return outcome


def one_count_more(response: Any) -> None:
    for found in response.model_stats:
        found.execution_count += 10**9


def frozen_counts(response: Any) -> None:
    for found in response.model_stats:
        found.inference_stats.success.count = 7


def other_dims(response: Any) -> None:
    response.config.max_batch_size = 0


def silent_errors(name: str, raws: list[bytes]) -> list[bytes]:
    """End a stream's refusals without a word."""
    answers = [messages.ModelStreamInferResponse.FromString(raw) for raw in raws]
    for answer in answers:
        answer.ClearField("error_message")
    return [answer.SerializeToString() for answer in answers] if name == "ModelStreamInfer" else raws


def nameless_answers(name: str, raws: list[bytes]) -> list[bytes]:
    """Lose the ids of a stream."""
    answers = [messages.ModelStreamInferResponse.FromString(raw) for raw in raws]
    for answer in answers:
        answer.infer_response.id = ""
    return [answer.SerializeToString() for answer in answers] if name == "ModelStreamInfer" else raws


def plain_answers(name: str, raws: list[bytes]) -> list[bytes]:
    """Stream plain ModelInferResponse messages, as MLServer does."""
    if name != "ModelStreamInfer":
        return raws
    return [messages.ModelStreamInferResponse.FromString(raw).infer_response.SerializeToString() for raw in raws]


def no_services(name: str, raws: list[bytes]) -> list[bytes]:
    """Describe no service by reflection."""
    return [b""] if name == "ServerReflectionInfo" else raws


def has_no_batch(request: Any) -> bool:
    return bool(request.inputs[0].shape) and request.inputs[0].shape[0] == 0


def is_large(request: Any) -> bool:
    return sum(map(len, request.raw_input_contents)) > 4 * 2**20


def emptied(field: str) -> Callable[[Any], object]:
    return lambda response: response.ClearField(field)


INTERNAL = Outcome("INTERNAL", "Internal server error")

NOT_OK = [check.name for check in CHECKS if check.expected == "refused"]
CODES = [check.name for check in CHECKS if check.expected in ("INVALID_ARGUMENT", "NOT_FOUND")]
DATATYPES = [check.name for check in CHECKS if check.name.startswith("datatype.") and "not-text" not in check.name]


def wrong_classes(response: Any) -> None:
    """Answer classification with text of another form."""
    for index, output in enumerate(response.outputs):
        if output.datatype == "BYTES":
            text = b"first place"
            response.raw_output_contents[index] = len(text).to_bytes(4, "little") + text


def faults() -> dict[str, tuple[Fault, list[str]]]:
    """Return faults of unary calls, fresh ones, each with the checks that have to find it."""
    return {
        "not live": (changing("ServerLive", emptied("live")), ["server.live"]),
        "not ready": (changing("ServerReady", emptied("ready")), ["server.ready"]),
        "model not ready": (changing("ModelReady", emptied("ready")), ["model.ready"]),
        "everything is ready": (
            changing("ModelReady", lambda response: setattr(response, "ready", True)),
            ["model.ready.unknown-model", "model.ready.unknown-version"],
        ),
        "server without a name": (changing("ServerMetadata", emptied("name")), ["server.metadata"]),
        **{
            f"metadata without {field}": (changing("ModelMetadata", emptied(field)), [f"model.metadata.{field}"])
            for field in ("name", "versions", "platform", "inputs", "outputs")
        },
        "gone after the first refusal": (gone_after_the_first_refusal(), ["refuse.still-serving"]),
        "loses outputs": (changing("ModelInfer", losing_first_output), ["infer.raw"]),
        "typed differs": (typed_differs, ["infer.typed", *(name for name in DATATYPES if name.endswith(".typed"))]),
        "spoils contents": (changing("ModelInfer", spoiling_bytes), DATATYPES),
        "no id": (forgetting("ModelInfer", "id"), ["infer.id", "infer.id.any-text", "infer.concurrent"]),
        "ids exchanged": (exchanging_answers(), ["infer.id", "infer.concurrent"]),
        "no model name": (changing("ModelInfer", emptied("model_name")), ["infer.model-name"]),
        "no model version": (changing("ModelInfer", emptied("model_version")), ["infer.model-version"]),
        "another version": (
            changing("ModelInfer", lambda response: setattr(response, "model_version", "0")),
            ["infer.each-version"],
        ),
        "version ignored": (forgetting("ModelInfer", "model_version"), ["refuse.unknown-version"]),
        "all outputs always": (forgetting("ModelInfer", "outputs"), ["infer.one-output", "refuse.unknown-output"]),
        "outputs turned round": (changing("ModelInfer", turning_outputs), ["infer.output-order"]),
        "raw and typed answers": (
            changing("ModelInfer", lambda response: response.outputs[0].contents.fp32_contents.append(1)),
            ["infer.raw-or-typed"],
        ),
        "inputs by position": (inputs_by_position, ["infer.input-order", "simple.backward"]),
        "parameters refused": (
            refusing(lambda request: bool(request.parameters), Outcome("INVALID_ARGUMENT")),
            ["infer.unknown-parameter"],
        ),
        "no rows is a defect": (refusing(has_no_batch, INTERNAL), ["infer.zero-rows"]),
        "four megabytes": (refusing(is_large, Outcome("RESOURCE_EXHAUSTED")), ["infer.5-mb"]),
        "simple is broken": (
            refusing(lambda request: request.model_name == "simple", INTERNAL),
            ["simple.forward", "simple.backward"],
        ),
        "config of another": (
            changing("ModelConfig", lambda response: setattr(response.config, "name", "x")),
            ["config.names"],
        ),
        "config without batch": (changing("ModelConfig", other_dims), ["config.tensors"]),
        "counts stand still": (changing("ModelStatistics", frozen_counts), ["statistics.grow"]),
        "counts do not add up": (changing("ModelStatistics", one_count_more), ["statistics.add-up"]),
        "announced and absent": (answering("ModelConfig", Outcome("UNIMPLEMENTED")), ["extensions.announced"]),
        "empty index": (changing("RepositoryIndex", emptied("models")), ["repository.index"]),
        "unload does nothing": (answering("RepositoryModelUnload", Outcome("OK")), ["repository.reload"]),
        "no log settings": (changing("LogSettings", emptied("settings")), ["settings.log"]),
        "no trace settings": (answering("TraceSetting", Outcome("OK")), ["settings.trace"]),
        "shared memory broken": (answering("SystemSharedMemoryStatus", INTERNAL), ["shared-memory.system"]),
        "cuda memory broken": (answering("CudaSharedMemoryStatus", INTERNAL), ["shared-memory.cuda"]),
        "any method": (answering("NoSuchMethod", Outcome("OK")), ["grpc.unknown-method"]),
        "unhealthy": (answering("Check", Outcome("OK", raw=b"\x08\x02")), ["grpc.health", "grpc.health.unknown"]),
        "classes of another form": (changing("ModelInfer", wrong_classes), ["classification"]),
    }


STREAM_FAULTS: dict[str, tuple[StreamFault, list[str]]] = {
    "errors are silent": (silent_errors, ["stream.survives"]),
    "ids are lost": (nameless_answers, ["stream.answers", "stream.many", "stream.survives"]),
    "plain answers": (plain_answers, ["stream.answers", "stream.survives"]),
    "nothing described": (no_services, ["grpc.reflection"]),
}

EVERY_MODEL = ("simple", "identity_fp16", "identity_bytes")
"""Their inputs give an occasion for every wrong request."""

TEXT = ["datatype.bytes.not-text"]

BROKEN_AFTER = {1: ["infer.gzip", "grpc.deadline", "grpc.cancel"], 2: ["grpc.deadline", "grpc.cancel"]}
"""Inferences that are answered, and the checks of gRPC's own rules that fail then: the second call is the gzip one."""

FAULTS_ON_ALL: dict[str, tuple[Fault, list[str]]] = {
    "accepts everything": (accepting_everything, [*NOT_OK, *TEXT]),
    "INTERNAL for everything": (always_internal, CODES),
}


@pytest.mark.parametrize("name", faults())
def test_a_fault_of_a_call_is_found(server: Server, name: str) -> None:
    fault, expected = faults()[name]
    with wrong_server(server.address, fault) as target:
        found = failures(run(target, model="simple", control=True))
    assert sorted(set(expected) - found.keys()) == []


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_a_fault_of_a_stream_is_found(server: Server, name: str) -> None:
    fault, expected = STREAM_FAULTS[name]
    with wrong_server(server.address, untouched, fault) as target:
        found = failures(run(target, model="simple"))
    assert sorted(set(expected) - found.keys()) == []


@pytest.mark.parametrize("name", FAULTS_ON_ALL)
def test_what_lets_wrong_requests_through_is_found(server: Server, name: str) -> None:
    fault, expected = FAULTS_ON_ALL[name]
    found: set[str] = set()
    with wrong_server(server.address, fault) as target:
        for model in EVERY_MODEL:
            found |= failures(run(target, model=model)).keys()
    assert sorted(set(expected) - found) == []


@pytest.mark.parametrize(("calls", "expected"), BROKEN_AFTER.items())
def test_a_server_that_breaks_is_found(server: Server, calls: int, expected: list[str]) -> None:
    with wrong_server(server.address, broken_after(calls)) as target:
        found = failures(run(target, model="simple", sources=[Source.GRPC]))
    assert sorted(found) == sorted(expected)


def test_a_proxy_without_fault_fails_nothing(server: Server) -> None:
    with wrong_server(server.address, untouched) as target:
        assert failures(run(target, model="simple", control=True)) == {}


def test_every_check_is_found_to_fail_by_one_fault_or_another() -> None:
    tables = (faults(), STREAM_FAULTS, FAULTS_ON_ALL)
    covered = {name for table in tables for _, expected in table.values() for name in expected}
    covered |= {name for expected in BROKEN_AFTER.values() for name in expected}
    assert {check.name for check in CHECKS} - covered == set()


def test_a_server_that_gives_no_metadata_is_asked_with_inputs_by_hand(server: Server) -> None:
    absent = answering("ModelMetadata", Outcome("UNIMPLEMENTED"))
    with wrong_server(server.address, absent) as target:
        assert main(["conformance", target, "--model", "simple"]) == 1
        by_hand = ["--input", "INPUT0:INT32:-1,16", "--input", "INPUT1:INT32:-1,16"]
        found = run(target, model="simple", inputs=[parse_input(text) for text in by_hand[1::2]])
    assert {"infer.raw", "infer.id", "refuse.raw-short"} <= passes(found)
    assert "model.metadata.inputs" in failures(found)


def test_the_command_prints_a_table_and_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", server.address, "--model", "linear", "--source", "oip"]) == 0
    table = capsys.readouterr().out
    assert "infer.id" in table
    assert "grpc.health" not in table
    assert main(["conformance", server.address, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is True
    assert len(document["checks"]) == len(CHECKS)
    assert document["counts"]["OIP"]["fail"] == 0
    assert {"name", "source", "rule", "expected", "found", "verdict"} == set(document["checks"][0])


def test_the_command_lists_who_says_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in listed] == [check.name for check in CHECKS]
    assert main(["conformance", "--list", "--source", "grpc"]) == 0
    assert "rule" in (table := capsys.readouterr().out)
    assert "server.live" not in table
    assert main(["conformance", "127.0.0.1:1", "--list"]) == 2


def test_the_command_says_what_is_wrong(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with wrong_server(server.address, always_internal) as target:
        assert main(["conformance", target, "--model", "linear", "--failed"]) == 1
    assert "refuse.raw-short.code" in capsys.readouterr().out
    assert main(["conformance", "127.0.0.1:1", "--timeout-s", "0.5"]) == 1
    assert main(["conformance", server.address, "--model", "nobody"]) == 1
    assert main(["conformance"]) == 2
    assert main(["conformance", server.address, "--input", "x:FLOAT:1"]) == 2
    with wrong_server(server.address, answering("RepositoryIndex", Outcome("UNIMPLEMENTED"))) as target:
        assert main(["conformance", target]) == 2
    assert main(["conformance", "--write-models", str(tmp_path / "models")]) == 0
    assert len(list((tmp_path / "models").glob("*.tide"))) == len(list((tmp_path / "models" / "triton").iterdir()))
