"""Requests for inference that cannot be read or let in: counted, logged and traced, over both transports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.http_server import call, infer_body, scrape, total
from tests.served import linear_bundle
from tests.waiting import wait_until

from tidegate.cloud.core import Observer
from tidegate.cloud.http import HttpSettings
from tidegate.cloud.logs import JsonLines, RequestLog
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.cloud.tracing import Tracing
from tidegate.wire import messages
from tidegate.wire.tensors import write_inputs

INFER = "/v2/models/linear/infer"
BODY = infer_body("x", "FP32", [1, 4], [1, 2, 3, 4])
AWAY = "tidegate_turned_away_total"
SECRET = "8675309"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged of requests, as JSON, however logging is set up."""
    texts: list[str] = []
    form, handler = JsonLines(), logging.Handler()
    handler.emit = lambda record: texts.append(form.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("tidegate.cloud.logs")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield texts
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def server(tmp_path: Path, exporter: InMemorySpanExporter) -> Iterator[Server]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    http = HttpSettings(listen="127.0.0.1:0", maximum_body_bytes=10_000)
    settings = ServerSettings(outside=OutsideSettings(http=http))
    observers: list[Observer] = [Tracing(provider), RequestLog(every_request=True)]
    with Server([linear_bundle(tmp_path)], settings=settings, observers=observers) as running:
        yield running
    provider.shutdown()


def grpc_infer(address: str, raw: bytes) -> grpc.StatusCode:
    """Send bytes as a ModelInferRequest and return the status."""
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(f"/{messages.SERVICE_NAME}/ModelInfer")(raw, timeout=60)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def request_of(rows: int) -> Any:
    request = messages.ModelInferRequest(model_name="linear")
    write_inputs(request, {"x": np.ones((rows, 4), np.float32)})
    return request


def test_what_cannot_be_read_over_grpc_is_counted(
    server: Server, exporter: InMemorySpanExporter, logged: list[str]
) -> None:
    cut = request_of(1)
    cut.raw_input_contents[0] = cut.raw_input_contents[0][:-1]
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert grpc_infer(server.address, b"\xff" * 9) is invalid
    assert grpc_infer(server.address, cut.SerializeToString()) is invalid
    assert grpc_infer(server.address, request_of(1).SerializeToString()) is grpc.StatusCode.OK
    found = scrape(server.http_address)
    assert total(found, AWAY) == total(found, AWAY, transport="grpc", code="INVALID_ARGUMENT") == 2
    # The histogram has what was begun, perhaps after its answer.
    wait_until(lambda: len(logged) == 3)
    found = scrape(server.http_address)
    assert total(found, "tidegate_request_seconds_count", code="OK") == 1
    assert total(found, "tidegate_request_seconds_count", code="INVALID_ARGUMENT") == 0
    assert [text.count('"event": "request_turned_away"') for text in sorted(logged)].count(1) == 2
    wait_until(lambda: [span.name for span in exporter.get_finished_spans()].count("request") == 3)
    codes = [dict(span.attributes or {}).get("tidegate.code") for span in exporter.get_finished_spans()]
    assert codes.count("INVALID_ARGUMENT") == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", INFER, b"{" + SECRET.encode(), 400, "INVALID_ARGUMENT"),
        ("POST", INFER, BODY.replace(b"[1, 4]", b"[1, 5]"), 400, "INVALID_ARGUMENT"),
        ("POST", INFER, b" " * 10_001, 413, "RESOURCE_EXHAUSTED"),
        ("POST", "/v2/models/linear/guess", BODY, 404, "INVALID_ARGUMENT"),
    ],
)
def test_what_cannot_be_read_over_http_is_counted(
    server: Server, logged: list[str], method: str, path: str, body: bytes, status: int, code: str
) -> None:
    assert call(server.http_address, method, path, body).status == status
    found = scrape(server.http_address)
    assert total(found, AWAY) == total(found, AWAY, transport="http", code=code) == 1
    assert total(found, "tidegate_request_seconds_count") == 0
    (line,) = wait_until(lambda: logged)
    assert f'"transport": "http", "code": "{code}"' in line
    assert SECRET not in line


def test_what_is_begun_is_not_turned_away_whatever_comes_of_it(server: Server) -> None:
    assert call(server.http_address, "POST", INFER, BODY).status == 200
    assert call(server.http_address, "POST", "/v2/models/none/infer", BODY).status == 404
    assert call(server.http_address, "GET", "/v2/models/none").status == 404
    wrong = infer_body("x", "FP32", [1, 3], [1, 2, 3])
    assert call(server.http_address, "POST", INFER, wrong).status == 400
    wide = request_of(1)
    wide.inputs[0].name = "z"
    assert grpc_infer(server.address, wide.SerializeToString()) is grpc.StatusCode.INVALID_ARGUMENT
    found = scrape(server.http_address)
    assert total(found, AWAY) == 0
    assert wait_until(lambda: total(scrape(server.http_address), "tidegate_request_seconds_count") == 4)


def test_a_draining_server_turns_away(server: Server) -> None:
    server.core.work.drain()
    assert call(server.http_address, "POST", INFER, BODY).status == 503
    assert grpc_infer(server.address, request_of(1).SerializeToString()) is grpc.StatusCode.UNAVAILABLE
    found = scrape(server.http_address)
    for transport in ("grpc", "http"):
        assert total(found, AWAY, transport=transport, code="UNAVAILABLE") == 1
