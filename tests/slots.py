"""A device's directory without a channel, and bad models that are really bad, for tests of what runs on a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tidegate.bundle import (
    Budgets,
    Bundle,
    Golden,
    GoldenFixture,
    Manifest,
    PrefilterSettings,
    Signature,
    TensorSpec,
    TrialSettings,
    Variant,
    digest,
    write_bundle,
)
from tidegate.bundle.bundle import listed_files
from tidegate.edge.update.layout import Layout
from tidegate.edge.update.record import SCHEMA, Record, Slot, encode, write_record
from tidegate.edge.update.states import State

AT = "2026-01-01T00:00:00Z"
ROWS = np.array([[1, 2, 3, 4], [-1, 0, 1, 0.5]], np.float32)
PREFILTER = PrefilterSettings(kind="energy")


def install(directory: Path, bundle: Path, variant: str, *, release: int) -> Slot:
    """Put a bundle's files for one variant into the device's store and return the slot that names them."""
    store = Layout(directory).store
    with Bundle.open(bundle) as opened:
        chosen = opened.variant(variant)
        for path in listed_files(msgspec.structs.replace(opened.manifest, variants=(chosen,))):
            store.put(opened.read(path))
        return Slot(
            model=opened.manifest.name,
            track="stable",
            release=release,
            version=opened.manifest.version,
            manifest_sha256=store.put(opened.manifest_bytes),
            variant=variant,
            variant_sha256=chosen.sha256,
            installed_at=AT,
            activated_at=AT,
        )


def activate(
    directory: Path, active: Slot, *, factory: Slot, previous: Slot | None = None, phase: State = State.IDLE
) -> None:
    """Write the device's record, as the updater does: in one step."""
    layout = Layout(directory)
    layout.factory.write_bytes(encode(factory))
    write_record(layout.state, Record(schema=SCHEMA, phase=phase, active=active, previous=previous, factory=factory))


def write_model(
    path: Path,
    model: bytes,
    *,
    version: str = "1.0.0",
    backend: Any = "onnx",
    golden: np.ndarray[Any, Any] | None = None,
    budgets: Budgets | None = None,
    trial: TrialSettings | None = None,
    tolerance: float = 1e-5,
) -> Path:
    """Write a bundle of one variant, `only`: `x` FP32 [-1, 4] -> `y` FP32 [-1, 4]; golden outputs belong to `ROWS`."""
    file = "model.onnx" if backend == "onnx" else "model.tflite"
    files = {file: model}
    fixture = None
    if golden is not None:
        files["golden.npz"] = GoldenFixture({"x": ROWS}, {"y": golden}).to_npz()
        raw = files["golden.npz"]
        fixture = Golden(file="golden.npz", sha256=digest(raw), size_bytes=len(raw), tolerance=tolerance)
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name="bench",
        version=version,
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 4)),),
            outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, 4)),),
        ),
        variants=(
            Variant(
                id="only",
                backend=backend,
                precision="fp32",
                file=file,
                sha256=digest(model),
                size_bytes=len(model),
            ),
        ),
        golden=fixture,
        budgets=budgets,
        trial=trial,
    )
    write_bundle(manifest, files, path)
    return path


def times(factor: float) -> bytes:
    """Return a model that multiplies by `factor`."""
    return _onnx([helper.make_node("Mul", ["x", "factor"], ["y"])], {"factor": np.array([factor], np.float32)})


def slow(factor: float, *, multiplications: int = 8, size: int = 512) -> bytes:
    """Return the same function with matrix products on the way: tens of milliseconds a call on a fast machine."""
    nodes = [
        # Of the input, so that nothing can be computed beforehand.
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["matrix", "mean"], ["m0"]),
    ]
    for step in range(multiplications):
        nodes.append(helper.make_node("MatMul", [f"m{step}", "matrix"], [f"m{step + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"m{multiplications}"], ["rest"], keepdims=0),
        helper.make_node("Mul", ["rest", "zero"], ["nothing"]),
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "nothing"], ["y"]),
    ]
    matrix = np.full((size, size), 1 / size, np.float32)
    return _onnx(nodes, {"matrix": matrix, "zero": np.array([0], np.float32), "factor": np.array([factor], np.float32)})


def hungry(factor: float, *, megabytes: int = 4000) -> bytes:
    """Return the same function, which fills so much memory on the way for each row."""
    nodes = [
        # Of the input, so that nothing can be computed beforehand.
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["rows"]),
        helper.make_node("Mul", ["rows", "elements"], ["many"]),
        helper.make_node("ConstantOfShape", ["many"], ["huge"]),
        helper.make_node("ReduceMax", ["huge"], ["nothing"], keepdims=0),
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "nothing"], ["y"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "elements": np.array([megabytes * 250_000], np.int64),
        "factor": np.array([factor], np.float32),
    }
    return _onnx(nodes, constants)


def endless() -> bytes:
    """Return a model that never comes back: a loop of as many turns as an integer can count."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Add", ["value", "value"], ["value_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)
    return _onnx([loop], {"turns": np.array(2**62, np.int64), "yes": np.array(True)})


def _onnx(nodes: list[Any], constants: dict[str, Any]) -> bytes:
    value: Callable[[str], Any] = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4])  # noqa: E731
    graph = helper.make_graph(
        nodes,
        "bench",
        [value("x")],
        [value("y")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
