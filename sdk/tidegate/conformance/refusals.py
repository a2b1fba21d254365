"""Wrong requests: each has to be refused before the model sees it, and the server has to go on serving.

A rule that the protocol states gives two rows: that the request is refused (OIP), and with which status (Triton, since
the protocol names none). A rule that only Triton states gives one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidegate.conformance.bench import UNKNOWN_MODEL, UNKNOWN_VERSION, Bench
from tidegate.conformance.check import Check, Finding, Source, judged, not_offered
from tidegate.conformance.inference import needs_model
from tidegate.conformance.subject import RAW_ONLY, Subject
from tidegate.wire.tensors import write_inputs

INVALID = "INVALID_ARGUMENT"


@dataclass(frozen=True)
class Wrong:
    """A request with one thing wrong."""

    name: str
    rule: str
    make: Callable[[Subject], Any]
    """None: this model gives no occasion for it"""
    stated: bool = True
    """whether the protocol's text states the rule"""
    code: str = INVALID
    """Triton's; empty where it has none worth following"""


def _raw_and_typed(subject: Subject) -> Any:
    if not subject.typed_possible:
        return None
    request = subject.request()
    for tensor, typed in zip(request.inputs, subject.typed_request().inputs, strict=True):
        tensor.contents.CopyFrom(typed.contents)
    return request


def _raw_length(change: int) -> Callable[[Subject], Any]:
    def make(subject: Subject) -> Any:
        request = subject.request()
        raw = request.raw_input_contents[0]
        request.raw_input_contents[0] = raw + b"\0" * change if change > 0 else raw[:change]
        return request

    return make


def _one_raw_more(subject: Subject) -> Any:
    return subject.changed(lambda request: request.raw_input_contents.append(request.raw_input_contents[0]))


def _one_raw_less(subject: Subject) -> Any:
    if len(subject.inputs) < 2:
        return None
    return subject.changed(lambda request: request.raw_input_contents.pop())


def _typed_length(more: bool) -> Callable[[Subject], Any]:
    def make(subject: Subject) -> Any:
        if not subject.typed_possible:
            return None
        request = subject.typed_request()
        ((_, values),) = request.inputs[0].contents.ListFields()
        values.append(values[0]) if more else values.pop()
        return request

    return make


def _no_data(subject: Subject) -> Any:
    return subject.changed(lambda request: request.ClearField("raw_input_contents"))


def _typed_in_another_field(subject: Subject) -> Any:
    if not subject.typed_possible:
        return None
    request = subject.typed_request()
    contents = request.inputs[0].contents
    ((field, values),) = contents.ListFields()
    count = len(values)
    contents.Clear()
    other = contents.fp64_contents if field.name != "fp64_contents" else contents.int64_contents
    other.extend([1] * count)
    return request


def _typed_raw_only(subject: Subject) -> Any:
    if all(spec.dtype not in RAW_ONLY for spec in subject.inputs):
        return None
    request = subject.request()
    del request.raw_input_contents[:]
    for tensor, array in zip(request.inputs, subject.feeds().values(), strict=True):
        tensor.contents.fp32_contents.extend([1.0] * array.size)
    return request


def _another_size(subject: Subject) -> Any:
    for index, spec in enumerate(subject.inputs):
        axis = next((axis for axis, size in enumerate(spec.shape) if size > 0), None)
        if axis is None:
            continue
        feeds = subject.feeds()
        feeds[spec.name] = np.repeat(feeds[spec.name], 2, axis)
        request = subject.request()
        del request.inputs[:], request.raw_input_contents[:]
        write_inputs(request, feeds)
        assert request.inputs[index].name == spec.name
        return request
    return None


def _another_rank(subject: Subject) -> Any:
    return subject.changed(lambda request: request.inputs[0].shape.insert(0, 1))


def _another_datatype(subject: Subject) -> Any:
    """Keep the number of bytes right, so that only the datatype is wrong."""
    other = {"FP32": "INT32", "INT32": "FP32", "FP64": "INT64", "INT64": "FP64", "FP16": "INT16", "INT16": "FP16"}
    other |= {
        "UINT8": "INT8",
        "INT8": "UINT8",
        "BOOL": "UINT8",
        "UINT16": "INT16",
        "UINT32": "INT32",
        "UINT64": "INT64",
    }
    datatype = other.get(subject.inputs[0].dtype)
    if datatype is None:
        return None
    return subject.changed(lambda request: setattr(request.inputs[0], "datatype", datatype))


def _no_such_datatype(subject: Subject) -> Any:
    return subject.changed(lambda request: setattr(request.inputs[0], "datatype", "FLOAT"))


def _negative_size(subject: Subject) -> Any:
    if not subject.inputs[0].shape:
        return None
    return subject.changed(lambda request: request.inputs[0].shape.__setitem__(0, -1))


def _overflowing_size(subject: Subject) -> Any:
    """Two sizes whose product is 2 to the 64th, so 0 in 64 bits: a size check that overflows lets it through."""
    rank = len(subject.inputs[0].shape)
    if rank < 2:
        return None

    def change(request: Any) -> None:
        request.inputs[0].shape[:] = [2**32, 2**32, *[1] * (rank - 2)]
        request.raw_input_contents[0] = b""

    return subject.changed(change)


def _another_input_name(subject: Subject) -> Any:
    return subject.changed(lambda request: setattr(request.inputs[0], "name", "no-such-input"))


def _input_too_many(subject: Subject) -> Any:
    return subject.changed(lambda request: write_inputs(request, {"no-such-input": np.ones((1, 1), np.float32)}))


def _input_twice(subject: Subject) -> Any:
    (name, array), *_ = subject.feeds().items()
    return subject.changed(lambda request: write_inputs(request, {name: array}))


def _input_missing(subject: Subject) -> Any:
    def change(request: Any) -> None:
        del request.inputs[-1], request.raw_input_contents[-1]

    return subject.changed(change)


def _bytes_overrun(subject: Subject) -> Any:
    if subject.inputs[0].dtype != "BYTES":
        return None
    return subject.changed(lambda request: request.raw_input_contents.__setitem__(0, b"\xff\xff\xff\x7f1"))


WRONG = (
    Wrong(
        "unknown-model",
        "only OK means success",
        lambda subject: subject.changed(lambda request: setattr(request, "model_name", UNKNOWN_MODEL)),
        code="NOT_FOUND",
    ),
    Wrong(
        "unknown-version",
        "a version that is named is the one that runs",
        lambda subject: subject.request(model_version=UNKNOWN_VERSION),
        code="NOT_FOUND",
    ),
    Wrong(
        "unknown-output",
        "a requested output names an output of the model",
        lambda subject: subject.request(outputs=[{"name": "no-such-output"}]),
        stated=False,
    ),
    Wrong("raw-and-typed", "raw contents exclude typed ones", _raw_and_typed),
    Wrong("raw-short", "the size of raw contents fits shape and datatype", _raw_length(-1)),
    Wrong("raw-long", "the size of raw contents fits shape and datatype", _raw_length(4)),
    Wrong("raw-one-more", "one raw entry for each input", _one_raw_more),
    Wrong("raw-one-less", "one raw entry for each input", _one_raw_less),
    Wrong("typed-few", "as many elements as the shape says", _typed_length(more=False)),
    Wrong("typed-many", "as many elements as the shape says", _typed_length(more=True)),
    Wrong("no-data", "each input has contents", _no_data),
    Wrong("typed-field", "each datatype has its field", _typed_in_another_field),
    Wrong("typed-fp16", "FP16 and BF16 travel raw", _typed_raw_only),
    Wrong("size", "shapes fit the metadata", _another_size, stated=False),
    Wrong("rank", "shapes fit the metadata", _another_rank, stated=False),
    Wrong("datatype", "datatypes are those of the metadata", _another_datatype, stated=False),
    Wrong("datatype-word", "datatypes are those of the protocol's table", _no_such_datatype),
    Wrong("negative-size", "-1 stands in metadata only", _negative_size, stated=False),
    Wrong("overflowing-size", "the size of raw contents fits shape and datatype", _overflowing_size),
    Wrong("input-name", "inputs are those of the metadata", _another_input_name, stated=False),
    Wrong("input-extra", "inputs are those of the metadata", _input_too_many, stated=False),
    Wrong("input-twice", "inputs are those of the metadata", _input_twice, stated=False),
    Wrong("input-missing", "inputs are those of the metadata", _input_missing, stated=False),
    Wrong("bytes-overrun", "a length in BYTES stays inside the contents", _bytes_overrun, stated=False),
    Wrong("not-protobuf", "a request is a message", lambda subject: b"\x0a\xff\xff\xff\xff\x0f", code="", stated=True),
)


def _probe(wrong: Wrong, code: str) -> Callable[[Bench], Finding]:
    @needs_model
    def probe(bench: Bench) -> Finding:
        request = wrong.make(bench.subject)
        if request is None:
            return not_offered("this model gives no occasion for it")
        answer = bench.ask_wrong(wrong.name, request)
        return judged(answer.code == code if code else not answer.ok, str(answer))

    return probe


def _checks(wrong: Wrong) -> tuple[Check, ...]:
    name = f"refuse.{wrong.name}"
    rows = []
    if wrong.stated:
        rows.append(Check(name, Source.OIP, wrong.rule, "refused", _probe(wrong, "")))
    if wrong.code:
        with_code = f"{name}.code" if wrong.stated else name
        rows.append(Check(with_code, Source.TRITON, wrong.rule, wrong.code, _probe(wrong, wrong.code)))
    return tuple(rows)


@needs_model
def _still_serving(bench: Bench) -> Finding:
    lost = bench.not_serving_after
    return judged(not lost, f"no more after {', '.join(lost)}" if lost else f"good after each of {bench.refused}")


CHECKS = (
    *(check for wrong in WRONG for check in _checks(wrong)),
    Check(
        "refuse.still-serving",
        Source.OIP,
        "a refused request is nobody else's trouble",
        "a good request is answered after each",
        _still_serving,
    ),
)
