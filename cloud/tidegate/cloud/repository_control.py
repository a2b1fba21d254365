"""Triton's model control: load and unload on command. Off unless switched on; off by default on a public address.

Loading and unloading change what everybody is served, so each command passes the `ControlGuard`s first (who may) and
is told to them afterwards (what came of it). Both are empty by default.

As with Triton: `unload_dependents` is taken and means nothing, since no model here depends on another; a configuration
or files in the request are refused, since a bundle is proven as a whole. Of our own: the parameter `version` names one
version; without it a load takes what the policy selects, and an unload takes all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tidegate.cloud.core import Caller, Core
from tidegate.errors import DependencyError, InputError, TidegateError, UnavailableError
from tidegate.wire import messages

_LOAD_PARAMETERS = frozenset({"version"})
_UNLOAD_PARAMETERS = frozenset({"version", "unload_dependents"})


class ControlGuard(Protocol):
    """Decides who may give commands, and learns what came of them: authorisation and audit plug in here."""

    def permit(self, caller: Caller, action: str, model: str) -> None:
        """Return to let a command pass. `action` is the method's name, such as `RepositoryModelLoad`.

        Raises:
            TidegateError: what the caller is told.
        """

    def done(self, caller: Caller, action: str, model: str, error: TidegateError | None) -> None:
        """Take note of a command that ended, or was refused; must not raise."""


class RepositoryControl:
    """RepositoryModelLoad and RepositoryModelUnload; both may take long, so each call needs a thread of its own."""

    def __init__(
        self, core: Core, *, enabled: bool, guards: Sequence[ControlGuard] = (), shared_port: bool = False
    ) -> None:
        """Join the parts.

        Args:
            core: whose repository is changed.
            enabled: False refuses every command.
            shared_port: whether other processes answer on the same port. A command that only the one that it happens
                to reach would follow is refused then: loading, unloading, settings.
            guards: asked in this order before every command, told after it.
        """
        self._core = core
        self._enabled = enabled
        self._guards = tuple(guards)
        self._shared_port = shared_port

    def load(self, request: Any, caller: Caller) -> Any:
        """Load a model's versions, or what changed of them; whatever served before still serves when that fails."""

        def command() -> None:
            version = _version(request, _LOAD_PARAMETERS)
            if not request.model_name:
                raise InputError("no model is named", fix="fill model_name")
            try:
                self._core.repository.load(request.model_name, version)
            except TidegateError as error:
                # Triton's words, which its clients look for.
                raise type(error)(f"failed to load '{request.model_name}': {error.message}", fix=error.fix) from error

        self._guarded("RepositoryModelLoad", request, caller, command)
        return messages.RepositoryModelLoadResponse()

    def unload(self, request: Any, caller: Caller) -> Any:
        """Drain and free a model; returns when its requests in flight are answered."""

        def command() -> None:
            self._core.repository.unload(request.model_name, _version(request, _UNLOAD_PARAMETERS))

        self._guarded("RepositoryModelUnload", request, caller, command)
        return messages.RepositoryModelUnloadResponse()

    def permit_settings(self, caller: Caller, action: str) -> None:
        """Let a change of the server's own settings pass, by the same rules.

        Raises:
            UnavailableError: control is off.
            TidegateError: a guard's.
        """
        self._guarded(action, messages.RepositoryModelLoadRequest(), caller, lambda: None)

    def _guarded(self, action: str, request: Any, caller: Caller, command: Callable[[], object]) -> None:
        def checked() -> None:
            if self._shared_port:
                raise UnavailableError(
                    f"{action} is not possible here: several processes share this port, and it would reach one of them",
                    fix="change the directory that the server watches (--watch-s), or serve with one worker",
                )
            _check_repository(request.repository_name)
            command()

        self.command(action, request.model_name, caller, checked)

    def command(self, action: str, model: str, caller: Caller, command: Callable[[], object]) -> None:
        """Do one command of whoever may give it, and tell the guards what came of it.

        Raises:
            UnavailableError: control is off.
            TidegateError: a guard's, or the command's.
        """
        try:
            self._check_enabled(action)
            for guard in self._guards:
                guard.permit(caller, action, model)
            command()
        except TidegateError as error:
            for guard in self._guards:
                guard.done(caller, action, model, error)
            raise
        for guard in self._guards:
            guard.done(caller, action, model, None)

    def _check_enabled(self, action: str) -> None:
        if not self._enabled:
            raise UnavailableError(
                f"{action} is not allowed: model control is off on this server",
                fix="start the server with --model-control on",
            )


def check_index_request(request: Any) -> None:
    """Refuse an index of one repository: there are no several.

    Raises:
        DependencyError: it names one.
    """
    _check_repository(request.repository_name)


def _check_repository(name: str) -> None:
    if name:
        raise DependencyError(
            f"repository_name is {name!r}; this server has one repository and it has no name",
            fix="leave repository_name empty",
        )


def _version(request: Any, known: frozenset[str]) -> str:
    unknown = sorted(set(request.parameters) - known)
    if unknown:
        raise InputError(
            f"unknown parameter {unknown[0]!r}; expected {' or '.join(sorted(known))}",
            fix="a bundle is loaded as it is: put configuration and files into the bundle",
        )
    if "version" not in request.parameters:
        return ""
    version: str = request.parameters["version"].string_param
    if not version:
        raise InputError("parameter 'version' is no text", fix="send it as string_param, or leave it out")
    return version
