"""What every call passes before anything is done for it: key, rate, role, model; and the record of administration.

It knows no transport. gRPC's handlers and the HTTP port ask the same `Guard`, and it is an `Admission` of the core,
so that every inference passes it, whichever way it came. Repository control asks it as its `ControlGuard`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tidegate.cloud.access import ANY_MODEL, Access, Action, Key, check_allowed
from tidegate.cloud.audit import AuditLog
from tidegate.cloud.core import Caller
from tidegate.cloud.limits import Safety
from tidegate.cloud.rate import LimitsRate, RateLimiter, client_address
from tidegate.errors import AccessError, TidegateError

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
    "LogSettings": Action.READ,
    "ServerReflectionInfo": Action.READ,
    "Metrics": Action.METRICS,
    "ModelInfer": Action.INFER,
    "ModelStreamInfer": Action.INFER,
    "StreamingRecognize": Action.INFER,
    "Recognize": Action.INFER,
    "BatchRecognize": Action.INFER,
}
"""By the name of a method, of gRPC or of its twin in HTTP; what is not listed is administration, the safe side.

LogSettings reads; where it changes something it asks for `permit` as well.
"""

CHECKED_FURTHER_IN = frozenset(
    {
        *("ModelInfer", "Recognize", "RepositoryModelLoad", "RepositoryModelUnload"),
        *("ListLabels", "SetLabel", "RollBackLabel", "RemoveLabel"),
    }
)
"""The core asks `admit`, repository control `permit`: at the door of these, only who calls is looked at."""


def action_of(method: str) -> Action:
    """Return what calling a method is."""
    return ACTION_BY_METHOD.get(method, Action.ADMINISTER)


ABOUT_A_MODEL = frozenset({"ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"})
"""Without a name these may tell of any model."""


class Guard:
    """Lets calls pass or refuses them. Safe for several threads."""

    def __init__(
        self,
        *,
        access: Access | None = None,
        rate: LimitsRate | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        """Join the parts.

        Args:
            access: keys; None: everybody may do everything.
            rate: None: as often as he likes.
            audit: None: nothing is recorded.
        """
        self._access = access
        self._rate = rate
        self._audit = audit

    @classmethod
    def of(cls, safety: Safety) -> Guard:
        """Return the guard for a server's settings.

        Raises:
            ConfigError, NotFoundError, ResourceError: a file cannot be used.
        """
        return cls(
            access=None if safety.access_file is None else Access(safety.access_file),
            rate=_limiter(safety),
            audit=None if safety.audit_file is None else AuditLog(safety.audit_file),
        )

    @property
    def idle(self) -> bool:
        """Whether inference needs no check at all."""
        return self._access is None and self._rate is None

    def admit(self, caller: Caller, model: str) -> None:
        """Let one inference pass; raises as `check`."""
        if self._access is not None or self._rate is not None:
            self.check(caller, Action.INFER, model)

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

    def at_the_door(self, caller: Caller, method: str) -> None:
        """Refuse a stranger before his message is parsed; raises as `check`."""
        if self._access is not None and action_of(method) is not Action.PROBE:
            self._key(caller, self._access)

    def check_call(self, caller: Caller, method: str, model: str) -> None:
        """Let a parsed call pass, unless what it leads to asks by itself; raises as `check`."""
        if not self.idle and method not in CHECKED_FURTHER_IN:
            self.check(caller, action_of(method), model or (ANY_MODEL if method in ABOUT_A_MODEL else ""))

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

    def permit(self, caller: Caller, action: str, model: str) -> None:
        """Let a command of repository control or of settings pass; raises as `check`."""
        self.check(caller, Action.ADMINISTER, model)

    def done(self, caller: Caller, action: str, model: str, error: TidegateError | None) -> None:
        """Record a command that was done, failed or was refused."""
        if self._audit is None:
            return
        try:
            key = None if self._access is None else self._access.identify(caller)
        except AccessError:
            key = None
        self._audit.record(who=_client(caller, key), peer=caller.peer, call=action, model=model, error=error)

    def _key(self, caller: Caller, access: Access) -> Key:
        try:
            return access.identify(caller)
        except AccessError:
            if self._rate is not None:
                self._rate.take(client_address(caller.peer))
            raise


def _limiter(safety: Safety) -> LimitsRate | None:
    if safety.rate is None:
        return None
    if safety.rate_file is None:
        return RateLimiter(safety.rate)
    from tidegate.cloud.shared_rate import SharedRateLimiter

    return SharedRateLimiter(safety.rate, safety.rate_file)


def _client(caller: Caller, key: Key | None) -> str:
    return client_address(caller.peer) if key is None else f"key {key.id}"


def _always() -> bool:
    return True
