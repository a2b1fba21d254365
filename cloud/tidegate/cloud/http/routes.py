"""Which path does what: a literal table, found by one look-up. Pure: no server in here."""

from __future__ import annotations

from typing import NamedTuple

from tidegate.cloud.http.exchange import HttpInputError

NAME, VERSION = "{name}", "{version}"


class Route(NamedTuple):
    """One path and method."""

    method: str
    """GET or POST"""
    path: str
    does: str
    """name of the gRPC method that does the same, or one of our own"""


_MODEL = f"v2/models/{NAME}"
_OF_VERSION = f"{_MODEL}/versions/{VERSION}"

HEALTH_ROUTES = (
    Route("GET", "v2/health/live", "ServerLive"),
    Route("GET", "v2/health/ready", "ServerReady"),
)

METRICS_ROUTES = (Route("GET", "metrics", "Metrics"),)

INFERENCE_ROUTES = (
    Route("POST", f"{_MODEL}/infer", "ModelInfer"),
    Route("POST", f"{_OF_VERSION}/infer", "ModelInfer"),
    Route("GET", "v2", "ServerMetadata"),
    Route("GET", f"{_MODEL}/ready", "ModelReady"),
    Route("GET", f"{_OF_VERSION}/ready", "ModelReady"),
    Route("GET", _MODEL, "ModelMetadata"),
    Route("GET", _OF_VERSION, "ModelMetadata"),
    Route("GET", f"{_MODEL}/config", "ModelConfig"),
    Route("GET", f"{_OF_VERSION}/config", "ModelConfig"),
    Route("GET", "v2/models/stats", "ModelStatistics"),
    Route("GET", f"{_MODEL}/stats", "ModelStatistics"),
    Route("GET", f"{_OF_VERSION}/stats", "ModelStatistics"),
    Route("POST", "v2/repository/index", "RepositoryIndex"),
    Route("POST", f"v2/repository/models/{NAME}/load", "RepositoryModelLoad"),
    Route("POST", f"v2/repository/models/{NAME}/unload", "RepositoryModelUnload"),
    Route("GET", "v2/logging", "LogSettings"),
    Route("POST", "v2/logging", "LogSettings"),
)


class Found(NamedTuple):
    """What a path leads to."""

    route: Route
    name: str
    version: str


class Routes:
    """A set of routes."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._by_path: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            self._by_path.setdefault(tuple(route.path.split("/")), {})[route.method] = route

    def find(self, method: str, path: str) -> Found:
        """Return the route of a path.

        Raises:
            HttpInputError: 404 for an unknown path, 405 for another method.
        """
        parts = path.strip("/").split("/")
        by_method = self._by_path.get(tuple(parts))
        name = version = ""
        if by_method is None:
            place = _name_place(parts)
            if len(parts) > place:
                name, parts[place] = parts[place], NAME
            if len(parts) > 4 and parts[3] == "versions":
                version, parts[4] = parts[4], VERSION
            by_method = self._by_path.get(tuple(parts))
        if by_method is None:
            raise HttpInputError(404, f"there is no {path[:200]!r} here", fix="see docs/http.md for the paths")
        route = by_method.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = [*by_method, "HEAD"] if "GET" in by_method else [*by_method]
            raise HttpInputError(
                405,
                f"{method} is not for {path[:200]!r}",
                fix=f"use {' or '.join(by_method)}",
                allowed=", ".join(allowed),
            )
        return Found(route, name, version)


def _name_place(parts: list[str]) -> int:
    """Return where a model's name stands in the path."""
    return 3 if parts[:2] == ["v2", "repository"] else 2
