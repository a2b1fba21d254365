"""The server side: one core under thin servicers."""

from __future__ import annotations

from tidegate.cloud.server import Server, ServerSettings

__all__ = ["Server", "ServerSettings"]
