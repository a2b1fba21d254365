"""Spans, the request log and the form of logs, on real servers."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tests.http_server import call, infer_body
from tests.served import PROCESS_TIMEOUT_S, gather_bundle, identity_bundle, linear_bundle, server_process
from tests.waiting import wait_until

from tidegate.cloud.http import HttpSettings
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.cloud.tracing import Tracing
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

INFER = "/v2/models/linear/infer"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
NOT_SAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"
SECRET = 8675309.0
BODY = infer_body("x", "FP32", [1, 4], [SECRET, 2, 3, 4], id="order-7")


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[Server, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = ServerSettings(outside=OutsideSettings(http=HttpSettings(listen="127.0.0.1:0")))
    with Server([linear_bundle(tmp_path)], settings=settings, observers=[Tracing(provider)]) as server:
        yield server, exporter
    provider.shutdown()


def spans_of(exporter: InMemorySpanExporter, count: int) -> dict[str, Any]:
    """Spans by name; the answer may be here before the last of them."""
    wait_until(lambda: len(exporter.get_finished_spans()) >= count)
    found = exporter.get_finished_spans()
    exporter.clear()
    return {span.name: span for span in found}


def grpc_infer(address: str, **metadata: str) -> None:
    request = messages.ModelInferRequest(model_name="linear")
    write_inputs(request, {"x": np.array([[SECRET, 2, 3, 4]], np.float32)})
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(f"/{messages.SERVICE_NAME}/ModelInfer")
        infer(request.SerializeToString(), metadata=tuple(metadata.items()), timeout=60)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_the_callers_trace_goes_on_through_queue_compute_and_reply(
    traced: tuple[Server, InMemorySpanExporter], transport: str
) -> None:
    server, exporter = traced
    if transport == "grpc":
        grpc_infer(server.address, traceparent=PARENT)
    else:
        assert call(server.http_address, "POST", INFER, BODY, {"traceparent": PARENT}).status == 200
    spans = spans_of(exporter, 4)
    assert set(spans) == {"request", "queue", "compute", "reply"}
    request = spans["request"]
    assert format(request.context.trace_id, "032x") == TRACE
    assert format(request.parent.span_id, "016x") == "b7ad6b7169203331"
    assert request.attributes["rpc.system"] == transport
    assert request.attributes["tidegate.model"] == "linear"
    assert request.attributes["tidegate.version"] == "1.0.0"
    parts = [spans["queue"], spans["compute"], spans["reply"]]
    assert all(part.parent.span_id == request.context.span_id for part in parts)
    ends = [request.start_time] + [moment for part in parts for moment in (part.start_time, part.end_time)]
    assert ends == sorted(ends)
    assert parts[-1].end_time == request.end_time
    assert str(SECRET) not in "".join(span.to_json() for span in spans.values())


def test_what_the_caller_does_not_sample_is_not_recorded_and_errors_are(
    traced: tuple[Server, InMemorySpanExporter],
) -> None:
    server, exporter = traced
    call(server.http_address, "POST", INFER, BODY, {"traceparent": NOT_SAMPLED})
    assert call(server.http_address, "POST", "/v2/models/none/infer", BODY).status == 404
    spans = spans_of(exporter, 1)
    assert set(spans) == {"request"}
    assert spans["request"].status.status_code is StatusCode.ERROR
    assert spans["request"].status.description == "NotFoundError"
    assert spans["request"].attributes["tidegate.code"] == "NOT_FOUND"
    call(server.http_address, "POST", INFER, BODY, {"traceparent": "00-nonsense"})
    assert spans_of(exporter, 4)["request"].parent is None


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps what an OTLP exporter sends."""

    received: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            raw = gzip.decompress(raw)
        self.received.append(ExportTraceServiceRequest.FromString(raw))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


def test_the_command_sends_spans_and_logs_json_without_values(tmp_path: Path) -> None:
    Collector.received = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector, ExitStack() as at_the_end:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        at_the_end.callback(collector.shutdown)
        options = ("--http", "127.0.0.1:0", "--log-format", "json", "--log-requests")
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with server_process([linear_bundle(tmp_path)], *options, "--traces", endpoint) as running:
            assert running.process.stdout is not None
            address = running.process.stdout.readline().removeprefix("http on ").strip()
            headers = {"traceparent": PARENT, "x-request-id": "from-header"}
            answered = call(address, "POST", INFER, BODY, headers)
            assert (answered.status, answered.headers["x-request-id"]) == (200, "from-header")
            call(address, "POST", INFER, BODY)
            assert call(address, "POST", INFER, BODY.replace(b"[1, 4]", b"[4, 1]")).status == 400
            running.terminate()
            assert running.process.wait(60) == 0
    spans = [
        span
        for request in Collector.received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert [span.name for span in spans].count("compute") == 2
    assert TRACE in {span.trace_id.hex() for span in spans}
    lines = [json.loads(line) for line in running.diagnostics]
    assert sorted(line["event"] for line in lines) == ["draining", "request", "request", "request", "serving"]
    # A line is written after the answer is out, by whichever thread answered: which comes first is open.
    requests = [line for line in lines if line["event"] == "request"]
    assert sorted((line["request_id"], line["code"]) for line in requests) == [
        ("from-header", "OK"), ("order-7", "INVALID_ARGUMENT"), ("order-7", "OK")
    ]  # fmt: skip
    assert {line["level"] for line in lines} == {"info"}
    assert "8675309" not in "".join(running.diagnostics)


def test_requests_are_no_lines_by_default_and_failures_of_the_server_are(tmp_path: Path) -> None:
    with server_process([identity_bundle(tmp_path, "FP32")], "--http", "127.0.0.1:0") as running:
        assert running.process.stdout is not None
        address = running.process.stdout.readline().removeprefix("http on ").strip()
        path = "/v2/models/identity-fp32/infer"
        assert call(address, "POST", path, infer_body("x", "FP32", [1, 1], [1])).status == 200
        assert call(address, "POST", path, infer_body("x", "FP32", [1, 1], ["a"])).status == 400
        running.terminate()
        assert running.process.wait(60) == 0
    assert [line.split()[0] for line in running.diagnostics] == ["identity-fp32", "draining"]


def test_a_failing_model_is_logged_by_kind_and_not_more_often_than_the_limit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:

    from tidegate.cloud.logs import set_up

    set_up("json")
    outside = OutsideSettings(http=HttpSettings(listen="127.0.0.1:0"), log_failures=True)
    with Server([gather_bundle(tmp_path)], settings=ServerSettings(outside=outside)) as server:
        body = infer_body("index", "INT64", [1], [987654321])
        statuses = {call(server.http_address, "POST", "/v2/models/gather/infer", body).status for _ in range(30)}
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert statuses == {500}
    assert {(line["event"], line["error"], line["code"]) for line in lines} == {
        ("request_failed", "ModelError", "INTERNAL")
    }
    assert 1 <= len(lines) + sum(line.get("failures_not_logged", 0) for line in lines) <= 30
    assert "987654321" not in json.dumps(lines)


def test_a_server_without_traces_does_not_import_opentelemetry(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, tests.served as s, pathlib, tidegate.cloud.server as t\n"
        f"server = t.Server([s.linear_bundle(pathlib.Path({os.fspath(tmp_path)!r}))])\n"
        "server.start(); server.stop()\n"
        "print([name for name in ('opentelemetry', 'uvicorn', 'httptools') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path.cwd(), timeout=PROCESS_TIMEOUT_S
    )
    assert found.stdout.strip() == "[]"
