"""Every datatype both ways, on the small models that `tidegate conformance --write-models` writes.

`identity_DATATYPE` gives INPUT0 [-1, -1] back as OUTPUT0; `simple` is Triton's: INPUT0, INPUT1 INT32 [-1, 16] to their
sum OUTPUT0 and difference OUTPUT1. A server without them is asked nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.dtypes import BF16, NUMPY_BY_NAME, is_float, numpy_dtype
from tidegate.conformance.bench import Bench, outputs_of
from tidegate.conformance.check import Check, Finding, Source, failed, judged, not_offered
from tidegate.conformance.subject import RAW_ONLY, with_raw
from tidegate.errors import DependencyError
from tidegate.wire import messages
from tidegate.wire.tensors import write_typed

SIMPLE = "simple"

DATATYPES = (*NUMPY_BY_NAME, BF16)

LARGEST_BF16 = 255 * 2.0**120
"""Eight bits of ones, and the highest exponent."""


def identity_model(datatype: str) -> str:
    """Return the name of the model that gives this datatype back."""
    return f"identity_{datatype.lower()}"


def sample(datatype: str) -> NDArray[Any]:
    """Return six elements with the limits of the datatype; of BYTES: empty, with a NUL, long, beyond ASCII."""
    if datatype == "BYTES":
        array = np.empty((2, 3), object)
        array[:] = [[b"", b"plain", b"a\0b"], ["é".encode(), b" ", b"x" * 300]]
        return array
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    dtype = numpy_dtype(datatype)
    if is_float(dtype):
        largest = LARGEST_BF16 if datatype == BF16 else np.finfo(dtype).max
        return np.array([[0, -1.5, np.inf], [-np.inf, np.nan, largest]], dtype)
    integers = np.iinfo(dtype)
    return np.array([[0, 1, 2], [integers.min, integers.max, 7]], dtype)


def _raw(datatype: str) -> Callable[[Bench], Finding]:
    def request(array: NDArray[Any]) -> Any:
        return with_raw(identity_model(datatype), {"INPUT0": array})

    return _there_and_back(datatype, request)


def _typed(datatype: str) -> Callable[[Bench], Finding]:
    def request(array: NDArray[Any]) -> Any:
        message = messages.ModelInferRequest(model_name=identity_model(datatype))
        write_typed(message.inputs.add(), "INPUT0", array)
        return message

    return _there_and_back(datatype, request)


def _there_and_back(datatype: str, request: Callable[[NDArray[Any]], Any]) -> Callable[[Bench], Finding]:
    def probe(bench: Bench) -> Finding:
        if not bench.offers(identity_model(datatype)):
            return not_offered(f"no model {identity_model(datatype)}")
        try:
            array = sample(datatype)
        except DependencyError as error:
            return not_offered(f"this side: {error.message}")
        answer = bench.infer(request(array))
        if not answer.ok:
            return failed(str(answer))
        found = outputs_of(answer).get("OUTPUT0")
        if found is None:
            return failed("no readable OUTPUT0")
        return judged(_equal(found, array), " ".join(f"{found.dtype} {found.tolist()}".split())[:90])

    return probe


def _equal(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return bool(np.array_equal(found, expected, equal_nan=is_float(expected.dtype)))


def _not_text(bench: Bench) -> Finding:
    if not bench.offers(identity_model("BYTES")):
        return not_offered(f"no model {identity_model('BYTES')}")
    array = np.array([[b"\xff\xfe", b"\x80"]], object)
    answer = bench.infer(with_raw(identity_model("BYTES"), {"INPUT0": array}))
    if answer.code == "INVALID_ARGUMENT":
        return not_offered(str(answer))
    found = outputs_of(answer).get("OUTPUT0")
    return failed(str(answer)) if found is None else judged(_equal(found, array), str(found.tolist()))


def _simple(backwards: bool) -> Callable[[Bench], Finding]:
    def probe(bench: Bench) -> Finding:
        if not bench.offers(SIMPLE):
            return not_offered(f"no model {SIMPLE}")
        rows = np.arange(16, dtype=np.int32).reshape(1, 16)
        feeds = {"INPUT0": rows, "INPUT1": np.full((1, 16), 3, np.int32)}
        answer = bench.infer(with_raw(SIMPLE, dict(reversed(feeds.items())) if backwards else feeds))
        found = outputs_of(answer)
        expected = {"OUTPUT0": rows + 3, "OUTPUT1": rows - 3}
        right = found.keys() == expected.keys() and all(_equal(found[name], expected[name]) for name in expected)
        return judged(right, ", ".join(f"{name} {array.ravel()[:3]}…" for name, array in found.items()) or str(answer))

    return probe


CHECKS = (
    *(
        Check(
            f"datatype.{datatype.lower()}.raw",
            Source.TRITON if datatype == "BYTES" else Source.OIP,
            "each BYTES element has its length in front, 4 bytes, little-endian"
            if datatype == "BYTES"
            else "raw contents of this datatype",
            "the same back",
            _raw(datatype),
        )
        for datatype in DATATYPES
    ),
    *(
        Check(
            f"datatype.{datatype.lower()}.typed",
            Source.OIP,
            "typed contents of this datatype",
            "the same back",
            _typed(datatype),
        )
        for datatype in DATATYPES
        if datatype not in RAW_ONLY
    ),
    Check(
        "datatype.bytes.not-text",
        Source.TRITON,
        "BYTES need not be UTF-8; a model of text may refuse",
        "the same back, or INVALID_ARGUMENT",
        _not_text,
    ),
    Check("simple.forward", Source.OIP, "two inputs in the metadata's order", "sum and difference", _simple(False)),
    Check("simple.backward", Source.OIP, "two inputs in the other order", "sum and difference", _simple(True)),
)
