"""The node tests of the `onnx` package, through bare ONNX Runtime and through a bundle."""

from __future__ import annotations

import ctypes
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tidegate.bundle import Bundle, GoldenFixture
from tidegate.bundle.dtypes import is_bfloat16
from tidegate.convert.build import build
from tidegate.convert.spec import BuildSpec, BundleTable, GoldenTable, VariantTable
from tidegate.errors import TidegateError
from tidegate.runtime import load
from tidegate.runtime.backends.onnx_session import runtime_errors
from tidegate.runtime.verify import verify_bundle

GAPS_FILE = Path(__file__).with_name("onnx_node_gaps.txt")


@dataclass(frozen=True)
class Outcome:
    """What became of one node test."""

    name: str
    bare: bool
    """bare ONNX Runtime computes what the test expects"""
    problem: str = ""
    """why the bundle does not do the same; empty when it does"""


class DiffersError(Exception):
    """The bundle's answer is not that of bare ONNX Runtime."""


@cache
def cases() -> dict[str, Any]:
    """Return every node test by its name; making them takes most of a minute, so it is done once."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the reference implementations divide by zero on purpose
        return {case.name: case for case in load_model_tests(kind="node")}


def known_gaps() -> dict[str, str]:
    """Return the reason by name of every test that a bundle is known not to carry."""
    lines = GAPS_FILE.read_text(encoding="utf-8").splitlines()
    rows = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return dict(rows)


def in_sample(name: str, one_in: int) -> bool:
    """Say whether a test is among the one in so many that a short run takes; the same ones on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % one_in == 0


def run(case: Any, folder: Path) -> Outcome:
    """Run one test both ways."""
    inputs, expected = ([_plain(value) for value in side] for side in case.data_sets[0])
    names = [value.name for value in case.model.graph.input]
    content = case.model.SerializeToString()
    try:
        bare = _bare(content, dict(zip(names, inputs, strict=False)), expected, case)
    except _refusals():
        return Outcome(case.name, bare=False)
    try:
        _bundled(content, dict(zip(names, inputs, strict=False)), bare, folder)
    except (TidegateError, DiffersError) as error:
        return Outcome(case.name, bare=True, problem=f"{type(error).__name__}: {error}")
    return Outcome(case.name, bare=True)


class Wired(NamedTuple):
    """A node test whose values are tensors of the protocol."""

    name: str
    model: bytes
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    """what bare ONNX Runtime computes"""


def bare_outputs(case: Any) -> Wired | None:
    """Run one test through bare ONNX Runtime; None when that does not pass, or a value is no tensor."""
    inputs, expected = ([_plain(value) for value in side] for side in case.data_sets[0])
    names = [value.name for value in case.model.graph.input]
    content = case.model.SerializeToString()
    feeds = dict(zip(names, inputs, strict=False))
    try:
        bare = _bare(content, feeds, expected, case)
        arrays, outputs = ({name: _ours(name, value) for name, value in side.items()} for side in (feeds, bare))
    except _not_wired():
        return None
    return Wired(case.name, content, arrays, outputs)


def same_values(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> str:
    """Return what differs, or nothing."""
    for name, value in expected.items():
        other = found.get(name)
        if other is None or other.dtype != value.dtype or other.shape != value.shape:
            return f"{name} is {None if other is None else (other.dtype, other.shape)}, not {value.dtype, value.shape}"
        if other.tolist() != value.tolist() and other.tobytes() != value.tobytes():
            return f"{name} has other values"
    return ""


def _not_wired() -> tuple[type[Exception], ...]:
    return (*_refusals(), DiffersError)


def _refusals() -> tuple[type[Exception], ...]:
    """Return what tells that bare ONNX Runtime does not pass a test."""
    return (*runtime_errors(), AssertionError, NotImplementedError)


def _bare(content: bytes, feeds: Mapping[str, Any], expected: Sequence[Any], case: Any) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = _run(session, {name: _for_runtime(value) for name, value in feeds.items()})
    for one, other in zip(found, expected, strict=True):
        _as_expected(one, other, case)
    return {output.name: value for output, value in zip(session.get_outputs(), found, strict=True)}


def _run(session: Any, feeds: Mapping[str, Any]) -> list[Any]:
    """Run as ONNX Runtime's own documentation does; outputs of bfloat16, which `run` does not give, by OrtValue."""
    brief = [output.type == "tensor(bfloat16)" for output in session.get_outputs()]
    if not any(brief):
        return list(session.run(None, dict(feeds)))
    binding = session.io_binding()
    for name, value in feeds.items():
        ort_value = onnxruntime.OrtValue
        binding.bind_ortvalue_input(
            name, value if isinstance(value, ort_value) else ort_value.ortvalue_from_numpy(np.ascontiguousarray(value))
        )
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    return [
        _bfloat16(value) if is_brief else value.numpy()
        for value, is_brief in zip(binding.get_outputs(), brief, strict=True)
    ]


def _bfloat16(value: Any) -> NDArray[Any]:
    count = math.prod(value.shape())
    raw = ctypes.string_at(value.data_ptr(), 2 * count) if count else b""
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(value.shape())


def _plain(value: Any) -> Any:
    """Return an array where a node test has a protobuf tensor or a numpy scalar."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _for_runtime(value: Any) -> Any:
    """Return an OrtValue for datatypes that only ml_dtypes has, such as bfloat16; they have no plain numpy dtype."""
    if not isinstance(value, np.ndarray) or value.dtype.isbuiltin == 1:
        return value
    element = helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(value.view(f"u{value.itemsize}"), element)


def _as_expected(found: Any, expected: Any, case: Any) -> None:
    """Compare as the `onnx` package's own runner does."""
    if isinstance(expected, (list, dict)) or expected is None:
        if found is None or expected is None:
            assert found is expected
            return
        for one, other in zip(found, expected, strict=True):
            _as_expected(one, other, case)
        return
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    if expected.dtype.kind in "OUS":
        assert found.astype(str).tolist() == expected.astype(str).tolist()
    elif is_bfloat16(expected.dtype):
        np.testing.assert_allclose(
            found.astype(np.float32), expected.astype(np.float32), rtol=max(case.rtol, 2**-7), atol=case.atol
        )
    elif expected.dtype.kind in "fc":
        np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)
    else:
        assert found.tobytes() == expected.astype(found.dtype).tobytes()


def _bundled(content: bytes, feeds: Mapping[str, Any], bare: Mapping[str, Any], folder: Path) -> None:
    (folder / "model.onnx").write_bytes(content)
    arrays = {name: _ours(name, value) for name, value in feeds.items()}
    (folder / "golden.npz").write_bytes(GoldenFixture(inputs=arrays).to_npz())
    spec = BuildSpec(
        bundle=BundleTable(name="node", version="1.0.0"),
        variant=(VariantTable(id="onnx", file="model.onnx"),),
        golden=GoldenTable(file="golden.npz"),
        directory=folder,
    )
    build(spec, folder / "node.tide")
    with Bundle.open(folder / "node.tide") as bundle:
        bundle.verify_files()
        for report in verify_bundle(bundle):
            if report.status != "passed":
                raise DiffersError(f"verify: {report.status}: {report.problem}")
        with load(bundle) as model:
            found = model.run(arrays)
    for name, value in bare.items():
        expected = _ours(name, value)
        if expected.dtype != found[name].dtype or expected.shape != found[name].shape:
            raise DiffersError(
                f"{name} is {found[name].dtype} {found[name].shape}, not {expected.dtype} {expected.shape}"
            )
        if expected.tolist() != found[name].tolist() and expected.tobytes() != found[name].tobytes():
            raise DiffersError(f"{name} has other values")


def _ours(name: str, value: Any) -> NDArray[Any]:
    """Return a value of a node test as a bundle carries it: text as bytes."""
    if not isinstance(value, np.ndarray | np.generic | float | int | bool | str):
        raise DiffersError(f"{name} is a {type(value).__name__}, no tensor")
    array = np.asarray(value)
    if array.dtype.isbuiltin != 1 and not is_bfloat16(array.dtype):
        raise DiffersError(f"{name} is {array.dtype}, no datatype of the protocol")
    if array.dtype.kind not in "OUS":
        return array
    encoded = np.empty(array.shape, object)
    encoded.reshape(-1)[:] = [str(item).encode() for item in array.reshape(-1)]
    return encoded


def version() -> str:
    """Return the versions that the list of gaps is about."""
    return f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
