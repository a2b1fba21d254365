"""The ASGI application: find the route, ask the guard, read the body, do it, answer; every error becomes JSON here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from tidegate.cloud.core import Caller, Core
from tidegate.cloud.http.exchange import (
    Answer,
    Ask,
    HttpCaller,
    HttpInputError,
    Receive,
    Scope,
    Send,
    json_answer,
    read_request_body,
    send_answer,
)
from tidegate.cloud.http.inference import infer
from tidegate.cloud.http.plain import plain
from tidegate.cloud.http.routes import Routes
from tidegate.cloud.http.settings import HttpSettings
from tidegate.cloud.http.status import http_status
from tidegate.cloud.in_flight import BytesInFlight
from tidegate.cloud.inference import InferenceServicer
from tidegate.cloud.repository_control import RepositoryControl
from tidegate.cloud.trace_log import LogSettings
from tidegate.errors import InputError, TidegateError, UnavailableError
from tidegate.wire import messages
from tidegate.wire.status import text_of

METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

REQUEST_ID_HEADER = "x-request-id"

Handler = Callable[[Ask], Awaitable[Answer]]


class Door(Protocol):
    """What every request passes; `tidegate.cloud.guard.Guard` is one."""

    def at_the_door(self, caller: Caller, method: str) -> None:
        """Refuse a stranger before his body is read; raises to refuse."""

    def check_call(self, caller: Caller, method: str, model: str) -> None:
        """Let what is asked for pass; raises to refuse."""


class App:
    """Serves one set of routes. Every request runs on the event loop's thread, except commands to the repository."""

    def __init__(
        self,
        core: Core,
        routes: Routes,
        *,
        control: RepositoryControl,
        metrics: Callable[[], Awaitable[bytes]],
        settings: HttpSettings,
        unread: BytesInFlight,
        door: Door | None = None,
    ) -> None:
        """Join the parts.

        Args:
            core: the models.
            routes: what is offered.
            control: takes commands to load and unload.
            metrics: returns Prometheus' text form.
            settings: limits of a request, and of requests under way.
            unread: counts answers that are not taken.
            door: asked before everything; None: everybody may.
        """
        self._core = core
        self._routes = routes
        self._door = door
        self._maximum_body_bytes = settings.maximum_body_bytes
        self._maximum_requests = settings.maximum_requests
        self._under_way = 0
        self._unread = unread
        self._metrics = metrics
        self._servicer = InferenceServicer(core)
        self._control = control
        self._log_settings = LogSettings(control.permit_settings)
        self._handlers: dict[str, Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ModelInfer": self._infer,
            "Metrics": self._show_metrics,
            "ServerMetadata": self._described,
            "ModelMetadata": self._described,
            "ModelConfig": self._described,
            "ModelStatistics": self._described,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._command,
            "RepositoryModelUnload": self._command,
            "LogSettings": self._log,
        }
        self._describe: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            "ServerMetadata": (messages.ServerMetadataRequest, self._servicer.server_metadata),
            "ModelMetadata": (messages.ModelMetadataRequest, self._servicer.model_metadata),
            "ModelConfig": (messages.ModelConfigRequest, self._servicer.model_config),
            "ModelStatistics": (messages.ModelStatisticsRequest, self._servicer.model_statistics),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        caller = HttpCaller(scope, headers)
        self._under_way += 1
        work, has_body, does = None, False, ""
        try:
            if self._under_way > self._maximum_requests:
                raise _too_many(self._maximum_requests)
            route, name, version = self._routes.find(scope["method"], scope["path"])
            does = route.does
            if self._door is not None:
                self._door.at_the_door(caller, does)
            if does == "ModelInfer":
                work = self._core.work.begin()
            ask = Ask(caller, headers, does, name, version, receive=receive)
            if route.method == "POST":
                ask.body = await read_request_body(headers, receive, self._maximum_body_bytes)
                has_body = True
            if self._door is not None:
                self._door.check_call(caller, does, name)
            answer = await self._handlers[does](ask)
            self._unread.check(len(answer.body))
        except TidegateError as error:
            answer = error_answer(error)
            # Without a route it is not known what was wanted.
            if does in ("ModelInfer", "") and not caller.is_begun:
                self._core.turned_away(caller, "http", error)
        # Who waits for leave to send his body and gets an answer instead need not send it: what comes next is unclear.
        if self._core.work.draining or ("expect" in headers and not has_body):
            answer.headers.append((b"connection", b"close"))
        if REQUEST_ID_HEADER in headers:
            answer.headers.append((REQUEST_ID_HEADER.encode(), headers[REQUEST_ID_HEADER].encode("latin-1")))
        try:
            await send_answer(answer, headers.get("accept-encoding", ""), send)
        finally:
            self._under_way -= 1
            if work is not None:
                work.release()

    async def _live(self, ask: Ask) -> Answer:
        return json_answer({"live": True})

    async def _ready(self, ask: Ask) -> Answer:
        return _yes_or_no("ready", self._core.ready)

    async def _model_ready(self, ask: Ask) -> Answer:
        return _yes_or_no("ready", self._core.model_ready(ask.name, ask.version))

    async def _infer(self, ask: Ask) -> Answer:
        return await infer(self._core, ask)

    async def _show_metrics(self, ask: Ask) -> Answer:
        return Answer(200, await self._metrics(), METRICS_TYPE)

    async def _described(self, ask: Ask) -> Answer:
        """Answer with what gRPC's method of the same name says."""
        request, describe = self._describe[ask.does]
        fields = {"name": ask.name, "version": ask.version} if ask.does != "ServerMetadata" else {}
        # It may ask other processes, and wait for them.
        waits = ask.does == "ModelStatistics"
        found = plain(await asyncio.to_thread(describe, request(**fields)) if waits else describe(request(**fields)))
        # Triton's REST form has the configuration without gRPC's envelope.
        return json_answer(found["config"] if ask.does == "ModelConfig" else found)

    async def _index(self, ask: Ask) -> Answer:
        wanted = _object(ask.body).get("ready", False)
        if not isinstance(wanted, bool):
            raise InputError(f"`ready` is {wanted!r}; expected true or false", fix="send one of them")
        found = plain(self._servicer.repository_index(messages.RepositoryIndexRequest(ready=wanted)))
        return json_answer(found["models"])

    async def _command(self, ask: Ask) -> Answer:
        if ask.does == "RepositoryModelLoad":
            request, command = messages.RepositoryModelLoadRequest(model_name=ask.name), self._control.load
        else:
            request, command = messages.RepositoryModelUnloadRequest(model_name=ask.name), self._control.unload
        _fill_parameters(request.parameters, _object(ask.body).get("parameters", {}))
        await asyncio.to_thread(command, request, ask.caller)
        return json_answer({})

    async def _log(self, ask: Ask) -> Answer:
        request = messages.LogSettingsRequest()
        for name, value in _object(ask.body).items():
            kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}.get(type(value))
            if kind is None or (kind == "uint32_param" and not 0 <= value < 2**32):
                raise InputError(f"log setting {name!r} is {value!r}", fix="send true, false, a number or text")
            setattr(request.settings[name], kind, value)
        found = self._log_settings(request, ask.caller)
        return json_answer({name: next(iter(plain(setting).values())) for name, setting in found.settings.items()})


def error_answer(error: TidegateError) -> Answer:
    """Return an error as the protocol has it, with the status code of the table."""
    answer = json_answer({"error": text_of(error)}, http_status(error))
    if answer.status == 401:
        answer.headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, HttpInputError) and error.allowed:
        answer.headers.append((b"allow", error.allowed.encode()))
    return answer


def _too_many(maximum: int) -> UnavailableError:
    return UnavailableError(f"{maximum} requests are under way, and no more are taken", fix="call again later")


def _yes_or_no(name: str, value: bool) -> Answer:
    """Return 200 or, as the protocol says, a 4xx."""
    return json_answer({name: value}, 200 if value else 400)


def _object(body: bytes) -> Mapping[str, Any]:
    """Return a body that is a JSON object, or empty."""
    if not body.strip():
        return {}
    try:
        found: Mapping[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"the body is not a JSON object: {error}", fix="send one, or nothing") from error
    return found


def _fill_parameters(fields: Any, parameters: Any) -> None:
    if not isinstance(parameters, dict):
        raise InputError("`parameters` is not a JSON object", fix="send names and values")
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}.get(type(value))
        if kind is None or (kind == "int64_param" and not -(2**63) <= value < 2**63):
            raise InputError(f"parameter {name!r} is {value!r}", fix="send true, false, a number or text")
        setattr(fields[name], kind, value)
