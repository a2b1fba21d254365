"""Free memory is given back: when it is worth it, and really."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tidegate.cloud.allocator import GROWN_BYTES, LOOK_S, FreeMemory


class Process:
    """A process of a size that shrinks to `used_bytes` when it is trimmed."""

    def __init__(self) -> None:
        self.bytes = self.used_bytes = 100 * 2**20
        self.trims = 0

    def trim(self) -> None:
        self.trims += 1
        self.bytes = self.used_bytes

    def size(self) -> int:
        return self.bytes


@pytest.mark.parametrize(
    ("grown_bytes", "quiet", "trims"),
    [(GROWN_BYTES, True, 1), (GROWN_BYTES - 1, True, 0), (GROWN_BYTES, False, 0)],
)
def test_memory_is_given_back_where_the_process_has_grown_and_nobody_waits(
    grown_bytes: int, quiet: bool, trims: int
) -> None:
    process = Process()
    memory = FreeMemory(process.trim, process.size)
    process.bytes += grown_bytes
    memory.look(1000.0, quiet=quiet)
    assert process.trims == trims


def test_it_is_given_back_seldom_and_not_again_where_the_process_needs_it() -> None:
    process = Process()
    memory = FreeMemory(process.trim, process.size)
    process.bytes += GROWN_BYTES
    memory.look(1000.0, quiet=True)
    process.bytes += GROWN_BYTES
    memory.look(1000.0 + LOOK_S / 2, quiet=True)
    assert process.trims == 1
    process.used_bytes = process.bytes
    memory.look(1000.0 + LOOK_S, quiet=True)
    memory.look(1000.0 + 2 * LOOK_S, quiet=True)
    assert process.trims == 2
    process.bytes -= GROWN_BYTES
    memory.look(1000.0 + 3 * LOOK_S, quiet=True)
    process.bytes += GROWN_BYTES
    memory.look(1000.0 + 4 * LOOK_S, quiet=True)
    assert process.trims == 3


HOLES = """
import ctypes
from tidegate.cloud.allocator import FreeMemory
from tidegate.runtime.process import resident_bytes
memory = FreeMemory()
pieces = [ctypes.create_string_buffer(b"x" * 65000) for _ in range(2000)]
del pieces[::2]
before = resident_bytes()
memory.look(1000.0, quiet=True)
print(before - resident_bytes())
"""


def test_the_system_gets_what_lies_between_used_pieces() -> None:
    """In a process of its own, whose memory is not that of other tests: a hundred megabytes, every other piece free."""
    given_back = int(subprocess.run([sys.executable, "-c", HOLES], capture_output=True, check=True, timeout=60).stdout)
    assert given_back > 30 * 2**20
