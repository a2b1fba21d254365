"""Liveness, readiness and metadata."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.conformance.bench import UNKNOWN_MODEL, UNKNOWN_VERSION, Bench
from tidegate.conformance.check import Check, Finding, Source, judged
from tidegate.conformance.peer import Answer
from tidegate.wire import messages


def _live(bench: Bench) -> Finding:
    answer = bench.peer.call("ServerLive")
    return judged(answer.ok and answer.response.live, _flag(answer, "live"))


def _ready(bench: Bench) -> Finding:
    answer = bench.peer.call("ServerReady")
    return judged(answer.ok and answer.response.ready, _flag(answer, "ready"))


def _model_ready(bench: Bench) -> Finding:
    answer = _ask_ready(bench, bench.subject.name)
    return judged(answer.ok and answer.response.ready, _flag(answer, "ready"))


def _unknown_model_ready(bench: Bench) -> Finding:
    answer = _ask_ready(bench, UNKNOWN_MODEL)
    return judged(answer.ok and not answer.response.ready, _flag(answer, "ready"))


def _unknown_version_ready(bench: Bench) -> Finding:
    answer = _ask_ready(bench, bench.subject.name, UNKNOWN_VERSION)
    return judged(not answer.ok or not answer.response.ready, _flag(answer, "ready"))


def _server_metadata(bench: Bench) -> Finding:
    answer = bench.peer.call("ServerMetadata")
    if not answer.ok:
        return judged(False, str(answer))
    found = answer.response
    return judged(bool(found.name and found.version), f"{found.name or 'no name'} {found.version or 'no version'}")


def _metadata_field(name: str) -> Callable[[Bench], Finding]:
    def probe(bench: Bench) -> Finding:
        answer = _ask_metadata(bench, bench.subject.name)
        if not answer.ok:
            return judged(False, str(answer))
        value = getattr(answer.response, name)
        if isinstance(value, str):
            return judged(bool(value), value or "empty")
        words = [item if isinstance(item, str) else f"{item.name} {item.datatype} {list(item.shape)}" for item in value]
        return judged(bool(words) and all(words), ", ".join(words) or "empty")

    return probe


def _metadata_refused(model: str, version: str, code: str) -> Callable[[Bench], Finding]:
    def probe(bench: Bench) -> Finding:
        answer = _ask_metadata(bench, model or bench.subject.name, version)
        return judged(answer.code == code if code else not answer.ok, str(answer))

    return probe


def _ask_ready(bench: Bench, name: str, version: str = "") -> Answer:
    return bench.peer.call("ModelReady", messages.ModelReadyRequest(name=name, version=version))


def _ask_metadata(bench: Bench, name: str, version: str = "") -> Answer:
    request = messages.ModelMetadataRequest(name=name, version=version)
    return bench.once(f"metadata {name} {version}", lambda: bench.peer.call("ModelMetadata", request))


def _flag(answer: Answer, name: str) -> str:
    return f"{name}: {str(getattr(answer.response, name)).lower()}" if answer.ok else str(answer)


_HEALTH = "health APIs are part of every server"
_METADATA = "metadata APIs are part of every server"
_NAMED = "metadata has the model's {}"

CHECKS = (
    Check("server.live", Source.OIP, _HEALTH, "live: true", _live),
    Check("server.ready", Source.OIP, _HEALTH, "ready: true", _ready),
    Check("model.ready", Source.OIP, _HEALTH, "ready: true", _model_ready),
    Check(
        "model.ready.unknown-model",
        Source.TRITON,
        "a model that is not there is not ready; that is no error",
        "ready: false",
        _unknown_model_ready,
    ),
    Check(
        "model.ready.unknown-version",
        Source.OIP,
        "a version that is named is the one that is asked about",
        "ready: false, or refused",
        _unknown_version_ready,
    ),
    Check("server.metadata", Source.OIP, _METADATA, "name and version", _server_metadata),
    *(
        Check(f"model.metadata.{name}", source, _NAMED.format(name), "not empty", _metadata_field(name))
        for name, source in (
            ("name", Source.OIP),
            ("versions", Source.TRITON),  # the protocol calls them optional
            ("platform", Source.OIP),
            ("inputs", Source.OIP),
            ("outputs", Source.OIP),
        )
    ),
    Check(
        "model.metadata.unknown-model.refused",
        Source.OIP,
        "only OK means success",
        "refused",
        _metadata_refused(UNKNOWN_MODEL, "", ""),
    ),
    Check(
        "model.metadata.unknown-model.code",
        Source.TRITON,
        "status NOT_FOUND",
        "NOT_FOUND",
        _metadata_refused(UNKNOWN_MODEL, "", "NOT_FOUND"),
    ),
    Check(
        "model.metadata.unknown-version.refused",
        Source.OIP,
        "a version that is named is the one that is asked about",
        "refused",
        _metadata_refused("", UNKNOWN_VERSION, ""),
    ),
    Check(
        "model.metadata.unknown-version.code",
        Source.TRITON,
        "status NOT_FOUND",
        "NOT_FOUND",
        _metadata_refused("", UNKNOWN_VERSION, "NOT_FOUND"),
    ),
)
