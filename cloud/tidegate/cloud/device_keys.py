"""The public keys of devices: a file with one line each, or a directory of such files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tidegate.errors import ConfigError, InputError, NotFoundError, ResourceError, TidegateError
from tidegate.wire.report_signature import PublicKey, is_signed_by, require

RECHECK_S = 10.0
"""A key that is added or taken away counts after this, without a restart."""


class DeviceKeys:
    """Keys by device id, read again when the files change. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        *,
        on_warning: Callable[[str], None] = lambda message: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the keys.

        Args:
            path: a file of lines DEVICE ed25519 BASE64, or a directory whose `*.pub` files are such; `#` comments.
            on_warning: told when the files became unreadable later; the keys before then go on counting.
            clock: monotonic, in seconds.

        Raises:
            NotFoundError: there is nothing at `path`.
            ConfigError: a line is not a key, or a device has two.
            ResourceError: the disk refuses.
            DependencyError: PyNaCl is not installed.
        """
        require()
        self._path = path
        self._on_warning = on_warning
        self._clock = clock
        self._lock = threading.Lock()
        self._state = _state(path)
        self._keys = read_keys(path)
        self._recheck_at_s = clock() + RECHECK_S

    def __len__(self) -> int:
        return len(self._keys)

    def check(self, device: str, value: str, signature: str) -> str:
        """Return why a signed report is not verified; empty when it is.

        Raises:
            InputError: the device's key is registered and did not make this signature.
        """
        self._read_again_if_changed()
        key = self._keys.get(device)
        if key is None:
            return f"no key is registered for device {device or '(unnamed)'}"
        if not is_signed_by(key, value, signature):
            raise InputError(
                f"the signature of the report of device {device} is not that of the key registered for it",
                fix="register the device's report.pub with the server, or send no signature",
            )
        return ""

    def _read_again_if_changed(self) -> None:
        with self._lock:
            if self._clock() < self._recheck_at_s:
                return
            self._recheck_at_s = self._clock() + RECHECK_S
            try:
                state = _state(self._path)
                if state != self._state:
                    self._keys, self._state = read_keys(self._path), state
            except TidegateError as error:
                self._on_warning(f"device keys: {error.message}; going on with the {len(self._keys)} known before")


def read_keys(path: Path) -> dict[str, PublicKey]:
    """Return the keys of a file or a directory by device id. Raises as `DeviceKeys`."""
    keys: dict[str, PublicKey] = {}
    for file in _files(path):
        for number, line in _lines(file):
            key = PublicKey.from_line(line, origin=f"{file}:{number}")
            if keys.setdefault(key.device, key) != key:
                raise ConfigError(f"{file}:{number}: device {key.device} has a second key", fix="leave one of them")
    return keys


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text("ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not a file of device keys: {error}", fix="see docs/serving.md") from error
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: no such file or directory", fix="check the path of the device keys") from error
    except OSError as error:
        raise ResourceError(f"{file} could not be read: {error.strerror or error}", fix="check permissions") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.pub")) if path.is_dir() else [path]


def _state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file does."""
    try:
        stats = [(file.name, file.stat()) for file in _files(path)]
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file or directory", fix="check the path of the device keys") from error
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror or error}", fix="check permissions") from error
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
