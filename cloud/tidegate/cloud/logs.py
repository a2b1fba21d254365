"""What a server says about itself: one line for each event, as text or as JSON, on standard error.

An event has a name, a sentence, and facts with names. Requests are no events: a server that is well says nothing about
them. Two exceptions. A request that failed through no fault of its caller is one, at most so many a second. And with
`log_requests` every request is one. Neither ever holds a value of an input or an output, nor the message of an error,
in which a runtime may quote values.

Modules log with `logging.getLogger(__name__)` and `extra=event("name", fact=value)`; only the process sets up where it
goes, with `set_up`.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

from tidegate.cloud.core import Caller, Inference, Request
from tidegate.cloud.speech_log import LoggedCall
from tidegate.cloud.version_status import ReloadReport, said_of
from tidegate.errors import TidegateError
from tidegate.wire.status import code_of

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")

LOGGER = "tidegate"

OTHER_LOGGERS = ("uvicorn.error", "opentelemetry")
"""Of libraries, which say nothing while all is well: written in our form."""

FAILURES_PER_S = 10
"""Lines about failed requests; more are counted and told of with the next."""

WARNING_MARK = "tidegate: "

_EVENT = "tidegate_event"
_FACTS = "tidegate_facts"

log = logging.getLogger(__name__)


def event(name: str, **facts: Any) -> dict[str, Any]:
    """Return the `extra` of a log call: the event's name, for machines, and its facts, values of JSON."""
    return {_EVENT: name, _FACTS: facts}


def set_up(log_format: LogFormat, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send what Tidegate logs to standard error, one line each. What was set up before is replaced.

    Args:
        log_format: text for people, JSON for machines.
        level: the least serious that is written.
        stream: in place of standard error.
    """
    logger = logging.getLogger(LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    for name in OTHER_LOGGERS:
        other = logging.getLogger(name)
        other.handlers = [handler]
        other.propagate = False


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, event, message, logger, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, _EVENT, "message"),
            "message": record.getMessage(),
            "logger": record.name,
            "process": record.process,
        }
        facts: Mapping[str, Any] = getattr(record, _FACTS, {})
        line |= {name: value for name, value in facts.items() if name not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """The sentence; what is at least a warning begins with `tidegate:`, as all of the command's messages do."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and a traceback where there is one."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{WARNING_MARK}{text}"
        fix = getattr(record, _FACTS, {}).get("fix")
        if fix:
            text += f"\n  what to do: {fix}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class RequestLog:
    """Logs failures of the server, and every request where that is asked for. An `Observer`, of speech as well."""

    def __init__(self, *, every_request: bool = False) -> None:
        """Begin; `every_request`: whether requests that were answered are logged as well."""
        self._every = every_request
        self._lock = threading.Lock()
        self._second = 0
        self._told = 0
        self._untold = 0

    def finished(
        self, caller: Caller, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        """Log one request, if it is an event."""
        failed = error is not None and error.fault not in ("caller", "peer") and not error.retry
        if not failed and not self._every:
            return
        code = "OK" if error is None else code_of(error)
        served = answer.served if answer is not None else None
        facts = {
            "request_id": request_id(caller, request.id),
            "model": served.name if served is not None else request.model,
            "version": served.version if served is not None else request.version,
            "code": code,
            "took_ms": round(took_ns / 1e6, 3),
            "peer": caller.peer,
        }
        if error is not None:
            facts["error"] = type(error).__name__
        text = f"request {facts['request_id']} for {facts['model']} {facts['version']}: {code}, {facts['took_ms']} ms"
        self._tell("request", text, facts, failed)

    def turned_away(self, caller: Caller, transport: str, error: TidegateError) -> None:
        """Log one request that could not be read or let in, where every request is asked for."""
        facts = {
            "request_id": request_id(caller),
            "transport": transport,
            "code": code_of(error),
            "error": type(error).__name__,
            "peer": caller.peer,
        }
        text = f"request {facts['request_id']} over {transport} was turned away: {facts['code']}"
        self._tell("request_turned_away", text, facts, failed=False)

    def speech_opened(self, caller: Caller, method: str) -> LoggedCall:
        """Log one speech call when it ends, if that is an event."""
        return LoggedCall(
            caller,
            method,
            request_id(caller),
            lambda text, facts, failed: self._tell("speech", text, facts, failed),
        )

    def _tell(self, name: str, text: str, facts: dict[str, Any], failed: bool) -> None:
        """Log a failure of the server, and anything else where every request is asked for."""
        if not self._every:
            told, untold = self._may_tell() if failed else (False, 0)
            if not told:
                return
            if untold:
                facts["failures_not_logged"] = untold
        level, name = (logging.ERROR, f"{name}_failed") if failed else (logging.INFO, name)
        log.log(level, text, extra=event(name, **facts))

    def _may_tell(self) -> tuple[bool, int]:
        """Return whether one more line is within the limit, and how many were not."""
        second = int(time.monotonic())
        with self._lock:
            if second != self._second:
                self._second, self._told = second, 0
            if self._told >= FAILURES_PER_S:
                self._untold += 1
                return False, 0
            self._told += 1
            untold, self._untold = self._untold, 0
            return True, untold


def request_id(caller: Caller, own_id: str = "") -> str:
    """Return how a request is called: by its header `x-request-id`, else its own id, else a new one."""
    given = caller.metadata.get("x-request-id") or own_id
    return given[:128] if given else uuid.uuid4().hex


def say(*lines: str) -> None:
    """Log sentences that have no facts; what begins with `tidegate:` is a warning."""
    for line in lines:
        warning = line.startswith(WARNING_MARK)
        log.log(logging.WARNING if warning else logging.INFO, line.removeprefix(WARNING_MARK))


def tell_reload(report: ReloadReport) -> None:
    """Log what a reload changed and what it could not load."""
    for verb, versions in (("loaded", report.loaded), ("unloaded", report.unloaded)):
        for name, version in versions:
            log.info("%s %s %s", verb, name, version, extra=event(verb, model=name, version=version))
    for place, error in (*report.failed, *report.notes):
        facts = {"place": place, "error": type(error).__name__, "fix": error.fix}
        log.warning("%s", said_of(place, error), extra=event("load_failed", **facts))
