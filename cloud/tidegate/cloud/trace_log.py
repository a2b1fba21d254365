"""Triton's settings at run time: of the log, its level; of traces and shared memory, why they are not here.

Triton's four switches are one threshold here, that of the logger `tidegate`: `log_verbose_level` over 0 is DEBUG,
`log_info` INFO, `log_warning` WARNING, `log_error` ERROR. What is switched on takes all that is more serious along, and
what is switched off all that is less; asking for the opposite in one request is refused.
Where the log goes is decided when the process starts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tidegate.cloud.core import Caller
from tidegate.errors import DependencyError, InputError
from tidegate.wire import messages

LOGGER = "tidegate"

SHARED_MEMORY_METHODS = tuple(
    f"{kind}SharedMemory{action}" for kind in ("System", "Cuda") for action in ("Status", "Register", "Unregister")
)

_SILENT = logging.CRITICAL + 1

_VERBOSE = "log_verbose_level"

_FIXED = {"log_file": "", "log_format": "default"}
"""Settings of Triton's that cannot be changed here, with their values."""

_THRESHOLD = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
"""Least serious first."""

Permit = Callable[[Caller, str], None]
"""Lets a change of settings by this caller pass, or raises."""


class LogSettings:
    """LogSettings: reads the level, and changes it for those who may."""

    def __init__(self, permit: Permit) -> None:
        self._permit = permit

    def __call__(self, request: Any, caller: Caller) -> Any:
        """Change what the request names, then return all settings.

        Raises:
            InputError: an unknown setting, a value of another type, or switches that no threshold can meet.
            DependencyError: a setting that is fixed while the process runs.
            TidegateError: the caller may not change settings.
        """
        if request.settings:
            self._permit(caller, "LogSettings")
            logging.getLogger(LOGGER).setLevel(_level(request.settings))
        return current_settings()


def current_settings() -> Any:
    """Return the LogSettingsResponse for the level as it is."""
    level = logging.getLogger(LOGGER).getEffectiveLevel()
    response = messages.LogSettingsResponse()
    for name, threshold in _THRESHOLD.items():
        response.settings[name].bool_param = level <= threshold
    response.settings[_VERBOSE].uint32_param = int(level <= logging.DEBUG)
    for name, value in _FIXED.items():
        response.settings[name].string_param = value
    return response


def no_trace_settings(request: Any) -> Any:
    """Refuse Triton's trace settings.

    Raises:
        DependencyError: always.
    """
    raise DependencyError(
        "TraceSetting is not offered: traces of this server are OpenTelemetry's, set up when it starts",
        fix="configure the collector, or the sampler in the environment of the server",
    )


def no_shared_memory(request: Any) -> Any:
    """Refuse shared memory: it would let a caller name memory of the server's machine.

    Raises:
        DependencyError: always.
    """
    raise DependencyError(
        "shared memory is not offered by this server", fix="send tensors in the request, best as raw contents"
    )


def _level(settings: Any) -> int:
    """Return the threshold that the named switches ask for; those not named follow."""
    named: dict[int, bool] = {}
    for name, value in settings.items():
        if name in _FIXED:
            if value.string_param != _FIXED[name]:
                raise DependencyError(
                    f"{name} cannot be changed while the server runs", fix="set up logging when the server starts"
                )
            continue
        level, expected = (logging.DEBUG, "uint32_param") if name == _VERBOSE else (_THRESHOLD.get(name), "bool_param")
        if level is None:
            raise InputError(
                f"unknown log setting {name!r}; settings: {', '.join((_VERBOSE, *_THRESHOLD, *_FIXED))}",
                fix="name one of these",
            )
        kind = value.WhichOneof("parameter_choice")
        if kind != expected:
            raise InputError(f"log setting {name!r} came as {kind}; expected {expected}", fix=f"send it as {expected}")
        named[level] = bool(getattr(value, expected))
    return _threshold(named, logging.getLogger(LOGGER).getEffectiveLevel())


def _threshold(named: dict[int, bool], now: int) -> int:
    lowest_on = min((level for level, on in named.items() if on), default=None)
    highest_off = max((level for level, on in named.items() if not on), default=None)
    if lowest_on is not None and highest_off is not None and highest_off > lowest_on:
        raise InputError(
            f"{logging.getLevelName(lowest_on)} shall be on and {logging.getLevelName(highest_off)} off; "
            "a threshold cannot do that",
            fix="leave every level above the lowest one that is on",
        )
    threshold = now
    if highest_off is not None:
        levels = (*_THRESHOLD.values(), _SILENT)
        threshold = max(threshold, next(level for level in levels if level > highest_off))
    return threshold if lowest_on is None else min(threshold, lowest_on)
