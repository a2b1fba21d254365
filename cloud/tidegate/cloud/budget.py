"""One budget of cores for worker processes and the runtime's threads inside each."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tidegate.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """How the cores are used."""

    workers: int
    """processes that share the port"""
    threads: int
    """of the runtime, per model, in each"""
    cores_by_worker: tuple[tuple[int, ...], ...]
    """cores that each worker is bound to; empty: it is not bound"""


def usable_cores() -> tuple[int, ...]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def plan(cores: tuple[int, ...], workers: int | None = None, threads: int | None = None) -> Budget:
    """Share cores out.

    One worker with one thread unless more is asked for. Asked for one of the two, the other stays at 1. Several workers
    are bound to cores of their own: one process that roams over two cores is slower than one that stays.

    Args:
        cores: that may be used.
        workers: asked for; None: 1.
        threads: asked for; None: 1.

    Raises:
        ConfigError: less than 1, or together more than there are cores.
    """
    for name, asked in (("workers", workers), ("threads", threads)):
        if asked is not None and asked < 1:
            raise ConfigError(f"{name} is {asked}; expected 1 or more", fix="leave it out for 1")
    workers, threads = workers or 1, threads or 1
    if workers > 1 and workers * threads > len(cores):
        raise ConfigError(
            f"{workers} workers with {threads} threads each take {workers * threads} cores; {len(cores)} may be used",
            fix="ask for fewer of either",
        )
    if workers == 1:
        return Budget(1, threads, ((),))
    share = len(cores) // workers
    return Budget(workers, threads, tuple(cores[index * share : (index + 1) * share] for index in range(workers)))
