"""A bundle as a plain directory: the same files under the same rules."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from tidegate.bundle.tree import Limits, check_names
from tidegate.errors import BundleError, IntegrityError, NotFoundError, ResourceError, StateError

_MAXIMUM_DEPTH = 16
_WHOLE = "open the bundle again; replace a bundle as a whole, never file by file"
_PERMISSIONS = "check the disk and the permissions"
_REMOVE = "remove it from the directory, or rebuild the bundle with `tidegate build`"


class DirectoryTree:
    """The files under a directory. The directory itself may be reached through a link, nothing inside it may."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._closed = False
        self._sizes = _walk(path, limits)
        check_names(str(path), self._sizes)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of every file when the bundle was opened, by path."""
        return self._sizes

    def read(self, path: str) -> bytes:
        """Return one file whole; a file that became a link, or changed its size, since opening is refused."""
        if self._closed:
            raise StateError(f"bundle {self._path} is closed", fix="read inside the `with` block, or open it again")
        expected = self._sizes[path]
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(self._path / path, flags), "rb") as file:
                # One byte more than expected is enough to see that the file grew.
                data = file.read(expected + 1)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{self._path}: file {path!r} went away after the bundle was opened", fix=_WHOLE
            ) from error
        except OSError as error:
            if error.errno == errno.ELOOP:  # what O_NOFOLLOW makes of a link
                raise BundleError(
                    f"{self._path}: file {path!r} is a link; expected regular files only", fix=_REMOVE
                ) from error
            raise ResourceError(
                f"{self._path}: file {path!r} could not be read: {error.strerror}", fix=_PERMISSIONS
            ) from error
        if len(data) != expected:
            raise IntegrityError(
                f"{self._path}: file {path!r} changed while the bundle was open; it had {expected} bytes then",
                fix=_WHOLE,
            )
        return data

    def close(self) -> None:
        """Refuse further reads."""
        self._closed = True


def _walk(root: Path, limits: Limits) -> dict[str, int]:
    sizes: dict[str, int] = {}
    waiting: list[tuple[Path, str]] = [(root, "")]
    while waiting:
        directory, prefix = waiting.pop()
        if prefix.count("/") > _MAXIMUM_DEPTH:
            raise BundleError(f"{root}: directory {prefix!r} lies deeper than {_MAXIMUM_DEPTH} levels", fix=_REMOVE)
        for entry in _scan(root, directory):
            name = prefix + entry.name
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                waiting.append((Path(entry.path), f"{name}/"))
                continue
            if not stat.S_ISREG(status.st_mode):
                what = "a link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                raise BundleError(f"{root}: file {name!r} is {what}; expected regular files only", fix=_REMOVE)
            if status.st_size > limits.file_bytes:
                raise BundleError(
                    f"{root}: file {name!r} is {status.st_size} bytes long; expected at most {limits.file_bytes}",
                    fix=_REMOVE,
                )
            sizes[name] = status.st_size
            if len(sizes) > limits.files:
                raise BundleError(f"{root} holds more than {limits.files} files", fix=_REMOVE)
    return sizes


def _scan(root: Path, directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ResourceError(
            f"{root}: directory {directory} could not be read: {error.strerror}", fix=_PERMISSIONS
        ) from error
