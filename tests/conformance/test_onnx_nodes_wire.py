"""Every node test of the `onnx` package that a bundle carries gives the same output through a server.

One server; models come and go a few at a time by the repository's own commands. `TIDEGATE_ONNX_NODES=8` takes one test
in eight, the same ones each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from numpy.typing import NDArray
from tests.conformance.onnx_nodes import Wired, bare_outputs, cases, in_sample, known_gaps, same_values, version
from tests.conformance.test_onnx_nodes import ONE_IN

from tidegate.bundle import Manifest, Variant, digest, write_bundle
from tidegate.cloud import Server
from tidegate.runtime.backends import ModelFile, open_model
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE
from tidegate.wire.tensors import read_outputs, write_inputs

AT_ONCE = 50
"""Models on the server at a time."""

Call = Callable[[str, Any], Any]


class Served(NamedTuple):
    """A node test as a bundle."""

    model: str
    path: Path
    test: Wired


@pytest.mark.timeout(1200)
def test_node_tests_give_the_same_output_through_the_wire(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaps = known_gaps()
    chosen = [case for name, case in cases().items() if in_sample(name, ONE_IN) and name not in gaps]
    found: dict[str, str] = {}
    with Server([tmp_path]) as server, grpc.insecure_channel(server.address) as channel:
        call = _caller(channel)
        tests = (test for case in chosen if (test := bare_outputs(case)) is not None)
        numbers = iter(range(len(chosen)))
        while batch := [_bundle(test, f"node-{next(numbers)}", tmp_path) for test in islice(tests, AT_ONCE)]:
            found |= {served.test.name: problem for served, problem in _through(call, batch)}
    failed = {name: problem for name, problem in found.items() if problem}
    with capsys.disabled():
        print(f"\n{len(chosen)} node tests ({version()}): {len(found)} through the wire, {len(failed)} differ")
    assert failed == {}
    # Guards the test itself: a harness that takes everything for unsupported would pass the line above.
    assert len(found) > 0.6 * len(chosen)


def _through(call: Call, batch: Sequence[Served]) -> Iterator[tuple[Served, str]]:
    """Load, ask, unload; yield each test with what is wrong, or nothing."""
    for served in batch:
        try:
            call("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name=served.model))
            answer = _infer(call, served.model, served.test.inputs)
            call("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name=served.model))
            yield served, same_values(answer, served.test.outputs)
        except grpc.RpcError as error:
            yield served, f"{error.code().name}: {error.details()}"
        finally:
            served.path.unlink()


def _infer(call: Call, model: str, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    request = messages.ModelInferRequest(model_name=model)
    write_inputs(request, inputs)
    return read_outputs(call("ModelInfer", request))


def _bundle(test: Wired, model: str, directory: Path) -> Served:
    """Write the test's model as a bundle, with the signature that its file states."""
    backend = open_model("onnx", ModelFile(origin=test.name, content=test.model, threads=1))
    variant = Variant(
        id="onnx-as-is",
        backend="onnx",
        precision="as-is",
        file="variants/model.onnx",
        sha256=digest(test.model),
        size_bytes=len(test.model),
    )
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name=model,
        version="1.0.0",
        signature=backend.signature,
        variants=(variant,),
    )
    backend.close()
    path = directory / f"{model}.tide"
    write_bundle(manifest, {variant.file: test.model}, path)
    return Served(model, path, test)


def _caller(channel: grpc.Channel) -> Call:
    def call(name: str, request: Any) -> Any:
        method = OPEN_INFERENCE.method(name)
        stub = channel.unary_unary(OPEN_INFERENCE.path(method), response_deserializer=method.response.FromString)
        return stub(request.SerializeToString(), timeout=60)

    return call
