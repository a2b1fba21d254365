"""Bytes over HTTP: short answers whole, files with resume. Nothing here is trusted; who calls checks what came."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tidegate.errors import IntegrityError, UnavailableError
from tidegate.fetch.error_mapping import mapped
from tidegate.fetch.exchange import LATER, Exchanger, Response
from tidegate.fetch.settings import FetchSettings

_Result = TypeVar("_Result")

_MAXIMUM_BACKOFF_S = 30.0
_ERROR_PAGE_BYTES = 1 << 14
_PARTIAL = 206
_RANGE_NOT_SATISFIABLE = 416
# RFC 9110, 14.4: "bytes FIRST-LAST/LENGTH", where an unknown length is "*".
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")
_ALTERED = "run the update again; if it stays so, tell the channel's owner"


@dataclass(frozen=True)
class Answer:
    """What a server said to a request for a short file."""

    status: int
    """HTTP status; 2xx, or an error that another try would not change"""
    body: bytes


class Transport:
    """Requests to web servers that are tried again. Safe to use from several threads.

    Raises:
        DependencyError: urllib3 is not installed.
        NotFoundError, ConfigError: `ca_file` cannot be used.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self._exchanger = Exchanger(settings)
        self._never = threading.Event()

    @property
    def requests(self) -> int:
        """Requests sent so far, with redirects and further attempts."""
        return self._exchanger.requests

    @property
    def received_bytes(self) -> int:
        """Bytes of bodies received so far, also of answers that were refused."""
        return self._exchanger.received_bytes

    def get(self, url: str, maximum_bytes: int) -> Answer:
        """Return a short file whole.

        Raises:
            IntegrityError: it is longer than `maximum_bytes`.
            UnavailableError: no server, a cut, or an answer that asks to try later, at each of the attempts.
            DeadlineError: too slow, likewise.
        """
        return self._persistently(lambda: self._get(url, maximum_bytes), lambda: 0, self._never)

    def resume(
        self,
        url: str,
        partial: Path,
        size_bytes: int,
        *,
        on_bytes: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Bring a file to `size_bytes`, beginning after what `partial` already holds. Does not check what is in it.

        Args:
            url: where the file is.
            partial: collects the bytes; stays after a cut, so that the next call goes on there.
            size_bytes: as signed; a server that sends more is refused.
            on_bytes: hears how many more bytes are there; a negative number when it begins anew.
            stop: set by another thread to end this.

        Raises:
            IntegrityError: the server's file is longer or shorter than signed; `partial` is removed.
            UnavailableError: the server has no such file, cannot be reached or broke off, at each of the attempts.
            DeadlineError: too slow, likewise.
            ResourceError: the disk refuses.
        """
        heard = on_bytes or (lambda count: None)
        until = stop or self._never
        if _size(partial) > size_bytes:
            _remove(partial)
        status = self._persistently(
            lambda: self._resume(url, partial, size_bytes, heard, until), lambda: _size(partial), until
        )
        if status >= 400:
            raise UnavailableError(f"{url}: the server answered {status}", fix=LATER)

    def close(self) -> None:
        """Close every idle connection."""
        self._exchanger.close()

    def _persistently(
        self, attempt: Callable[[], _Result], position: Callable[[], int], stop: threading.Event
    ) -> _Result:
        """Try again while a try fails in a way that may pass; one that brought a window's minimum counts as none."""
        fruitless = 0
        while True:
            before = position()
            try:
                return attempt()
            except UnavailableError:
                fruitless = 0 if position() - before > self.settings.window_bytes else fruitless + 1
                wait_s = min(self.settings.backoff_s * 2 ** max(0, fruitless - 1), _MAXIMUM_BACKOFF_S)
                if fruitless >= self.settings.attempts or stop.wait(wait_s):
                    raise

    def _get(self, url: str, maximum_bytes: int) -> Answer:
        with self._exchanger.get(url, {}) as response:
            body = bytearray()
            for chunk in response.chunks:
                body += chunk
                if response.status >= 400 and len(body) > _ERROR_PAGE_BYTES:
                    break  # an error page of any length says no more than its status
                if response.status < 400 and len(body) > maximum_bytes:
                    raise IntegrityError(
                        f"{url} is longer than {maximum_bytes} bytes, the most that is signed or allowed", fix=_ALTERED
                    )
            return Answer(response.status, bytes(body))

    def _resume(
        self, url: str, partial: Path, size_bytes: int, heard: Callable[[int], None], stop: threading.Event
    ) -> int:
        have = _size(partial)
        if have == size_bytes:
            _create(partial)
            return 200
        with self._exchanger.get(url, {"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status >= 400 and response.status != _RANGE_NOT_SATISFIABLE:
                return response.status
            begin = _begin(response, have, size_bytes)
            if begin is None:
                heard(-_remove(partial))
                raise UnavailableError(f"{url}: the server sent another part of the file than was asked for", fix=LATER)
            heard(begin - have)
            try:
                _check_announced(response, url, begin, size_bytes)
                _append(partial, begin, _bounded(response.chunks, url, size_bytes - begin), heard, stop)
            except IntegrityError:
                heard(-_remove(partial))
                raise
            if _size(partial) < size_bytes:
                raise UnavailableError(f"{url} ended after {_size(partial)} of {size_bytes} bytes", fix=LATER)
            return response.status


def _begin(response: Response, have: int, size_bytes: int) -> int | None:
    """Return at which byte of the file the body begins; None when it cannot be what was asked for."""
    if response.status != _PARTIAL:
        return None if response.status == _RANGE_NOT_SATISFIABLE else 0
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have or found[3] not in (str(size_bytes), "*"):
        return None
    return have


def _check_announced(response: Response, url: str, begin: int, size_bytes: int) -> None:
    """Refuse a file of another length before its bytes are received."""
    announced = response.headers.get("Content-Length", "")
    if response.status != _PARTIAL and announced.isdecimal() and int(announced) != size_bytes:
        raise IntegrityError(f"{url} has {announced} bytes; expected {size_bytes} as signed", fix=_ALTERED)


def _bounded(chunks: Iterator[bytes], url: str, left_bytes: int) -> Iterator[bytes]:
    for chunk in chunks:
        left_bytes -= len(chunk)
        if left_bytes < 0:
            raise IntegrityError(f"{url} goes on beyond the length that is signed", fix=_ALTERED)
        yield chunk


def _append(
    partial: Path, begin: int, chunks: Iterator[bytes], heard: Callable[[int], None], stop: threading.Event
) -> None:
    with mapped(str(partial)), partial.open("r+b" if begin else "wb") as file:
        file.seek(begin)
        for chunk in chunks:
            file.write(chunk)
            heard(len(chunk))
            if stop.is_set():
                raise UnavailableError("stopped before the end", fix=LATER)


def _size(partial: Path) -> int:
    with mapped(str(partial)):
        return partial.stat().st_size if partial.exists() else 0


def _create(partial: Path) -> None:
    with mapped(str(partial)):
        partial.touch()


def _remove(partial: Path) -> int:
    """Remove the file and return how many bytes it had."""
    size = _size(partial)
    with mapped(str(partial)):
        partial.unlink(missing_ok=True)
    return size
