"""What the libraries below raise, in our own words: one table, applied at the border."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tidegate.errors import (
    BundleError,
    ConfigError,
    DeadlineError,
    DependencyError,
    IntegrityError,
    ResourceError,
    TidegateError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_INSTALL = "install it: pip install 'tidegate[release]'"
_ALTERED = "get the channel's files again; if it stays so, somebody may have altered them: ask the channel's owner"
_LATER = "try again later; what is installed keeps running"


def missing(error: ImportError) -> DependencyError:
    """Return the error for a missing library of this room."""
    return DependencyError(f"{error.name or 'tuf'} is not installed, which channels need", fix=_INSTALL)


def table() -> dict[type[Exception], Callable[[str], TidegateError]]:
    """Return, by foreign class, what makes our error from a message; a subclass follows its nearest listed ancestor."""
    from securesystemslib import exceptions as sslib
    from tuf.api import exceptions as tuf
    from tuf.api.serialization import DeserializationError, SerializationError
    from urllib3 import exceptions as urllib3

    def altered(message: str) -> TidegateError:
        return IntegrityError(message, fix=_ALTERED)

    def unreachable(message: str) -> TidegateError:
        return UnavailableError(message, fix=_LATER)

    def late(message: str) -> TidegateError:
        return DeadlineError(message, fix=_LATER)

    return {
        tuf.RepositoryError: lambda message: BundleError(message, fix=_ALTERED),
        tuf.UnsignedMetadataError: altered,
        tuf.BadVersionNumberError: altered,
        tuf.LengthOrHashMismatchError: altered,
        # Not an attack by itself: whoever keeps the channel did not refresh it, or this machine's clock is wrong.
        tuf.ExpiredMetadataError: lambda message: UnavailableError(
            message, fix="check this machine's clock; the channel's owner runs `tidegate channel refresh`"
        ),
        SerializationError: lambda message: ConfigError(message, fix="use whole numbers and text only"),
        DeserializationError: altered,
        tuf.DownloadError: unreachable,
        tuf.DownloadHTTPError: lambda message: UnavailableError(
            message, fix="check the channel's address, or try again later; what is installed keeps running"
        ),
        tuf.DownloadLengthMismatchError: altered,
        tuf.SlowRetrievalError: late,
        sslib.Error: lambda message: BundleError(message, fix=_ALTERED),
        sslib.FormatError: lambda message: ConfigError(message, fix="use whole numbers and text only"),
        sslib.UnsupportedAlgorithmError: altered,
        sslib.UnsupportedLibraryError: lambda message: DependencyError(message, fix=_INSTALL),
        sslib.KeyMismatchError: lambda message: ConfigError(
            message, fix="keep FILE.pem and FILE.pub of one key together"
        ),
        sslib.StorageError: lambda message: ResourceError(message, fix="check the disk and its permissions"),
        sslib.UnverifiedSignatureError: altered,
        urllib3.HTTPError: unreachable,
        urllib3.LocationValueError: lambda message: ConfigError(message, fix="check the address of the channel"),
        urllib3.ProxySchemeUnknown: lambda message: ConfigError(message, fix="use an http:// proxy"),
        urllib3.ProxySchemeUnsupported: lambda message: ConfigError(message, fix="use an http:// proxy"),
        urllib3.SSLError: lambda message: UnavailableError(
            message, fix="check this machine's clock, and that it knows the certificate authority of the server"
        ),
        urllib3.TimeoutError: late,
        **_signing_errors(),
    }


def _signing_errors() -> dict[type[Exception], Callable[[str], TidegateError]]:
    """Return the rows of the library that signs; none on a device, which checks signatures without it."""
    try:
        from cryptography import exceptions as crypto
    except ImportError:
        return {}
    return {
        crypto.InvalidSignature: lambda message: IntegrityError(message, fix=_ALTERED),
        crypto.UnsupportedAlgorithm: lambda message: ConfigError(
            message, fix="make the key with `tidegate keys create`"
        ),
        crypto.InternalError: lambda message: ResourceError(
            message, fix="repeat; if it stays so, reinstall cryptography"
        ),
    }


def translate(error: Exception, what: str) -> TidegateError | None:
    """Return our error for a foreign one, or None when it is not of these libraries."""
    known = table()
    for ancestor in type(error).__mro__:
        make = known.get(ancestor)
        if make is not None:
            return make(f"{what}: {error or type(error).__name__}")
    return None


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Run a block; what its libraries raise leaves it as one of `tidegate.errors`, beginning with `what`."""
    try:
        yield
    except TidegateError:
        raise
    except tuple(table()) as error:
        translated = translate(error, what)
        assert translated is not None
        raise translated from error
