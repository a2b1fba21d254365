"""Tiny real models: the checked-in TFLite files, and ONNX models made when a test asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tidegate.bundle.dtypes import NAMES, numpy_dtype
from tidegate.testing.backend_contract import BIAS, WEIGHTS

TFLITE = Path(__file__).parent / "data"

Shape = Sequence[int | str | None] | None

_ELEMENT = {
    "BYTES": TensorProto.STRING,
    **{name: helper.np_dtype_to_tensor_dtype(numpy_dtype(name)) for name in NAMES if name != "BYTES"},
}


def tflite(name: str) -> Path:
    """Return the path of a checked-in TFLite model of the contract, such as `dense`."""
    return TFLITE / f"{name}.tflite"


def make_onnx(
    path: Path,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    inputs: dict[str, tuple[str, Shape]],
    outputs: dict[str, tuple[str, Shape]],
    constants: dict[str, NDArray[Any]] | None = None,
) -> Path:
    """Write an ONNX model and return its path.

    Args:
        path: where to.
        nodes: operator, input names, output names.
        inputs: OIP datatype and declared shape by name.
        outputs: likewise.
        constants: arrays by name.
    """
    graph = helper.make_graph(
        [helper.make_node(operator, list(given), list(made)) for operator, given, made in nodes],
        "graph",
        [helper.make_tensor_value_info(name, _ELEMENT[dtype], shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, _ELEMENT[dtype], shape) for name, (dtype, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def make_contract_onnx(folder: Path, name: str) -> Path:
    """Write a model of `tidegate.testing.backend_contract.MODELS` as ONNX and return its path."""
    path = folder / f"{name}.onnx"
    if name.startswith("column_"):
        dtype = name.removeprefix("column_")
        return make_onnx(
            path,
            [("Reshape", ["x", "shape"], ["y"])],
            {"x": (dtype, [3])},
            {"y": (dtype, [3, 1])},
            {"shape": np.array([3, 1], np.int64)},
        )
    if name in ("dense", "batch"):
        rows = 1 if name == "dense" else "rows"
        return make_dense_onnx(path, rows)
    return make_onnx(path, *_OTHERS[name])


def make_dense_onnx(path: Path, rows: int | str | None = 1, declared_rows: int | str | None = "same") -> Path:
    """Write y[rows,10] = x[rows,64] @ WEIGHTS + BIAS; `declared_rows` is what the output claims, right or wrong."""
    return make_onnx(
        path,
        [("Gemm", ["x", "weights", "bias"], ["y"])],
        {"x": ("FP32", [rows, 64])},
        {"y": ("FP32", [rows if declared_rows == "same" else declared_rows, 10])},
        {"weights": WEIGHTS, "bias": BIAS},
    )


_OTHERS: dict[str, Any] = {
    "two": (
        [("Add", ["a", "b"], ["sum"]), ("Sub", ["a", "b"], ["difference"])],
        {"a": ("FP32", ["rows", 3]), "b": ("FP32", ["rows", 3])},
        {"sum": ("FP32", ["rows", 3]), "difference": ("FP32", ["rows", 3])},
    ),
    "mixed": (
        [("Gather", ["values", "indices"], ["picked"])],
        {"values": ("FP32", [4]), "indices": ("INT32", [2])},
        {"picked": ("FP32", [2])},
    ),
    "scalar": ([("Add", ["x", "x"], ["y"])], {"x": ("FP32", [])}, {"y": ("FP32", [])}),
}
