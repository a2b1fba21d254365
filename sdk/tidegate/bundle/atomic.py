"""Write a file so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from tidegate.errors import ConfigError, NotFoundError, ResourceError


def write_atomically(path: Path, chunks: Iterable[bytes], *, mode: int = 0o666) -> None:
    """Replace `path` with the concatenation of `chunks`; after any failure the old file stands as it was.

    The bytes go to a temporary file in the same directory, are flushed to the disk, and take the name in one step;
    then the directory is flushed, so that the new name survives a power cut.

    Raises:
        NotFoundError: the directory does not exist.
        ConfigError: `path` is a directory.
        ResourceError: the disk is full, read-only or failing.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; a file is to be written there", fix="name a file inside it")
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")
    try:
        # The usual mode, 0o666, lets the user's umask decide, as for any file that a program writes.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{path.parent} is not a directory", fix="make the directory first") from error
    except OSError as error:
        raise _exhausted(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise _exhausted(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Return when the names in `directory` are on the disk. Raises OSError."""
    if os.name == "nt":  # Windows cannot open a directory, and orders the rename itself.
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exhausted(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"{path} could not be written: {error.strerror or error}",
        fix="check free space and permissions of the directory, then repeat; what stood there before is unchanged",
    )
