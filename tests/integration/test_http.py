"""HTTP beside gRPC: the Open Inference Protocol's REST form on a real server."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.http_server import Reply, call, infer_body, reply_of
from tests.served import (
    PATIENT,
    PROCESS_TIMEOUT_S,
    identity_bundle,
    linear_bundle,
    server_process,
    simple_bundle,
    slow_bundle,
)
from tests.waiting import wait_until

from tidegate.cloud.http import HttpSettings
from tidegate.cloud.http.status import HTTP_BY_CODE
from tidegate.cloud.outside import OutsideSettings
from tidegate.cloud.server import Server, ServerSettings
from tidegate.wire.status import CODE_BY_ERROR, ERROR_BY_CODE

NUMERIC = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64")
LIMIT_BYTES = 300_000


def http_settings(**http: object) -> ServerSettings:
    settings = {"listen": "127.0.0.1:0", **http}
    return ServerSettings(outside=OutsideSettings(http=HttpSettings(**settings)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("http")
    bundles = [
        linear_bundle(directory),
        linear_bundle(directory, version="2.0.0", factor=2.0),
        simple_bundle(directory),
    ]
    bundles += [identity_bundle(directory, dtype) for dtype in (*NUMERIC, "BOOL", "BYTES")]
    with Server(bundles, settings=http_settings(maximum_body_bytes=LIMIT_BYTES)) as running:
        running.repository.set_label("linear", "stable", "1.0.0")
        yield running


def post(server: Server, path: str, body: bytes, **headers: str) -> Reply:
    return call(
        server.http_address, "POST", path, body, {name.replace("_", "-"): text for name, text in headers.items()}
    )


def test_health_and_metadata(server: Server) -> None:
    def get(path: str) -> Reply:
        return call(server.http_address, "GET", path)

    assert get("/v2/health/live").status == 200
    assert get("/v2/health/ready").status == 200
    assert get("/v2/models/linear/ready").status == 200
    assert get("/v2/models/linear/versions/stable/ready").status == 200
    assert get("/v2/models/none/ready").status == 400
    assert get("/v2/models/linear/versions/9.9.9/ready").status == 400
    assert get("/v2").json["name"] == "tidegate"
    assert "binary_tensor_data" in get("/v2").json["extensions"]
    described = get("/v2/models/linear").json
    assert described["versions"] == ["1.0.0", "2.0.0"]
    assert described["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert get("/v2/models/linear/config").json["input"][0]["dims"] == [4]
    index = post(server, "/v2/repository/index", b"").json
    assert {"name": "linear", "version": "2.0.0", "state": "READY", "reason": ""} in index
    assert call(server.http_address, "HEAD", "/v2/health/ready").body == b""


def test_versions_labels_and_ids(server: Server) -> None:
    body = infer_body("x", "FP32", [1, 4], [1, 2, 3, 4], id="seven")
    by_default = post(server, "/v2/models/linear/infer", body).json
    assert by_default["id"] == "seven"
    assert by_default["model_version"] == "1.0.0"  # stable
    assert by_default["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    second = post(server, "/v2/models/linear/versions/2.0.0/infer", body).json
    assert second["outputs"][1] == {"name": "total", "datatype": "FP32", "shape": [1, 1], "data": [20.0]}
    asked = json.loads(body) | {"outputs": [{"name": "total"}]}
    assert [
        out["name"] for out in post(server, "/v2/models/linear/infer", json.dumps(asked).encode()).json["outputs"]
    ] == ["total"]


@pytest.mark.parametrize("dtype", NUMERIC)
def test_numbers_survive_json_and_binary_at_the_ends_of_their_type(server: Server, dtype: str) -> None:
    path = f"/v2/models/identity-{dtype.lower()}/infer"
    kind = {"I": np.iinfo, "U": np.iinfo, "F": np.finfo}[dtype[0]]
    numpy_type = np.dtype(dtype.lower().replace("fp", "float"))
    limits = kind(numpy_type)
    values = np.array([[limits.min, 0, 1, limits.max]], numpy_type)
    flat = post(server, path, infer_body("x", dtype, [1, 4], values.ravel().tolist())).json["outputs"][0]
    nested = post(server, path, infer_body("x", dtype, [1, 4], values.tolist())).json["outputs"][0]
    assert flat == nested == {"name": "y", "datatype": dtype, "shape": [1, 4], "data": values.ravel().tolist()}
    raw = values.tobytes()
    head = json.dumps(
        {
            "inputs": [{"name": "x", "datatype": dtype, "shape": [1, 4], "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    reply = post(server, path, head + raw, inference_header_content_length=str(len(head)))
    length = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": len(raw)}
    assert reply.body[length:] == raw


def test_text_and_booleans(server: Server) -> None:
    texts = ["", "naïve", "日本", "a\u0000b"]
    reply = post(server, "/v2/models/identity-bytes/infer", infer_body("x", "BYTES", [2, 2], texts))
    assert reply.json["outputs"][0]["data"] == texts
    flags = [[True, False], [False, True]]
    reply = post(server, "/v2/models/identity-bool/infer", infer_body("x", "BOOL", [2, 2], flags))
    assert reply.json["outputs"][0]["data"] == [True, False, False, True]


def test_what_json_cannot_hold_is_asked_for_as_binary(server: Server) -> None:
    raw = np.array([[np.nan]], np.float32).tobytes()
    head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}}]}
    text = json.dumps(head).encode()
    refused = post(server, "/v2/models/identity-fp32/infer", text + raw, inference_header_content_length=str(len(text)))
    assert refused.status == 400
    assert "binary" in refused.json["error"]
    text = json.dumps(head | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    given = post(server, "/v2/models/identity-fp32/infer", text + raw, inference_header_content_length=str(len(text)))
    assert given.body.endswith(raw)


X = {"name": "x", "datatype": "FP32", "shape": [1, 4]}

MISTAKES: dict[str, tuple[str, bytes, dict[str, str], int, str]] = {
    "unknown path": ("/v2/nothing", b"{}", {}, 404, "/v2/nothing"),
    "other method": ("/v2", b"{}", {}, 405, "GET"),
    "unknown model": ("/v2/models/none/infer", infer_body("x", "FP32", [1, 4], [1] * 4), {}, 404, "none"),
    "unknown version": ("/v2/models/linear/versions/7/infer", infer_body("x", "FP32", [1, 4], [1] * 4), {}, 404, "7"),
    "no JSON": ("/v2/models/linear/infer", b"{", {}, 400, "inference request"),
    "deep JSON": ("/v2/models/linear/infer", b"[" * 100_000, {}, 400, "inference request"),
    "no UTF-8": ("/v2/models/linear/infer", b'{"inputs":[{"name":"\xff"}]}', {}, 400, "inference request"),
    "empty": ("/v2/models/linear/infer", b"", {}, 400, "inference request"),
    "too few": ("/v2/models/linear/infer", infer_body("x", "FP32", [1, 4], [1, 2]), {}, 400, "2 elements"),
    "too deep": ("/v2/models/linear/infer", infer_body("x", "FP32", [1, 4], [[[1, 2, 3, 4]]]), {}, 400, "'x'"),
    "ragged": ("/v2/models/linear/infer", infer_body("x", "FP32", [2, 2], [[1, 2], [3]]), {}, 400, "list of 2"),
    "text": ("/v2/models/linear/infer", infer_body("x", "FP32", [1, 4], ["1", 2, 3, 4]), {}, 400, "'x'"),
    "too large": ("/v2/models/linear/infer", infer_body("x", "FP32", [1, 4], [1e39, 0, 0, 0]), {}, 400, "FP32"),
    "wrong name": ("/v2/models/linear/infer", infer_body("z", "FP32", [1, 4], [1] * 4), {}, 400, "'z'"),
    "wrong dtype": ("/v2/models/linear/infer", infer_body("x", "INT32", [1, 4], [1] * 4), {}, 400, "float32"),
    "wrong shape": ("/v2/models/linear/infer", infer_body("x", "FP32", [1, 3], [1] * 3), {}, 400, "4"),
    "negative size": ("/v2/models/linear/infer", infer_body("x", "FP32", [-1, 4], [1] * 4), {}, 400, "-1"),
    "unknown dtype": ("/v2/models/linear/infer", infer_body("x", "FP128", [1, 4], [1] * 4), {}, 400, "FP128"),
    "range": ("/v2/models/identity-int8/infer", infer_body("x", "INT8", [1, 1], [128]), {}, 400, "128"),
    "unknown output": (
        "/v2/models/linear/infer",
        infer_body("x", "FP32", [1, 4], [1] * 4, outputs=[{"name": "nope"}]),
        {},
        400,
        "nope",
    ),
    "shared memory": (
        "/v2/models/linear/infer",
        json.dumps({"inputs": [X | {"parameters": {"shared_memory_region": "r"}}]}).encode(),
        {},
        400,
        "shared_memory",
    ),
    "no data": ("/v2/models/linear/infer", json.dumps({"inputs": [X]}).encode(), {}, 400, "no data"),
    "data and size": (
        "/v2/models/linear/infer",
        json.dumps({"inputs": [X | {"data": [1, 2, 3, 4], "parameters": {"binary_data_size": 16}}]}).encode(),
        {},
        400,
        "both",
    ),
    "size over the end": (
        "/v2/models/linear/infer",
        json.dumps({"inputs": [X | {"parameters": {"binary_data_size": 16}}]}).encode(),
        {},
        400,
        "binary_data_size 16",
    ),
    "bytes left over": (
        "/v2/models/linear/infer",
        infer_body("x", "FP32", [1, 4], [1] * 4) + b"more",
        {"Inference-Header-Content-Length": str(len(infer_body("x", "FP32", [1, 4], [1] * 4)))},
        400,
        "4 bytes follow",
    ),
    "length over the end": (
        "/v2/models/linear/infer",
        b"{}",
        {"Inference-Header-Content-Length": "3"},
        400,
        "Inference-Header-Content-Length",
    ),
    "length is no number": ("/v2/models/linear/infer", b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "'-1'"),
    "unknown encoding": ("/v2/models/linear/infer", b"{}", {"Content-Encoding": "br"}, 415, "br"),
    "no gzip": ("/v2/models/linear/infer", b"{}", {"Content-Encoding": "gzip"}, 400, "gzip"),
    "cut gzip": ("/v2/models/linear/infer", gzip.compress(b"{}")[:-4], {"Content-Encoding": "gzip"}, 400, "truncated"),
    "large": ("/v2/models/linear/infer", bytes(LIMIT_BYTES + 1), {}, 413, str(LIMIT_BYTES)),
    "bomb": ("/v2/models/linear/infer", gzip.compress(bytes(50_000_000)), {"Content-Encoding": "gzip"}, 413, "bytes"),
    "priority": (
        "/v2/models/linear/infer",
        infer_body("x", "FP32", [1, 4], [1] * 4, parameters={"priority": "first"}),
        {},
        400,
        "priority",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_answered_with_what_was_found(server: Server, case: str) -> None:
    path, body, headers, status, part = MISTAKES[case]
    reply = call(server.http_address, "POST", path, body, headers)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert part in reply.json["error"]
    assert post(server, "/v2/models/linear/infer", infer_body("x", "FP32", [1, 4], [1] * 4)).status == 200


def test_every_status_of_grpc_has_one_of_http() -> None:
    assert set(HTTP_BY_CODE) >= {*CODE_BY_ERROR.values(), *ERROR_BY_CODE}
    assert all(400 <= status < 600 for status in HTTP_BY_CODE.values())


@pytest.mark.parametrize(("encoding", "decompress"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_compression_both_ways(server: Server, encoding: str, decompress: object) -> None:
    values = np.arange(4000, dtype=np.float32).reshape(-1, 4)
    body = infer_body("x", "FP32", [1000, 4], values.tolist())
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    reply = post(
        server, "/v2/models/linear/infer", packed, content_encoding=encoding, accept_encoding=f"br, {encoding};q=0.5"
    )
    assert reply.headers["content-encoding"] == encoding
    assert callable(decompress)
    assert json.loads(decompress(reply.body))["outputs"][0]["data"] == values.ravel().tolist()
    plain = post(server, "/v2/models/linear/infer", body, accept_encoding=f"{encoding};q=0")
    assert "content-encoding" not in plain.headers


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order(server: Server) -> None:
    host, _, port = server.http_address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    for _ in range(3):
        connection.request("GET", "/v2/health/live")
        assert reply_of(connection).status == 200
    assert connection.sock is not None
    connection.close()
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        body = infer_body("x", "FP32", [1, 4], [1, 2, 3, 4], id="first")
        other = body.replace(b"first", b"other")
        for one in (body, other):
            raw.sendall(
                b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(one) + one
            )
        raw.shutdown(socket.SHUT_WR)
        found = b""
        while b"other" not in found:
            more = raw.recv(65536)
            assert more, found
            found += more
        assert found.index(b"first") < found.index(b"other")


def test_connections_that_send_nothing_or_endless_heads_are_closed(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path)], settings=http_settings(request_timeout_s=0.2, keep_alive_s=0.2)) as server:
        host, _, port = server.http_address.rpartition(":")
        for sent in (
            b"",
            b"GET /v2 HT",
            b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        ):
            with socket.create_connection((host, int(port)), timeout=60) as idle:
                idle.sendall(sent)
                assert _ends(idle)
        with socket.create_connection((host, int(port)), timeout=60) as rested:
            rested.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in rested.recv(65536)
            assert _ends(rested)
        with socket.create_connection((host, int(port)), timeout=60) as endless:
            endless.sendall(b"GET /v2 HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000)
            assert _ends(endless)
        assert call(server.http_address, "GET", "/v2/health/ready").status == 200


def _ends(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_repository_control_and_log_level(tmp_path: Path) -> None:
    with Server([linear_bundle(tmp_path)], settings=http_settings()) as server:
        assert post(server, "/v2/repository/models/linear/unload", b"").status == 200
        assert call(server.http_address, "GET", "/v2/models/linear/ready").status == 400
        assert post(server, "/v2/repository/models/linear/load", b"{}").status == 200
        assert call(server.http_address, "GET", "/v2/models/linear/ready").status == 200
        assert post(server, "/v2/repository/models/none/load", b"").status == 404
        assert set(call(server.http_address, "GET", "/v2/logging").json) >= {"log_info", "log_verbose_level"}
        assert post(server, "/v2/repository/index", b"[]").status == 400


def test_a_public_port_needs_encryption_and_keys_guard_every_path(tmp_path: Path) -> None:
    from tidegate.cloud.access import AccessFile, new_key, write_access_file
    from tidegate.cloud.limits import Safety
    from tidegate.errors import ConfigError

    bundle = linear_bundle(tmp_path)
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0"):
        Server([bundle], settings=http_settings(listen="0.0.0.0:0"))
    (reader, secret), (watcher, watch_secret) = new_key(("infer",), ("linear",)), new_key(("metrics",), ("*",))
    keys = tmp_path / "keys.json"
    write_access_file(keys, AccessFile(keys=(reader, watcher)))
    outside = OutsideSettings(http=HttpSettings(listen="127.0.0.1:0"))
    settings = ServerSettings(outside=outside, safety=Safety(access_file=keys))
    with Server([bundle], settings=settings) as server:
        path, body = "/v2/models/linear/infer", infer_body("x", "FP32", [1, 4], [1] * 4)
        stranger = post(server, path, body)
        assert (stranger.status, stranger.headers["www-authenticate"]) == (401, "Bearer")
        assert post(server, path, body, authorization=f"Bearer {secret}").status == 200
        assert post(server, path, body, x_api_key=secret).status == 200
        assert post(server, path, body, authorization=f"Bearer {watch_secret}").status == 403
        assert post(server, "/v2/models/other/infer", body, x_api_key=secret).status == 403
        assert post(server, "/v2/repository/models/linear/unload", b"", x_api_key=secret).status == 403
        assert call(server.http_address, "GET", "/metrics", None, {"x-api-key": secret}).status == 403
        assert call(server.http_address, "GET", "/metrics", None, {"x-api-key": watch_secret}).status == 200
        assert call(server.http_address, "GET", "/v2/health/ready").status == 200


def test_a_caller_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    """The first request keeps the model busy; the second waits behind it and its caller leaves."""
    with Server([slow_bundle(tmp_path)], settings=http_settings()) as server:
        long, short = (infer_body("turns", "INT64", [1], [turns]) for turns in (2_000_000, 1))
        path = "/v2/models/slow/infer"
        replies: list[Reply] = []
        busy = threading.Thread(target=lambda: replies.append(post(server, path, long)))
        busy.start()
        wait_until(lambda: server.computing)
        host, _, port = server.http_address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as leaver:
            leaver.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(short)))
            leaver.sendall(short)
            wait_until(lambda: server.work_under_way == 2)
        busy.join(PROCESS_TIMEOUT_S)
        assert replies[0].status == 200
        served = server.repository.find("slow")
        wait_until(lambda: not server.work_under_way)
        wait_until(lambda: served.statistics.read().dropped == 1)


def test_sigterm_lets_http_finish_and_says_not_ready(tmp_path: Path) -> None:
    with server_process([slow_bundle(tmp_path)], "--http", "127.0.0.1:0", *PATIENT) as running:
        assert running.process.stdout is not None
        address = running.process.stdout.readline().removeprefix("http on ").strip()
        host, _, port = address.rpartition(":")
        probe = http.client.HTTPConnection(host, int(port), timeout=60)
        probe.request("GET", "/v2/health/ready")
        assert reply_of(probe).status == 200
        replies: list[Reply] = []
        body = infer_body("turns", "INT64", [1], [3_000_000])
        caller = threading.Thread(target=lambda: replies.append(call(address, "POST", "/v2/models/slow/infer", body)))
        caller.start()
        under_way = b'tidegate_work_under_way{worker="0"} 1'
        wait_until(lambda: under_way in call(address, "GET", "/metrics").body)
        running.terminate()
        wait_until(lambda: _ready(address) != 200)
        assert _ready(address) in (400, 503)
        refused = call(address, "POST", "/v2/models/slow/infer", infer_body("turns", "INT64", [1], [1]))
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        caller.join(PROCESS_TIMEOUT_S)
        assert replies[0].status == 200
        assert running.process.wait(PROCESS_TIMEOUT_S) == 0
        probe.close()


def _ready(address: str) -> int:
    return call(address, "GET", "/v2/health/ready").status


def test_https_shows_the_certificate_and_takes_a_renewed_one_without_a_restart(tmp_path: Path) -> None:
    from tests.certificates import Authority

    from tidegate.cloud.limits import Safety
    from tidegate.cloud.tls import TlsFiles

    authority = Authority(tmp_path)
    used, renewed = authority.pair("first"), authority.pair("second")
    settings = ServerSettings(
        outside=OutsideSettings(http=HttpSettings(listen="127.0.0.1:0")),
        safety=Safety(tls=TlsFiles(used.cert, used.key)),
    )
    with Server([linear_bundle(tmp_path)], settings=settings) as server:
        host, _, port = server.http_address.rpartition(":")
        trust = ssl.create_default_context(cafile=str(authority.path))

        def serial() -> object:
            with (
                socket.create_connection((host, int(port)), timeout=60) as plain,
                trust.wrap_socket(plain, server_hostname=host) as wrapped,
            ):
                wrapped.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b"200 OK" in wrapped.recv(4096)
                return (wrapped.getpeercert() or {})["serialNumber"]

        first = serial()
        used.replace_with(renewed)
        wait_until(lambda: serial() != first)
        with socket.create_connection((host, int(port)), timeout=60) as plain:
            plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" not in plain.recv(4096)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    from tidegate.errors import ResourceError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ResourceError, match=address):
            Server([linear_bundle(tmp_path)], settings=http_settings(listen=address)).start()
