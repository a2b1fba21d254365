"""What `tidegate serve` serves: models from bundles and a channel, labels, limits, and the file that says so."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.files import read_file
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.cloud.channel_source import ChannelSettings
    from tidegate.cloud.repository import RepositorySettings

CHANNEL_WATCH_S = 60.0
"""How often a channel is looked at unless --watch-s says otherwise."""


@dataclass(frozen=True)
class Models:
    """What is served, and from where."""

    bundles: tuple[Path, ...]
    channel: ChannelSettings | None
    repository: RepositorySettings
    watch_interval_s: float


def configure_models(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="bundle, or directory of bundles")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings for each model; see docs/serving.md")
    parser.add_argument("--channel", metavar="URL", help="serve what this channel releases")
    parser.add_argument("--channel-root", type=Path, metavar="ROOT.json", help="trusted root of that channel")
    parser.add_argument("--channel-model", action="append", metavar="NAME", help="model to serve; may be repeated")
    parser.add_argument("--channel-track", metavar="TRACK", help="default stable")
    parser.add_argument("--channel-dir", type=Path, metavar="DIR", help="keeps what was fetched, for the next start")
    parser.add_argument("--server-id", metavar="ID", help="decides the place in a roll-out; default server")
    parser.add_argument("--memory-limit-mb", type=int, default=0, metavar="N", help="of all models; default: no limit")
    parser.add_argument(
        "--label", action="append", default=[], metavar="MODEL:LABEL=VERSION", help="set at the start; may be repeated"
    )
    parser.add_argument("--labels-file", type=Path, metavar="FILE", help="keeps labels that were moved, over restarts")


def models_of(arguments: argparse.Namespace, base: RepositorySettings) -> Models:
    """Return what the arguments and the file say together; the arguments come first.

    Raises:
        ConfigError: nothing to serve, or a value cannot be meant.
        TidegateError: a file cannot be read.
    """
    from dataclasses import replace

    from tidegate.cloud.serve_file import ServeFile, read_serve_file

    file = read_serve_file(arguments.config) if arguments.config else ServeFile()
    directory = arguments.config.parent if arguments.config else Path()
    channel = _channel(arguments, file.followed(directory))
    if not arguments.bundles and channel is None:
        raise ConfigError("nothing to serve", fix="name a bundle, a directory of bundles, or a channel")
    named = replace(
        base,
        maximum_memory_bytes=arguments.memory_limit_mb * 2**20,
        labels=_labels(arguments.label),
        label_file=arguments.labels_file,
    )
    return Models(
        bundles=tuple(arguments.bundles),
        channel=channel,
        repository=file.repository(named, directory),
        watch_interval_s=arguments.watch_s or (CHANNEL_WATCH_S if channel else 0.0),
    )


def _channel(arguments: argparse.Namespace, of_file: ChannelSettings | None) -> ChannelSettings | None:
    """Return the channel of the arguments, or that of the file with what the arguments say of this server."""
    from dataclasses import replace

    from tidegate.cloud.channel_source import ChannelSettings

    stated = {"track": arguments.channel_track, "server_id": arguments.server_id}
    stated = {name: value for name, value in stated.items() if value}
    needed = {
        "--channel": arguments.channel,
        "--channel-root": arguments.channel_root,
        "--channel-model": arguments.channel_model,
        "--channel-dir": arguments.channel_dir,
    }
    missing = [name for name, value in needed.items() if not value]
    if len(missing) == len(needed) and of_file is not None:
        return replace(of_file, **stated)
    if len(missing) == len(needed) and not stated:
        return None
    if missing:
        raise ConfigError(f"{missing[0]} is missing", fix=f"{', '.join(needed)} go together")
    return ChannelSettings(
        url=arguments.channel,
        trusted_root=read_file(arguments.channel_root, "--channel-root"),
        models=tuple(arguments.channel_model),
        directory=arguments.channel_dir,
        **stated,
    )


def _labels(texts: list[str]) -> Mapping[str, Mapping[str, str]]:
    labels: dict[str, dict[str, str]] = {}
    for text in texts:
        model, colon, move = text.partition(":")
        label, equals, version = move.partition("=")
        if not (colon and equals and model and label and version):
            raise ConfigError(f"--label {text!r}; expected MODEL:LABEL=VERSION", fix="such as mlp:stable=1.2.0")
        labels.setdefault(model, {})[label] = version
    return labels
