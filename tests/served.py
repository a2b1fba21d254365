"""Small real models as bundles, and a server process, for tests of the serving path."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tidegate.bundle import Golden, GoldenFixture, Manifest, Signature, TensorSpec, Variant, digest, write_bundle

ONNX_TYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Axes = tuple[int, ...]
Tensors = dict[str, tuple[str, Axes]]

PROCESS_TIMEOUT_S = 120

PATIENT = ("--grace-s", "3600")
"""For `tidegate serve`: how busy the machine is does not decide whether a drain ends in time."""


def linear_bundle(directory: Path, *, name: str = "linear", version: str = "1.0.0", factor: float = 1.0) -> Path:
    """`x` FP32 [-1, 4] -> `y` = x times factor, FP32 [-1, 4], and `total`, FP32 [-1, 1]."""
    return _written(
        directory,
        name,
        version,
        {"x": ("FP32", (-1, 4))},
        {"y": ("FP32", (-1, 4)), "total": ("FP32", (-1, 1))},
        [
            helper.make_node("Mul", ["x", "factor"], ["y"]),
            helper.make_node("ReduceSum", ["y", "axis"], ["total"], keepdims=1),
        ],
        {"factor": np.array([factor], np.float32), "axis": np.array([1], np.int64)},
    )


def wide_bundle(directory: Path, *, version: str, steps: int) -> Path:
    """`x` FP32 [-1, 64] -> `y` FP32 [-1, 500]: 128 kB of weights, moved by `steps` of the last bit."""
    weights = np.random.default_rng(1).normal(size=(64, 500)).astype(np.float32)
    weights.view(np.uint32)[...] += np.uint32(steps)
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["y"])]
    shapes: tuple[Tensors, Tensors] = {"x": ("FP32", (-1, 64))}, {"y": ("FP32", (-1, 500))}
    return _written(directory, "wide", version, *shapes, nodes, {"weights": weights})


def simple_bundle(directory: Path, *, name: str = "simple") -> Path:
    """Triton's `simple`: INPUT0, INPUT1 INT32 [-1, 16] -> OUTPUT0 their sum, OUTPUT1 their difference."""
    axes = (-1, 16)
    return _written(
        directory,
        name,
        "1.0.0",
        {"INPUT0": ("INT32", axes), "INPUT1": ("INT32", axes)},
        {"OUTPUT0": ("INT32", axes), "OUTPUT1": ("INT32", axes)},
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
    )


def identity_bundle(directory: Path, dtype: str) -> Path:
    """`x` -> `y`, the same, `dtype` [-1, -1]; the model is called identity-DTYPE in lower case."""
    tensor = (dtype, (-1, -1))
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return _written(directory, f"identity-{dtype.lower()}", "1.0.0", {"x": tensor}, {"y": tensor}, nodes)


def gather_bundle(directory: Path) -> Path:
    """`index` INT64 [1] -> `value` FP32 [1], out of three; the runtime fails on an index outside, and quotes it."""
    return _written(
        directory,
        "gather",
        "1.0.0",
        {"index": ("INT64", (1,))},
        {"value": ("FP32", (1,))},
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        {"table": np.zeros(3, np.float32)},
    )


def slow_bundle(directory: Path) -> Path:
    """`turns` INT64 [1] -> `sum` FP64 [1]: adds 1 in a loop of the graph, about a microsecond each turn."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Add", ["sum_in", "step"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.DOUBLE, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.DOUBLE, [1]),
        ],
    )
    return _written(
        directory,
        "slow",
        "1.0.0",
        {"turns": ("INT64", (1,))},
        {"sum": ("FP64", (1,))},
        [
            helper.make_node("Squeeze", ["turns"], ["count"]),
            helper.make_node("Loop", ["count", "yes", "zero"], ["sum"], body=body),
        ],
        {"yes": np.array(True), "zero": np.zeros(1), "step": np.ones(1)},
    )


def zeros_bundle(directory: Path) -> Path:
    """`count` INT64 [1] -> `zeros` FP32 [-1], as many: a small question with a large answer."""
    nodes = [helper.make_node("ConstantOfShape", ["count"], ["zeros"])]
    return _written(directory, "zeros", "1.0.0", {"count": ("INT64", (1,))}, {"zeros": ("FP32", (-1,))}, nodes)


def with_golden(bundle: Path, fixture: GoldenFixture, tolerance: float) -> Path:
    """Write a copy of a bundle of one variant that promises `fixture`."""
    from msgspec.structs import replace

    from tidegate.bundle import Bundle

    with Bundle.open(bundle) as opened:
        manifest, files = opened.manifest, {file.path: opened.read(file.path) for file in opened.files}
    raw = fixture.to_npz()
    golden = Golden(file="golden.npz", sha256=digest(raw), size_bytes=len(raw), tolerance=tolerance)
    out = bundle.with_name(f"golden-{bundle.name}")
    write_bundle(replace(manifest, golden=golden), files | {"golden.npz": raw}, out)
    return out


@dataclass
class ServerProcess:
    """A running `tidegate serve`."""

    process: subprocess.Popen[str]
    address: str
    diagnostics: list[str] = field(default_factory=list)
    """lines of its standard error so far"""

    def cpu_s(self) -> float:
        """Return the CPU time that it has used, from /proc (fields 14 and 15 of stat, see proc(5))."""
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL and wait until it is gone."""
        self.process.kill()
        self.process.wait(PROCESS_TIMEOUT_S)


@contextmanager
def server_process(bundles: Sequence[Path], *options: str) -> Iterator[ServerProcess]:
    """Run `tidegate serve` on a free port until the block ends; the block begins when it listens."""
    command = [sys.executable, "-m", "tidegate.cli", "serve", *map(str, bundles), "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        running = ServerProcess(process, "")
        reader = threading.Thread(target=running.diagnostics.extend, args=(process.stderr,), daemon=True)
        reader.start()
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on "), f"{line!r}, {running.diagnostics}"
            running.address = line.removeprefix("listening on ").strip()
            yield running
        finally:
            process.kill()
            process.wait(PROCESS_TIMEOUT_S)
            reader.join(PROCESS_TIMEOUT_S)


class FreezableProxy:
    """Forwards TCP connections to `target` until it is frozen: then it reads nothing more and closes nothing."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._frozen = threading.Event()
        self._sockets: list[socket.socket] = [self._listener]
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FreezableProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for opened in self._sockets:
            opened.close()

    def freeze(self) -> None:
        """Let nothing through from now on."""
        self._frozen.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while not self._frozen.is_set() and (data := source.recv(65536)):
                sink.sendall(data)
        except OSError:  # closed
            return


def _written(
    directory: Path,
    name: str,
    version: str,
    inputs: Tensors,
    outputs: Tensors,
    nodes: list[Any],
    constants: dict[str, Any] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        name,
        [_value(key, *tensor) for key, tensor in inputs.items()],
        [_value(key, *tensor) for key, tensor in outputs.items()],
        [numpy_helper.from_array(value, key) for key, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name=name,
        version=version,
        signature=Signature(inputs=_specs(inputs), outputs=_specs(outputs)),
        variants=(
            Variant(
                id="onnx-as-is",
                backend="onnx",
                precision="as-is",
                file="variants/model.onnx",
                sha256=digest(model),
                size_bytes=len(model),
            ),
        ),
    )
    path = directory / f"{name}-{version}.tide"
    write_bundle(manifest, {"variants/model.onnx": model}, path)
    return path


def _value(name: str, dtype: str, shape: Axes) -> Any:
    axes = [f"{name}_{axis}" if size == -1 else size for axis, size in enumerate(shape)]
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], axes)


def _specs(tensors: Tensors) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in tensors.items())
