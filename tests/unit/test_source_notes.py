"""Notes about the author's source files leave an ONNX model; everything else in it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tidegate.convert import convert
from tidegate.convert.build import build
from tidegate.convert.mirrors import onnx as mirror
from tidegate.convert.source_notes import without_source_notes
from tidegate.convert.spec import spec_for_models
from tidegate.runtime import load
from tidegate.runtime.onnx_file import length_delimited

TRACE = 'File "{home}/net.py", line 12, in forward\n    return self.layer(x)'
WEIGHTS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)


def noted(home: str = "/home/ada/research") -> Any:
    """A model with an If, a function and notes in every place that can hold one, as both PyTorch exporters write."""
    inner_type = helper.make_tensor_type_proto(TensorProto.FLOAT, [None, 2])
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["dense"], [f"{op}_out"], doc_string=f"{home}/net.py(31): branch")],
            op,
            [],
            [helper.make_value_info(f"{op}_out", inner_type)],
        )
        for op in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Dense", ["x", "w"], ["dense"], domain="mine", name="layer"),
        helper.make_node("ReduceSum", ["dense"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    function = helper.make_function(
        "mine",
        "Dense",
        ["a", "b"],
        ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["c"], doc_string=f"{home}/net.py:7")],
        [helper.make_opsetid("", 18)],
    )
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(np.array(0, np.float32), "zero")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    model.doc_string = "made by train.py:12, and proud of it"
    model.metadata_props.add(key="licence", value="MIT, see setup.py:3")
    graph, function = model.graph, model.functions[0]
    tensors: list[Any] = [graph.initializer[0], graph.input[0], graph.output[0]]
    for place in [*tensors, *graph.node, graph, function, *function.node]:
        place.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=TRACE.format(home=home))
        place.metadata_props.add(key="pkg.onnxscript.rewriter.rule_name", value="Fuse")
        place.metadata_props.add(key="mytool.trace", value=TRACE.format(home=home))
        place.metadata_props.add(key="mytool.scale", value="0.5")
    model.metadata_props.add(key="pkg.torch.export.graph_signature", value=f"{home}/net.py")
    graph.node[1].doc_string = "sums up"
    onnx.checker.check_model(model)
    return model


def test_notes_go_and_everything_else_stays_in_its_place() -> None:
    model = noted()
    cleaned = onnx.load_model_from_string(without_source_notes(model.SerializeToString()))
    text = str(cleaned)
    assert "/home/ada" not in text
    assert "pkg.torch" not in text
    assert "Fuse" not in text
    assert cleaned.doc_string == model.doc_string
    assert {item.key: item.value for item in cleaned.metadata_props} == {"licence": "MIT, see setup.py:3"}
    assert cleaned.graph.node[1].doc_string == "sums up"
    assert [item.key for item in cleaned.graph.node[0].metadata_props] == ["mytool.scale"]

    # What is left is the model itself: the same message once the notes are taken out of both by the onnx package.
    def bare(one: Any) -> bytes:
        graph, function = one.graph, one.functions[0]
        branches = [attribute.g for attribute in graph.node[3].attribute]
        tensors: list[Any] = [*graph.initializer, *graph.input, *graph.output]
        for place in [*tensors, *graph.node, graph, function, *function.node]:
            del place.metadata_props[:]
        for node in (*function.node, *(node for branch in branches for node in branch.node)):
            node.ClearField("doc_string")
        del one.metadata_props[1:]
        content: bytes = one.SerializeToString(deterministic=True)
        return content

    assert bare(cleaned) == bare(model)


@pytest.mark.parametrize("note", ["", "stop.pyramid 12", "see the paper, section 3", "b.py", "model.py is ours"])
def test_words_that_name_no_line_stay(note: str) -> None:
    model = noted()
    model.graph.node[1].doc_string = note
    cleaned = onnx.load_model_from_string(without_source_notes(model.SerializeToString()))
    assert cleaned.graph.node[1].doc_string == note


def test_a_file_without_notes_stays_the_same_bytes(tmp_path: Path) -> None:
    cleaned = without_source_notes(noted().SerializeToString())
    assert without_source_notes(cleaned) is cleaned
    weights = np.frombuffer(b".py:1 and pkg.torch. by chance..", np.uint8)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [32])],
        [numpy_helper.from_array(weights, "w")],
    )
    content = helper.make_model(graph, ir_version=10).SerializeToString()
    assert without_source_notes(content) is content


@given(cut=st.integers(0, 10_000), value=st.integers(0, 255))
def test_damaged_files_raise_nothing_else(cut: int, value: int) -> None:
    content = bytearray(noted().SerializeToString())
    content[cut % len(content)] = value
    for damaged in (bytes(content), bytes(content[: cut % len(content)])):
        try:
            assert len(without_source_notes(damaged)) <= len(damaged)
        except IndexError:
            continue


def test_a_file_of_endless_depth_is_damaged() -> None:
    graph = b"pkg.torch."
    for _ in range(2_000):  # graph > node > attribute > graph
        graph = length_delimited(1, length_delimited(5, length_delimited(6, graph)))
    with pytest.raises(IndexError):
        without_source_notes(length_delimited(7, graph))


def test_a_build_forgets_the_folder_and_answers_the_same(tmp_path: Path) -> None:
    """Two exports from two folders: the same bundle, and the outputs of the exported file."""
    bundles, x = [], np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for home in ("/home/ada/research", "/srv/ci/job-17"):
        folder = tmp_path / home.replace("/", "_")
        folder.mkdir()
        (folder / "net.onnx").write_bytes(noted(home).SerializeToString())
        out = folder / "net.tide"
        build(spec_for_models({"onnx": folder / "net.onnx"}, name="net", version="1.0.0"), out)
        bundles.append(out.read_bytes())
        with load(folder / "net.onnx") as exported, load(out) as built:
            np.testing.assert_array_equal(built.run({"x": x})["y"], exported.run({"x": x})["y"])
    assert bundles[0] == bundles[1]
    assert b"/home/ada" not in bundles[0]


def test_converted_variants_carry_no_notes(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(noted().SerializeToString())
    rows = {"x": np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)}
    ids = ["onnx", "onnx-fp32", "onnx-fp16", "onnx-dynamic-int8", "onnx-int8"]
    made = convert(tmp_path / "net.onnx", ids, tmp_path / "out", data=rows).variants
    assert [one.id for one in made] == ids
    for one in made:
        assert b"/home/ada" not in one.path.read_bytes(), one.id
        assert mirror.without(one.path.read_bytes()) == one.path.read_bytes()
