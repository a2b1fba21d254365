"""What holds the files of a bundle, whether an archive or a directory, and the limits both keep to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tidegate.bundle.paths import path_problem
from tidegate.errors import BundleError, ConfigError


@dataclass(frozen=True)
class Limits:
    """What a reader refuses to take on, whatever the bundle says."""

    manifest_bytes: int = 4 << 20
    """largest manifest.json"""
    files: int = 4096
    """most files in one bundle"""
    file_bytes: int = 16 << 30
    """largest single file"""

    def __post_init__(self) -> None:
        for name in ("manifest_bytes", "files", "file_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")


class Tree(Protocol):
    """The files of one bundle."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of every file, by path."""

    def read(self, path: str) -> bytes:
        """Return one file whole; `path` is a key of `sizes`."""

    def close(self) -> None:
        """Let go of the open file; reading afterwards raises StateError."""


def check_names(origin: str, names: Iterable[str]) -> None:
    """Refuse names that lead out of the bundle, and names that would be one file on some systems.

    Raises:
        BundleError: names the first offending path.
    """
    seen: dict[str, str] = {}
    for name in names:
        problem = path_problem(name)
        if problem:
            raise BundleError(
                f"{origin}: file name {name!r} {problem}; expected a relative path inside the bundle",
                fix="do not use this bundle; get it again from its author, or rebuild it with `tidegate build`",
            )
        other = seen.get(name.casefold())
        seen[name.casefold()] = name
        if other is not None:
            same = "occurs twice" if other == name else f"differs from {other!r} only in upper and lower case"
            raise BundleError(
                f"{origin}: file name {name!r} {same}; expected every file once",
                fix="do not use this bundle; get it again from its author, or rebuild it with `tidegate build`",
            )
