"""grpc's own server, with our limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tidegate.cloud.server_settings import ServerSettings
from tidegate.errors import DependencyError

KEEPALIVE_MS = 20_000
"""A client that is silent this long is asked whether it still lives."""

KEEPALIVE_TIMEOUT_MS = 10_000

SHORTEST_PING_MS = 5_000
"""Clients on a silent stream may ask us as often as this."""


def new_grpc_server(listen: str, settings: ServerSettings) -> Any:
    """Return a server that has neither a port nor services yet.

    Raises:
        DependencyError: grpcio is not installed.
    """
    try:
        import grpc
    except ImportError as error:
        raise DependencyError(f"serving needs grpcio: {error}", fix="pip install 'tidegate[cloud]'") from error
    return grpc.server(
        ThreadPoolExecutor(settings.maximum_streams + settings.unary_threads, thread_name_prefix="tidegate-serve"),
        options=_options(settings.maximum_message_bytes, settings.share_port) + settings.safety.options(listen),
        maximum_concurrent_rpcs=settings.maximum_streams + settings.maximum_queued_calls,
    )


def _options(maximum_message_bytes: int, share_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", maximum_message_bytes),
        ("grpc.max_receive_message_length", maximum_message_bytes),
        # Two servers on one port each get a share of the calls; unless that is meant, the second one is told instead.
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", SHORTEST_PING_MS),
    ]
