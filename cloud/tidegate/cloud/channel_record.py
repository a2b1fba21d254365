"""What a server that follows a channel remembers of each model: what serves, what is tried, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from tidegate.bundle.atomic import write_atomically
from tidegate.errors import ConfigError, ResourceError

SCHEMA = "tidegate.followed/1"


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """A release whose files are in the store."""

    release: int
    """the channel's counter"""
    version: str
    manifest_sha256: str
    variant: str
    variant_sha256: str


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    active: Installed | None = None
    """proven here; what a start without a network serves"""
    previous: Installed | None = None
    """active before; its files stay, so that a roll-back fetches next to nothing"""
    candidate: Installed | None = None
    """being loaded for the first time"""
    tries: int = 0
    """how often that was begun and not ended"""
    quarantined: tuple[int, ...] = ()
    """counters of releases that failed"""

    def trying(self, candidate: Installed | None, tries: int) -> Followed:
        """Return the state while `candidate` is loaded; None: it is given up for now, and nobody is to blame."""
        return replace(self, candidate=candidate, tries=tries)

    def serving(self, installed: Installed) -> Followed:
        """Return the state once `installed` serves. What failed before it does not count any more."""
        before = self.active if self.active and self.active.manifest_sha256 != installed.manifest_sha256 else None
        newer = tuple(release for release in self.quarantined if release > installed.release)
        return Followed(active=installed, previous=before or self.previous, quarantined=newer)

    def without(self, release: int) -> Followed:
        """Return the state after a release failed."""
        kept = {known for known in self.quarantined if not self.active or known > self.active.release}
        return replace(self, candidate=None, tries=0, quarantined=tuple(sorted(kept | {release})))

    def noted(self, release: int) -> Followed:
        """Return the state when the content that serves is offered under a higher counter."""
        return self if self.active is None else replace(self, active=replace(self.active, release=release))


class _File(msgspec.Struct, frozen=True, kw_only=True):
    schema: str
    models: dict[str, Followed]


def read_record(path: Path) -> dict[str, Followed]:
    """Return what is remembered, by model; nothing where there is no file.

    Raises:
        ConfigError: the file is none of ours.
        ResourceError: the disk refuses.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror or error}", fix="check the disk") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be understood: {error}", fix="remove it; releases are checked again"
        ) from error
    if found.schema != SCHEMA:
        raise ConfigError(f"{path} has schema {found.schema!r}; expected {SCHEMA!r}", fix="name another directory")
    return found.models


def write_record(path: Path, models: Mapping[str, Followed]) -> None:
    """Replace the file at once.

    Raises:
        ResourceError: the disk refuses.
    """
    content = msgspec.json.encode(_File(schema=SCHEMA, models=dict(models)))
    write_atomically(path, [msgspec.json.format(content, indent=1)])
