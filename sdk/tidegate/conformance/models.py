"""The small models that the named checks ask for, written as bundles and in the layout of Triton's repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidegate.bundle import Manifest, Signature, TensorSpec, Variant, digest, write_bundle
from tidegate.bundle.dtypes import numpy_dtype
from tidegate.conformance.datatypes import DATATYPES, SIMPLE, identity_model
from tidegate.errors import DependencyError, ResourceError

VERSION = "1.0.0"

OPSET = 17
IR_VERSION = 8

_Nodes = tuple[tuple[str, tuple[str, ...], str], ...]
"""operator, inputs, output"""


def write_models(directory: Path) -> tuple[Path, ...]:
    """Write every model as `NAME-1.0.0.tide`, and as `triton/NAME/1/model.onnx`; return the bundles.

    Raises:
        DependencyError: `onnx` is not installed.
        ResourceError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        identities = tuple(
            _write(
                directory,
                identity_model(datatype),
                (_spec("INPUT0", datatype, (-1, -1)),),
                (_spec("OUTPUT0", datatype, (-1, -1)),),
                (("Identity", ("INPUT0",), "OUTPUT0"),),
            )
            for datatype in DATATYPES
        )
        pair = ("INPUT0", "INPUT1")
        simple = _write(
            directory,
            SIMPLE,
            tuple(_spec(name, "INT32", (-1, 16)) for name in pair),
            tuple(_spec(name, "INT32", (-1, 16)) for name in ("OUTPUT0", "OUTPUT1")),
            (("Add", pair, "OUTPUT0"), ("Sub", pair, "OUTPUT1")),
        )
    except OSError as error:
        raise ResourceError(f"cannot write {directory}: {error.strerror}", fix="choose another directory") from error
    return (*identities, simple)


def _write(
    directory: Path, name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], nodes: _Nodes
) -> Path:
    content = _onnx(name, inputs, outputs, nodes)
    plain = directory / "triton" / name / "1" / "model.onnx"
    plain.parent.mkdir(parents=True, exist_ok=True)
    plain.write_bytes(content)
    variant = Variant(
        id="onnx-as-is",
        backend="onnx",
        precision="as-is",
        file="variants/model.onnx",
        sha256=digest(content),
        size_bytes=len(content),
    )
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name=name,
        version=VERSION,
        description="for `tidegate conformance`",
        licence="Apache-2.0",
        signature=Signature(inputs=inputs, outputs=outputs),
        variants=(variant,),
    )
    bundle = directory / f"{name}-{VERSION}.tide"
    write_bundle(manifest, {variant.file: content}, bundle)
    return bundle


def _onnx(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], nodes: _Nodes) -> bytes:
    try:
        from onnx import helper
    except ImportError as error:
        raise DependencyError(f"writing models needs onnx: {error}", fix="pip install 'tidegate[build]'") from error
    graph = helper.make_graph(
        [helper.make_node(operator, list(sources), [target]) for operator, sources, target in nodes],
        name,
        [_value(spec) for spec in inputs],
        [_value(spec) for spec in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    raw: bytes = model.SerializeToString()
    return raw


def _value(spec: TensorSpec) -> Any:
    from onnx import TensorProto, helper

    element = TensorProto.STRING if spec.dtype == "BYTES" else helper.np_dtype_to_tensor_dtype(numpy_dtype(spec.dtype))
    # One name for an axis that has one size in all tensors.
    axes = [f"axis{axis}" if size == -1 else size for axis, size in enumerate(spec.shape)]
    return helper.make_tensor_value_info(spec.name, element, axes)


def _spec(name: str, datatype: str, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name=name, dtype=datatype, shape=shape)
