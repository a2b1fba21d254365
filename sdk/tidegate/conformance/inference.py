"""Good requests: what a correct answer has to hold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import is_float
from tidegate.bundle.manifest import TensorSpec
from tidegate.conformance.bench import Bench, has_typed, outputs_of, outputs_read, same
from tidegate.conformance.check import Check, Finding, Source, failed, judged, not_offered
from tidegate.conformance.subject import with_raw
from tidegate.errors import InputError

CALLERS = 16
CALLS_EACH = 4

Probe = Callable[[Bench], Finding]


def needs_model(probe: Probe) -> Probe:
    """Return a probe that has nothing to judge while good requests are not answered."""

    @functools.wraps(probe)
    def guarded(bench: Bench) -> Finding:
        return bench.unusable() or probe(bench)

    return guarded


def _raw(bench: Bench) -> Finding:
    if not bench.subject.inputs:
        return not_offered("the metadata names no inputs; name them with --input")
    return _as_described(bench, bench.good)


@needs_model
def _typed(bench: Bench) -> Finding:
    if not bench.subject.typed_possible:
        return not_offered("an input of this model travels raw only")
    answer = bench.infer(bench.subject.typed_request())
    if not answer.ok:
        return failed(str(answer))
    return judged(same(outputs_of(answer), outputs_of(bench.good)), _shown(outputs_of(answer)))


def _identity(wanted: str) -> Probe:
    @needs_model
    def probe(bench: Bench) -> Finding:
        answer = bench.infer(bench.subject.request(id=wanted))
        found = repr(answer.response.id) if answer.ok else str(answer)
        return judged(answer.ok and answer.response.id == wanted, found)

    return probe


@needs_model
def _model_name(bench: Bench) -> Finding:
    found = bench.good.response.model_name
    return judged(found == bench.subject.name, repr(found))


@needs_model
def _model_version(bench: Bench) -> Finding:
    found = bench.good.response.model_version
    return judged(bool(found), repr(found))


@needs_model
def _each_version(bench: Bench) -> Finding:
    versions = bench.subject.versions
    if not versions:
        return not_offered("the metadata names no versions")
    answers = {version: bench.infer(bench.subject.request(model_version=version)) for version in versions}
    wrong = [
        f"{version}: {answer.response.model_version!r} answered" if answer.ok else f"{version}: {answer}"
        for version, answer in answers.items()
        if not answer.ok or answer.response.model_version not in ("", version)
    ]
    return judged(not wrong, "; ".join(wrong) or f"{len(versions)} answered")


@needs_model
def _one_output(bench: Bench) -> Finding:
    names = _output_names(bench)
    if len(names) < 2:
        return not_offered("the model has one output")
    answer = bench.infer(bench.subject.request(outputs=[{"name": names[-1]}]))
    return _output_order(answer, [names[-1]])


@needs_model
def _outputs_in_order(bench: Bench) -> Finding:
    names = _output_names(bench)
    if len(names) < 2:
        return not_offered("the model has one output")
    wanted = names[::-1]
    answer = bench.infer(bench.subject.request(outputs=[{"name": name} for name in wanted]))
    return _output_order(answer, wanted)


def _output_order(answer: Any, wanted: list[str]) -> Finding:
    if not answer.ok:
        return failed(str(answer))
    found = [output.name for output in answer.response.outputs]
    return judged(found == wanted, ", ".join(found))


@needs_model
def _raw_or_typed(bench: Bench) -> Finding:
    response = bench.good.response
    typed = [output.name for output in response.outputs if has_typed(output)]
    raws = len(response.raw_output_contents)
    fits = not typed if raws else len(typed) == len(response.outputs)
    return judged(fits and raws in (0, len(response.outputs)), f"{raws} raw, {len(typed)} typed")


@needs_model
def _input_order(bench: Bench) -> Finding:
    if len(bench.subject.inputs) < 2:
        return not_offered("the model has one input")
    feeds = _distinct(bench)
    forward = bench.infer(with_raw(bench.subject.name, feeds))
    answer = bench.infer(with_raw(bench.subject.name, dict(reversed(feeds.items()))))
    if not forward.ok or not answer.ok:
        return failed(str(answer if forward.ok else forward))
    return judged(same(outputs_of(answer), outputs_of(forward)), _shown(outputs_of(answer)))


@needs_model
def _unknown_parameter(bench: Bench) -> Finding:
    request = bench.subject.request()
    request.parameters["conformance_note"].string_param = "for nobody"
    answer = bench.infer(request)
    return judged(answer.ok, str(answer))


@needs_model
def _gzip(bench: Bench) -> Finding:
    answer = bench.infer(bench.subject.request(), gzip=True)
    return judged(same(outputs_of(answer), outputs_of(bench.good)), str(answer))


@needs_model
def _zero_rows(bench: Bench) -> Finding:
    if not bench.subject.batched:
        return not_offered("the first axis of an input is fixed")
    answer = bench.infer(bench.subject.request(rows=0))
    if answer.code == "INVALID_ARGUMENT":
        return judged(True, str(answer))
    sizes = {name: array.shape for name, array in outputs_of(answer).items()}
    shown = ", ".join(f"{name} {list(shape)}" for name, shape in sizes.items())
    return judged(bool(sizes) and all(shape[:1] == (0,) for shape in sizes.values()), shown or str(answer))


@needs_model
def _large(bench: Bench) -> Finding:
    if not bench.subject.batched:
        return not_offered("the first axis of an input is fixed")
    row_bytes = sum(len(raw) for raw in bench.subject.request().raw_input_contents)
    answer = bench.infer(bench.subject.request(rows=5 * 2**20 // max(row_bytes, 1) + 1))
    limited = answer.code == "INVALID_ARGUMENT"
    return judged(answer.ok or limited, str(answer))


@needs_model
def _concurrent(bench: Bench) -> Finding:
    expected = outputs_of(bench.good)
    wanted = [f"{caller}/{call}" for caller in range(CALLERS) for call in range(CALLS_EACH)]
    futures = {name: bench.peer.begin(bench.subject.request(id=name)) for name in wanted}
    wrong = []
    for name, future in futures.items():
        answer = bench.peer.finished(future)
        if not answer.ok:
            wrong.append(str(answer))
        elif answer.response.id != name or not same(outputs_of(answer), expected):
            wrong.append(f"{name} got the answer of {answer.response.id!r}")
    return judged(not wrong, f"{len(wrong)} wrong, such as {wrong[0]}" if wrong else f"{len(wanted)} right")


def _as_described(bench: Bench, answer: Any) -> Finding:
    if not answer.ok:
        return failed(str(answer))
    try:
        found = outputs_read(answer.response)
    except InputError as error:
        return failed(error.message)
    specs = {spec.name: spec for spec in bench.subject.outputs}
    if not specs:
        return judged(bool(found), f"{_shown(found)}; the metadata names no outputs to compare with")
    tensors = {tensor.name: tensor for tensor in answer.response.outputs}
    fits = found.keys() == specs.keys() and all(_fits(spec, tensors[name]) for name, spec in specs.items())
    return judged(fits, _shown(found))


def _fits(spec: TensorSpec, tensor: Any) -> bool:
    shape = tuple(tensor.shape)
    return (
        tensor.datatype == spec.dtype
        and len(shape) == len(spec.shape)
        and all(described in (-1, size) for described, size in zip(spec.shape, shape, strict=True))
    )


def _output_names(bench: Bench) -> list[str]:
    return [output.name for output in bench.good.response.outputs]


def _distinct(bench: Bench) -> dict[str, Any]:
    """Return inputs of unlike values, so that exchanging two of them shows."""
    feeds = bench.subject.feeds()
    for index, (name, array) in enumerate(feeds.items()):
        if array.dtype.kind in "iu" or is_float(array.dtype):
            feeds[name] = np.full_like(array, index + 1)
    return feeds


def _shown(outputs: Any) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in outputs.items()) or "nothing"


CHECKS = (
    Check("infer.raw", Source.OIP, "raw contents, row-major, one entry an input", "outputs as in the metadata", _raw),
    Check("infer.typed", Source.OIP, "typed contents by datatype", "what the raw request got", _typed),
    Check("infer.id", Source.OIP, "an id that is given comes back", "the same id", _identity("conformance-7")),
    Check("infer.id.any-text", Source.OIP, "an id is any text", "the same id", _identity("conformance 7/é")),
    Check("infer.model-name", Source.OIP, "the answer names the model", "the model's name", _model_name),
    Check("infer.model-version", Source.TRITON, "the answer names the version used", "not empty", _model_version),
    Check(
        "infer.each-version", Source.OIP, "a version that is named is the one that runs", "it answers", _each_version
    ),
    Check("infer.one-output", Source.OIP, "outputs that are named are the ones returned", "that one", _one_output),
    Check(
        "infer.output-order", Source.TRITON, "requested outputs keep their order", "in that order", _outputs_in_order
    ),
    Check("infer.raw-or-typed", Source.OIP, "an answer is raw or typed as a whole", "one of the two", _raw_or_typed),
    Check(
        "infer.input-order",
        Source.OIP,
        "raw entries go with inputs by position",
        "the order of inputs counts for nothing",
        _input_order,
    ),
    Check(
        "infer.unknown-parameter", Source.TRITON, "parameters that nobody knows do no harm", "OK", _unknown_parameter
    ),
    Check(
        "infer.zero-rows",
        Source.TRITON,
        "no rows: no rows back, or INVALID_ARGUMENT",
        "[0, …] or INVALID_ARGUMENT",
        _zero_rows,
    ),
    Check("infer.5-mb", Source.TRITON, "messages over 4 MB are taken", "OK, or over the model's batch limit", _large),
    Check(
        "infer.concurrent", Source.OIP, "each answer belongs to its request", "every id with its answer", _concurrent
    ),
    Check("infer.gzip", Source.GRPC, "gzip is a standard compression of gRPC", "OK", _gzip),
)
