"""The options of `tidegate serve` for what is seen from outside gRPC: HTTP, metrics, logs, traces."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.cloud.outside import OutsideSettings


def add_outside(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("HTTP and monitoring", "docs/http.md and docs/monitoring.md say more")
    group.add_argument("--http", default="", metavar="HOST:PORT", help="the same models over HTTP, and /metrics")
    ports = group.add_mutually_exclusive_group()
    ports.add_argument("--metrics", default="", metavar="HOST:PORT", help="/metrics and health on a port of their own")
    ports.add_argument("--no-metrics", action="store_true", help="no /metrics on the port of --http, and no counting")
    group.add_argument(
        "--value-metrics-per-s",
        type=float,
        default=20.0,
        metavar="N",
        help="requests of each model whose values are counted in its reference profile's bins; 0: none; default 20",
    )
    group.add_argument("--log-format", choices=("text", "json"), default="text", help="of standard error")
    group.add_argument("--log-requests", action="store_true", help="a line for every request; never its values")
    group.add_argument("--traces", default="", metavar="URL", help="OpenTelemetry collector: http(s):// or grpc(s)://")


def outside(arguments: argparse.Namespace) -> OutsideSettings:
    """Return the settings for the options given.

    Raises:
        ConfigError: a value out of its range.
    """
    from tidegate.cloud.http.settings import HttpSettings
    from tidegate.cloud.outside import OutsideSettings

    return OutsideSettings(
        http=HttpSettings(
            listen=arguments.http,
            metrics_listen=arguments.metrics,
            # A port for metrics alone is asked for where the other one should not show them.
            metrics=not (arguments.metrics or arguments.no_metrics),
            maximum_body_bytes=arguments.max_message_mb * 2**20,
            values_per_s=arguments.value_metrics_per_s,
        ),
        log_format=arguments.log_format,
        log_failures=True,
        log_requests=arguments.log_requests,
        traces=arguments.traces,
    )
