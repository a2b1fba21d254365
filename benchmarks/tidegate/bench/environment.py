"""What the machine is, what it was doing, and whether that disturbed a run.

Linux tells most of it in /proc and /sys, to every user. What cannot be read is named in `missing`, never taken as zero.
The rules of `judge` are pure; only `Probe` reads files.
"""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

PACKAGES = ("tidegate", "numpy", "ai-edge-litert", "tflite-runtime", "onnxruntime", "grpcio")

PRESSURE_SHARE_LIMIT = 0.05
"""Share of the time in which some task waited for a CPU; one busy process on an idle machine causes none."""
STEAL_SHARE_LIMIT = 0.01
"""Share of CPU time that the hypervisor gave to others."""
SWITCHED_SHARE_LIMIT = 0.05
"""Share of the calls in blocks during which the process was switched out against its will."""

Verdict = Literal["clean", "disturbed", "unknown"]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change during a run."""

    cpu: str | None
    board: str | None
    """device tree model, such as a Raspberry Pi's"""
    architecture: str
    cores: int | None
    affinity: tuple[int, ...] | None
    """cores that this process may use"""
    governors: tuple[str, ...] | None
    """CPU frequency governors in use"""
    memory_bytes: int | None
    system: str
    python: str
    packages: dict[str, str]
    """versions of what is installed here"""
    missing: tuple[str, ...]
    """what could not be read"""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine was doing at one instant; counters run since boot."""

    clock_ns: int
    """monotonic"""
    load_1_min: float | None
    pressure_us: int | None
    """time in which some task waited for a CPU (/proc/pressure/cpu)"""
    steal_ticks: int | None
    cpu_ticks: int | None
    """all CPU time accounted for, idle included"""
    frequencies_khz: tuple[int, ...] | None
    """per core"""


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """Whether somebody else's work got into the figures."""

    verdict: Verdict
    reasons: tuple[str, ...]
    pressure_share: float | None
    steal_share: float | None
    switched_share: float | None
    missing: tuple[str, ...]
    """what could not be read"""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The machine around one timed run."""

    before: Moment
    after: Moment
    trust: Trust


class Probe:
    """Reads the machine's files below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def machine(self) -> Machine:
        """Describe the machine."""
        cpuinfo = self._text("proc/cpuinfo")
        board = self._text("proc/device-tree/model")
        meminfo = self._text("proc/meminfo")
        governors = self._each_core("cpufreq/scaling_governor")
        affinity = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None
        fields = {
            "CPU model": cpu_model(cpuinfo or "") or (board or "").rstrip("\0") or None,
            "number of cores": os.cpu_count(),
            "CPU affinity": affinity,
            "memory size": memory_bytes(meminfo or ""),
            "CPU frequency governor": tuple(sorted(set(governors))) if governors else None,
        }
        return Machine(
            cpu=cpu_model(cpuinfo or ""),
            board=board.rstrip("\0\n") if board else None,
            architecture=platform.machine(),
            cores=os.cpu_count(),
            affinity=affinity,
            governors=tuple(sorted(set(governors))) if governors else None,
            memory_bytes=memory_bytes(meminfo or ""),
            system=platform.platform(),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            packages=_installed(),
            missing=tuple(name for name, value in fields.items() if value is None),
        )

    def moment(self) -> Moment:
        """Read the counters now."""
        loadavg = self._text("proc/loadavg")
        steal_ticks, cpu_ticks = steal_and_total_ticks(self._text("proc/stat") or "")
        frequencies = self._each_core("cpufreq/scaling_cur_freq")
        return Moment(
            clock_ns=time.monotonic_ns(),
            load_1_min=float(loadavg.split()[0]) if loadavg else None,
            pressure_us=pressure_us(self._text("proc/pressure/cpu") or ""),
            steal_ticks=steal_ticks,
            cpu_ticks=cpu_ticks,
            frequencies_khz=tuple(int(value) for value in frequencies) if frequencies else None,
        )

    def _text(self, path: str) -> str | None:
        try:
            return (self._root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:  # not Linux, an old kernel, a container that hides it: the caller names what is missing
            return None

    def _each_core(self, path: str) -> list[str]:
        files = sorted((self._root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/{path}"))
        texts = [self._text(str(file.relative_to(self._root))) for file in files]
        return [text.strip() for text in texts if text is not None and text.strip()]


def judge(before: Moment, after: Moment, switched_share: float | None) -> Trust:
    """Say whether a run between two moments was disturbed.

    Args:
        switched_share: share of the calls in blocks with an involuntary context switch, 0 to 1; None if not counted.
    """
    shares = {
        "CPU pressure": _pressure_share(before, after),
        "steal": _steal_share(before, after),
        "involuntary context switches": switched_share,
    }
    reasons = [
        text.format(share)
        for (text, limit), share in zip(_LIMITS, shares.values(), strict=True)
        if share is not None and share > limit
    ]
    blind = [name for name, share in shares.items() if share is None]
    missing = blind + (["CPU frequency"] if before.frequencies_khz is None else [])
    verdict: Verdict = "disturbed" if reasons else "unknown" if blind else "clean"
    if verdict == "unknown":
        reasons = [f"not readable here: {', '.join(blind)}"]
    return Trust(
        verdict=verdict,
        reasons=tuple(reasons),
        pressure_share=shares["CPU pressure"],
        steal_share=shares["steal"],
        switched_share=switched_share,
        missing=tuple(missing),
    )


_LIMITS = (
    ("some task waited for a CPU {:.0%} of the time", PRESSURE_SHARE_LIMIT),
    ("the hypervisor took {:.0%} of the CPU time", STEAL_SHARE_LIMIT),
    ("{:.0%} of the calls lie in blocks in which the process was switched out", SWITCHED_SHARE_LIMIT),
)
"""In the order of the shares in `judge`."""


def cpu_model(cpuinfo: str) -> str | None:
    """Return the CPU's name from the text of /proc/cpuinfo; ARM kernels give none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model", "cpu model"} and value.strip():
            return value.strip()
    return None


def memory_bytes(meminfo: str) -> int | None:
    """Return the memory size from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def pressure_us(pressure: str) -> int | None:
    """Return the total of the `some` line of /proc/pressure/cpu, in microseconds."""
    for line in pressure.splitlines():
        if line.startswith("some ") and "total=" in line:
            return int(line.rpartition("total=")[2])
    return None


def steal_and_total_ticks(stat: str) -> tuple[int | None, int | None]:
    """Return steal and all ticks from the text of /proc/stat; guest time is already inside user time."""
    for line in stat.splitlines():
        if line.startswith("cpu "):
            ticks = [int(word) for word in line.split()[1:9]]
            return (ticks[7], sum(ticks)) if len(ticks) == 8 else (None, None)
    return None, None


def _pressure_share(before: Moment, after: Moment) -> float | None:
    if before.pressure_us is None or after.pressure_us is None:
        return None
    elapsed_us = max((after.clock_ns - before.clock_ns) / 1000, 1)
    return min((after.pressure_us - before.pressure_us) / elapsed_us, 1.0)


def _steal_share(before: Moment, after: Moment) -> float | None:
    if before.steal_ticks is None or after.steal_ticks is None or before.cpu_ticks is None or after.cpu_ticks is None:
        return None
    return (after.steal_ticks - before.steal_ticks) / max(after.cpu_ticks - before.cpu_ticks, 1)


def _installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
