"""A fixed share of a core for a process: a quota of the Linux scheduler, by cgroup v1 or v2. Needs root."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from tidegate.errors import DependencyError, ResourceError

V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup")

PERIOD_US = 10_000
"""Shorter than the kernel's usual 100 ms, so that a process pauses often and briefly rather than seldom and long."""

EMPTY_TIMEOUT_S = 10.0


class CpuShare:
    """One group with a quota; it is removed at the end, when its processes have ended.

    with CpuShare("a", 0.5) as share: share.take_in(pid)
    """

    def __init__(self, name: str, cores: float) -> None:
        """Note name and quota.

        Args:
            name: of the group; made unique by this process's id.
            cores: what all of its processes together may use, such as 0.5.
        """
        self._cores = cores
        self._is_v1 = (V1 / "cpu.cfs_quota_us").exists()
        self._place = (V1 if self._is_v1 else V2) / f"tidegate-bench-{os.getpid()}-{name}"

    def __enter__(self) -> CpuShare:
        """Make the group.

        Raises:
            DependencyError: this machine has no such groups, or not for this user.
        """
        quota_us = round(self._cores * PERIOD_US)
        try:
            self._place.mkdir()
            if self._is_v1:
                (self._place / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (self._place / "cpu.cfs_quota_us").write_text(str(quota_us))
            else:
                (self._place / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        except OSError as error:
            self._remove()
            raise DependencyError(
                f"no quota of CPU time can be set: {error}", fix="run as root on Linux with the cpu controller mounted"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def take_in(self, pid: int) -> None:
        """Put a process under the quota, with all its threads.

        Raises:
            ResourceError: the kernel refuses.
        """
        try:
            (self._place / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise ResourceError(f"process {pid} cannot be limited: {error}", fix="look whether it lives") from error

    def _remove(self) -> None:
        """Remove the group; its last process may need a moment to be gone."""
        end_s = time.monotonic() + EMPTY_TIMEOUT_S
        while self._place.exists():
            try:
                self._place.rmdir()
            except OSError as error:
                if time.monotonic() > end_s:
                    raise ResourceError(f"{self._place} stays: {error}", fix="end its processes, remove it") from error
                time.sleep(0.05)
