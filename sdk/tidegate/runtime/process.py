"""What the operating system tells about a process: memory, context switches, its end. None where it does not tell."""

from __future__ import annotations

import signal
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

STATUS_FILE = Path("/proc/self/status")
MEMORY_FILE = Path("/proc/meminfo")


def involuntary_switches() -> int | None:
    """Return how often the threads of this process were switched out while they wanted to run (ru_nivcsw)."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def resident_bytes(status_file: Path = STATUS_FILE) -> int | None:
    """Return the memory that is resident now (VmRSS)."""
    return _status_bytes("VmRSS", status_file)


def peak_resident_bytes(status_file: Path = STATUS_FILE) -> int | None:
    """Return the most memory that was ever resident (VmHWM).

    Not ru_maxrss: Linux hands that figure down from the parent process through exec.
    """
    return _status_bytes("VmHWM", status_file)


def status_file_of(pid: int) -> Path:
    """Return where Linux tells about the memory of another process."""
    return Path(f"/proc/{pid}/status")


def available_bytes(memory_file: Path = MEMORY_FILE) -> int | None:
    """Return what new processes can have without swapping (MemAvailable)."""
    return _status_bytes("MemAvailable", memory_file)


def ending(exit_code: int) -> str:
    """Return how a child process ended: the name of the signal, or such as `exit 1`."""
    if exit_code >= 0:
        return f"exit {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _status_bytes(name: str, status_file: Path) -> int | None:
    try:
        lines = status_file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # no such system, or the process has ended
        return None
    for line in lines:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
