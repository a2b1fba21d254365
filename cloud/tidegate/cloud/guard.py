"""What every call passes before anything is done for it: key, rate, role, model; and the record of administration.

It knows no transport. gRPC's handlers and the HTTP port ask the same `Guard`, and it is an `Admission` of the core,
so that every inference passes it, whichever way it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from tidegate.cloud.access import Access, Action, Key, check_allowed
from tidegate.cloud.audit import AuditLog
from tidegate.cloud.core import Caller
from tidegate.cloud.rate import RateLimiter, client_address
from tidegate.errors import AccessError, TidegateError

Answer = TypeVar("Answer")

ACTION_BY_METHOD: Mapping[str, Action] = {
    "ServerLive": Action.PROBE,
    "ServerReady": Action.PROBE,
    "Check": Action.PROBE,
    "Watch": Action.PROBE,
    "ModelReady": Action.READ,
    "ServerMetadata": Action.READ,
    "ModelMetadata": Action.READ,
    "ModelConfig": Action.READ,
    "ModelStatistics": Action.READ,
    "RepositoryIndex": Action.READ,
    "ServerReflectionInfo": Action.READ,
    "ModelInfer": Action.INFER,
    "ModelStreamInfer": Action.INFER,
    "StreamingRecognize": Action.INFER,
    "Recognize": Action.INFER,
    "BatchRecognize": Action.INFER,
}
"""By the name of a method, of gRPC or of its twin in HTTP; what is not listed is administration, the safe side."""


def action_of(method: str) -> Action:
    """Return what calling a method is."""
    return ACTION_BY_METHOD.get(method, Action.ADMINISTER)


class Guard:
    """Lets calls pass or refuses them. Safe for several threads."""

    def __init__(
        self,
        *,
        access: Access | None = None,
        rate: RateLimiter | None = None,
        audit: AuditLog | None = None,
        administration: bool = True,
    ) -> None:
        """Join the parts.

        Args:
            access: keys; None: everybody may do everything.
            rate: None: as often as he likes.
            audit: None: nothing is recorded.
            administration: whether there is any from outside.
        """
        self._access = access
        self._rate = rate
        self._audit = audit
        self._administration = administration

    @property
    def idle(self) -> bool:
        """Whether inference needs no check at all."""
        return self._access is None and self._rate is None

    def admit(self, caller: Caller, model: str) -> None:
        """Let one inference pass; raises as `check`."""
        if self._access is not None or self._rate is not None:
            self.check(caller, Action.INFER, model)

    def identify(self, caller: Caller) -> None:
        """Refuse an unknown caller before his message is looked at; counts nothing unless he is refused.

        Raises:
            AccessError: he shows no key that counts.
            ResourceError: and this too often.
        """
        if self._access is not None:
            self._key(caller, self._access)

    def check(self, caller: Caller, action: Action, model: str = "") -> None:
        """Let one call pass.

        Args:
            caller: who asks.
            action: for what.
            model: on which model; empty for none or for the whole server.

        Raises:
            AccessError: unknown, or not allowed.
            ResourceError: too often.
        """
        key = None if self._access is None or action is Action.PROBE else self._key(caller, self._access)
        if self._rate is not None:
            self._rate.take(_client(caller, key))
        if key is not None:
            check_allowed(key, action, model)
        if action is Action.ADMINISTER and not self._administration:
            raise AccessError(
                "administration is switched off on this server",
                fix="serve with --administration, or change the bundles on the server itself",
            )

    def open_stream(self, caller: Caller, action: Action) -> tuple[str, Callable[[], bool]]:
        """Let a stream begin; its model is checked when it is known.

        Returns:
            What the client is called, and what says whether his key still counts.

        Raises:
            AccessError, ResourceError: as `check`.
        """
        self.check(caller, action)
        if self._access is None or action is Action.PROBE:
            return client_address(caller.peer), _always
        access, key = self._access, self._access.identify(caller)
        return _client(caller, key), lambda: access.still_valid(key)

    def administered(self, caller: Caller, call: str, model: str, act: Callable[[], Answer]) -> Answer:
        """Do what an administrator asks for and record it, whether it was refused, failed or was done.

        Raises:
            AccessError, ResourceError: as `check`.
            TidegateError: what `act` raises.
        """
        try:
            self.check(caller, Action.ADMINISTER, model)
            answer = act()
        except TidegateError as error:
            self._record(caller, call, model, error)
            raise
        self._record(caller, call, model, None)
        return answer

    def _key(self, caller: Caller, access: Access) -> Key:
        try:
            return access.identify(caller)
        except AccessError:
            if self._rate is not None:
                self._rate.take(client_address(caller.peer))
            raise

    def _record(self, caller: Caller, call: str, model: str, error: TidegateError | None) -> None:
        if self._audit is None:
            return
        try:
            key = None if self._access is None else self._access.identify(caller)
        except AccessError:
            key = None
        self._audit.record(who=_client(caller, key), peer=caller.peer, call=call, model=model, error=error)


def _client(caller: Caller, key: Key | None) -> str:
    return client_address(caller.peer) if key is None else f"key {key.id}"


def _always() -> bool:
    return True
