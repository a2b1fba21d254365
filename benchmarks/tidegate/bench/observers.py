"""What a request pays for each of the server's observers: CPU time of one `finished`, in ns.

    python -m tidegate.bench.observers [--json]

Requests that were answered and requests that were refused, in turns of some ten thousand calls, observers in rotation,
so that a busy machine slows them alike. The time is that of the thread on a processor; the loop around the calls is
measured as well and taken off. Medians over the rounds, and the best round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from timeit import timeit

import msgspec
import numpy as np

from tidegate.bench.serving_models import write_perceptron
from tidegate.cloud.core import LOCAL, Inference, Observer, Request
from tidegate.cloud.logs import RequestLog
from tidegate.cloud.metrics import RequestCounts, ValueCounts
from tidegate.cloud.repository import ServedModel
from tidegate.cloud.server import Server
from tidegate.errors import InputError, TidegateError

CALLS = 10_000
TOOK_NS = 234_567


class _Nothing:
    """The loop alone."""

    def finished(
        self, caller: object, request: Request, answer: Inference | None, error: TidegateError | None, took_ns: int
    ) -> None:
        return


@dataclass(frozen=True)
class Row:
    """One observer and one kind of request."""

    observer: str
    request: str
    median_ns: float
    best_ns: float


def measured(served: ServedModel, observers: dict[str, Observer], rounds: int) -> list[Row]:
    """Return what each observer costs over an observer that does nothing."""
    request = Request(served.name, {"x": np.zeros((1, 64), np.float32)})
    outcomes: dict[str, tuple[Inference | None, TidegateError | None]] = {
        "answered": (Inference(served, {}, 1, 1), None),
        "refused": (None, InputError("no", fix="no")),
    }
    times_ns: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for kind, (answer, error) in outcomes.items():
            for name, observer in {"": _Nothing(), **observers}.items():
                finished = observer.finished
                took_s = timeit(
                    lambda: finished(LOCAL, request, answer, error, TOOK_NS),  # noqa: B023
                    number=CALLS,
                    timer=time.thread_time,
                )
                times_ns.setdefault((name, kind), []).append(took_s / CALLS * 1e9)
    return [
        Row(name, kind, _over(median, found, times_ns["", kind]), _over(min, found, times_ns["", kind]))
        for (name, kind), found in times_ns.items()
        if name
    ]


def _over(summary: Callable[[list[float]], float], found: list[float], loop: list[float]) -> float:
    return round(summary(found) - summary(loop), 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.bench.observers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        _, bundle, _ = write_perceptron(Path(scratch))
        with Server([bundle]) as server:
            counts = RequestCounts(ValueCounts(20))
            counts.repository = server.repository
            observers: dict[str, Observer] = {"metrics": counts, "log of failures": RequestLog()}
            rows = measured(server.repository.all()[0], observers, options.rounds)
    if options.json:
        sys.stdout.write(msgspec.json.encode([asdict(row) for row in rows]).decode() + "\n")
        return 0
    for row in rows:
        print(f"{row.observer:16} {row.request:9} {row.median_ns:7.0f} ns, best {row.best_ns:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
