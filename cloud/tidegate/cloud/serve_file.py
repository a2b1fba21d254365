"""`serve.toml`: what a server is told of each model, in a file.

memory_limit_mb = 2048
labels_file = "labels.json"          # beside this file unless absolute

[models.mlp]
versions = "latest:2"
maximum_rows = 32
preferred_rows = [8, 16, 32]
maximum_delay_ms = 2.0
maximum_queue = 512
queue_timeout_s = 1.0
priority_levels = 2
default_priority = 2
labels = { stable = "1.0.0" }

[models.tagger.padding]
inputs = ["tokens", "mask"]
buckets = [16, 32, 64, 128]
cropped_outputs = ["tags"]

[channel]
url = "https://models.example.com/site"
root = "1.root.json"
models = ["voice-commands"]
directory = "channel"
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tidegate.cloud.batching import BatchSettings
from tidegate.cloud.channel_source import ChannelSettings
from tidegate.cloud.padding import Padding
from tidegate.cloud.queueing import QueueSettings
from tidegate.cloud.repository import RepositorySettings
from tidegate.cloud.versions import parse_policy
from tidegate.errors import ConfigError, DependencyError, NotFoundError, ResourceError


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tables have in common: a word that is not known is a mistake."""


class PaddingEntry(_Entry, frozen=True, kw_only=True):
    """`[models.NAME.padding]`: see `tidegate.cloud.padding.Padding`."""

    inputs: tuple[str, ...]
    buckets: tuple[int, ...]
    axis: int = 1
    value: float = 0.0
    cropped_outputs: tuple[str, ...] = ()


class ModelEntry(_Entry, frozen=True, kw_only=True):
    """`[models.NAME]`: see `BatchSettings` and `QueueSettings`, whose defaults these are."""

    versions: str = ""
    """policy; empty for that of the command line"""
    maximum_rows: int = BatchSettings.maximum_rows
    preferred_rows: tuple[int, ...] = ()
    maximum_delay_ms: float = 0.0
    maximum_queue: int = QueueSettings.maximum_length
    queue_timeout_s: float = 0.0
    priority_levels: int = 1
    default_priority: int = 1
    padding: PaddingEntry | None = None
    labels: dict[str, str] = {}
    """version by label, set at the start unless the label was moved by hand before"""

    @property
    def batching(self) -> BatchSettings:
        """The scheduler's settings.

        Raises:
            ConfigError: they cannot be meant.
        """
        return BatchSettings(
            maximum_rows=self.maximum_rows,
            preferred_rows=self.preferred_rows,
            maximum_delay_ms=self.maximum_delay_ms,
            queue=QueueSettings(
                maximum_length=self.maximum_queue,
                timeout_s=self.queue_timeout_s,
                priority_levels=self.priority_levels,
                default_priority=self.default_priority,
            ),
            padding=None if self.padding is None else Padding(**msgspec.structs.asdict(self.padding)),
        )


class ChannelEntry(_Entry, frozen=True, kw_only=True):
    """`[channel]`: see `tidegate.cloud.channel_source.ChannelSettings`."""

    url: str
    root: str
    """file of the trusted root"""
    models: tuple[str, ...]
    directory: str
    track: str = "stable"
    server_id: str = "server"
    hardware: tuple[str, ...] = ()


class ServeFile(_Entry, frozen=True, kw_only=True):
    """The whole file."""

    models: dict[str, ModelEntry] = {}
    memory_limit_mb: int = 0
    """of all models together; 0: no limit"""
    labels_file: str = ""
    """keeps labels over restarts"""
    channel: ChannelEntry | None = None

    def repository(self, base: RepositorySettings, directory: Path) -> RepositorySettings:
        """Return the settings with what the file says.

        Args:
            base: what the command line says.
            directory: of the file.

        Raises:
            ConfigError: a value cannot be meant.
        """
        batching = {name: entry.batching for name, entry in self.models.items()}
        policies = {name: parse_policy(entry.versions) for name, entry in self.models.items() if entry.versions}
        return replace(
            base,
            policy_by_model={**base.policy_by_model, **policies},
            loading=replace(base.loading, batching_by_model={**base.loading.batching_by_model, **batching}),
            maximum_memory_bytes=base.maximum_memory_bytes or self.memory_limit_mb * 2**20,
            labels={**{name: entry.labels for name, entry in self.models.items()}, **base.labels},
            label_file=base.label_file or (directory / self.labels_file if self.labels_file else None),
        )

    def followed(self, directory: Path) -> ChannelSettings | None:
        """Return the channel, if the file names one; paths are those of `directory` unless absolute.

        Raises:
            ConfigError: a value cannot be meant.
            NotFoundError, ResourceError: the root cannot be read.
        """
        entry = self.channel
        if entry is None:
            return None
        return ChannelSettings(
            url=entry.url,
            trusted_root=_bytes(directory / entry.root),
            models=entry.models,
            directory=directory / entry.directory,
            track=entry.track,
            server_id=entry.server_id,
            hardware=entry.hardware,
        )


def read_serve_file(path: Path) -> ServeFile:
    """Read and check a file.

    Raises:
        NotFoundError, ResourceError: it cannot be read.
        ConfigError: it is not TOML, or a key or value is not known.
        DependencyError: Python 3.10 without tomli.
    """
    toml = _toml()
    try:
        return msgspec.convert(toml.loads(_bytes(path).decode()), ServeFile)
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", fix="correct the line it names") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}", fix="docs/serving.md lists the keys") from error


def _toml() -> Any:
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DependencyError("Python 3.10 has no TOML parser, and tomli is not installed", fix="pip install tomli")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there", fix="correct the path") from error
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from error
