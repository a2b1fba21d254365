"""Which versions of which models a server holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.cloud.served import LoadSettings
from tidegate.cloud.versions import AllVersions, VersionPolicy
from tidegate.errors import ConfigError


@dataclass(frozen=True)
class RepositorySettings:
    """What is held, and how much."""

    policy: VersionPolicy = field(default_factory=AllVersions)
    """which versions of each model; a labelled version is held whatever the policy says"""
    policy_by_model: Mapping[str, VersionPolicy] = field(default_factory=dict)
    """exceptions"""
    loading: LoadSettings = field(default_factory=LoadSettings)
    maximum_memory_bytes: int = 0
    """of all models together, as measured while each was loaded; 0: no limit"""
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """version by label by model, set at the start unless the label was moved by hand before"""
    label_file: Path | None = None
    """keeps labels and what was unloaded by hand over restarts, and alike in all workers; None: in memory only"""
    fleet_directory: Path | None = None
    """of the copies that several workers share; None: this process is alone"""

    def __post_init__(self) -> None:
        if self.maximum_memory_bytes < 0:
            raise ConfigError(f"maximum_memory_bytes is {self.maximum_memory_bytes}", fix="use 0 for no limit")
