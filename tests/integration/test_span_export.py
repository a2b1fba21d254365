"""Spans on their way to a collector: by OpenTelemetry's own service, one trace of many calls, a collector gone."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import TracerProvider
from tests.http_server import call, infer_body
from tests.served import ServerProcess, linear_bundle, server_process
from tests.waiting import wait_until

from tidegate.client import Client
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.cloud.span_export import SpanExport
from tidegate.errors import ConfigError
from tidegate.speech.pcm import int16_from_float32

Say = Callable[..., NDArray[np.float32]]

ROW = np.array([[1, 2, 3, 4]], np.float32)
BODY = infer_body("x", "FP32", [1, 4], [1, 2, 3, 4])
OPTIONS = ("--http", "127.0.0.1:0", "--log-format", "json")
EXIT_S = 60.0


class Collector(TraceServiceServicer):
    """Takes spans as a collector does, by the service of opentelemetry-proto."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []

    def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
        for sent in request.resource_spans:
            self.resources.append({fact.key: fact.value.string_value for fact in sent.resource.attributes})
            for scope in sent.scope_spans:
                self.spans += scope.spans
        return ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, grpc.Server, str]]:
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, server, f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None)


@contextmanager
def warnings() -> Iterator[list[logging.LogRecord]]:
    """What the sender of spans logs, however logging is set up."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = found.append  # type: ignore[method-assign, assignment]
    logger = logging.getLogger("tidegate.cloud.span_export")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def http_address(running: ServerProcess) -> str:
    assert running.process.stdout is not None
    return running.process.stdout.readline().removeprefix("http on ").strip()


def ended_lines(running: ServerProcess) -> list[dict[str, Any]]:
    """The log of a server that has ended."""
    # The C code of grpc writes lines of its own.
    return [json.loads(line) for line in running.diagnostics if line.startswith("{")]


def test_calls_of_every_kind_hang_together_in_one_trace(
    tmp_path: Path, tone_bundle: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("caller")
    with collecting() as (collector, _, endpoint):
        with server_process([linear_bundle(tmp_path), tone_bundle], *OPTIONS, "--traces", endpoint) as running:
            address = http_address(running)
            with Client(running.address) as client, tracer.start_as_current_span("caller") as caller:
                client.infer("linear", {"x": ROW})
                client.recognize_recording(int16_from_float32(say([("yes", 0.5)], 1.5)), sample_rate_hz=16_000)
                headers: dict[str, str] = {}
                inject(headers)
                assert call(address, "POST", "/v2/models/linear/infer", BODY, headers).status == 200
            # A call's own span is the last of it to end, perhaps after the answer.
            wait_until(lambda: [span.name in ("request", "speech") for span in collector.spans].count(True) == 3)
            running.terminate()
            assert running.process.wait(EXIT_S) == 0
        spans = collector.spans
    assert {resource["service.name"] for resource in collector.resources} == {"tidegate"}
    here = caller.get_span_context()
    assert {span.trace_id.hex() for span in spans} == {trace.format_trace_id(here.trace_id)}

    def inside(parent: str) -> list[Any]:
        return sorted((span for span in spans if span.parent_span_id.hex() == parent), key=lambda span: span.name)

    calls = inside(trace.format_span_id(here.span_id))
    assert [span.name for span in calls] == ["request", "request", "speech"]
    for request in calls[:2]:
        assert [span.name for span in inside(request.span_id.hex())] == ["compute", "queue", "reply"]
    (segment,) = inside(calls[2].span_id.hex())
    stages = {span.name for span in inside(segment.span_id.hex())}
    assert stages == {"front_end", "queue", "compute", "decode", "search"}
    systems = {fact.value.string_value for span in calls for fact in span.attributes if fact.key == "rpc.system"}
    assert systems == {"grpc", "http"}
    assert all("spans_lost" not in line["event"] for line in ended_lines(running))


def test_a_stream_that_is_open_when_the_server_ends_has_its_span(tone_bundle: Path) -> None:
    with collecting() as (collector, _, endpoint):
        settings = ServerSettings(outside=OutsideSettings(traces=endpoint))
        with Server([tone_bundle], settings=settings) as server, Client(server.address) as client:
            stream = client.recognize(sample_rate_hz=16_000)
            server.stop()
            stream.close()
        (span,) = collector.spans
    facts = {fact.key: fact.value.string_value for fact in span.attributes}
    # grpc tells its end as if the client had nothing more to say, or as a cancelled call.
    assert facts["tidegate.code"] in ("OK", "CANCELLED")
    assert (span.name, facts["tidegate.model"]) == ("speech", "tones")


def test_spans_that_a_collector_took_no_more_are_counted() -> None:
    with collecting() as (collector, service, endpoint), warnings() as said:
        export = SpanExport(endpoint)
        tracer = export.provider.get_tracer("test")
        for _ in range(3):
            tracer.start_span("taken").end()
        assert export.provider.force_flush()
        service.stop(None).wait()
        for _ in range(5):
            tracer.start_span("lost").end()
        assert (export.close(), export.close()) == (5, 0)
    assert {span.name for span in collector.spans} == {"taken"}
    assert [record.getMessage() for record in said] == [f"5 spans were not taken by {endpoint}"]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    # The exporter itself would wait for ten minutes.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        with server_process([linear_bundle(tmp_path)], *OPTIONS, "--traces", endpoint) as running:
            assert call(http_address(running), "POST", "/v2/models/linear/infer", BODY).status == 200
            running.terminate()
            assert running.process.wait(EXIT_S) == 0
    (lost,) = [line for line in ended_lines(running) if line["event"] == "spans_lost"]
    # The answer may be here before the last of its spans.
    assert 1 <= lost["spans"] <= 4
    assert (lost["level"], lost["collector"]) == ("warning", endpoint)


def test_a_collector_is_named_by_an_address_that_is_one() -> None:
    for endpoint in ("127.0.0.1:4317", "ftp://127.0.0.1", "grpc://", ""):
        with pytest.raises(ConfigError, match="expected http"):
            SpanExport(endpoint)


def test_spans_of_several_threads_are_all_counted() -> None:
    with collecting() as (collector, _, endpoint):
        export = SpanExport(endpoint)
        tracer = export.provider.get_tracer("test")

        def trace_some() -> None:
            for _ in range(100):
                tracer.start_span("one").end()

        threads = [threading.Thread(target=trace_some, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(EXIT_S)
        wait_until(export.provider.force_flush)
        assert (export.close(), export.close()) == (0, 0)
        assert len(collector.spans) == 400
