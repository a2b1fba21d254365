"""Who reports: the device's key, and a session number that no other process of the device has had."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from tidegate.bundle.atomic import sync_directory
from tidegate.errors import ConfigError, NotFoundError, ResourceError
from tidegate.release.disk import Disk, store
from tidegate.wire.report_signature import PublicKey, ReportKey

KEY_FILE = "report.key"
"""The private key, base64, in clear with mode 0600: nobody is there to type a passphrase when a device starts."""

PUBLIC_FILE = "report.pub"
"""The line that a server registers."""

SESSIONS = "report-sessions"
"""A directory with an empty file whose name is the number of the newest session."""


def create_report_key(directory: Path, device_id: str) -> PublicKey:
    """Make the key with which the device signs its reports; return the public key, which is in `report.pub` too.

    Raises:
        ConfigError: the device has a key, or its id cannot stand in a report.
        NotFoundError: the directory does not exist.
        DependencyError: PyNaCl is not installed; the message names the extra.
        ResourceError: the disk refuses.
    """
    private, public = directory / KEY_FILE, directory / PUBLIC_FILE
    if not directory.is_dir():
        raise NotFoundError(f"{directory} is not there", fix="make the device with `tidegate device init`")
    if private.exists():
        raise ConfigError(
            f"{private} is there already; a second key would make the registered one worthless",
            fix="remove it first if the device is to have another key",
        )
    key = ReportKey.generate()
    line = key.public(device_id)
    disk = Disk()
    store(disk, public, line.to_line().encode() + b"\n", mode=0o644)
    store(disk, private, base64.b64encode(key.seed) + b"\n", mode=0o600)
    return line


def read_report_key(directory: Path) -> ReportKey | None:
    """Return the device's key; None when it has none.

    Raises:
        ConfigError: the file does not hold one.
        DependencyError: PyNaCl is not installed.
        ResourceError: the disk refuses.
    """
    path = directory / KEY_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror or error}", fix="check permissions") from error
    try:
        seed = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"{path} is not a key: {error}", fix="remove it and make a new one") from error
    return ReportKey(seed)


def new_session(directory: Path) -> int:
    """Return a number higher than any before on this device, also after a crash or a power cut.

    The number is taken by making a file of that name, which only one process can do; so it needs no lock.

    Raises:
        ResourceError: the disk refuses.
    """
    sessions = directory / SESSIONS
    try:
        sessions.mkdir(exist_ok=True)
        number = _taken(sessions)
        sync_directory(sessions)
        _remove_below(sessions, number)
    except OSError as error:
        raise ResourceError(
            f"{sessions}: no session number could be taken: {error.strerror or error}", fix="check the disk"
        ) from error
    return number


def _taken(sessions: Path) -> int:
    number = max(_numbers(sessions), default=0)
    while True:
        number += 1
        try:
            os.close(os.open(sessions / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return number


def _remove_below(sessions: Path, number: int) -> None:
    for older in _numbers(sessions):
        if older < number:
            (sessions / str(older)).unlink(missing_ok=True)


def _numbers(sessions: Path) -> list[int]:
    return [int(file.name) for file in sessions.iterdir() if file.name.isascii() and file.name.isdigit()]
