"""All checks, and one run of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidegate.bundle.manifest import TensorSpec
from tidegate.client.settings import TlsSettings, Token
from tidegate.conformance import datatypes, extensions, health, inference, refusals, service
from tidegate.conformance.bench import Bench
from tidegate.conformance.check import Check, Result, Source, Verdict
from tidegate.conformance.peer import Peer
from tidegate.conformance.subject import Subject, subject_of
from tidegate.errors import ConfigError, NotFoundError, UnavailableError
from tidegate.wire import messages

CHECKS: tuple[Check, ...] = (
    *health.CHECKS,
    *inference.CHECKS,
    *refusals.CHECKS,
    *datatypes.CHECKS,
    *extensions.CHECKS,
    *service.CHECKS,
)


@dataclass(frozen=True)
class Run:
    """What one run found."""

    target: str
    server: str
    """name and version, as it says of itself"""
    model: str
    results: tuple[Result, ...]

    def count(self, verdict: Verdict, source: Source | None = None) -> int:
        """Return how many checks ended so, of one source or of all."""
        return Counter(result.finding.verdict for result in self.results if source in (None, result.check.source))[
            verdict
        ]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.count(Verdict.FAIL)


def run(
    target: str,
    *,
    model: str = "",
    inputs: Sequence[TensorSpec] = (),
    sources: Iterable[Source] = tuple(Source),
    control: bool = False,
    timeout_s: float = 30.0,
    tls: TlsSettings | None = None,
    token: Token | None = None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> Run:
    """Ask a server everything.

    Args:
        target: HOST:PORT, or unix:PATH.
        model: the model that requests are made for; empty for the first that the server's index says is ready.
        inputs: replace what its metadata says of inputs, or stand in for what it does not say.
        sources: whose checks to ask.
        control: whether the model may be unloaded and loaded.
        timeout_s: for each call.
        tls: encryption; None for plaintext.
        token: bearer token, sent with each call; where keys have roles, one that may do all that is asked.
        on_result: told after each check.

    Raises:
        UnavailableError: nobody answers, or the two ends do not agree on encryption.
        AccessError: the server asks for a key, and this is none.
        NotFoundError: there is no such model, or a TLS file is not there.
        ConfigError: no model is named, and the server has no index to choose from; or a TLS file cannot be used.
        DependencyError: grpcio is not installed.
    """
    wanted = set(sources)
    with Peer(target, timeout_s=timeout_s, tls=tls, token=token) as peer:
        peer.connect()
        subject = _subject(peer, model or _first_model(peer), {spec.name: spec for spec in inputs})
        bench = Bench(peer, subject, control)
        results = []
        for check in CHECKS:
            if check.source not in wanted:
                continue
            result = Result(check, check.probe(bench))
            results.append(result)
            on_result(result)
        return Run(target, _server(peer), subject.name, tuple(results))


def _first_model(peer: Peer) -> str:
    answer = peer.call("RepositoryIndex", messages.RepositoryIndexRequest(ready=True))
    names = [model.name for model in answer.response.models if model.state == "READY"] if answer.ok else []
    if not names:
        raise ConfigError(
            f"{peer.target} lists no model that is ready ({answer.code})", fix="name a model with --model NAME"
        )
    return str(names[0])


def _subject(peer: Peer, model: str, overrides: Mapping[str, TensorSpec]) -> Subject:
    answer = peer.call("ModelMetadata", messages.ModelMetadataRequest(name=model))
    if answer.code == "UNAVAILABLE":
        raise UnavailableError(f"{peer.target}: {answer.details}", fix="start the server, or correct the address")
    if not answer.ok and not overrides:
        raise NotFoundError(
            f"{peer.target} gives no metadata of model {model!r}: {answer}",
            fix="name a model that the server has, or its inputs with --input",
        )
    metadata = answer.response if answer.ok else messages.ModelMetadataResponse()
    found = subject_of(metadata, overrides)
    return Subject(model, found.versions, found.inputs, found.outputs)


def _server(peer: Peer) -> str:
    answer = peer.call("ServerMetadata")
    return f"{answer.response.name} {answer.response.version}".strip() if answer.ok else "unknown"
