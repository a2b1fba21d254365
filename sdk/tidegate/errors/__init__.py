"""Every error that Tidegate raises on purpose.

    TidegateError
    ├── InputError          the caller's data: shape, dtype, name, NaN, not a WAV, empty     caller   no retry
    ├── ConfigError         the caller's settings or command line                           caller   no retry
    │   └── AccessError     his credentials: missing, unknown, or not enough for this       caller   no retry
    ├── NotFoundError       no such file, model, version or variant                         caller   no retry
    ├── StateError          used after close, or a step that its state table does not list  caller   no retry
    ├── BundleError         the bundle cannot be used: manifest, layout, signature          bundle   no retry
    │   └── IntegrityError  its bytes are not those the manifest promises                   bundle   no retry
    ├── ModelError          the runtime refused or failed to run the model                  bundle   no retry
    ├── DependencyError     an optional package is missing; the message names the extra     machine  no retry
    ├── ResourceError       disk, memory, a device or a limit is exhausted                  machine  retry
    └── UnavailableError    the server cannot be reached or went away                       peer     retry
        └── DeadlineError   no answer in the time allowed                                   peer     retry

`fault` says whose it is, `retry` whether the same call may succeed later. Neither HTTP nor gRPC codes appear here:
`tidegate.wire.status` translates at the border.
"""

from __future__ import annotations

from typing import ClassVar, Literal

__all__ = [
    "AccessError",
    "BundleError",
    "ConfigError",
    "DeadlineError",
    "DependencyError",
    "InputError",
    "IntegrityError",
    "ModelError",
    "NotFoundError",
    "ResourceError",
    "StateError",
    "TidegateError",
    "UnavailableError",
]

Fault = Literal["caller", "bundle", "machine", "peer"]


class TidegateError(Exception):
    """The root. `message` says what was found and what was expected, `fix` what to do about it."""

    fault: ClassVar[Fault] = "machine"
    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class InputError(TidegateError):
    """The data handed in does not fit: shape, dtype, name, NaN, not a WAV, truncated, empty."""

    fault = "caller"


class ConfigError(TidegateError):
    """A setting or a command line that cannot be meant."""

    fault = "caller"


class AccessError(ConfigError):
    """Credentials are missing or unknown, or those that were given are not enough for what is asked."""

    def __init__(self, message: str, *, fix: str | None = None, identified: bool = True) -> None:
        """`identified`: whether it is known who asks, and he may not; otherwise nobody knows him."""
        super().__init__(message, fix=fix)
        self.identified = identified


class NotFoundError(TidegateError):
    """A file, model, version or variant that is not there."""

    fault = "caller"


class StateError(TidegateError):
    """Used after close, or a step that the state table does not list."""

    fault = "caller"


class BundleError(TidegateError):
    """The bundle cannot be used: its layout, manifest or signature is not as the format says."""

    fault = "bundle"


class IntegrityError(BundleError):
    """Bytes differ from what the manifest promises: digest, size, truncated archive."""


class ModelError(TidegateError):
    """The runtime refused to load the model, or failed while running it."""

    fault = "bundle"


class DependencyError(TidegateError):
    """An optional package is missing or too old; `fix` names the extra to install."""


class ResourceError(TidegateError):
    """Disk, memory, a device or a stated limit is exhausted."""

    retry = True


class UnavailableError(TidegateError):
    """The server cannot be reached, or went away in the middle."""

    fault = "peer"
    retry = True


class DeadlineError(UnavailableError):
    """The server gave no answer in the time allowed."""
