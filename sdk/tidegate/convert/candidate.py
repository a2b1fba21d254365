"""A release as a bundle on disk before it is one: what is proven is what a reader will get."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidegate.bundle import Bundle, write_bundle
from tidegate.convert.assemble import Release
from tidegate.errors import NotFoundError, ResourceError

_SPACE = "check free space and permissions of its directory; building needs room for two bundles there"


@contextmanager
def scratch_directory(out: Path) -> Iterator[Path]:
    """Make a directory beside `out`, and remove it at the end.

    Raises:
        NotFoundError: the directory of `out` is not there.
        ResourceError: the system refuses.
    """
    try:
        scratch = tempfile.TemporaryDirectory(prefix=".tidegate-build-", dir=out.parent, ignore_cleanup_errors=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{out.parent} is not a directory", fix="make the directory first") from error
    except OSError as error:
        raise ResourceError(f"{out} could not be written: {error.strerror or error}", fix=_SPACE) from error
    with scratch as name:
        yield Path(name)


@contextmanager
def candidate_bundle(release: Release, scratch: Path, out: Path) -> Iterator[Bundle]:
    """Write a release into the scratch directory and open it; the file is gone afterwards.

    Raises:
        ResourceError: the disk refuses.
        BundleError: a rule of the format is broken.
    """
    path = scratch / f"{release.manifest.name}.tide"
    try:
        write_bundle(release.manifest, release.files, path)
    except ResourceError as error:
        raise ResourceError(error.message.replace(str(path), str(out)), fix=_SPACE) from error
    try:
        with Bundle.open(path) as bundle:
            yield bundle
    finally:
        path.unlink(missing_ok=True)
