"""What gRPC itself asks of a server, and what callers that leave may do to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tidegate.conformance.bench import Bench, offered, outputs_of, same
from tidegate.conformance.check import Check, Finding, Source, failed, judged, not_offered
from tidegate.conformance.inference import needs_model
from tidegate.wire.messages import SERVICE_NAME

LEAVING = 64

HASTE_S = 0.001
"""A deadline that most of so many requests at once cannot meet."""

HEALTH_PATH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""HealthCheckResponse with status (field 1) SERVING (1)."""

REFLECTION_PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
LIST_SERVICES = b"\x3a\x01*"
"""ServerReflectionRequest with list_services (field 7), whose text counts for nothing."""


def _unknown_method(bench: Bench) -> Finding:
    answer = bench.peer.call_raw(f"/{SERVICE_NAME}/NoSuchMethod", b"")
    return judged(answer.code == "UNIMPLEMENTED", str(answer))


def _health(bench: Bench) -> Finding:
    answer = bench.peer.call_raw(HEALTH_PATH, b"")
    if not answer.ok:
        return offered(answer) or failed(str(answer))
    return judged(answer.response == SERVING, f"answer {answer.response.hex()}, SERVING is {SERVING.hex()}")


def _health_unknown(bench: Bench) -> Finding:
    service = b"no.such.Service"
    answer = bench.peer.call_raw(HEALTH_PATH, b"\x0a" + bytes([len(service)]) + service)
    return offered(answer) or judged(answer.code == "NOT_FOUND", str(answer))


def _reflection(bench: Bench) -> Finding:
    for path in REFLECTION_PATHS:
        (answer, *_) = [*bench.peer.stream_raw(path, [LIST_SERVICES], None), None]
        if answer is None or answer.code == "UNIMPLEMENTED":
            continue
        if not answer.ok:
            return failed(str(answer))
        return judged(SERVICE_NAME.encode() in answer.response, f"{len(answer.response)} bytes of names")
    return not_offered("UNIMPLEMENTED")


@needs_model
def _deadline(bench: Bench) -> Finding:
    futures = [bench.peer.begin(bench.subject.request(), timeout_s=HASTE_S) for _ in range(LEAVING)]
    codes = Counter(bench.peer.finished(future).code for future in futures)
    shown = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
    return judged(codes.keys() <= {"OK", "DEADLINE_EXCEEDED"} and _serves(bench), f"{shown}, then {_served(bench)}")


@needs_model
def _leaving(bench: Bench) -> Finding:
    futures = [bench.peer.begin(bench.subject.request()) for _ in range(LEAVING)]
    for future in futures:
        future.cancel()
    return judged(_serves(bench), f"{LEAVING} callers left, then {_served(bench)}")


def _serves(bench: Bench) -> bool:
    return same(outputs_of(bench.infer(bench.subject.request())), outputs_of(bench.good))


def _served(bench: Bench) -> str:
    return bench.infer(bench.subject.request()).code


def _check(name: str, rule: str, expected: str, probe: Callable[[Bench], Finding]) -> Check:
    return Check(name, Source.GRPC, rule, expected, probe)


CHECKS = (
    _check("grpc.unknown-method", "status of a method that is not there", "UNIMPLEMENTED", _unknown_method),
    _check("grpc.deadline", "deadlines too short for all", "OK or DEADLINE_EXCEEDED, then OK", _deadline),
    _check("grpc.cancel", "callers that leave take nothing with them", "OK afterwards", _leaving),
    _check("grpc.health", "grpc.health.v1, the server as a whole", "SERVING", _health),
    _check("grpc.health.unknown", "grpc.health.v1, a service that is not there", "NOT_FOUND", _health_unknown),
    _check("grpc.reflection", "grpc.reflection", "lists the service", _reflection),
)
