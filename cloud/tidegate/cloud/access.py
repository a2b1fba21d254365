"""Who may call what: keys with roles and models, read from a file that holds none of their secrets.

A key's secret is 32 random bytes. A hash of such a secret cannot be searched, so one round of SHA-256 keeps it as safe
at rest as scrypt would, and costs a microsecond where scrypt costs 50 milliseconds for each call (NIST SP 800-63B,
section 5.1.2.2, asks for a slow hash only below 112 bits). Two keys never share a secret, so there is no salt either.

A caller shows the secret in `authorization: Bearer SECRET` or in `x-api-key: SECRET`. It begins with the key's id, by
which the hash is found; the hashes are compared in constant time.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import msgspec

from tidegate.bundle.atomic import write_atomically
from tidegate.cloud.core import Caller
from tidegate.errors import AccessError, ConfigError, NotFoundError, ResourceError, TidegateError

log = logging.getLogger(__name__)

RECHECK_S = 1.0
"""A key that is added, changed or revoked counts after this, without a restart."""

SECRET_BYTES = 32
ID_BYTES = 5
PREFIX = "tg"
ANY_MODEL = "*"

SCHEMA: Literal["tidegate.access/1"] = "tidegate.access/1"

Role = Literal["infer", "admin", "metrics"]
ROLES: tuple[Role, ...] = ("infer", "admin", "metrics")


class Action(enum.Enum):
    """What a caller wants to do, and the roles of which any one is enough; none: no key is needed.

    No role contains another: a key that runs models and loads them has both.
    """

    PROBE = ("probe", ())
    """ask whether the server lives and is ready"""
    READ = ("read", ROLES)
    """ask for facts about models"""
    INFER = ("infer", ("infer",))
    """run a model"""
    ADMINISTER = ("administer", ("admin",))
    """load, unload, change settings of the server"""
    METRICS = ("metrics", ("metrics", "admin"))
    """read the metrics"""

    def __init__(self, word: str, roles: tuple[Role, ...]) -> None:
        self.word = word
        self.roles = frozenset(roles)


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
    key = Key(identity, _digest(secret), roles, models, created, holder, expires)
    _check_key(key, "the new key")
    return key, secret


class Access:
    """Answers who calls and whether he may, from the file as it is now. An `Admission`; safe for several threads."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys; raises as `read_access_file`.

        Args:
            path: what `tidegate access` writes.
            clock: monotonic, in seconds.
        """
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._keys = _by_id(read_access_file(path))
        self._recheck_at_s = clock() + RECHECK_S

    def admit(self, caller: Caller, model: str) -> None:
        """Let an inference request pass.

        Raises:
            AccessError: he is not known, or may not run this model.
        """
        check_allowed(self.identify(caller), Action.INFER, model)

    def identify(self, caller: Caller) -> Key:
        """Return the key that the caller shows.

        Raises:
            AccessError: none, an unknown one, or one that has expired.
        """
        secret = shown_secret(caller.metadata)
        if self._clock() >= self._recheck_at_s:
            self._read_again_if_changed()
        key = self._keys.get(secret[3:13])
        if key is None or not hmac.compare_digest(_digest(secret), key.sha256):
            raise _unknown("the key that was sent is not known to this server")
        if key.expires and datetime.now(timezone.utc) >= _moment(key.expires):
            raise _unknown(f"key {key.id} expired at {key.expires}")
        return key

    def still_valid(self, key: Key) -> bool:
        """Say whether a key that was shown earlier counts now as it did then."""
        if self._clock() >= self._recheck_at_s:
            self._read_again_if_changed()
        return self._keys.get(key.id) == key and not (
            key.expires and datetime.now(timezone.utc) >= _moment(key.expires)
        )

    def _read_again_if_changed(self) -> None:
        with self._lock:
            if self._clock() < self._recheck_at_s:
                return
            self._recheck_at_s = self._clock() + RECHECK_S
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            # A broken file is told of once, until it changes again.
            self._stamp = stamp
            try:
                self._keys = _by_id(read_access_file(self._path))
                log.info("access file %s: %d keys", self._path, len(self._keys))
            except TidegateError as error:
                log.warning("%s; the %d keys of before go on counting", error.message, len(self._keys))


def check_allowed(key: Key, action: Action, model: str = "") -> None:
    """Let what the key's roles and models allow pass.

    Args:
        key: of the caller.
        action: what he wants.
        model: on which one; empty for the server as a whole; `*` for what concerns all.

    Raises:
        AccessError: he may not.
    """
    wanted = action.roles
    if wanted and wanted.isdisjoint(key.roles):
        raise AccessError(
            f"key {key.id} has {_listed(key.roles)}; expected the role {' or '.join(sorted(wanted))}",
            fix=f"use a key made with --role {min(wanted)}",
        )
    if model and model not in key.models and ANY_MODEL not in key.models:
        if model == ANY_MODEL:
            raise AccessError(
                f"key {key.id} is not for all models, and none is named", fix=f"name one of {_listed(key.models)}"
            )
        raise AccessError(f"key {key.id} is not for model {model!r}", fix=f"use a key made with --model {model}")
    if not model and action is Action.ADMINISTER and ANY_MODEL not in key.models:
        raise AccessError(
            f"key {key.id} is for {_listed(key.models)} only, and this concerns the whole server",
            fix=f"use a key made with --model '{ANY_MODEL}'",
        )


def shown_secret(metadata: Mapping[str, str]) -> str:
    """Return the secret in the caller's headers.

    Raises:
        AccessError: there is none.
    """
    header = metadata.get("authorization")
    if header is None:
        secret = metadata.get("x-api-key", "")
    else:
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer":
            raise _unknown(f"the header authorization has the scheme {scheme[:20]!r}; expected Bearer")
    if not secret:
        raise _unknown("no key was sent")
    return secret


def _unknown(message: str) -> AccessError:
    return AccessError(
        message, fix="send a key of this server in the header `authorization: Bearer KEY`", identified=False
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _by_id(content: AccessFile) -> dict[str, Key]:
    return {key.id: key for key in content.keys}


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _check(content: AccessFile, path: Path) -> None:
    for key in content.keys:
        _check_key(key, f"{path}: key {key.id!r}")
    if len({key.id for key in content.keys}) < len(content.keys):
        raise ConfigError(f"{path} has two keys of one id", fix="remove one of them")


def _check_key(key: Key, where: str) -> None:
    if not key.roles or not key.models:
        raise ConfigError(f"{where} has no role or no model", fix=f"give one of {_listed(ROLES)}, and a model or '*'")
    if len(key.id) != 2 * ID_BYTES or len(key.sha256) != 64:
        raise ConfigError(
            f"{where} has an id or a hash of the wrong length", fix="make it with `tidegate access create`"
        )
    if key.expires:
        _moment(key.expires)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a moment", fix="write it like 2027-01-31 or 2027-01-31T12:00:00+00:00"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
