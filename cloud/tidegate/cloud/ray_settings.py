"""What the replicas of the Ray Serve application hold, how many there are, and when that changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tidegate.cloud.versions import parse_policy
from tidegate.errors import ConfigError

APPLICATION = "tidegate"


@dataclass(frozen=True)
class RaySettings:
    """What the replicas hold and how many there are."""

    bundles: tuple[str, ...]
    """paths that exist on every node, or directories of bundles"""
    variant: str | None = None
    """id; None for the first of each bundle whose runtime is installed"""
    threads: int = 1
    """of the runtime, per model; also the cores that Ray reserves for a replica"""
    versions: str = "all"
    """all, latest:N or specific:V,V"""
    min_replicas: int = 1
    """0: none while nobody calls; the first call then waits for a start"""
    max_replicas: int = 1
    """more than `min_replicas`: Ray adds and removes them"""
    target_ongoing_requests: int = 8
    """requests under way per replica that autoscaling aims at"""
    upscale_delay_s: float = 30.0
    """how long there must be too many requests before replicas are added"""
    downscale_delay_s: float = 600.0
    """how long there must be too few before replicas are taken away; those drain first"""
    look_back_s: float = 30.0
    """requests under way are averaged over this time; Ray's proxies report them every 10 s"""
    max_ongoing_requests: int = 64
    """requests that a replica takes at once; more wait in the proxy"""
    max_queued_requests: int = 1024
    """that wait in one proxy; more are refused with RESOURCE_EXHAUSTED"""
    drain_s: float = 30.0
    """for requests under way when a replica is stopped"""
    name: str = field(default=APPLICATION)
    """of the application; a caller names it in the header `application` where there are several"""

    def __post_init__(self) -> None:
        if not self.bundles:
            raise ConfigError("no bundle to serve", fix="name at least one: bundles=PATH,PATH")
        for name in ("threads", "max_replicas", "target_ongoing_requests", "max_ongoing_requests"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")
        if not 0 <= self.min_replicas <= self.max_replicas:
            raise ConfigError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}", fix="use 0 <= min <= max"
            )
        for name in ("drain_s", "upscale_delay_s", "downscale_delay_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more", fix="give seconds")
        if not self.look_back_s > 0:
            raise ConfigError(f"look_back_s is {self.look_back_s}; expected more than 0", fix="give seconds")
        parse_policy(self.versions)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> RaySettings:
        """Read settings as `serve run` gives them: text, or values of a YAML file.

        Raises:
            ConfigError: a name that there is not, or a value that does not fit.
        """
        known = {item.name: str(item.type) for item in fields(cls)}
        unknown = [name for name in arguments if name not in known]
        if unknown:
            raise ConfigError(f"there is no setting {unknown[0]!r}; known: {', '.join(known)}", fix="correct the name")
        values = {name: _value(name, known[name], value) for name, value in arguments.items()}
        return cls(**{"bundles": (), **values})


def _value(name: str, kind: str, value: Any) -> Any:
    """Return one setting in its type; text is what the command line gives."""
    try:
        if kind.startswith("tuple"):
            listed = value.split(",") if isinstance(value, str) else value
            return tuple(str(item) for item in listed if str(item))
        if kind in ("int", "float"):
            return int(value) if kind == "int" else float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is {value!r}; expected {kind}", fix="correct the value") from error
    return value
