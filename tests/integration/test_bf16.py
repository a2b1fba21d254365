"""BF16 from the build to the answer: a real model through every part that touches tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tests.http_server import call
from tests.models import make_onnx

from tidegate.bundle import Bundle
from tidegate.bundle.arrays import unpack_arrays
from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.cloud import Server
from tidegate.cloud.http import HttpSettings
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import ServerSettings
from tidegate.errors import InputError
from tidegate.predict import predict
from tidegate.runtime import load
from tidegate.runtime.verify import verify_bundle
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
WEIGHTS = np.array([[1, 0.5], [-2, 4], [0, 1]], np.float32)
ROWS: NDArray[Any] = np.array([[1, 2, 3], [0.5, -1, 256], [0, 0, 0], [-3, 1.5, 2]], BFLOAT16)
EXPECTED = (ROWS.astype(np.float32) @ WEIGHTS).astype(BFLOAT16)


def write_model(path: Path, weights: NDArray[np.float32]) -> Path:
    """`x` BF16 [n, 3] -> `y` BF16 [n, 2], computed in float32."""
    return make_onnx(
        path,
        [
            ("CastLike", ["x", "weights"], ["wide"]),
            ("MatMul", ["wide", "weights"], ["product"]),
            ("CastLike", ["product", "x"], ["y"]),
        ],
        {"x": ("BF16", ["n", 3])},
        {"y": ("BF16", ["n", 2])},
        {"weights": weights},
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the command, with two variants, a golden fixture that is generated, and evaluation data."""
    folder = tmp_path_factory.mktemp("bf16")
    write_model(folder / "one.onnx", WEIGHTS)
    write_model(folder / "two.onnx", (WEIGHTS * np.float32(1.001)))
    np.savez(folder / "rows.npz", **{"input/x": ROWS, "target": EXPECTED.astype(np.float32)})  # type: ignore[arg-type]
    (folder / "tidegate.toml").write_text(
        """
        [bundle]
        name = "brief"
        version = "1.0.0"
        [[variant]]
        id = "one"
        file = "one.onnx"
        [[variant]]
        id = "two"
        file = "two.onnx"
        [golden]
        tolerance = 0.1
        [evaluation]
        data = "rows.npz"
        tolerance = 2.0
        """
    )
    path = folder / "brief.tide"
    assert main(["build", str(folder / "tidegate.toml"), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    settings = ServerSettings(outside=OutsideSettings(http=HttpSettings(listen="127.0.0.1:0")))
    with Server([bundle], settings=settings) as running:
        yield running


def test_a_bundle_holds_and_proves_it(bundle: Path) -> None:
    with Bundle.open(bundle) as opened:
        golden = opened.golden()
        assert golden is not None
        assert (golden.inputs["x"].dtype, golden.outputs["y"].dtype) == (BFLOAT16, BFLOAT16)
        assert [report.status for report in verify_bundle(opened)] == ["passed", "passed"]
        signature, (_, second) = opened.manifest.signature, opened.manifest.variants
    assert [spec.dtype for spec in (*signature.inputs, *signature.outputs)] == ["BF16", "BF16"]
    assert second.parity is not None
    assert 0 < (second.parity.maximum_error or 0) <= 2
    with load(bundle) as model:
        for _ in range(2):
            assert_same(model(ROWS), EXPECTED)
            assert_same(model.run({"x": ROWS[:1]})["y"], EXPECTED[:1])


def test_client_and_server(server: Server) -> None:
    (served,) = server.repository.all()
    assert served.batcher.batched
    with Client(server.address) as client:
        for rows in (ROWS, ROWS[:1], ROWS[:0], ROWS[::-1]):
            assert_same(client.infer("brief", {"x": rows})["y"], answer(rows))
        with pytest.raises(InputError, match="has dtype float32; expected bfloat16"):
            client.infer("brief", {"x": ROWS.astype(np.float32)})


def test_two_bytes_an_element_and_raw_only(server: Server) -> None:
    infer = OPEN_INFERENCE.method("ModelInfer")
    raw = messages.ModelInferRequest(model_name="brief", raw_input_contents=[b"\x80\x3f\x00\x40\x40\x40"])
    raw.inputs.add(name="x", datatype="BF16", shape=[1, 3])
    typed = messages.ModelInferRequest(model_name="brief")
    typed.inputs.add(name="x", datatype="BF16", shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
    with grpc.insecure_channel(server.address) as channel:
        ask = channel.unary_unary(
            OPEN_INFERENCE.path(infer), infer.request.SerializeToString, infer.response.FromString
        )
        found = ask(raw, timeout=60)
        assert found.outputs[0].datatype == "BF16"
        assert found.raw_output_contents[0] == EXPECTED[:1].tobytes()
        with pytest.raises(grpc.RpcError) as caught:
            ask(typed, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "BF16 has none" in caught.value.details()


def test_tritons_clients(server: Server) -> None:
    for module, address in ((triton, server.address), (triton_http, server.http_address)):
        x = module.InferInput("x", list(ROWS.shape), "BF16")
        x.set_data_from_numpy(ROWS)
        with module.InferenceServerClient(address) as client:
            found = client.infer("brief", [x]).as_numpy("y")
        assert_same(found, EXPECTED)


def test_http_carries_it_as_binary_data_only(server: Server) -> None:
    def post(inputs: dict[str, Any], raw: bytes, **more: Any) -> Any:
        text = json.dumps({"inputs": [{"name": "x", "datatype": "BF16", "shape": [1, 3], **inputs}], **more}).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))} if raw else {}
        return call(server.http_address, "POST", "/v2/models/brief/infer", text + raw, headers)

    size = {"parameters": {"binary_data_size": 6}}
    good = post(size, ROWS[:1].tobytes(), parameters={"binary_data_output": True})
    assert (good.status, good.body[-4:]) == (200, EXPECTED[:1].tobytes())
    as_json = post({"data": [1, 2, 3]}, b"")
    assert (as_json.status, "BF16 travels as binary data only" in as_json.json["error"]) == (400, True)
    answer_as_json = post(size, ROWS[:1].tobytes())
    assert (answer_as_json.status, "ask for it as binary data" in answer_as_json.json["error"]) == (400, True)


def test_tables_in_and_out(bundle: Path, tmp_path: Path) -> None:
    """Numbers of a table are rounded to BF16 as they are to FP16; Parquet gets float32, which holds every BF16."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"x": row}) + "\n" for row in ROWS.astype(float).tolist()))
    for name in ("out.parquet", "out.npz", "again.npz"):
        source = tmp_path / "rows.npz" if name == "again.npz" else rows
        np.savez(tmp_path / "rows.npz", x=ROWS)
        predict(bundle, source, tmp_path / name)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["y"].to_pylist() == EXPECTED.astype(float).tolist()
    for name in ("out.npz", "again.npz"):
        assert_same(unpack_arrays((tmp_path / name).read_bytes(), origin=name)["y"], EXPECTED)


def test_commands(bundle: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "in.npz", x=ROWS)
    files = ["--input", str(tmp_path / "in.npz"), "--output", str(tmp_path / "out.npz")]
    for command in (["run", str(bundle), *files], ["call", server.address, "brief", *files]):
        (tmp_path / "out.npz").unlink(missing_ok=True)
        assert main([*command, "--json"]) == 0
        described = json.loads(capsys.readouterr().out)["outputs"]
        assert described == [{"name": "y", "datatype": "BF16", "shape": [4, 2]}]
        assert_same(unpack_arrays((tmp_path / "out.npz").read_bytes(), origin="out")["y"], EXPECTED)
    assert main(["export", str(bundle), "--mlflow", str(tmp_path / "mlflow")]) == 0
    assert '"dtype": "bfloat16"' in json.dumps((tmp_path / "mlflow" / "MLmodel").read_text()).replace("\\", "")


def answer(rows: NDArray[Any]) -> NDArray[Any]:
    return (rows.astype(np.float32) @ WEIGHTS).astype(BFLOAT16)


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert (found.dtype, found.shape) == (BFLOAT16, expected.shape)
    assert found.tobytes() == expected.tobytes()
