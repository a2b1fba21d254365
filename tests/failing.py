"""A speech model that really fails: its graph reads behind the end of a table when it hears one word."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def failing_on(model: bytes, column: int) -> bytes:
    """Return the ONNX model of tones with a failure at run time wherever it is sure of the label in `column`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx.load_from_string(model)
    for node in graph.graph.node:
        node.output[:] = ["sure" if name == "probabilities" else name for name in node.output]
    constants: dict[str, NDArray[Any]] = {
        "failing.column": np.array([column], np.int64),
        "failing.half": np.array(0.5, np.float32),
        "failing.behind": np.array(100, np.int64),
        "failing.table": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["sure", "failing.column"], ["failing.one"], axis=1),
        helper.make_node("ReduceMax", ["failing.one"], ["failing.most"], keepdims=0),
        helper.make_node("Greater", ["failing.most", "failing.half"], ["failing.is_sure"]),
        helper.make_node("Cast", ["failing.is_sure"], ["failing.flag"], to=TensorProto.INT64),
        helper.make_node("Mul", ["failing.flag", "failing.behind"], ["failing.index"]),
        helper.make_node("Gather", ["failing.table", "failing.index"], ["failing.nothing"]),
        helper.make_node("Add", ["sure", "failing.nothing"], ["probabilities"]),
    ]
    graph.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    graph.graph.node.extend(nodes)
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())
