"""LiteRT's tensors as the signature states them: the signature's names, and floats where integers are inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import oip_name
from tidegate.bundle.manifest import TensorSpec
from tidegate.errors import InputError, ModelError
from tidegate.runtime.backends.protocol import ModelFile, Shape
from tidegate.runtime.backends.quantisation import Quantisation

PREFERRED_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Tensor:
    """One input or output of the interpreter."""

    spec: TensorSpec
    index: int
    """the interpreter's number for it"""
    shape: Shape
    """the size it has after loading; free dimensions are mostly 1"""
    quantisation: Quantisation | None
    """set when floats outside are integers inside"""


def signature_tensors(interpreter: Any, file: ModelFile) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs and outputs in the interpreter's order, under the signature's names where there is one.

    Raises:
        ModelError: no signature is of the main graph, or a tensor has a type that the protocol does not know.
    """
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if not signatures:
        named_inputs = [(detail["name"], detail) for detail in inputs]
        named_outputs = [(detail["name"], detail) for detail in outputs]
    else:
        keys = [PREFERRED_SIGNATURE] if PREFERRED_SIGNATURE in signatures else list(signatures)
        pairs = (_named(interpreter, key, inputs, outputs) for key in keys)
        named = next((pair for pair in pairs if pair is not None), None)
        if named is None:
            raise ModelError(
                f"{file.origin}: none of the signatures {', '.join(map(repr, keys))} is of the main graph, the only "
                "one that runs",
                fix="convert the model with one signature",
            )
        named_inputs, named_outputs = named
    return (
        tuple(_tensor(name, detail, file, is_input=True) for name, detail in named_inputs),
        tuple(_tensor(name, detail, file, is_input=False) for name, detail in named_outputs),
    )


Named = list[tuple[str, dict[str, Any]]]


def _named(
    interpreter: Any, key: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> tuple[Named, Named] | None:
    """Pair a signature's names with the main graph's inputs and outputs; None when it is of another graph."""
    runner = interpreter.get_signature_runner(key)
    named_inputs = _paired(runner.get_input_details(), inputs)
    named_outputs = _paired(runner.get_output_details(), outputs)
    return None if named_inputs is None or named_outputs is None else (named_inputs, named_outputs)


def _paired(by_name: Mapping[str, Any], details: list[dict[str, Any]]) -> Named | None:
    """Return the signature's names with the interpreter's tensors, in the interpreter's order."""
    position = {(detail["index"], detail["name"]): place for place, detail in enumerate(details)}
    places = {name: position.get((detail["index"], detail["name"]), -1) for name, detail in by_name.items()}
    if set(places.values()) != set(range(len(details))):
        return None
    return [(name, details[place]) for name, place in sorted(places.items(), key=lambda item: item[1])]


def _tensor(name: str, detail: dict[str, Any], file: ModelFile, *, is_input: bool) -> Tensor:
    shape = tuple(int(size) for size in detail["shape"])
    signature_shape = detail["shape_signature"]
    # A model without free dimensions may carry no shape signature at all.
    stated = tuple(int(size) for size in signature_shape) if len(signature_shape) == len(shape) else shape
    quantisation = None if file.raw else _quantisation(detail)
    try:
        dtype = "FP32" if quantisation else oip_name(np.dtype(detail["dtype"]))
    except InputError as error:
        raise ModelError(f"{file.origin}: tensor {name!r}: {error.message}", fix="convert the model again") from error
    # Integers hold no NaN, so a quantised input refuses it.
    spec = TensorSpec(name=name, dtype=dtype, shape=stated, finite=is_input and quantisation is not None)
    return Tensor(spec=spec, index=int(detail["index"]), shape=shape, quantisation=quantisation)


def _quantisation(detail: dict[str, Any]) -> Quantisation | None:
    parameters = detail["quantization_parameters"]
    dtype = np.dtype(detail["dtype"])
    if dtype.kind not in "iu" or len(parameters["scales"]) != 1:
        return None
    return Quantisation(float(parameters["scales"][0]), int(parameters["zero_points"][0]), dtype)
