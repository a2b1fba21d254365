"""HTTP status codes for errors: one table, by the status code name that gRPC would send."""

from __future__ import annotations

from tidegate.errors import TidegateError
from tidegate.wire.status import code_of

HTTP_BY_CODE: dict[str, int] = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""Triton's where Triton has the code; RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED as gateways translate them."""


def http_status(error: TidegateError) -> int:
    """Return the HTTP status code for an error."""
    return getattr(error, "http_status", 0) or HTTP_BY_CODE[code_of(error)]
