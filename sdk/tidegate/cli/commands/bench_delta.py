"""`tidegate bench delta`: what an update from one release to the next costs with each method."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tidegate.bench.delta import Cost, DeltaReport, MethodResult, PairResult, bench_delta
from tidegate.cli.printing import print_json, print_table

DESCRIPTION = """Make and apply the update from A to B with each method, in fresh processes: the full file, the full
file compressed, a zstd patch, typed differences. Prints bytes, time and memory."""
EXAMPLE = """tidegate bench delta voice-commands-1.0.0.tide voice-commands-1.1.0.tide
tidegate bench delta old.tflite new.tflite --json"""

HEADER = ("method", "bytes", "% of full", "make ms", "make MB", "apply ms", "apply MB", "note")
MEGABYTE = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("base", type=Path, metavar="A", help="what devices have: a bundle, a .tflite or .onnx file")
    parser.add_argument("full", type=Path, metavar="B", help="what they are to get")
    parser.add_argument("--variant", action="append", metavar="ID", help="only this variant; may repeat")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    report = bench_delta(arguments.base, arguments.full, variants=tuple(arguments.variant or ()), observer=_tell)
    if arguments.json:
        print_json(report)
    else:
        _print(report)
    return 0


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{what}")
        sys.stderr.flush()


def _print(report: DeltaReport) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    for pair in report.pairs:
        same = ", identical" if pair.identical else ""
        print(f"{pair.name}: {pair.base_bytes:,} -> {pair.full_bytes:,} bytes{same}")
        print_table(HEADER, [_row(result, pair) for result in pair.methods])
    print("MB: most that was resident, beyond what Python and its libraries had before. apply ms: median of 3.")


def _row(result: MethodResult, pair: PairResult) -> tuple[str, ...]:
    note = "published" if result.method == pair.published else ""
    return (
        result.method,
        "-" if result.size_bytes is None else f"{result.size_bytes:,}",
        "-" if result.percent is None else f"{result.percent:.1f}",
        *_cells(result.make),
        *_cells(result.apply),
        result.problem or note,
    )


def _cells(cost: Cost | None) -> tuple[str, str]:
    if cost is None:
        return "-", "-"
    memory = "-" if cost.above_baseline_bytes is None else f"{cost.above_baseline_bytes / MEGABYTE:.1f}"
    return f"{cost.elapsed_ms:.1f}", memory
