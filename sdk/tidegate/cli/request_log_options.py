"""The options of `tidegate serve` that keep requests for retraining, and the settings that they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.cloud.request_log_settings import RequestLogSettings

OTHERS = ("share", "reason", "model", "never", "speech", "hook", "age_s", "disk_mb")


def add_request_log(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("request log", "off by default; docs/request-log.md")
    group.add_argument("--keep-requests", type=Path, metavar="DIR", help="keep requests there, as Parquet files")
    group.add_argument("--keep-share", type=float, metavar="F", help="of all requests; default 0.01")
    group.add_argument(
        "--keep-reason", action="append", metavar="R", help="keep these too: error, uncertain:0.6; may be repeated"
    )
    group.add_argument("--keep-model", action="append", metavar="NAME", help="only this model; may be repeated")
    group.add_argument(
        "--keep-never", action="append", metavar="[MODEL/]NAME", help="an input or output not to keep; may be repeated"
    )
    group.add_argument("--keep-speech", action="store_true", help="keep speech segments too, with their audio")
    group.add_argument("--keep-hook", metavar="MODULE:FUNCTION", help="gets each record; returns it, another, or None")
    group.add_argument("--keep-age-s", type=float, metavar="S", help="longest until a record is on disk; default 60")
    group.add_argument("--keep-disk-mb", type=int, metavar="N", help="most that DIR may hold; default 1024")


def request_log(arguments: argparse.Namespace) -> RequestLogSettings | None:
    """Return the settings for the options given; None when nothing is to be kept.

    Raises:
        ConfigError: an option without --keep-requests, or a value out of its range.
    """
    from tidegate.cloud.request_log_settings import RequestLogSettings, with_reasons

    if arguments.keep_requests is None:
        given = [name for name in OTHERS if getattr(arguments, f"keep_{name}")]
        if given:
            raise ConfigError(
                f"--keep-{given[0].replace('_', '-')} needs --keep-requests", fix="name the directory, or leave it out"
            )
        return None
    numbers = {
        "share": arguments.keep_share,
        "maximum_age_s": arguments.keep_age_s,
        "maximum_disk_bytes": None if arguments.keep_disk_mb is None else arguments.keep_disk_mb * 2**20,
    }
    settings = RequestLogSettings(
        directory=arguments.keep_requests,
        models=frozenset(arguments.keep_model or ()),
        never=frozenset(arguments.keep_never or ()),
        speech=arguments.keep_speech,
        hook=arguments.keep_hook or "",
        **{name: value for name, value in numbers.items() if value is not None},
    )
    return with_reasons(settings, arguments.keep_reason or ())
