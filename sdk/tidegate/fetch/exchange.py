"""One request and its answer: redirects, time-outs, the speed watch and the counters. Loads urllib3 when used."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from tidegate.errors import ConfigError, DeadlineError, UnavailableError
from tidegate.fetch.error_mapping import mapped, missing
from tidegate.fetch.settings import FetchSettings, check_url

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from tidegate.fetch.pool import SpeedWatch

LATER = "try again later; what is installed keeps running"

_CHUNK_BYTES = 1 << 16
_MAXIMUM_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Response:
    """An answer whose body is still on the line."""

    status: int
    """HTTP status; below 300, or an error that another try would not change"""
    headers: Mapping[str, str]
    """without regard to upper and lower case"""
    chunks: Iterator[bytes]
    """the body as it comes, each piece at most 64 KiB"""


class Exchanger:
    """Sends requests one by one. Safe to use from several threads; counts what goes over the wire.

    Raises:
        DependencyError: urllib3 is not installed.
        NotFoundError, ConfigError: `ca_file` cannot be used.
    """

    def __init__(self, settings: FetchSettings) -> None:
        try:
            from tidegate.fetch.pool import Pools
        except ImportError as error:
            raise missing(error) from error
        self._settings = settings
        self._pools = Pools(settings)
        self._lock = threading.Lock()
        self.requests = 0
        """requests sent, with those that follow redirects"""
        self.received_bytes = 0
        """bytes of bodies received, also of answers that were refused; headers are not counted"""

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """Send one request, follow redirects, and watch the speed until the block ends.

        Raises:
            UnavailableError: no server, a cut, or an answer that asks to try later.
            DeadlineError: no answer in time, or slower than the floor.
        """
        from tidegate.fetch.pool import SpeedWatch

        with SpeedWatch(self._settings.read_timeout_s, self._settings.window_bytes) as watch:
            try:
                with mapped(url):
                    response = self._open(url, headers)
                    watch.begin_body()
                    try:
                        yield Response(response.status, response.headers, self._chunks(response, watch))
                    finally:
                        response.close()
            except UnavailableError as error:
                if watch.too_slow:
                    raise self._slow(url, watch) from error
                raise

    def close(self) -> None:
        """Close every idle connection."""
        self._pools.close()

    def _open(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        where = url
        for _ in range(_MAXIMUM_REDIRECTS + 1):
            response = self._send(where, headers)
            if response.status not in _REDIRECTS:
                return _usable(response, where)
            location = response.headers.get("Location", "")
            response.close()
            where = _followed(where, location)
        raise UnavailableError(f"{url} leads through more than {_MAXIMUM_REDIRECTS} redirects", fix=LATER)

    def _send(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        from urllib3 import Timeout

        with self._lock:
            self.requests += 1
        return self._pools.manager(url).urlopen(
            "GET",
            url,
            # Digests are over the bytes as they lie on the server; a resumed file must be counted in them too.
            headers={"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity", **headers},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=Timeout(connect=self._settings.connect_timeout_s, read=self._settings.read_timeout_s),
        )

    def _chunks(self, response: BaseHTTPResponse, watch: SpeedWatch) -> Iterator[bytes]:
        # read1 returns what is there; read would wait for a full chunk, however slowly it comes.
        while chunk := response.read1(_CHUNK_BYTES):
            watch.received_bytes += len(chunk)
            with self._lock:
                self.received_bytes += len(chunk)
            yield chunk
        if watch.too_slow:  # a connection that was shut down may look like the end of the body
            raise UnavailableError("the connection was shut down", fix=LATER)

    def _slow(self, url: str, watch: SpeedWatch) -> DeadlineError:
        return DeadlineError(
            f"{url}: {watch.received_bytes} bytes came, the last window of {self._settings.read_timeout_s:g} s brought "
            f"less than {self._settings.window_bytes:g}",
            fix=f"{LATER}; on a slow line lower minimum_bytes_per_s",
        )


def _usable(response: BaseHTTPResponse, url: str) -> BaseHTTPResponse:
    encoding = response.headers.get("Content-Encoding", "identity")
    problem = ""
    if response.status in _TEMPORARY:
        problem = f"answered {response.status}"
    elif response.status < 200 or 300 <= response.status < 400:
        problem = f"answered {response.status}, which is no answer to a plain request"
    elif response.status < 300 and encoding.lower() != "identity":
        problem = f"sent the file as {encoding!r}, which was not asked for"
    if problem:
        response.close()
        raise UnavailableError(f"{url}: the server {problem}", fix=LATER)
    return response


def _followed(url: str, location: str) -> str:
    """Return where a redirect leads; never from https to what others can read, nor to what is no web server."""
    try:
        target = urljoin(url, location)
        check_url(target, "the redirect")
    except (ValueError, ConfigError):
        target = ""
    if not location or not target or (url.startswith("https:") and not target.startswith("https:")):
        raise UnavailableError(f"{url} redirects to {location[:200]!r}, which is not followed", fix=LATER)
    return target
