"""What the operating system counts about this process: memory, context switches. None where it does not tell."""

from __future__ import annotations

from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

STATUS_FILE = Path("/proc/self/status")


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


def _status_bytes(name: str, status_file: Path) -> int | None:
    if not status_file.is_file():
        return None
    for line in status_file.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
