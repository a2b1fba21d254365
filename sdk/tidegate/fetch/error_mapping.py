"""What python-tuf, urllib3 and the disk raise while fetching, in our own words. The table is release's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.errors import DependencyError, ResourceError
from tidegate.release.error_mapping import mapped as mapped_library


def missing(error: ImportError) -> DependencyError:
    """Return the error for a missing library of this room."""
    return DependencyError(
        f"{error.name or 'tuf'} is not installed, which updates need", fix="install it: pip install 'tidegate[update]'"
    )


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Run a block; what its libraries and the disk raise leaves it as one of `tidegate.errors`.

    Raises:
        IntegrityError, BundleError: metadata or files that are not signed as they should be.
        UnavailableError, DeadlineError: the server, the line, or metadata that is out of date.
        ResourceError: the disk refuses.
    """
    try:
        with mapped_library(what):
            yield
    except OSError as error:
        raise ResourceError(
            f"{what}: {error.strerror or error}",
            fix="check free space and permissions of the device's directory; what is installed keeps running",
        ) from error
