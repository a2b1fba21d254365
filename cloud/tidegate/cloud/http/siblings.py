"""Workers of one port ask each other for metrics, over Unix sockets in a directory that only their user can enter.

Whichever worker the system gives a scrape to shows the metrics of all. One that does not answer in time is left out:
it is starting, ending, or stuck, and `up` of the others goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tidegate.cloud.http.settings import Siblings
from tidegate.cloud.metrics.exposition import Family, from_bytes, merged, render, to_bytes
from tidegate.errors import UnavailableError

ANSWER_TIMEOUT_S = 2.0

SUFFIX = ".metrics"


class MetricsOfAll:
    """Answers siblings, and asks them."""

    def __init__(self, own: Callable[[], list[Family]], siblings: Siblings) -> None:
        """Join the parts.

        Args:
            own: the metrics of this process.
            siblings: where the others are.
        """
        self._own = own
        self._siblings = siblings
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen for siblings; a socket that a killed worker of this number left is replaced."""
        if not self._siblings.directory:
            return
        place = self._place
        place.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, place)

    async def stop(self) -> None:
        """Answer siblings no more."""
        if self._server is not None:
            self._server.close()
            self._place.unlink(missing_ok=True)

    async def text(self) -> bytes:
        """Return the metrics of all workers as Prometheus' text form."""
        own = self._siblings.index
        found = {own: self._own()}
        others = [number for number in self._numbers() if number != own]
        answers = await asyncio.gather(*(self._asked(number) for number in others))
        found |= {number: families for number, families in zip(others, answers, strict=True) if families is not None}
        return render(merged(found))

    @property
    def _place(self) -> Path:
        return Path(self._siblings.directory, f"{self._siblings.index}{SUFFIX}")

    def _numbers(self) -> list[int]:
        if not self._siblings.directory:
            return []
        return [int(place.stem) for place in Path(self._siblings.directory).glob(f"*{SUFFIX}")]

    async def _asked(self, number: int) -> list[Family] | None:
        place = Path(self._siblings.directory, f"{number}{SUFFIX}")
        try:
            return from_bytes(await asyncio.wait_for(_read_all(place), ANSWER_TIMEOUT_S))
        except (OSError, asyncio.TimeoutError, UnavailableError):
            return None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(to_bytes(self._own()))
            await writer.drain()
            writer.close()


async def _read_all(place: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(place)
    try:
        return await reader.read()
    finally:
        writer.close()
