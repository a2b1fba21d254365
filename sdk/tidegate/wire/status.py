"""Errors on the wire: one table from error class to gRPC status code name, and one back.

The Open Inference Protocol names no codes; these are the ones Triton answers with, so that clients written for it meet
what they expect. Codes are names (`"NOT_FOUND"`), so the tables need no grpc.
"""

from __future__ import annotations

from tidegate.errors import (
    AccessError,
    BundleError,
    ConfigError,
    DeadlineError,
    DependencyError,
    InputError,
    IntegrityError,
    ModelError,
    NotFoundError,
    ResourceError,
    StateError,
    TidegateError,
    UnavailableError,
)

CODE_BY_ERROR: dict[type[TidegateError], str] = {
    InputError: "INVALID_ARGUMENT",
    ConfigError: "INVALID_ARGUMENT",
    AccessError: "PERMISSION_DENIED",
    NotFoundError: "NOT_FOUND",
    StateError: "FAILED_PRECONDITION",
    BundleError: "INTERNAL",
    IntegrityError: "DATA_LOSS",
    ModelError: "INTERNAL",
    DependencyError: "UNIMPLEMENTED",
    ResourceError: "RESOURCE_EXHAUSTED",
    UnavailableError: "UNAVAILABLE",
    DeadlineError: "DEADLINE_EXCEEDED",
    TidegateError: "UNKNOWN",
}
"""What a server answers; an AccessError whose caller is not known is UNAUTHENTICATED instead."""

ERROR_BY_CODE: dict[str, tuple[type[TidegateError], str]] = {
    "CANCELLED": (UnavailableError, "call again; the server or this process gave the call up"),
    "UNKNOWN": (ModelError, "look into the server's log"),
    "INVALID_ARGUMENT": (InputError, "compare the inputs with the model's metadata"),
    "DEADLINE_EXCEEDED": (DeadlineError, "allow more time with timeout_s, or look whether the server is overloaded"),
    "NOT_FOUND": (NotFoundError, "list the server's models with `tidegate call HOST:PORT`"),
    "ALREADY_EXISTS": (StateError, "use another name or version"),
    "PERMISSION_DENIED": (AccessError, "use credentials that this server accepts"),
    "RESOURCE_EXHAUSTED": (ResourceError, "send less at once, or start the server with higher limits"),
    "FAILED_PRECONDITION": (StateError, "look into the server's log"),
    "ABORTED": (StateError, "call again"),
    "OUT_OF_RANGE": (InputError, "compare the inputs with the model's metadata"),
    "UNIMPLEMENTED": (DependencyError, "call a server that offers this method"),
    "INTERNAL": (ModelError, "look into the server's log"),
    "UNAVAILABLE": (UnavailableError, "start the server, or correct the address"),
    "DATA_LOSS": (IntegrityError, "install the bundle on the server again"),
    "UNAUTHENTICATED": (AccessError, "use credentials that this server accepts"),
}
"""What a client raises, and what to do when the server's message does not say it."""

_FIX_MARK = ". What to do: "


def code_of(error: TidegateError) -> str:
    """Return the status code name for an error, by its class or the nearest base class in the table."""
    if isinstance(error, AccessError) and not error.identified:
        return "UNAUTHENTICATED"
    return next(CODE_BY_ERROR[base] for base in type(error).__mro__ if base in CODE_BY_ERROR)


def text_of(error: TidegateError) -> str:
    """Return the status message: what was found and expected, then what to do."""
    return f"{error.message}{_FIX_MARK}{error.fix}" if error.fix else error.message


def error_of(code: str, text: str, *, peer: str) -> TidegateError:
    """Return the error for a status that `peer` answered with.

    Args:
        code: status code name; one that is not in the table counts as UNKNOWN.
        text: status message, of this server or of any other.
        peer: the target as the caller gave it; the error's message begins with it.
    """
    kind, usual_fix = ERROR_BY_CODE.get(code, ERROR_BY_CODE["UNKNOWN"])
    message, _, fix = text.partition(_FIX_MARK)
    if kind is AccessError:
        identified = code == "PERMISSION_DENIED"
        return AccessError(f"{peer}: {message or code}", fix=fix or usual_fix, identified=identified)
    return kind(f"{peer}: {message or code}", fix=fix or usual_fix)
