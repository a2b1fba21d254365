"""One inference over HTTP: body to request, core, answer to body."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from tidegate.cloud.classification import PARAMETER, check_classifiable, classified
from tidegate.cloud.core import Core, Inference, Request
from tidegate.cloud.http.exchange import BINARY, JSON, Answer, Ask, Message, Receive
from tidegate.cloud.http.tensors import InferBody, read_body, write_body
from tidegate.errors import InputError, ModelError, TidegateError

JSON_LENGTH_HEADER = "inference-header-content-length"

LONGEST_NUMBER = 18
"""Digits of a length in a header."""


async def infer(core: Core, ask: Ask) -> Answer:
    """Answer `POST v2/models/NAME[/versions/VERSION]/infer`.

    Raises:
        TidegateError: the body is not a request, or as `Core.infer`.
    """
    asked, feeds = read_body(ask.body, _json_length(ask.headers))
    top = _classifications(core, ask, asked)
    request = Request(
        ask.name,
        feeds,
        version=ask.version,
        wanted=[output.name for output in asked.outputs],
        id=asked.id,
        priority=_whole(asked.parameters, "priority"),
        timeout_s=_whole(asked.parameters, "timeout") / 1e6,
    )
    inference = await _answered(core, request, ask)
    return _written(inference, asked, top)


async def _answered(core: Core, request: Request, ask: Ask) -> Inference:
    """Run the request; a short run is done before the first wait, on this very thread."""
    outcome = _Outcome()
    ask.caller.is_begun = True
    core.begin(request, ask.caller, outcome.tell, inline=True)
    if outcome.known or ask.receive is None:
        return await outcome.taken()
    watch = asyncio.get_running_loop().create_task(_watch(ask, ask.receive))
    try:
        return await outcome.taken()
    finally:
        watch.cancel()


class _Outcome:
    """What the core tells, from any thread, and the event loop waits for. It is taken once and then let go of.

    A future that held an error would be held by the error's own traceback, and both would wait for the collector.
    """

    def __init__(self) -> None:
        self.known = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waiter: asyncio.Future[None] | None = None
        self._told: tuple[Inference | None, TidegateError | None] = None, None

    def tell(self, found: Inference | None, error: TidegateError | None) -> None:
        """Note the outcome."""
        if threading.get_ident() == self._thread:
            self._note(found, error)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._note, found, error)

    async def taken(self) -> Inference:
        """Return the inference, when it is there, or raise its error."""
        if not self.known:
            self._waiter = self._loop.create_future()
            await self._waiter
        (found, error), self._told = self._told, (None, None)
        if found is not None:
            return found
        try:
            raise error or ModelError("the request has no outcome", fix="report this defect")
        finally:
            del error

    def _note(self, found: Inference | None, error: TidegateError | None) -> None:
        self.known, self._told = True, (found, error)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _watch(ask: Ask, receive: Receive) -> None:
    """Note when the caller goes away: his request is then not run any more, if it still waits."""
    message: Message = await receive()
    if message["type"] == "http.disconnect":
        ask.caller.has_gone = True


def _written(inference: Inference, asked: InferBody, top: Mapping[str, int]) -> Answer:
    served = inference.served
    outputs = inference.outputs
    if top:
        outputs = {
            name: classified(served, name, array, top[name]) if name in top else array
            for name, array in outputs.items()
        }
    head: dict[str, Any] = {"model_name": served.name, "model_version": served.version}
    if asked.id:
        head["id"] = asked.id
    binary = {
        output.name: _switch(output.parameters, "binary_data")
        for output in asked.outputs
        if "binary_data" in output.parameters
    }
    written = write_body(head, outputs, binary, default_binary=_switch(asked.parameters, "binary_data_output"))
    if written.json_bytes == len(written.body) and not (binary or "binary_data_output" in asked.parameters):
        return Answer(200, written.body, JSON)
    length = (JSON_LENGTH_HEADER.encode(), str(written.json_bytes).encode())
    return Answer(200, written.body, BINARY, [length])


def _classifications(core: Core, ask: Ask, asked: InferBody) -> dict[str, int]:
    """Return how many highest values are asked for, by output."""
    top: dict[str, int] = {}
    for output in asked.outputs:
        if any(key.startswith("shared_memory") for key in output.parameters):
            raise InputError(
                f"output {output.name!r} is to lie in shared memory, which this server does not offer",
                fix="take it from the answer",
            )
        if PARAMETER in output.parameters:
            top[output.name] = _whole(output.parameters, PARAMETER)
            if not top[output.name]:
                raise InputError(f"parameter {PARAMETER!r} of output {output.name!r} is 0", fix="ask for 1 or more")
            check_classifiable(core.repository.find(ask.name, ask.version), output.name)
    return top


def _json_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get(JSON_LENGTH_HEADER)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > LONGEST_NUMBER:
        raise InputError(f"Inference-Header-Content-Length is {text[:100]!r}", fix="send a whole number from 0")
    return int(text)


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InputError(
            f"parameter {name!r} is {str(value)[:100]!r}; expected a whole number from 0 to 2^63 - 1", fix="send one"
        )
    return value


def _switch(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"parameter {name!r} is {value!r}; expected true or false", fix="send one of them")
    return value
