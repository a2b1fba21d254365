"""A model on a server, called over the Open Inference Protocol. One client of its own per system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from tidegate.client import Client


class GrpcSystem:
    """Sends the same arrays every time: numpy in, numpy out, the encoding on both ways included."""

    def __init__(self, client: Client, name: str, version: str, feeds: Mapping[str, NDArray[Any]]) -> None:
        self._client = client
        self._name = name
        self._version = version
        self._feeds = feeds

    def call(self) -> None:
        """Ask the server once."""
        self._client.infer(self._name, self._feeds, version=self._version)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
