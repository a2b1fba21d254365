"""One signed file into the store: received, checked, and once more from the start if what was resumed was spoilt."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from tidegate.errors import IntegrityError, ResourceError
from tidegate.fetch.error_mapping import mapped
from tidegate.fetch.store import Store
from tidegate.fetch.trusted import ChannelReader, TargetInfo

# Metadata, records and the file system's own blocks.
MARGIN_BYTES = 1 << 20

Heard = Callable[[TargetInfo, int], None]
"""How many more bytes of a file are there; negative when they are given up."""


def receive_into_store(
    reader: ChannelReader,
    store: Store,
    target: TargetInfo,
    *,
    heard: Heard = lambda target, count: None,
    stop: threading.Event | None = None,
) -> None:
    """Fetch a file of a release and give it its name in the store.

    Raises:
        IntegrityError, UnavailableError, DeadlineError, ResourceError: as `ChannelReader.receive` and `Store.adopt`.
    """

    def accept(partial: Path) -> None:
        store.adopt(partial, target.sha256, target.length)

    _receive(reader, target, store.partial_path(target.sha256), accept, heard, stop)


def receive_beside_store(
    reader: ChannelReader, store: Store, target: TargetInfo, *, heard: Heard, stop: threading.Event | None
) -> Path:
    """Fetch a file that is needed for a moment, such as a delta, check it, and return where it lies.

    Raises:
        IntegrityError, UnavailableError, DeadlineError, ResourceError: as `ChannelReader.receive`.
    """
    partial = store.partial_path(target.sha256)
    _receive(reader, target, partial, target.check, heard, stop)
    return partial


def check_space(store: Store, needed_bytes: int) -> None:
    """Refuse to begin what would not fit.

    Raises:
        ResourceError: less is free than needed; the message has both numbers.
    """
    place = store.directory
    while not place.exists() and place != place.parent:
        place = place.parent
    with mapped(str(place)):
        free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise ResourceError(
            f"the update needs {needed_bytes} bytes on the disk of {store.directory}; {free_bytes} are free",
            fix="free some space, then update again; what is installed keeps running",
        )


def _receive(
    reader: ChannelReader,
    target: TargetInfo,
    partial: Path,
    accept: Callable[[Path], None],
    heard: Heard,
    stop: threading.Event | None,
) -> None:
    resumed = partial.exists()
    try:
        _receive_once(reader, target, partial, accept, heard, stop)
    except IntegrityError:
        if not resumed:
            raise
        # A power cut or the disk may have spoilt what was kept; the server is not to blame yet.
        _receive_once(reader, target, partial, accept, heard, stop)


def _receive_once(
    reader: ChannelReader,
    target: TargetInfo,
    partial: Path,
    accept: Callable[[Path], None],
    heard: Heard,
    stop: threading.Event | None,
) -> None:
    reader.receive(target, partial, on_bytes=lambda count: heard(target, count), stop=stop)
    try:
        accept(partial)
    except IntegrityError:
        with mapped(str(partial)):
            partial.unlink(missing_ok=True)
        heard(target, -target.length)
        raise
