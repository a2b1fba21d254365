"""ONNX float32 -> int8 with calibrated ranges, int8 weights only, float16; inputs and outputs keep their dtype."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidegate.bundle.dtypes import numpy_dtype
from tidegate.convert.job import ONNX_OPSET, Job
from tidegate.convert.keep_float import kept_names
from tidegate.convert.reasons import one_line
from tidegate.convert.rows import Rows, calls, fitted_rows
from tidegate.errors import DependencyError, ModelError
from tidegate.runtime import load

EXTRA = 'pip install "tidegate[convert]"'

CHANNEL_OPSET = 13
"""The first one whose QuantizeLinear has an axis, for one scale a channel."""

STATIC_OPERATORS = [
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool",
    "Mul", "Pad", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
]  # fmt: skip
"""What is computed in int8. Soft-max, sigmoid and their kind span too many orders of magnitude for 256 steps."""

DYNAMIC_OPERATORS = ["MatMul", "Gemm", "Gather", "LSTM", "Attention", "EmbedLayerNormalization"]
"""Not Conv: ONNX Runtime's CPU provider has no ConvInteger for signed weights."""


def to_int8(path: Path, job: Job) -> Path:
    """Quantise weights per channel and activations per tensor, as QDQ pairs, with ranges from representative data.

    Raises:
        ModelError: ONNX Runtime's quantiser fails.
        ConfigError: the data does not fit the model.
    """
    quantization = _import()
    with load(path) as model:
        signature = model.signature
    rows = fitted_rows(job.rows, signature, job.origin)
    shapes: dict[str, tuple[int | None, ...]] = {spec.name: spec.shape for spec in signature.inputs}
    texts = {spec.name for spec in signature.inputs if numpy_dtype(spec.dtype).kind == "O"}

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined, unused-ignore]
        """One row, or one batch of the size that the model fixes, at a time."""

        def __init__(self) -> None:
            self._feeds: Iterator[Rows] = calls(rows, shapes)

        def get_next(self) -> dict[str, Any] | None:
            feeds = next(self._feeds, None)
            if feeds is None:
                return None
            return {name: array.astype(str) if name in texts else array for name, array in feeds.items()}

    def quantise(prepared: Path, out: Path) -> None:
        quantization.quantize_static(
            str(prepared),
            str(out),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            nodes_to_exclude=_kept(prepared, job),
            op_types_to_quantize=STATIC_OPERATORS,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )

    return _quantised(path, job, "int8", quantise)


def to_dynamic_int8(path: Path, job: Job) -> Path:
    """Quantise weights; activations are quantised while it runs.

    Raises:
        ModelError: ONNX Runtime's quantiser fails.
    """
    quantization = _import()

    def quantise(prepared: Path, out: Path) -> None:
        quantization.quantize_dynamic(
            str(prepared),
            str(out),
            nodes_to_exclude=_kept(prepared, job),
            op_types_to_quantize=DYNAMIC_OPERATORS,
            weight_type=quantization.QuantType.QInt8,
        )

    return _quantised(path, job, "dynamic-int8", quantise)


def to_fp16(path: Path, job: Job) -> Path:
    """Write float16 weights and arithmetic; inputs and outputs stay float32.

    The converter is ONNX Runtime's, not onnxconverter-common's, from which it was forked: it is the one that is kept
    up, and it is installed anyway.

    Raises:
        ModelError: it fails.
    """
    _import()
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        model = onnx.load(str(path))
        converted = convert_float_to_float16(model, keep_io_types=True)
        content = converted.SerializeToString(deterministic=True)
    except _failures() as error:
        raise _failed(job, "fp16", error) from error
    out = job.folder / "fp16.onnx"
    out.write_bytes(content)
    return out


def _quantised(path: Path, job: Job, precision: str, quantise: Any) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out = job.folder / f"{precision}.onnx"
    with tempfile.TemporaryDirectory(dir=job.folder) as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        try:
            # Symbolic shape inference needs sympy, and fails on operators that it does not know.
            quant_pre_process(str(_with_channels(path, Path(scratch))), str(prepared), skip_symbolic_shape=True)
            _forget_constant_shapes(prepared)
            quantise(prepared, out)
        except _failures() as error:
            raise _failed(job, precision, error) from error
    return out


def _kept(prepared: Path, job: Job) -> list[str]:
    import onnx

    return kept_names((node.name for node in onnx.load(str(prepared)).graph.node), job.keep_float, job.origin)


def _forget_constant_shapes(prepared: Path) -> None:
    """Drop the stated shapes of constants: the quantiser transposes some weights, and then trips over the old shape."""
    import onnx

    model = onnx.load(str(prepared))
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in constants]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    onnx.save(model, str(prepared))


def _with_channels(path: Path, scratch: Path) -> Path:
    """Return the model, raised to an operator set that has a scale for each channel."""
    import onnx
    import onnx.version_converter

    model = onnx.load(str(path))
    versions = {item.domain: item.version for item in model.opset_import}
    if versions.get("", versions.get("ai.onnx", ONNX_OPSET)) >= CHANNEL_OPSET:
        return path
    raised = scratch / "raised.onnx"
    onnx.save(onnx.version_converter.convert_version(model, ONNX_OPSET), str(raised))
    return raised


def _failed(job: Job, precision: str, error: Exception) -> ModelError:
    return ModelError(
        f"{job.origin}: ONNX Runtime cannot make it {precision}: {one_line(error)}",
        fix="use the float32 variant, or quantise the model where it was trained",
    )


def _failures() -> tuple[type[Exception], ...]:
    import onnx.checker
    import onnx.shape_inference
    from google.protobuf.message import Error
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    checks = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, Error)
    plain = (ValueError, TypeError, KeyError, IndexError, RuntimeError, NotImplementedError, AttributeError, OSError)
    return (*own, *checks, *plain)


def _import() -> Any:
    try:
        import onnx  # noqa: F401
        from onnxruntime import quantization
    except ImportError as error:
        raise DependencyError(f"quantising ONNX needs onnx and onnxruntime: {error}", fix=EXTRA) from error
    return quantization
