"""SavedModel directories: run as the reference, and converted to TFLite and ONNX under their signature's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.convert.job import ONNX_OPSET, Job
from tidegate.convert.keep_float import kept_names
from tidegate.convert.onnx_names import named
from tidegate.convert.reasons import one_line, tflite_reason
from tidegate.convert.rows import Rows, calls, checked_rows
from tidegate.convert.sources import Source
from tidegate.errors import DependencyError, ModelError

SIGNATURE = "serving_default"
EXTRA = 'pip install "tidegate[keras]"'

_FIX_OPERATOR = "use operators that the target has, or convert to another format: ONNX and TFLite have different gaps"

_FIX_RECURRENT = "TFLite cannot loop over a free batch: give the recurrent layer unroll=True, or convert to ONNX"


@dataclass(frozen=True)
class Served:
    """The signature of a SavedModel that is converted."""

    key: str
    function: Any
    inputs: dict[str, Any]
    """tf.TensorSpec by name"""
    outputs: list[str]
    loaded: Any
    """owns the weights: must outlive the function"""

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shape by input name; None for a free axis."""
        return {name: tuple(spec.shape.as_list()) for name, spec in self.inputs.items()}


def opened(source: Source) -> Path:
    """Return the directory.

    Raises:
        DependencyError: TensorFlow is not installed.
        ModelError: TensorFlow cannot load it, or it has no usable signature.
    """
    assert source.path is not None, "a SavedModel is always a directory"
    served(source.path, source.origin)
    return source.path


def served(folder: Path, origin: str) -> Served:
    """Return the signature `serving_default`, or the only one that there is.

    Raises:
        DependencyError: TensorFlow is not installed.
        ModelError: TensorFlow cannot load it, or it has no usable signature.
    """
    tf = _import()
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, tf.errors.OpError) as error:
        raise ModelError(
            f"{origin}: TensorFlow cannot load this SavedModel: {one_line(error)}", fix="export it again"
        ) from error
    signatures = dict(loaded.signatures)
    key = SIGNATURE if SIGNATURE in signatures else next(iter(signatures), "")
    if not key or (key != SIGNATURE and len(signatures) > 1):
        raise ModelError(
            f"{origin} has the signatures {', '.join(signatures) or 'none'}; expected {SIGNATURE!r}, or only one",
            fix=f"save it with signatures={{{SIGNATURE!r}: function}}",
        )
    function = signatures[key]
    _, inputs = function.structured_input_signature
    return Served(key, function, dict(inputs), sorted(function.structured_outputs), loaded)


def outputs(folder: Path, rows: Rows) -> dict[str, Array]:
    """Run the SavedModel with TensorFlow.

    Raises:
        ModelError: it fails.
    """
    tf = _import()
    model = served(folder, str(folder))
    parts: dict[str, list[Array]] = {name: [] for name in model.outputs}
    try:
        for feeds in calls(rows, model.shapes):
            found = model.function(**{name: tf.constant(array) for name, array in feeds.items()})
            for name, part in parts.items():
                part.append(found[name].numpy())
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ModelError(f"{folder} fails to run: {one_line(error)}", fix="mend the model") from error
    has_rows = all(
        part.ndim and len(part) == len(next(iter(feeds.values()))) for part in (p[0] for p in parts.values())
    )
    return {name: np.concatenate(part) if has_rows else np.stack(part) for name, part in parts.items()}


def to_tflite_fp32(folder: Path, job: Job) -> Path:
    """Write float32 weights and arithmetic. Raises ModelError, as all of these do, naming layer or operator."""
    return _to_tflite(folder, job, "fp32", lambda converter: None)


def to_tflite_fp16(folder: Path, job: Job) -> Path:
    """Write float16 weights; the arithmetic is float32 where the device has no other."""

    def configure(converter: Any) -> None:
        tf = _import()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    return _to_tflite(folder, job, "fp16", configure)


def to_tflite_dynamic_int8(folder: Path, job: Job) -> Path:
    """Write int8 weights; activations are quantised while it runs. Weights below 1024 elements stay as they are."""

    def configure(converter: Any) -> None:
        converter.optimizations = [_import().lite.Optimize.DEFAULT]

    return _to_tflite(folder, job, "dynamic-int8", configure)


def to_tflite_int8(folder: Path, job: Job) -> Path:
    """Write int8 weights and activations; float32 in and out, and where an operator has no int8 form."""
    examples = _examples(folder, job)

    def configure(converter: Any) -> None:
        converter.optimizations = [_import().lite.Optimize.DEFAULT]
        converter.representative_dataset = examples

    if job.keep_float:
        return _to_tflite(folder, job, "int8", configure, _partly_int8(folder, job, examples))
    return _to_tflite(folder, job, "int8", configure)


def to_tflite_int8_io(folder: Path, job: Job) -> Path:
    """Write int8 weights and activations, int8 in and out: for accelerators that compute with integers.

    An operator without an int8 form stays float32 all the same; the author is told which.
    """
    examples = _examples(folder, job)

    def configure(converter: Any) -> None:
        tf = _import()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8

    path = _to_tflite(folder, job, "int8-io", configure)
    floats = _float_operators(path.read_bytes())
    if floats:
        job.note(f"tflite-int8-io: {', '.join(floats)} have no int8 form and stay float32")
    return path


def to_onnx_fp32(folder: Path, job: Job) -> Path:
    """Write ONNX, with the names of the signature.

    Raises:
        ModelError: tf2onnx knows no ONNX form of an operator; the message names it and its layer.
        DependencyError: tf2onnx is not installed.
    """
    tf = _import()
    try:
        import onnx
        import tf2onnx.convert
    except ImportError as error:
        raise DependencyError(f"converting to ONNX needs tf2onnx and onnx: {error}", fix=EXTRA) from error
    model = served(folder, job.origin)
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in model.inputs.items()]

    @tf.function(input_signature=specs, autograph=False)  # type: ignore[untyped-decorator, unused-ignore]
    def serve(*given: Any) -> Any:
        found = model.function(**dict(zip(model.inputs, given, strict=True)))
        return [found[name] for name in model.outputs]

    try:
        converted, _ = tf2onnx.convert.from_function(serve, input_signature=specs, opset=ONNX_OPSET)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, tf.errors.OpError) as error:
        raise ModelError(f"{job.origin}: tf2onnx failed: {one_line(error)}", fix=_FIX_OPERATOR) from error
    # tf2onnx leaves what it does not know in the graph, and says so only in its log.
    unknown = [f"{node.op_type} at {node.name}" for node in converted.graph.node if not _is_onnx(onnx, node)]
    if unknown:
        raise ModelError(
            f"{job.origin}: tf2onnx knows no ONNX form of {', '.join(unknown[:3])}"
            + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""),
            fix=_FIX_OPERATOR,
        )
    out = job.folder / "fp32.onnx"
    out.write_bytes(named(converted, list(model.inputs), model.outputs).SerializeToString(deterministic=True))
    return out


def _is_onnx(onnx: Any, node: Any) -> bool:
    # Other domains are ONNX Runtime's own operators, which it checks when it loads the model.
    return node.domain not in ("", "ai.onnx") or bool(onnx.defs.has(node.op_type))


def _examples(folder: Path, job: Job) -> Callable[[], Iterator[Rows]]:
    model = served(folder, job.origin)
    rows = checked_rows(job.rows, list(model.inputs), job.origin)
    types = {name: spec.dtype.as_numpy_dtype for name, spec in model.inputs.items()}

    def examples() -> Iterator[Rows]:
        for feeds in calls(rows, model.shapes):
            yield {name: array.astype(types[name]) for name, array in feeds.items()}

    return examples


def _partly_int8(folder: Path, job: Job, examples: Callable[[], Iterator[Rows]]) -> Callable[[Any], bytes]:
    """Return what quantises all but the operators that the author wants in float32."""

    def convert(converter: Any) -> bytes:
        tf = _import()
        plain = tf.lite.TFLiteConverter.from_saved_model(
            str(folder), signature_keys=[served(folder, job.origin).key]
        ).convert()
        kept = kept_names(_operator_names(plain), job.keep_float, job.origin)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=examples,
            debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=kept),
        )
        content: bytes = debugger.get_nondebug_quantized_model()
        return content

    return convert


def _float_operators(content: bytes) -> list[str]:
    """Return the kinds of the operators that write float32."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without delegates, which would hide the operators that they take over.
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    floats = {detail["index"] for detail in interpreter.get_tensor_details() if detail["dtype"] is np.float32}
    operators = interpreter._get_ops_details()
    kinds = {item["op_name"] for item in operators if floats & {int(index) for index in item["outputs"]}}
    return sorted(kinds - {"DEQUANTIZE"})


def _operator_names(content: bytes) -> list[str]:
    """Return the names of the tensors that operators write: TFLite names operators by them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    return [names[index] for detail in interpreter._get_ops_details() for index in detail["outputs"]]


def _to_tflite(
    folder: Path,
    job: Job,
    precision: str,
    configure: Callable[[Any], None],
    convert: Callable[[Any], bytes] = lambda converter: bytes(converter.convert()),
) -> Path:
    tf = _import()
    from tensorflow.lite.python.convert_phase import ConverterError

    key = served(folder, job.origin).key
    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[key])
        configure(converter)
        content = convert(converter)
    except (ConverterError, ValueError, TypeError, RuntimeError, NotImplementedError, tf.errors.OpError) as error:
        reason = tflite_reason(error)
        fix = _FIX_RECURRENT if "TensorList" in reason else _FIX_OPERATOR
        raise ModelError(f"{job.origin}: no TFLite form: {reason}", fix=fix) from error
    out = job.folder / f"{precision}.tflite"
    out.write_bytes(content)
    return out


def _import() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        raise DependencyError(f"converting a TensorFlow model needs tensorflow: {error}", fix=EXTRA) from error
    return tensorflow
