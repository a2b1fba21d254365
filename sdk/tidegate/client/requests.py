"""An inference request: checked against what the server said about the model, then written."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import NAMES
from tidegate.bundle.manifest import Signature
from tidegate.client.descriptions import ModelDescription, Parameter
from tidegate.errors import InputError, TidegateError

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class InferCall:
    """What a caller asks of a model; see `Client.infer`."""

    name: str
    inputs: Inputs
    version: str = ""
    outputs: Sequence[str] | None = None
    request_id: str = ""
    parameters: Mapping[str, Parameter] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Model and version."""
        return self.name, self.version

    def message(self) -> Any:
        """Return the ModelInferRequest, with raw contents.

        Raises:
            InputError: an array has no datatype in the protocol, or a parameter is none of bool, int, float and str.
        """
        from tidegate.wire import messages
        from tidegate.wire.tensors import write_inputs

        request = messages.ModelInferRequest(model_name=self.name, model_version=self.version, id=self.request_id)
        write_inputs(request, {key: np.asarray(value) for key, value in self.inputs.items()})
        for output in self.outputs or ():
            request.outputs.add(name=output)
        for key, value in (self.parameters or {}).items():
            setattr(request.parameters[key], _parameter_field(key, value), value)
        return request


class KnownModels:
    """Metadata by model and version, as the server last said it. Safe to use from several threads.

    The empty version is what the server chose when it was asked; another version may answer later. Hence the rule of
    `Client`: what is kept may let a request pass, but never refuses one before the server was asked again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], ModelDescription | None] = {}

    def lets_pass(self, target: str, asked: InferCall) -> bool:
        """Return whether what is kept lets the request pass; false: ask the server, then `check_request`."""
        with self._lock:
            if asked.key not in self._models:
                return False
            model = self._models[asked.key]
        if model is None:
            return True
        try:
            check_request(target, model, asked)
        except InputError:
            self.forget(asked.name)
            return False
        return True

    def put(self, name: str, version: str, model: ModelDescription | None) -> None:
        """Keep what the server said; None: it does not tell, and is left to check by itself."""
        with self._lock:
            self._models[name, version] = model

    def forget(self, name: str) -> None:
        """Forget every version of a model."""
        with self._lock:
            self._models = {key: held for key, held in self._models.items() if key[0] != name}


def check_request(target: str, model: ModelDescription, asked: InferCall) -> None:
    """Hold a request against the model's metadata, with the words that the runtime has for its own inputs.

    A server that states no inputs, or datatypes beyond the protocol's, is left to check by itself.

    Raises:
        InputError: a name, dtype or shape does not fit, or there is no such output.
    """
    from tidegate.runtime.validation import checked_feeds

    signature = model.signature
    try:
        if signature.inputs and all(spec.dtype in NAMES for spec in signature.inputs):
            checked_feeds(signature, asked.inputs)
        if signature.outputs:
            _check_outputs(signature, asked.outputs or ())
    except InputError as error:
        raise InputError(f"{target}: model {asked.name!r}: {error.message}", fix=error.fix) from error


def says_otherwise(error: TidegateError) -> bool:
    """Return whether a server's refusal can mean that what is kept of the model is no longer so."""
    return error.fault == "caller"


def _check_outputs(signature: Signature, wanted: Sequence[str]) -> None:
    known = [spec.name for spec in signature.outputs]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"there is no output {', '.join(map(repr, unknown))}; the model's outputs are "
            f"{', '.join(map(repr, known))}",
            fix="name outputs of the model, or none for all",
        )


def _parameter_field(name: str, value: Parameter) -> str:
    for kind, field in ((bool, "bool_param"), (int, "int64_param"), (float, "double_param"), (str, "string_param")):
        if isinstance(value, kind):
            return field
    raise InputError(
        f"parameter {name!r} is a {type(value).__name__}; expected bool, int, float or str", fix="convert it"
    )
