"""Keys, rates, audit and addresses on real servers: every kind of call, over the wire and through the commands."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.certificates import Authority
from tests.served import linear_bundle, server_process, simple_bundle
from tests.waiting import wait_until

from tidegate.cli.main import main
from tidegate.client import Client
from tidegate.client.settings import TlsSettings
from tidegate.cloud import Server, ServerSettings
from tidegate.cloud import access as access_module
from tidegate.cloud.access import AccessFile, Role, new_key, write_access_file
from tidegate.cloud.budget import Budget
from tidegate.cloud.limits import Safety, is_public
from tidegate.cloud.rate import Rate
from tidegate.cloud.tls import TlsFiles
from tidegate.cloud.workers import WorkerPool, WorkerSpec
from tidegate.errors import AccessError, ConfigError, ResourceError
from tidegate.wire import messages
from tidegate.wire.services import OPEN_INFERENCE, SPEECH, Service
from tidegate.wire.tensors import write_inputs

ONES = np.ones((1, 4), np.float32)
CODE = grpc.StatusCode


class Keys:
    """A file with a key of each kind."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "keys.json"
        self.ids: dict[str, str] = {}
        self._secrets: dict[str, str] = {"nobody": "", "unknown": "tg_0123456789_" + "x" * 43}
        kinds: dict[str, tuple[tuple[Role, ...], tuple[str, ...]]] = {
            "linear": (("infer",), ("linear",)),
            "simple": (("infer",), ("simple",)),
            "metrics": (("metrics",), ("*",)),
            "admin": (("admin",), ("*",)),
        }
        keys = []
        for name, (roles, models) in kinds.items():
            key, self._secrets[name] = new_key(roles, models)
            self.ids[name] = key.id
            keys.append(key)
        self.content = AccessFile(keys=tuple(keys))
        write_access_file(self.path, self.content)

    def headers(self, name: str) -> list[tuple[str, str]]:
        secret = self._secrets[name]
        return [("authorization", f"Bearer {secret}")] if secret else []

    def secret(self, name: str) -> str:
        return self._secrets[name]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def infer_request(model: str = "linear") -> Any:
    request = messages.ModelInferRequest(model_name=model)
    write_inputs(request, {"x": ONES})
    return request


REQUESTS: dict[str, Callable[[], Any]] = {
    "ServerLive": messages.ServerLiveRequest,
    "ServerReady": messages.ServerReadyRequest,
    "ModelReady": lambda: messages.ModelReadyRequest(name="linear"),
    "ServerMetadata": messages.ServerMetadataRequest,
    "ModelMetadata": lambda: messages.ModelMetadataRequest(name="linear"),
    "ModelConfig": lambda: messages.ModelConfigRequest(name="linear"),
    "ModelStatistics": lambda: messages.ModelStatisticsRequest(name="linear"),
    "RepositoryIndex": messages.RepositoryIndexRequest,
    "LogSettings": messages.LogSettingsRequest,
    "ModelInfer": infer_request,
    "RepositoryModelLoad": lambda: messages.RepositoryModelLoadRequest(model_name="linear"),
}

ANYBODY = {"ServerLive", "ServerReady"}
ABOUT_LINEAR = {"ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"}
WITH_ANY_KEY = {"ServerMetadata", "RepositoryIndex", "LogSettings"}

EXPECTED: dict[str, set[str]] = {
    "nobody": ANYBODY,
    "unknown": ANYBODY,
    "linear": ANYBODY | WITH_ANY_KEY | ABOUT_LINEAR | {"ModelInfer"},
    "simple": ANYBODY | WITH_ANY_KEY,
    "metrics": ANYBODY | WITH_ANY_KEY | ABOUT_LINEAR,
    "admin": ANYBODY | WITH_ANY_KEY | ABOUT_LINEAR | {"RepositoryModelLoad"},
}
"""What each holder may call; everything else is refused."""


@pytest.mark.parametrize("direct", [True, False])
def test_each_key_opens_what_it_is_for_and_nothing_else(tmp_path: Path, keys: Keys, direct: bool) -> None:
    settings = ServerSettings(direct=direct, safety=Safety(access_file=keys.path))
    with (
        Server([linear_bundle(tmp_path), simple_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for holder, allowed in EXPECTED.items():
            for name, request in REQUESTS.items():
                code = code_of_call(channel, OPEN_INFERENCE, name, request(), keys.headers(holder))
                stranger = holder in ("nobody", "unknown")
                refusal = CODE.UNAUTHENTICATED if stranger else CODE.PERMISSION_DENIED
                assert code is (CODE.OK if name in allowed else refusal), (holder, name)


def test_every_method_of_the_protocol_is_closed_to_strangers_but_the_two_for_probes(tmp_path: Path, keys: Keys) -> None:
    settings = ServerSettings(safety=Safety(access_file=keys.path))
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for service in (OPEN_INFERENCE, SPEECH):
            for method in service.methods:
                if method.name in ANYBODY:
                    continue
                kind = channel.stream_stream if method.streaming else channel.unary_unary
                call = kind(service.path(method), method.request.SerializeToString, method.response.FromString)
                request: Any = iter([method.request()]) if method.streaming else method.request()
                ended = call(request, timeout=120) if method.streaming else call.future(request, timeout=120)
                assert ended.code() is CODE.UNAUTHENTICATED, method.name


def test_what_tells_of_all_models_needs_a_key_for_all(tmp_path: Path, keys: Keys) -> None:
    settings = ServerSettings(safety=Safety(access_file=keys.path))
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for name, request in (
            ("ModelStatistics", messages.ModelStatisticsRequest()),
            ("ModelMetadata", messages.ModelMetadataRequest()),
        ):
            for holder, expected in (("linear", CODE.PERMISSION_DENIED), ("metrics", CODE.OK)):
                assert code_of_call(channel, OPEN_INFERENCE, name, request, keys.headers(holder)) is expected


def test_streams_of_inference_are_checked_for_each_request(tmp_path: Path, keys: Keys) -> None:
    settings = ServerSettings(safety=Safety(access_file=keys.path))
    method = OPEN_INFERENCE.method("ModelStreamInfer")
    with (
        Server([linear_bundle(tmp_path), simple_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = channel.stream_stream(
            OPEN_INFERENCE.path(method), method.request.SerializeToString, method.response.FromString
        )
        answers = list(
            call(iter([infer_request(), infer_request("simple")]), metadata=keys.headers("linear"), timeout=120)
        )
        assert [bool(answer.error_message) for answer in answers] == [False, True]
        assert "not for model 'simple'" in answers[1].error_message


def test_probes_need_no_key_and_reflection_does(tmp_path: Path, keys: Keys) -> None:
    settings = ServerSettings(safety=Safety(access_file=keys.path))
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="linear")
        assert health.Check(asked, timeout=120).status == health_pb2.HealthCheckResponse.SERVING
        assert next(health.Watch(asked, timeout=120)).status == health_pb2.HealthCheckResponse.SERVING
        describe = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        listing = [reflection_pb2.ServerReflectionRequest(list_services="")]
        with pytest.raises(grpc.RpcError) as refused:
            list(describe(iter(listing), timeout=120))
        assert refused.value.code() is CODE.UNAUTHENTICATED
        assert list(describe(iter(listing), metadata=keys.headers("linear"), timeout=120))


def test_the_client_shows_its_token_and_learns_why_it_is_refused(tmp_path: Path, keys: Keys) -> None:
    settings = ServerSettings(safety=Safety(access_file=keys.path))
    with Server([linear_bundle(tmp_path)], settings=settings) as server:
        with Client(server.address, token=keys.secret("linear")) as client:
            client.infer("linear", {"x": ONES})
        with Client(server.address) as client, pytest.raises(AccessError, match="no key was sent") as refused:
            client.infer("linear", {"x": ONES})
        assert not refused.value.identified
        with Client(server.address, token=keys.secret("simple")) as client, pytest.raises(AccessError) as denied:
            client.infer("linear", {"x": ONES})
        assert denied.value.identified


def test_a_revoked_key_ends_its_open_streams_and_calls(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "RECHECK_S", 0.0)
    settings = ServerSettings(safety=Safety(access_file=keys.path))
    method = OPEN_INFERENCE.method("ModelStreamInfer")
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        requests = OpenEnded([infer_request().SerializeToString()])
        stream = channel.stream_stream(OPEN_INFERENCE.path(method))(
            requests, metadata=keys.headers("linear"), timeout=60
        )
        next(stream)
        left = tuple(key for key in keys.content.keys if key.id != keys.ids["linear"])
        write_access_file(keys.path, replace_keys(keys.content, left))
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert ended.value.code() is CODE.CANCELLED
        requests.close()
        code = code_of_call(channel, OPEN_INFERENCE, "ModelInfer", infer_request(), keys.headers("linear"))
        assert code is CODE.UNAUTHENTICATED


def test_who_asks_too_often_is_refused_and_others_are_not(tmp_path: Path, keys: Keys) -> None:
    safety = Safety(access_file=keys.path, rate=Rate(0.001, burst=3))
    with (
        Server([linear_bundle(tmp_path)], settings=ServerSettings(safety=safety)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):

        def codes(holder: str, method: str, times: int) -> list[Any]:
            request = REQUESTS[method]
            return [
                code_of_call(channel, OPEN_INFERENCE, method, request(), keys.headers(holder)) for _ in range(times)
            ]

        assert codes("linear", "ModelInfer", 5) == [CODE.OK] * 3 + [CODE.RESOURCE_EXHAUSTED] * 2
        assert codes("admin", "RepositoryIndex", 4) == [CODE.OK] * 3 + [CODE.RESOURCE_EXHAUSTED]
        # Strangers share the bucket of their address.
        assert codes("unknown", "ModelInfer", 4) == [CODE.UNAUTHENTICATED] * 3 + [CODE.RESOURCE_EXHAUSTED]
        assert codes("nobody", "ServerLive", 1) == [CODE.RESOURCE_EXHAUSTED]


def test_a_client_opens_no_more_streams_than_it_may(tmp_path: Path) -> None:
    settings = ServerSettings(safety=Safety(streams_per_client=2))
    method = SPEECH.method("StreamingRecognize")
    asked = health_pb2.HealthCheckRequest(service="")
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        watches = [health.Watch(asked, timeout=60) for _ in range(2)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as refused:
            next(health.Watch(asked, timeout=120))
        assert refused.value.code() is CODE.RESOURCE_EXHAUSTED
        assert "2 streams open" in refused.value.details()
        for watch in watches:
            watch.cancel()
        call = channel.stream_stream(SPEECH.path(method))
        streams = [call(OpenEnded([]), timeout=60) for _ in range(2)]
        wait_until(lambda: server.open_streams == 2)
        assert call(OpenEnded([]), timeout=120).code() is CODE.RESOURCE_EXHAUSTED
        for stream in streams:
            stream.cancel()


def test_what_is_administered_is_recorded_and_what_is_refused_as_well(tmp_path: Path, keys: Keys) -> None:
    audit = tmp_path / "audit.jsonl"
    safety = Safety(access_file=keys.path, audit_file=audit)
    with (
        Server([linear_bundle(tmp_path)], settings=ServerSettings(safety=safety)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        for holder, model in (("admin", "linear"), ("linear", "linear"), ("admin", "nothing")):
            request = messages.RepositoryModelLoadRequest(model_name=model)
            code_of_call(channel, OPEN_INFERENCE, "RepositoryModelLoad", request, keys.headers(holder))
        quiet = messages.LogSettingsRequest()
        quiet.settings["log_verbose_level"].uint32_param = 0
        code_of_call(channel, OPEN_INFERENCE, "LogSettings", quiet, keys.headers("admin"))
        code_of_call(channel, OPEN_INFERENCE, "ModelInfer", infer_request(), keys.headers("linear"))
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(entry["who"], entry["call"], entry["model"], entry["outcome"]) for entry in entries] == [
        (f"key {keys.ids['admin']}", "RepositoryModelLoad", "linear", "done"),
        (f"key {keys.ids['linear']}", "RepositoryModelLoad", "linear", "AccessError"),
        (f"key {keys.ids['admin']}", "RepositoryModelLoad", "nothing", "NotFoundError"),
        (f"key {keys.ids['admin']}", "LogSettings", "", "done"),
    ]
    assert all(entry["peer"].startswith("ipv4:127.0.0.1:") and entry["time"].endswith("+00:00") for entry in entries)
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def test_without_keys_commands_are_recorded_under_the_address(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    settings = ServerSettings(safety=Safety(audit_file=audit))
    with (
        Server([linear_bundle(tmp_path)], settings=settings) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        request = messages.RepositoryModelLoadRequest(model_name="linear")
        assert code_of_call(channel, OPEN_INFERENCE, "RepositoryModelLoad", request, []) is CODE.OK
    (entry,) = map(json.loads, audit.read_text().splitlines())
    assert (entry["who"], entry["outcome"]) == ("127.0.0.1", "done")


def test_an_audit_log_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    settings = ServerSettings(safety=Safety(audit_file=tmp_path / "missing" / "audit.jsonl"))
    with pytest.raises(ResourceError, match="audit log"):
        Server([linear_bundle(tmp_path)], settings=settings)


@pytest.mark.parametrize(
    ("listen", "public"),
    [
        ("127.0.0.1:1", False),
        ("127.8.9.1:1", False),
        ("[::1]:1", False),
        ("localhost:1", False),
        ("unix:/run/x.sock", False),
        ("0.0.0.0:1", True),
        ("[::]:1", True),
        ("10.0.0.1:1", True),
        ("example.com:1", True),
    ],
)
def test_plaintext_stays_on_this_machine_unless_asked_for(tmp_path: Path, listen: str, public: bool) -> None:
    assert is_public(listen) is public
    spec = WorkerSpec((tmp_path,), listen)
    budget = Budget(2, 1, ((), ()))
    if public:
        with pytest.raises(ConfigError, match="other machines") as refused:
            Server([tmp_path], listen)
        assert refused.value.fix is not None
        assert "--tls-cert" in refused.value.fix
        with pytest.raises(ConfigError, match="other machines"):
            WorkerPool(spec, budget)
        asked = ServerSettings(safety=Safety(insecure=True))
        assert Server([tmp_path], listen, settings=asked)
    else:
        assert Server([tmp_path], listen)


def test_on_public_addresses_nothing_is_described_or_controlled_unless_asked_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("server")
    safety = Safety(tls=TlsFiles(pair.cert, pair.key))
    load = messages.RepositoryModelLoadRequest(model_name="linear")
    listing = [reflection_pb2.ServerReflectionRequest(list_services="")]
    for settings, offered in (
        (ServerSettings(safety=safety), False),
        (ServerSettings(safety=safety, reflection=True, model_control=True), True),
    ):
        credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
        with Server([linear_bundle(tmp_path)], "0.0.0.0:0", settings=settings) as server:
            target = f"127.0.0.1:{server.address.rpartition(':')[2]}"
            with grpc.secure_channel(target, credentials) as channel:
                code = code_of_call(channel, OPEN_INFERENCE, "RepositoryModelLoad", load, [])
                assert code is (CODE.OK if offered else CODE.UNAVAILABLE)
                describe = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
                if offered:
                    assert list(describe(iter(listing), timeout=120))
                else:
                    with pytest.raises(grpc.RpcError) as refused:
                        list(describe(iter(listing), timeout=120))
                    assert refused.value.code() is CODE.UNIMPLEMENTED


def test_a_unix_socket_serves_with_its_permissions_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    listen = f"unix:{path}"
    settings = ServerSettings(safety=Safety(socket_mode=0o660))
    with Server([linear_bundle(tmp_path)], listen, settings=settings) as server:
        assert server.address == listen
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with Client(listen) as client:
            client.infer("linear", {"x": ONES})
        second = Server([linear_bundle(tmp_path)], listen)
        with pytest.raises(ResourceError, match="somebody listens"):
            second.start()
        with Client(listen) as client:
            client.infer("linear", {"x": ONES})
    assert not path.exists()
    # What a killed server left behind is taken over; what is no socket is not touched.
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with Server([linear_bundle(tmp_path)], listen), Client(listen) as client:
        client.infer("linear", {"x": ONES})
    path.write_text("mine")
    with pytest.raises(ResourceError, match="no socket"):
        Server([linear_bundle(tmp_path)], listen).start()
    assert path.read_text() == "mine"


@pytest.mark.parametrize("listen", ["unix:", "unix:" + "x" * 200])
def test_a_path_that_is_no_socket_path_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match="bytes; expected"):
        Server([tmp_path], listen)


def test_workers_share_no_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unix socket"):
        WorkerPool(WorkerSpec((tmp_path,), f"unix:{tmp_path}/s"), Budget(2, 1, ((), ())))


def test_the_commands_make_list_and_revoke_a_key_that_a_running_server_heeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    assert main(["access", "create", str(file), "--role", "infer", "--model", "linear", "--holder", "lobby"]) == 0
    secret = capsys.readouterr().out.strip()
    assert main(["access", "list", str(file), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["models"], shown["roles"], shown["holder"]) == (["linear"], ["infer"], "lobby")
    audit = tmp_path / "audit.jsonl"
    with server_process(
        [linear_bundle(tmp_path)], "--access", str(file), "--audit", str(audit), "--rate", "1000:2000"
    ) as server:
        with Client(server.address, token=secret) as client:
            client.infer("linear", {"x": ONES})
            assert main(["access", "create", str(file), "--role", "infer", "--days", "1", "--json"]) == 0
            second = json.loads(capsys.readouterr().out)
            assert main(["access", "revoke", str(file), shown["id"]]) == 0
            await_refusal(client)
        with Client(server.address, token=second["key"]) as client:
            client.infer("linear", {"x": ONES})
    capsys.readouterr()
    assert main(["access", "revoke", str(file), "0000000000"]) == 1
    assert "has no key '0000000000'" in capsys.readouterr().err
    assert main(["access", "create", str(file), "--role", "infer", "--days", "0"]) == 2
    assert main(["access", "list", str(file)]) == 0
    assert second["id"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--listen", "0.0.0.0:0"], "other machines"),
        (["--listen", "0.0.0.0:0", "--workers", "2"], "other machines"),
        (["--tls-cert", "x.pem"], "go together"),
        (["--client-ca", "x.pem"], "needs --tls-cert"),
        (["--rate", "fast"], "--rate"),
        (["--rate", "0"], "rate is 0"),
        (["--socket-mode", "999"], "octal"),
        (["--max-client-streams", "0"], "expected 1 or more"),
    ],
)
def test_what_cannot_be_meant_is_said_and_the_exit_code_is_2(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path / "none.tide"), *options]) == 2
    assert message in capsys.readouterr().err


def test_the_command_serves_encrypted_with_everything_on(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, client_pair = authority.pair("server"), authority.pair("client")
    key, secret = new_key(("infer",), ("linear",))
    write_access_file(tmp_path / "keys.json", AccessFile(keys=(key,)))
    options = ["--tls-cert", pair.cert, "--tls-key", pair.key, "--client-ca", authority.path]
    options += ["--access", tmp_path / "keys.json", "--rate", "100", "--connection-age-s", "3600"]
    with server_process([linear_bundle(tmp_path)], *map(str, options)) as server:
        shown = TlsSettings(authority.path, client_pair.cert, client_pair.key)
        with Client(server.address, tls=shown, token=secret) as client:
            assert client.infer("linear", {"x": ONES})["y"].tolist() == [[1, 1, 1, 1]]


class OpenEnded:
    """Requests, and then silence until it is closed."""

    def __init__(self, requests: list[Any]) -> None:
        self._requests = requests
        self._closed = threading.Event()

    def __iter__(self) -> OpenEnded:
        return self

    def __next__(self) -> Any:
        if self._requests:
            return self._requests.pop(0)
        self._closed.wait(60)
        raise StopIteration

    def close(self) -> None:
        self._closed.set()


def code_of_call(channel: Any, service: Service, name: str, request: Any, headers: list[tuple[str, str]]) -> Any:
    method = service.method(name)
    call = channel.unary_unary(service.path(method), method.request.SerializeToString, method.response.FromString)
    try:
        call(request, metadata=headers, timeout=120)
    except grpc.RpcError as error:
        return error.code()
    return CODE.OK


def replace_keys(content: AccessFile, keys: tuple[Any, ...]) -> AccessFile:
    return AccessFile(content.schema, keys)


def await_refusal(client: Client) -> None:
    """Call until the server has read its keys again."""
    wait_until(lambda: refused_to(client))


def refused_to(client: Client) -> bool:
    try:
        client.infer("linear", {"x": ONES})
    except AccessError:
        return True
    return False
