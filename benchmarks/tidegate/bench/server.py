"""Benchmark a model on a running server, from one or several callers in this process."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidegate.bench.child import Observer, Progress
from tidegate.bench.environment import Probe
from tidegate.bench.figures import Timed, joined, result_of_server
from tidegate.bench.inputs import read_arrays
from tidegate.bench.report import SCHEMA, ColdStart, Report, Subject, now, worst_verdict
from tidegate.bench.scenario import concurrent_streams
from tidegate.bench.system.grpc import GrpcSystem
from tidegate.client import Client, ModelDescription, TlsSettings
from tidegate.client.settings import Token
from tidegate.errors import ConfigError, InputError, NotFoundError, TidegateError
from tidegate.runtime.feeds import make_feeds
from tidegate.runtime.timing import Plan, WarmUp, expected_duration_s, harness_floor_ns, warm_up


@dataclass(frozen=True)
class ServerOptions:
    """What to ask of which server."""

    target: str
    """HOST:PORT"""
    model: str = ""
    """name; empty for the server's only one"""
    version: str = ""
    """empty for the server's choice"""
    batch: int | None = None
    """rows per call"""
    input_file: str | None = None
    """an .npz with one array per input"""
    timeout_s: float = 5.0
    """deadline of each call"""
    tls: TlsSettings | None = None
    """encryption; None for plaintext"""
    token: Token | None = None
    """bearer token, or key of the server"""
    plan: Plan = field(default_factory=Plan)
    keep_samples: bool = True
    """put every latency into the report"""


@dataclass(frozen=True)
class _Run:
    """The timed calls of all callers."""

    timed: Timed
    errors: Counter[str]
    gave_up: bool


def bench_server(
    options: ServerOptions, observer: Observer = lambda progress: None, tick_s: float | None = None
) -> Report:
    """Ask the server for the model's signature, make inputs for it, warm up, call, report.

    Args:
        observer: told of the warm-up and of the timed calls.
        tick_s: how often it is told in between; None for not at all.

    Raises:
        UnavailableError: the server cannot be reached at all.
        NotFoundError: it has no such model or version, or a TLS file is not there.
        AccessError: it does not let the token in.
        ConfigError, InputError: the options do not fit the model.
    """
    started = now()
    probe = Probe()
    machine = probe.machine()
    given = read_arrays(options.input_file)
    clients = [_client(options) for _ in range(options.plan.concurrency)]
    try:
        started_ns = time.perf_counter_ns()
        clients[0].live()
        connect_ns = time.perf_counter_ns() - started_ns
        description = _describe(clients[0], options)
        feeds = make_feeds(description.signature, batch=options.batch, given=given)
        systems = [GrpcSystem(client, description.name, options.version, feeds.arrays) for client in clients]
        cold = ColdStart(load_ns=connect_ns, first_call_ns=_first_calls_ns(systems))
        observer(Progress(description.name, "warming", os.getpid(), 0, options.plan.warm_up_s))
        warm = warm_up(systems[0], options.plan)
        watch = _Watch(description.name, expected_duration_s(options.plan, warm), observer)
        run = _timed(systems, options.plan, warm, probe, watch, tick_s)
    finally:
        for client in clients:
            client.close()
    result = result_of_server(
        description.name,
        run.timed,
        platform=description.platform,
        input=feeds.record,
        cold_start=cold,
        warm_up_calls=warm.calls,
        errors=run.errors,
        gave_up=run.gave_up,
        harness_floor_ns=harness_floor_ns(),
        keep_samples=options.keep_samples,
    )
    return Report(
        schema=SCHEMA,
        started=started,
        subject=Subject(
            kind="server",
            source=options.target,
            name=description.name,
            version=options.version or ", ".join(description.versions),
        ),
        scenario="single-stream" if options.plan.concurrency == 1 else "concurrent",
        plan=options.plan,
        machine=machine,
        trust=worst_verdict((result,)),
        results=(result,),
    )


def _client(options: ServerOptions) -> Client:
    return Client(options.target, timeout_s=options.timeout_s, tls=options.tls, token=options.token)


def _describe(client: Client, options: ServerOptions) -> ModelDescription:
    try:
        return client.model_metadata(options.model, options.version)
    except (InputError, NotFoundError) as error:
        if options.model:
            raise
        raise ConfigError(
            f"the server at {options.target} does not choose a model by itself: {error.message}",
            fix="name one with --model",
        ) from error


def _first_calls_ns(systems: Sequence[GrpcSystem]) -> int:
    """Let every caller connect and call once; return how long the first one's call took."""
    started_ns = time.perf_counter_ns()
    systems[0].call()
    first_ns = time.perf_counter_ns() - started_ns
    for system in systems[1:]:
        system.call()
    return first_ns


class _Watch:
    """Tells the observer how far the timed calls are."""

    def __init__(self, name: str, expected_s: float, observer: Observer) -> None:
        self._name = name
        self._expected_s = expected_s
        self._observer = observer
        self._since_s = time.monotonic()

    def tick(self) -> None:
        elapsed_s = time.monotonic() - self._since_s
        self._observer(Progress(self._name, "timing", os.getpid(), elapsed_s, self._expected_s))


def _timed(
    systems: Sequence[GrpcSystem], plan: Plan, warm: WarmUp, probe: Probe, watch: _Watch, tick_s: float | None
) -> _Run:
    before = probe.moment()
    cpu_before_ns, started_ns = time.process_time_ns(), time.perf_counter_ns()
    recordings = concurrent_streams(systems, plan, warm, tolerated=(TidegateError,), on_tick=watch.tick, tick_s=tick_s)
    elapsed_ns, cpu_ns = time.perf_counter_ns() - started_ns, time.process_time_ns() - cpu_before_ns
    after = probe.moment()
    latencies_ns, blocks, errors = joined(recordings)
    return _Run(
        timed=Timed(latencies_ns, blocks, elapsed_ns, cpu_ns, before, after),
        errors=errors,
        gave_up=any(recording.stopped_by == "unavailable" for recording in recordings),
    )
