"""What is kept of requests, and how much of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tidegate.errors import ConfigError

_HOOK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")


@dataclass(frozen=True)
class RequestLogSettings:
    """Which requests are kept, where, and the bounds."""

    directory: Path
    """made when it is not there; files are DIRECTORY/MODEL/VERSION/*.parquet"""
    share: float = 0.01
    """of all requests, drawn at random"""
    uncertain_below: float = 0.0
    """every request whose answer is less sure than this is kept as well; 0: none for that reason"""
    errors: bool = False
    """whether every request that failed is kept as well"""
    models: frozenset[str] = frozenset()
    """only these; empty: all"""
    never: frozenset[str] = frozenset()
    """inputs and outputs that are not kept, as NAME or MODEL/NAME"""
    speech: bool = False
    """whether speech segments are kept too, with what was said: off unless asked for"""
    hook: str = ""
    """MODULE:FUNCTION that gets each record and returns one, perhaps changed, or None to keep nothing"""
    maximum_file_bytes: int = 16 * 2**20
    """a file is written when so much has come"""
    maximum_age_s: float = 60.0
    """or when its first record is so old: what a crash can lose"""
    maximum_disk_bytes: int = 2**30
    """of the directory; what would go over it is dropped, nothing is deleted"""
    maximum_queue_bytes: int = 64 * 2**20
    """that wait to be written; what comes when it is full is dropped"""
    maximum_queue_records: int = 1024

    def __post_init__(self) -> None:
        for name in ("share", "uncertain_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 to 1", fix="give a share, such as 0.01")
        for name in ("maximum_file_bytes", "maximum_disk_bytes", "maximum_queue_bytes", "maximum_queue_records"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more", fix=f"raise {name}")
        if not self.maximum_age_s > 0:
            raise ConfigError(f"maximum_age_s is {self.maximum_age_s}; expected more than 0", fix="give seconds")
        if self.hook and not _HOOK.match(self.hook):
            raise ConfigError(f"hook is {self.hook!r}; expected MODULE:FUNCTION", fix="name a Python function")

    def keeps(self, model: str) -> bool:
        """Say whether anything of a model is kept."""
        return not self.models or model in self.models

    def leaves_out(self, model: str, name: str) -> bool:
        """Say whether an input or output is never kept."""
        return name in self.never or f"{model}/{name}" in self.never


def with_reasons(settings: RequestLogSettings, reasons: Iterable[str]) -> RequestLogSettings:
    """Return the settings with further reasons to keep a request: `error`, `uncertain:BELOW`.

    Raises:
        ConfigError: another reason, or a threshold that is no number from 0 to 1.
    """
    for reason in reasons:
        kind, _, value = reason.partition(":")
        if reason == "error":
            settings = replace(settings, errors=True)
        elif kind == "uncertain":
            try:
                below = float(value)
            except ValueError as error:
                raise ConfigError(
                    f"reason {reason!r} has no threshold", fix="write it as uncertain:0.6, a confidence from 0 to 1"
                ) from error
            settings = replace(settings, uncertain_below=below)
        else:
            raise ConfigError(f"there is no reason {reason!r}", fix="use error, or uncertain:0.6")
    return settings
