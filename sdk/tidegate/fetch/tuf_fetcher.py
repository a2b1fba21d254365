"""The Update Framework's client over our transport. Loads tuf."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from tidegate.fetch.transport import Transport

__all__ = ["Updater", "UpdaterConfig", "VerifiedFetcher"]


class VerifiedFetcher(FetcherInterface):
    """Fetches metadata for python-tuf. Targets do not go through it: they need resume."""

    def __init__(self, transport: Transport, on_file: Callable[[str, int], None]) -> None:
        """Tell `on_file` the name and size in bytes of each file that came."""
        self._transport = transport
        self._on_file = on_file

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return a metadata file.

        Raises:
            DownloadHTTPError: an answer such as 404, which for the next root means that there is none.
            IntegrityError, UnavailableError, DeadlineError: as `Transport.get`.
        """
        answer = self._transport.get(url, max_length)
        name = url.rpartition("/")[2]
        if answer.status >= 400:
            raise DownloadHTTPError(f"the server answered {answer.status} for {name}", answer.status)
        self._on_file(name, len(answer.body))
        return answer.body

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Return a file in pieces, as the interface demands; at most what any metadata may have."""
        yield self.download_bytes(url, UpdaterConfig().targets_max_length)
