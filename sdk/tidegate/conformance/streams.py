"""Triton's ModelStreamInfer, where a server offers it."""

from __future__ import annotations

from typing import Any

from tidegate.conformance.bench import UNKNOWN_MODEL, Bench, offered, outputs_of, same
from tidegate.conformance.check import Check, Finding, Source, failed, judged
from tidegate.conformance.inference import needs_model
from tidegate.conformance.peer import Answer

IN_FLIGHT = 20


def _streamed(bench: Bench, name: str, requests: list[Any]) -> list[Answer]:
    answers: list[Answer] = []

    def ask() -> Answer:
        answers.extend(bench.peer.stream(requests))
        return Answer("OK", response=answers)

    found: list[Answer] = bench.once(f"stream {name}", ask).response
    return found


def _no_stream(answers: list[Answer]) -> Finding | None:
    if not answers:
        return failed("the stream ended without an answer")
    return offered(answers[0])


@needs_model
def _stream_answers(bench: Bench) -> Finding:
    answers = _streamed(bench, "one", [bench.subject.request(id="s1")])
    if (nothing := _no_stream(answers)) is not None:
        return nothing
    if not answers[0].ok:
        return failed(str(answers[0]))
    response = answers[0].response
    if response.error_message:
        return failed(f"error_message {response.error_message[:60]!r}")
    right = same(outputs_of(Answer("OK", response=response.infer_response)), outputs_of(bench.good))
    return judged(right and response.infer_response.id == "s1", f"id {response.infer_response.id!r}, outputs {right}")


@needs_model
def _stream_survives(bench: Bench) -> Finding:
    subject = bench.subject
    wrong = subject.changed(lambda request: setattr(request, "model_name", UNKNOWN_MODEL))
    answers = _streamed(bench, "error", [wrong, subject.request(id="after")])
    if (nothing := _no_stream(answers)) is not None:
        return nothing
    if len(answers) < 2 or not answers[0].ok or not answers[1].ok:
        return failed("; ".join(map(str, answers)))
    first, second = sorted((answer.response for answer in answers), key=lambda response: not response.error_message)
    told = bool(first.error_message) and not second.error_message and second.infer_response.id == "after"
    return judged(told, f"{first.error_message[:40]!r}, then id {second.infer_response.id!r}")


@needs_model
def _stream_many(bench: Bench) -> Finding:
    wanted = {f"m{number}" for number in range(IN_FLIGHT)}
    answers = _streamed(bench, "many", [bench.subject.request(id=name) for name in sorted(wanted)])
    if (nothing := _no_stream(answers)) is not None:
        return nothing
    found = {answer.response.infer_response.id for answer in answers if answer.ok}
    return judged(found == wanted, f"{len(found & wanted)} of {IN_FLIGHT} ids came back")


_RULE = "ModelStreamInfer"

CHECKS = (
    Check("stream.answers", Source.TRITON, _RULE, "infer_response with id and outputs", _stream_answers),
    Check("stream.survives", Source.TRITON, _RULE, "error_message, then the next answer", _stream_survives),
    Check("stream.many", Source.TRITON, _RULE, "an answer for each", _stream_many),
)
