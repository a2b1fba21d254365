"""Keys of a server's callers in a file that holds none of their secrets: making, writing, reading, checking.

A key's secret is 32 random bytes. A hash of such a secret cannot be searched, so one round of SHA-256 keeps it as safe
at rest as scrypt would, and costs a microsecond where scrypt costs 50 milliseconds for each call (NIST SP 800-63B,
section 5.1.2.2, asks for a slow hash only below 112 bits). Two keys never share a secret, so there is no salt either.
The secret begins with the key's id, by which the hash is found.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import msgspec

from tidegate.bundle.atomic import write_atomically
from tidegate.errors import ConfigError, NotFoundError, ResourceError

SECRET_BYTES = 32
ID_BYTES = 5
PREFIX = "tg"

SCHEMA: Literal["tidegate.access/1"] = "tidegate.access/1"

Role = Literal["infer", "admin", "metrics"]
ROLES: tuple[Role, ...] = ("infer", "admin", "metrics")


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key, as it stands in the file."""

    id: str
    sha256: str
    """of the whole secret, hexadecimal"""
    roles: tuple[Role, ...]
    models: tuple[str, ...]
    """names; `*` for all"""
    created: str
    """when it was made, UTC, ISO 8601"""
    holder: str = ""
    """who has it, for the people who look after the file"""
    expires: str = ""
    """UTC, ISO 8601; empty: never"""


class AccessFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    schema: Literal["tidegate.access/1"] = SCHEMA
    keys: tuple[Key, ...] = ()


def read_access_file(path: Path) -> AccessFile:
    """Read and check a file of keys.

    Raises:
        NotFoundError: there is none.
        ConfigError: it is not one, or a key in it cannot be meant.
        ResourceError: it cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no access file {path}", fix=f"tidegate access create {path} --role infer"
        ) from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}", fix="let the server's user read it") from error
    try:
        found = msgspec.json.decode(raw, type=AccessFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not an access file: {error}", fix="make keys with `tidegate access create`"
        ) from error
    _check(found, path)
    return found


def write_access_file(path: Path, content: AccessFile) -> None:
    """Replace the file whole or not at all, readable by its owner only.

    Raises:
        ResourceError: the disk refuses.
    """
    raw = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    write_atomically(path, [raw], mode=mode)


def new_key(
    roles: tuple[Role, ...], models: tuple[str, ...], *, holder: str = "", expires: str = ""
) -> tuple[Key, str]:
    """Make a key and return it with its secret, which is nowhere else.

    Raises:
        ConfigError: no role, no model, or `expires` is not a moment.
    """
    identity = secrets.token_hex(ID_BYTES)
    secret = f"{PREFIX}_{identity}_{secrets.token_urlsafe(SECRET_BYTES)}"
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    key = Key(identity, digest(secret), roles, models, created, holder, expires)
    _check_key(key, "the new key")
    return key, secret


def digest(secret: str) -> str:
    """Return what the file holds of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def id_in(secret: str) -> str:
    """Return the key's id in what a caller shows; anything when that is no secret of ours."""
    return secret[len(PREFIX) + 1 :][: 2 * ID_BYTES]


def _check(content: AccessFile, path: Path) -> None:
    for key in content.keys:
        _check_key(key, f"{path}: key {key.id!r}")
    if len({key.id for key in content.keys}) < len(content.keys):
        raise ConfigError(f"{path} has two keys of one id", fix="remove one of them")


def _check_key(key: Key, where: str) -> None:
    if not key.roles or not key.models:
        raise ConfigError(f"{where} has no role or no model", fix=f"give one of {listed(ROLES)}, and a model or '*'")
    if len(key.id) != 2 * ID_BYTES or len(key.sha256) != 64:
        raise ConfigError(
            f"{where} has an id or a hash of the wrong length", fix="make it with `tidegate access create`"
        )
    if key.expires:
        moment(key.expires)


def moment(text: str) -> datetime:
    """Return a moment of the file.

    Raises:
        ConfigError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a moment", fix="write it like 2027-01-31 or 2027-01-31T12:00:00+00:00"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def listed(names: tuple[str, ...]) -> str:
    """Return names for a message."""
    return ", ".join(names)
