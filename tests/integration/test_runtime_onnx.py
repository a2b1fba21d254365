"""ONNX Runtime beyond the contract: strings, shapes that lie or depend on the data, errors, files, threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as state
from tests.models import make_contract_onnx, make_dense_onnx, make_onnx
from tests.waiting import COMMAND_TIMEOUT_S

from tidegate.errors import ConfigError, InputError, ModelError, NotFoundError
from tidegate.runtime import load
from tidegate.runtime.backends import ModelFile, open_model
from tidegate.runtime.backends.onnx import BOUND_BYTES, CALLS_BEFORE_BINDING, SHAPES_KEPT, OnnxBackend
from tidegate.testing.backend_contract import BIAS, WEIGHTS

FLOATS = np.array([1, 0, 2, 0, 3], np.float32)
OWN_EXCEPTIONS = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def test_output_shape_depends_on_the_data(tmp_path: Path) -> None:
    path = make_onnx(
        tmp_path / "m.onnx", [("NonZero", ["x"], ["y"])], {"x": ("FP32", ["n"])}, {"y": ("INT64", [1, None])}
    )
    with load(path) as model:
        assert model.signature.outputs[0].shape == (1, -1)
        assert model(FLOATS).tolist() == [[0, 2, 4]]
        assert model(FLOATS * 0).shape == (1, 0)
        assert model(FLOATS + 1).tolist() == [[0, 1, 2, 3, 4]]


def test_a_model_that_declares_a_wrong_output_shape_still_answers(tmp_path: Path) -> None:
    path = make_onnx(
        tmp_path / "m.onnx",
        [("NonZero", ["x"], ["found"]), ("Squeeze", ["found", "axis"], ["y"])],
        {"x": ("FP32", ["n"])},
        {"y": ("INT64", ["n"])},
        {"axis": np.array([0], np.int64)},
    )
    with load(path) as model:
        for _ in range(2):
            for _ in range(CALLS_BEFORE_BINDING + 2):
                assert model(FLOATS + 1).tolist() == [0, 1, 2, 3, 4]
            for _ in range(3):
                assert model(FLOATS).tolist() == [0, 2, 4]


def test_two_outputs_of_a_wrong_declared_shape(tmp_path: Path) -> None:
    path = make_onnx(
        tmp_path / "m.onnx",
        [("Compress", ["x", "keep"], ["y"]), ("Neg", ["y"], ["z"])],
        {"x": ("FP32", ["n"]), "keep": ("BOOL", ["n"])},
        {"y": ("FP32", ["n"]), "z": ("FP32", ["n"])},
    )
    with load(path) as model:
        for keep in ([True] * 5,) * (CALLS_BEFORE_BINDING + 1) + ([True, False] * 2 + [True], [False] * 4 + [True]):
            found = model.run({"x": FLOATS, "keep": np.array(keep)})
            assert found["y"].tolist() == FLOATS[keep].tolist()
            assert found["z"].tolist() == (-FLOATS[keep]).tolist()


def test_inputs_that_share_an_axis_name_but_not_its_size_may_broadcast(tmp_path: Path) -> None:
    path = make_contract_onnx(tmp_path, "two")
    a, b = np.ones((4, 3), np.float32), np.ones((1, 3), np.float32)
    with load(path) as model:
        assert model.run({"a": a, "b": b})["sum"].tolist() == [[2, 2, 2]] * 4
        assert model.run({"a": a, "b": a})["sum"].tolist() == [[2, 2, 2]] * 4


def test_more_shapes_than_are_kept(tmp_path: Path) -> None:
    with load(make_dense_onnx(tmp_path / "m.onnx", "n")) as model:
        for count in [*range(1, SHAPES_KEPT + 3, 3), SHAPES_KEPT, SHAPES_KEPT + 1] * 2:
            rows = np.full((count, 64), count, np.float32)
            np.testing.assert_allclose(model(rows), rows @ WEIGHTS + BIAS, rtol=1e-5)
            np.testing.assert_allclose(model(rows + 1), (rows + 1) @ WEIGHTS + BIAS, rtol=1e-5)


def test_strings_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    with load(make_contract_onnx(tmp_path, "column_BYTES")) as model:
        with pytest.raises(InputError, match="'x' holds bytes that are not UTF-8"):
            model(np.array([b"a", b"\xff", b"c"], object))
        assert model(np.array(["a", "b\0c", "d"], object))[:, 0].tolist() == [b"a", b"b\0c", b"d"]


def test_a_model_without_inputs(tmp_path: Path) -> None:
    constants = {"c": np.array([1, 2], np.float32)}
    path = make_onnx(tmp_path / "m.onnx", [("Neg", ["c"], ["y"])], {}, {"y": ("FP32", [2])}, constants)
    with load(path) as model:
        for _ in range(2):
            assert model.run({})["y"].tolist() == [-1, -2]


def test_bfloat16_in_and_out_bound_and_not(tmp_path: Path) -> None:
    path = make_onnx(
        tmp_path / "m.onnx", [("Identity", ["x"], ["y"])], {"x": ("BF16", ["n", 2])}, {"y": ("BF16", ["n", 2])}
    )
    rows = np.array([[1.5, -2], [np.nan, 3e38]], ml_dtypes.bfloat16)
    with load(path) as model:
        assert [spec.dtype for spec in (*model.signature.inputs, *model.signature.outputs)] == ["BF16", "BF16"]
        for given in (rows, rows[:0], rows.T, rows[:, ::-1]):
            for _ in range(CALLS_BEFORE_BINDING + 2):
                found = model(given)
                assert found.dtype == ml_dtypes.bfloat16
                assert found.view(np.uint16).tolist() == np.array(given).view(np.uint16).tolist()
        with pytest.raises(InputError, match="has dtype float32; expected bfloat16") as caught:
            model(rows.astype(np.float32))
    assert caught.value.fix == "array.astype(ml_dtypes.bfloat16), if that is what you mean"


def test_bfloat16_beside_text_and_shapes_that_depend_on_the_data(tmp_path: Path) -> None:
    path = make_onnx(
        tmp_path / "m.onnx",
        [
            ("CastLike", ["x", "wide"], ["widened"]),
            ("Compress", ["widened", "keep"], ["kept"]),
            ("CastLike", ["kept", "x"], ["y"]),
            ("Identity", ["text"], ["same"]),
        ],
        {"x": ("BF16", ["n"]), "keep": ("BOOL", ["n"])},
        {"y": ("BF16", ["k"]), "same": ("BYTES", [2])},
        {"wide": np.zeros(1, np.float32), "text": np.array(["a", "é"], object)},
    )
    x = np.array([1, 2, 3], ml_dtypes.bfloat16)
    with load(path) as model:
        for keep, expected in (([True, False, True], [1, 3]), ([False] * 3, [])):
            found = model.run({"x": x, "keep": np.array(keep)})
            assert found["y"].dtype == ml_dtypes.bfloat16
            assert found["y"].tolist() == expected
            assert found["same"].tolist() == [b"a", "é".encode()]


def test_bfloat16_and_text_as_inputs_of_one_model_are_refused(tmp_path: Path) -> None:
    path = make_onnx(
        tmp_path / "m.onnx",
        [("Identity", ["x"], ["y"]), ("Identity", ["text"], ["same"])],
        {"x": ("BF16", ["n"]), "text": ("BYTES", ["n"])},
        {"y": ("BF16", ["n"]), "same": ("BYTES", ["n"])},
    )
    with pytest.raises(ModelError, match="BF16 tensors and takes text in 'text'"):
        load(path)


def test_a_device_without_ml_dtypes_says_what_it_lacks(tmp_path: Path) -> None:
    """In a process where the package cannot be imported: a model without BF16 runs, one with it names the extra."""
    plain = make_dense_onnx(tmp_path / "plain.onnx")
    brief = make_onnx(tmp_path / "m.onnx", [("Identity", ["x"], ["y"])], {"x": ("BF16", [1])}, {"y": ("BF16", [1])})
    code = f"""
import sys
sys.modules["ml_dtypes"] = None
import numpy, tidegate.runtime, tidegate.errors
with tidegate.runtime.load({str(plain)!r}) as model:
    model(numpy.zeros((1, 64), numpy.float32))
try:
    tidegate.runtime.load({str(brief)!r})
except tidegate.errors.DependencyError as error:
    print(error.message)
    print(error.fix)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    message, fix = done.stdout.splitlines()
    assert message.startswith("BF16 needs ml_dtypes, which does not import here")
    assert fix == 'pip install "tidegate[bf16]"'


@pytest.mark.parametrize("element", ["FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "COMPLEX64"])
def test_types_that_the_protocol_does_not_know_are_refused(tmp_path: Path, element: str) -> None:
    path = tmp_path / "m.onnx"
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DataType.Value(element), [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 21)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    with pytest.raises(ModelError, match=r"no datatype of the Open Inference Protocol|cannot load this") as caught:
        load(path)
    assert str(path) in caught.value.message


def test_a_shape_is_bound_when_it_came_often_and_answers_the_same(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    backend = open_model("onnx", ModelFile("m", path=make_dense_onnx(tmp_path / "m.onnx", "n")))
    call = backend.bind_single(rows.shape)
    answers = [call(rows) for _ in range(CALLS_BEFORE_BINDING + 3)]
    assert isinstance(backend, OnnxBackend)
    assert [form.memory is not None for form in backend._forms.values()] == [True]
    assert len({answer.tobytes() for answer in answers}) == 1
    answers[-1][:] = 0
    assert call(rows).tobytes() == answers[0].tobytes()
    backend.close()


def test_only_so_many_shapes_are_kept(tmp_path: Path) -> None:
    backend = open_model("onnx", ModelFile("m", path=make_dense_onnx(tmp_path / "m.onnx", "n")))
    assert isinstance(backend, OnnxBackend)
    calls = {}
    for count in range(1, SHAPES_KEPT + 4):
        call = calls[count] = backend.bind_single((count, 64))
        for _ in range(CALLS_BEFORE_BINDING + 1):
            call(np.zeros((count, 64), np.float32))
    bound = [form.shapes[0][0] for form in backend._forms.values() if form.memory is not None]
    assert bound == [*range(4, SHAPES_KEPT + 4)]
    assert [backend.bind_single((count, 64)) is calls[count] for count in (1, SHAPES_KEPT)] == [False, True]
    backend.close()


def test_large_tensors_are_not_copied_into_bound_memory(tmp_path: Path) -> None:
    backend = open_model("onnx", ModelFile("m", path=make_dense_onnx(tmp_path / "m.onnx", "n")))
    assert isinstance(backend, OnnxBackend)
    rows = np.zeros((BOUND_BYTES // 64 // 4, 64), np.float32)
    call = backend.bind_single(rows.shape)
    for _ in range(CALLS_BEFORE_BINDING + 1):
        np.testing.assert_allclose(call(rows)[0], BIAS)
    assert [form.memory for form in backend._forms.values()] == [None]
    backend.close()


def test_a_call_that_fails_leaves_its_shape_bound(tmp_path: Path) -> None:
    path = make_onnx(
        tmp_path / "m.onnx",
        [("Gather", ["table", "x"], ["y"])],
        {"x": ("INT64", ["n"])},
        {"y": ("FP32", ["n"])},
        {"table": np.array([5, 6], np.float32)},
    )
    good = np.array([1], np.int64)
    backend = open_model("onnx", ModelFile("m", path=path))
    assert isinstance(backend, OnnxBackend)
    call = backend.bind_single((1,))
    for _ in range(CALLS_BEFORE_BINDING + 1):
        assert call(good).tolist() == [6]
    with pytest.raises(ModelError, match="failed to run"):
        call(np.array([7], np.int64))
    assert call(good).tolist() == [6]
    assert [form.memory is not None for form in backend._forms.values()] == [True]
    backend.close()


def test_an_array_that_begins_at_an_odd_address(tmp_path: Path) -> None:
    whole = np.frombuffer(b"\0" + np.ones((1, 64), np.float32).tobytes(), np.uint8)
    odd = whole[1:].view(np.float32).reshape(1, 64)
    assert not odd.flags.aligned
    with load(make_dense_onnx(tmp_path / "m.onnx")) as model:
        np.testing.assert_allclose(model(odd)[0], WEIGHTS.sum(axis=0) + BIAS, rtol=1e-5)


def test_sequences_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    sequence = onnx.helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [sequence],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    with pytest.raises(ModelError, match=r"tensor 'y' is of type seq\(tensor\(float\)\)"):
        load(path)


@pytest.mark.parametrize(
    ("operator", "inputs", "cause"),
    [
        ("NoSuchOperator", ["x"], "InvalidGraph"),
        ("Add", ["x", "nowhere"], "InvalidArgument"),
        ("Not", ["x"], "InvalidGraph"),
    ],
)
def test_graphs_that_onnxruntime_refuses(tmp_path: Path, operator: str, inputs: list[str], cause: str) -> None:
    path = make_onnx(tmp_path / "m.onnx", [(operator, inputs, ["y"])], {"x": ("FP32", [1])}, {"y": ("FP32", [1])})
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(path) in caught.value.message
    assert type(caught.value.__cause__).__name__ == cause


def test_an_operator_set_from_the_future(tmp_path: Path) -> None:
    path = make_dense_onnx(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    model.opset_import[0].version = 999
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="opset"):
        load(path)


@pytest.mark.parametrize("kind", [*OWN_EXCEPTIONS, RuntimeError, ValueError, TypeError])
def test_every_exception_of_onnxruntime_is_mapped(kind: type[Exception]) -> None:
    """Most cannot be provoked on a CPU, so a session that raises them stands in for the real one."""

    def fail(*_: Any) -> None:
        raise kind("as the runtime says")

    tensor = SimpleNamespace(name="x", type="tensor(float)", shape=[None])
    session = SimpleNamespace(
        get_providers=lambda: ["P"], get_inputs=lambda: [tensor], get_outputs=lambda: [tensor], run=fail
    )
    backend = OnnxBackend("some.onnx", "onnxruntime 1", session)
    with pytest.raises(ModelError, match=r"some.onnx: onnxruntime 1 failed to run: as the runtime says") as caught:
        backend.run({"x": FLOATS})
    assert type(caught.value.__cause__) is kind


def test_onnxruntime_has_the_exceptions_that_we_know() -> None:
    known = {"Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException", "InvalidProtobuf"}
    known |= {"ModelLoaded", "NotImplemented", "InvalidGraph", "EPFail"}
    assert known <= {kind.__name__ for kind in OWN_EXCEPTIONS}


def test_weights_beside_a_bare_file(tmp_path: Path) -> None:
    path = with_external_weights(tmp_path)
    with load(path) as model:
        np.testing.assert_allclose(model(np.ones((1, 64), np.float32))[0], WEIGHTS.sum(axis=0) + BIAS, rtol=1e-5)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        load(path)


def test_bytes_take_no_weights_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = with_external_weights(tmp_path).read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"in the bundle: .*weights\.bin"):
        open_model("onnx", ModelFile("in the bundle", content=content))


def with_external_weights(folder: Path) -> Path:
    model = onnx.load(str(make_dense_onnx(folder / "whole.onnx")))
    path = folder / "split.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads(tmp_path: Path, threads: int | None) -> None:
    with load(make_dense_onnx(tmp_path / "m.onnx"), threads=threads) as model:
        np.testing.assert_allclose(model(np.zeros((1, 64), np.float32))[0], BIAS)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_that_cannot_be(tmp_path: Path, threads: int) -> None:
    with pytest.raises(ConfigError, match=f"threads is {threads}"):
        load(make_dense_onnx(tmp_path / "m.onnx"), threads=threads)


def test_wrong_ways_to_name_a_bare_file(tmp_path: Path) -> None:
    path = make_dense_onnx(tmp_path / "m.onnx")
    with pytest.raises(NotFoundError, match=r"nothing\.onnx cannot be read: No such file"):
        load(tmp_path / "nothing.onnx")
    with pytest.raises(NotFoundError, match="bare model without variants; asked for 'int8'"):
        load(path, variant="int8")
    with pytest.raises(ConfigError, match=r"backend 'litert' does not run \.onnx files"):
        load(path, backend="litert")
    with pytest.raises(ConfigError, match="no backend 'torch'"):
        load(path, backend="torch")
    (tmp_path / "m.pt").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"neither a bundle .* nor a model file \(\.tflite, \.onnx\)"):
        load(tmp_path / "m.pt")


def test_nothing_is_printed(tmp_path: Path) -> None:
    good, bad = make_dense_onnx(tmp_path / "m.onnx"), tmp_path / "bad.onnx"
    bad.write_bytes(b"\x08\x07garbage")
    code = f"""
import numpy, tidegate.runtime, tidegate.errors
with tidegate.runtime.load({str(good)!r}) as model:
    model(numpy.zeros((1, 64), numpy.float32))
try:
    tidegate.runtime.load({str(bad)!r})
except tidegate.errors.ModelError:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.stdout == ""
    assert done.stderr == ""
