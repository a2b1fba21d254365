"""Who may call what: keys with roles and models, from the file of `tidegate.cloud.access_file` as it is now.

A caller shows his secret in `authorization: Bearer SECRET` or in `x-api-key: SECRET`. The hashes are compared in
constant time.
"""

from __future__ import annotations

import enum
import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from tidegate.cloud.access_file import (
    ROLES,
    AccessFile,
    Key,
    Role,
    digest,
    id_in,
    listed,
    moment,
    new_key,
    read_access_file,
    write_access_file,
)
from tidegate.cloud.core import Caller
from tidegate.errors import AccessError, TidegateError

__all__ = [
    "ANY_MODEL",
    "RECHECK_S",
    "ROLES",
    "Access",
    "AccessFile",
    "Action",
    "Key",
    "Role",
    "check_allowed",
    "new_key",
    "read_access_file",
    "shown_secret",
    "write_access_file",
]

log = logging.getLogger(__name__)

RECHECK_S = 1.0
"""A key that is added, changed or revoked counts after this, without a restart."""

ANY_MODEL = "*"

_SEND_A_KEY = (
    "send a key of this server: `--token-file FILE`, in Python Client(..., token=KEY), otherwise the header "
    "`authorization: Bearer KEY`"
)


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
        key = self._keys.get(id_in(secret))
        if key is None or not hmac.compare_digest(digest(secret), key.sha256):
            raise _unknown("the key that was sent is not known to this server")
        if key.expires and datetime.now(timezone.utc) >= moment(key.expires):
            raise _unknown(f"key {key.id} expired at {key.expires}")
        return key

    def still_valid(self, key: Key) -> bool:
        """Say whether a key that was shown earlier counts now as it did then."""
        if self._clock() >= self._recheck_at_s:
            self._read_again_if_changed()
        return self._keys.get(key.id) == key and not (key.expires and datetime.now(timezone.utc) >= moment(key.expires))

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
            f"key {key.id} has {listed(key.roles)}; expected the role {' or '.join(sorted(wanted))}",
            fix=f"use a key made with --role {min(wanted)}",
        )
    if model and model not in key.models and ANY_MODEL not in key.models:
        if model == ANY_MODEL:
            raise AccessError(
                f"key {key.id} is not for all models, and none is named", fix=f"name one of {listed(key.models)}"
            )
        raise AccessError(f"key {key.id} is not for model {model!r}", fix=f"use a key made with --model {model}")
    if not model and action is Action.ADMINISTER and ANY_MODEL not in key.models:
        raise AccessError(
            f"key {key.id} is for {listed(key.models)} only, and this concerns the whole server",
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
    return AccessError(message, fix=_SEND_A_KEY, identified=False)


def _by_id(content: AccessFile) -> dict[str, Key]:
    return {key.id: key for key in content.keys}


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
