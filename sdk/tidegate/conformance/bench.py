"""What checks work with: the server, the model under test, and what was asked already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import is_float
from tidegate.conformance.check import Finding, not_offered
from tidegate.conformance.peer import Answer, Peer
from tidegate.conformance.subject import Subject
from tidegate.errors import InputError
from tidegate.wire import messages
from tidegate.wire.tensors import read_outputs

UNKNOWN_MODEL = "tidegate-conformance-no-such-model"
UNKNOWN_VERSION = "987654321"

Outputs = Mapping[str, NDArray[Any]]


@dataclass
class Bench:
    """One run of the suite."""

    peer: Peer
    subject: Subject
    control: bool = False
    """whether the model under test may be unloaded and loaded"""
    not_serving_after: list[str] = field(default_factory=list)
    """refused requests after which a good one was not answered"""
    refused: int = 0
    """wrong requests that were followed by a good one"""
    _answers: dict[str, Answer] = field(default_factory=dict)

    def once(self, name: str, ask: Callable[[], Answer]) -> Answer:
        """Return what was answered to this question, asking it only the first time."""
        if name not in self._answers:
            self._answers[name] = ask()
        return self._answers[name]

    @property
    def good(self) -> Answer:
        """The answer to a good raw request."""
        return self.once("good", lambda: self.infer(self.subject.request()))

    def infer(self, request: Any, **options: Any) -> Answer:
        """Call ModelInfer."""
        return self.peer.call("ModelInfer", request, **options)

    def ask_wrong(self, name: str, request: Any) -> Answer:
        """Send a wrong request once, then see whether a good one is still answered."""

        def ask() -> Answer:
            answer = self.infer(request)
            self.refused += 1
            if not self.infer(self.subject.request()).ok:
                self.not_serving_after.append(name)
            return answer

        return self.once(name, ask)

    def unusable(self) -> Finding | None:
        """Return why nothing can be inferred, or None."""
        if not self.subject.inputs:
            return not_offered("the metadata names no inputs; name them with --input")
        if not self.good.ok:
            return not_offered(f"a good request is not answered: {self.good}")
        return None

    def offers(self, model: str) -> bool:
        """Say whether a model of the published set is there."""
        answer = self.once(
            f"ready {model}", lambda: self.peer.call("ModelReady", messages.ModelReadyRequest(name=model))
        )
        return answer.ok and bool(answer.response.ready)


def offered(answer: Answer) -> Finding | None:
    """Return why there is nothing to judge, or None."""
    return not_offered("UNIMPLEMENTED") if answer.code == "UNIMPLEMENTED" else None


def outputs_of(answer: Answer) -> Outputs:
    """Return the outputs of a ModelInferResponse; empty when they cannot be read."""
    if not answer.ok:
        return {}
    try:
        return outputs_read(answer.response)
    except InputError:
        return {}


def outputs_read(response: Any) -> Outputs:
    """Return the outputs of a ModelInferResponse.

    Raises:
        InputError: they are not what they say.
    """
    plain = messages.ModelInferResponse()
    plain.CopyFrom(response)
    for output in plain.outputs:
        # Beside raw contents some servers leave an empty message behind, which says nothing.
        if not has_typed(output):
            output.ClearField("contents")
    return read_outputs(plain)


def has_typed(tensor: Any) -> bool:
    """Say whether a tensor has typed elements."""
    return bool(tensor.contents.ListFields())


def same(one: Outputs, other: Outputs) -> bool:
    """Say whether two answers hold the same; floats may differ in their last bits, as batching makes them."""
    return bool(one) and one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)


def _close(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if is_float(one.dtype):
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(one, other))
