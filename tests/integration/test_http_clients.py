"""Foreign HTTP clients on our server: Triton's, and curl's way of asking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tests.served import identity_bundle, simple_bundle

from tidegate.cloud.http import HttpSettings
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton.InferenceServerClient]:
    directory = tmp_path_factory.mktemp("clients")
    bundles = [simple_bundle(directory), identity_bundle(directory, "BYTES"), identity_bundle(directory, "FP16")]
    settings = ServerSettings(outside=OutsideSettings(http=HttpSettings(listen="127.0.0.1:0")))
    with (
        Server(bundles, settings=settings) as server,
        triton.InferenceServerClient(server.http_address, concurrency=4) as client,
    ):
        yield client


def test_health_metadata_configuration_statistics_index(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    assert client.is_model_ready("simple", "1.0.0")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "tidegate"
    assert client.get_model_metadata("simple")["inputs"][0]["shape"] == [-1, 16]
    assert client.get_model_config("simple")["max_batch_size"] == 64
    assert client.get_inference_statistics("simple")["model_stats"][0]["name"] == "simple"
    assert {entry["name"] for entry in client.get_model_repository_index()} == {
        "simple",
        "identity-bytes",
        "identity-fp16",
    }
    assert client.get_log_settings()["log_file"] == ""
    client.unload_model("identity-fp16")
    assert not client.is_model_ready("identity-fp16")
    client.load_model("identity-fp16")
    assert client.is_model_ready("identity-fp16")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_inference(client: triton.InferenceServerClient, binary: bool, compression: str | None) -> None:
    left, right = np.arange(16, dtype=np.int32)[None], np.full((1, 16), 3, np.int32)
    inputs = [triton.InferInput("INPUT0", [1, 16], "INT32"), triton.InferInput("INPUT1", [1, 16], "INT32")]
    inputs[0].set_data_from_numpy(left, binary_data=binary)
    inputs[1].set_data_from_numpy(right, binary_data=not binary)
    outputs = [
        triton.InferRequestedOutput("OUTPUT0", binary_data=not binary),
        triton.InferRequestedOutput("OUTPUT1", binary_data=binary),
    ]
    answer = client.infer(
        "simple",
        inputs,
        outputs=outputs,
        request_id="41",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), left + right)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), left - right)
    assert answer.get_response()["id"] == "41"
    everything = client.async_infer("simple", inputs).get_result()
    np.testing.assert_array_equal(everything.as_numpy("OUTPUT1"), left - right)


def test_bytes_and_halves(client: triton.InferenceServerClient) -> None:
    words = np.array([[b"", b"a\x00b", "ü".encode()]], object)
    asked = triton.InferInput("x", [1, 3], "BYTES")
    asked.set_data_from_numpy(words)
    assert client.infer("identity-bytes", [asked]).as_numpy("y").tolist() == words.tolist()
    halves = np.array([[0.5, np.inf, -65504]], np.float16)
    asked = triton.InferInput("x", [1, 3], "FP16")
    asked.set_data_from_numpy(halves)
    np.testing.assert_array_equal(client.infer("identity-fp16", [asked]).as_numpy("y"), halves)


def test_classification_and_errors(client: triton.InferenceServerClient) -> None:
    inputs = [triton.InferInput(f"INPUT{index}", [1, 16], "INT32") for index in (0, 1)]
    for one in inputs:
        one.set_data_from_numpy(np.arange(16, dtype=np.int32)[None])
    top = client.infer("simple", inputs, outputs=[triton.InferRequestedOutput("OUTPUT0", class_count=2)])
    assert top.as_numpy("OUTPUT0").tolist() == [[b"30:15", b"28:14"]]
    with pytest.raises(triton.InferenceServerException, match="INPUT1"):
        client.infer("simple", inputs[:1])
    with pytest.raises(triton.InferenceServerException, match="none"):
        client.infer("none", inputs)
