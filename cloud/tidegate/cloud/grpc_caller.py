"""Whoever calls over gRPC, as the rest of the server knows a caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

NO_DEADLINE_S = 1e9
"""grpc says that a call without a deadline has some 300 years left."""


class ContextCaller:
    """The caller, from grpc's servicer context."""

    __slots__ = ("_metadata", "context", "deadline_s")

    def __init__(self, context: Any) -> None:
        self.context = context
        """grpc's; only for what is not in `Caller`"""
        self._metadata: Mapping[str, str] | None = None
        left_s = context.time_remaining()
        self.deadline_s: float | None = None if left_s is None or left_s > NO_DEADLINE_S else time.monotonic() + left_s

    @property
    def peer(self) -> str:
        """Address as grpc writes it: `ipv4:127.0.0.1:40000`, `unix:`."""
        peer: str = self.context.peer()
        return peer

    @property
    def headers(self) -> Sequence[tuple[str, str | bytes]]:
        """As they came."""
        return self.context.invocation_metadata() or ()

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text headers; of one that came twice, the last."""
        if self._metadata is None:
            self._metadata = {key: value for key, value in self.headers if isinstance(value, str)}
        return self._metadata

    def gone(self) -> bool:
        """Whether the call was cancelled or its connection lost."""
        return not self.context.is_active()

    def when_over(self, release: Callable[[], None]) -> None:
        """Have `release` called when the answer is out or the caller gone: when a handler returns, it is not."""
        if not self.context.add_callback(release):
            release()
