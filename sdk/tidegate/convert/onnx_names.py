"""Give an ONNX graph's inputs and outputs the names that the source states, and the first free axis one name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BATCH = "batch"


def named(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Rename in place, in the order of the graph, and return the model.

    A free first axis is called `batch` everywhere, so that a runtime can tell an output's size from an input's.

    Args:
        model: onnx.ModelProto.
        inputs: one name for each graph input.
        outputs: one name for each graph output.
    """
    graph = model.graph
    _count_anew(graph)
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    wanted = {
        **dict(zip([value.name for value in given], inputs, strict=True)),
        **dict(zip([value.name for value in graph.output], outputs, strict=True)),
    }
    taken = set(wanted.values()) - wanted.keys()
    # An inner tensor that has a wanted name already makes way.
    inner = {name: f"{name}__inner" for name in _names(graph) & taken}
    _rename(graph, {**inner, **wanted})
    for value in (*given, *graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim and shape.dim[0].WhichOneof("value") != "dim_value":
            shape.dim[0].dim_param = BATCH
    del graph.value_info[:]
    # tf2onnx: "converted from b'__inference_serve_985'", a number that counts what the process did before.
    graph.ClearField("doc_string")
    return model


def _count_anew(graph: Any) -> None:
    """Count the numbers in made-up names (`Transpose__28`) by first appearance: tf2onnx's differ from run to run."""
    numbers: dict[str, int] = {}

    def renumbered(name: str) -> str:
        return re.sub(r"(?<=__)\d+", lambda match: str(numbers.setdefault(match[0], len(numbers))), name)

    _rename_all(graph, renumbered)
    # Of two equal constants one is left, now under this one's name and now under that one's.
    constants = {tensor.name for tensor in graph.initializer if re.search(r"__\d+$", tensor.name)}
    used = dict.fromkeys(name for node in graph.node for name in node.input if name in constants)
    _rename(graph, {name: f"folded__{position}" for position, name in enumerate(used)})
    ordered = sorted(graph.initializer, key=lambda tensor: str(tensor.name))
    del graph.initializer[:]
    graph.initializer.extend(ordered)


def _names(graph: Any) -> set[str]:
    found = {name for node in graph.node for name in (*node.input, *node.output)}
    return found | {tensor.name for tensor in graph.initializer}


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    _rename_all(graph, lambda name: names.get(name, name), nodes=False)


def _rename_all(graph: Any, new: Callable[[str], str], *, nodes: bool = True) -> None:
    for node in graph.node:
        node.name = new(node.name) if nodes else node.name
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            # The bodies of If, Loop and Scan see the tensors of the graph around them.
            for body in (attribute.g, *attribute.graphs):
                _rename_all(body, new, nodes=nodes)
    for values in (graph.input, graph.output, graph.initializer):
        for value in values:
            value.name = new(value.name)
