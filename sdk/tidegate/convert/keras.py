"""Keras 3 models: opened, run as the reference, and written as a SavedModel with the model's own names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate.bundle.arrays import Array
from tidegate.convert.job import Job
from tidegate.convert.reasons import keras_reason, one_line
from tidegate.convert.rows import Rows
from tidegate.convert.sources import Source
from tidegate.errors import ConfigError, DependencyError, ModelError

EXTRA = 'pip install "tidegate[keras]"'

_FAILURES = (ValueError, TypeError, NotImplementedError, AttributeError, KeyError, RuntimeError, OSError)
"""What Keras and the layers inside a model raise; Keras adds the layer's name to the message."""


def opened(source: Source) -> Any:
    """Return the Keras model.

    Raises:
        DependencyError: Keras or TensorFlow is not installed.
        ConfigError: Keras runs on another backend than TensorFlow.
        ModelError: the file is damaged, or has a layer that Keras does not know.
    """
    keras = _import()
    if source.path is None:
        return source.model
    try:
        return keras.models.load_model(source.path, compile=False)
    except _FAILURES as error:
        raise ModelError(
            f"{source.origin}: Keras cannot load it: {keras_reason(error)}",
            fix="a layer of your own must be registered (keras.saving.register_keras_serializable) and imported: load "
            "the model in Python and hand it to tidegate.convert.convert",
        ) from error


def outputs(model: Any, rows: Rows) -> dict[str, Array]:
    """Run the Keras model on all rows at once.

    Raises:
        ModelError: it fails.
    """
    names = output_names(model)
    given = [rows[name] for name in input_names(model)]
    try:
        return {name: array.numpy() for name, array in zip(names, _call(model, given), strict=True)}
    except _failures() as error:
        raise ModelError(f"Keras model {model.name!r} fails to run: {one_line(error)}", fix="mend the model") from error


def to_savedmodel(model: Any, job: Job) -> Path:
    """Write a SavedModel with one signature, `serving_default`, that has the model's input and output names.

    Weights become constants, so that converters can fold normalisation into convolutions. Control flow stays as it
    is: TFLite has loops, but none of TensorFlow 1's switches and merges.

    Raises:
        ModelError: a layer cannot be traced; the message names it.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    names = output_names(model)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name) for name, tensor in _inputs(model).items()]

    @tf.function(input_signature=specs, autograph=False)  # type: ignore[untyped-decorator, unused-ignore]
    def call(*given: Any) -> Any:
        return _call(model, given)

    folder = job.folder / "savedmodel"
    try:
        frozen = convert_variables_to_constants_v2(call.get_concrete_function(), lower_control_flow=False)

        @tf.function(input_signature=specs, autograph=False)  # type: ignore[untyped-decorator, unused-ignore]
        def serve(*given: Any) -> Any:
            return dict(zip(names, frozen(*given), strict=True))

        module = tf.Module()
        module.serve = serve
        tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    except _failures() as error:
        raise ModelError(
            f"{job.origin} cannot be traced: {one_line(error)}",
            fix="make that layer work on symbolic tensors (keras.ops, no numpy, no look-up tables), or take it out",
        ) from error
    return folder


def input_names(model: Any) -> list[str]:
    """Return the names of the model's inputs: the keys of its dictionary of inputs, else those of its input layers.

    Raises:
        ModelError: the model has no fixed inputs.
    """
    return list(_inputs(model))


def output_names(model: Any) -> list[str]:
    """Return the names of the model's outputs: the keys of its dictionary of outputs, else those of its last layers.

    Raises:
        ModelError: the model has no fixed outputs.
    """
    _check_functional(model)
    structure = _structure(model, "output")
    if isinstance(structure, dict):
        return list(structure)
    names = list(getattr(model, "output_names", None) or [model.layers[-1].name])
    return _unique(names if len(names) == len(model.outputs) else [f"output_{n}" for n in range(len(model.outputs))])


def _inputs(model: Any) -> dict[str, Any]:
    """Return the symbolic inputs by name, in the order of the model's own structure."""
    _check_functional(model)
    structure = _structure(model, "input")
    if isinstance(structure, dict):
        return dict(structure)
    return {tensor.name: tensor for tensor in model.inputs}


def _call(model: Any, given: Sequence[Any]) -> list[Any]:
    structure = _structure(model, "input")
    if isinstance(structure, dict):
        found = model(dict(zip(structure, given, strict=True)), training=False)
    else:
        found = model(
            list(given) if len(given) > 1 or isinstance(structure, list | tuple) else given[0], training=False
        )
    if isinstance(found, dict):
        return [found[name] for name in output_names(model)]
    return list(found) if isinstance(found, list | tuple) else [found]


def _structure(model: Any, side: str) -> Any:
    """Return the symbolic tensor, or list or dictionary of them; of a Sequential model, its only tensor."""
    tensors = getattr(model, f"{side}s")
    return getattr(model, side) if hasattr(model, "output_names") else tensors[0]


def _check_functional(model: Any) -> None:
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ModelError(
            f"Keras model {model.name!r} ({type(model).__name__}) does not state its inputs and outputs",
            fix="build it as a functional or Sequential model with keras.Input, or save it with model.export and "
            "convert that SavedModel",
        )


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        number = 0
        while (unique := f"{name}_{number}" if number else name) in found:
            number += 1
        found.append(unique)
    return found


def _failures() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    return (*_FAILURES, tf.errors.OpError)


def _import() -> Any:
    # Keras reads this at its first import; TensorFlow is its own default.
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    try:
        import keras
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise DependencyError(f"converting a Keras model needs keras and tensorflow: {error}", fix=EXTRA) from error
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"Keras runs on {backend!r} here; conversion needs its TensorFlow backend", fix="unset KERAS_BACKEND"
        )
    return keras
