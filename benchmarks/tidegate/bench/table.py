"""A report for people: one row per result, one unit per column, and what to know about the figures below it."""

from __future__ import annotations

from tidegate.bench.report import Report, Result

Table = tuple[list[str], list[list[str]]]

MEGABYTE = 1_000_000


def model_table(report: Report) -> Table:
    """Return header and rows for the variants of a model."""
    unit, unit_ns = latency_unit(report)
    header = ["variant", "load ms", "first ms"]
    header += [f"{name} {unit}" for name in ("p50", "p90", "p99", "quiet p50", "CPU/call")]
    header += ["calls/s", "rows/s", "peak MB", "model MB"]
    rows = []
    for result in report.results:
        if result.status != "ok":
            rows.append([result.name] + [""] * (len(header) - 1))
            continue
        rows.append(
            [
                result.name,
                *_cold_start(result),
                *_latencies(result, unit_ns),
                _scaled(None if result.cpu is None else result.cpu.per_call_ns, unit_ns),
                *_throughput(result),
                _scaled(result.memory.peak_rss_bytes if result.memory else None, MEGABYTE, digits=1),
                _scaled(result.memory.above_baseline_bytes if result.memory else None, MEGABYTE, digits=1),
            ]
        )
    return header, rows


def server_table(report: Report) -> Table:
    """Return header and rows for a model on a server."""
    unit, unit_ns = latency_unit(report)
    header = ["model", "callers", "connect ms", "first ms"]
    header += [f"{name} {unit}" for name in ("p50", "p90", "p99", "quiet p50")]
    header += ["calls/s", "rows/s", "errors"]
    rows = [
        [
            result.name,
            str(report.plan.concurrency),
            *_cold_start(result),
            *_latencies(result, unit_ns),
            *_throughput(result),
            str(sum(result.errors.values())),
        ]
        for result in report.results
    ]
    return header, rows


def notes(report: Report) -> list[str]:
    """Return the lines below the table: input, proven bounds, trust, problems."""
    lines: list[str] = []
    for result in report.results:
        if result.input is not None and (not lines or result.input != report.results[0].input):
            lines.append(_input(result))
        if result.latency is not None:
            by = ", ".join(part for part in (result.runtime, result.provider) if part)
            lines.append(f"{result.name}: {by}; {_bounds(result, report)}")
        if result.conditions is not None:
            trust = result.conditions.trust
            lines.append(f"{result.name}: machine {trust.verdict}" + "".join(f"; {reason}" for reason in trust.reasons))
        if result.problem is not None:
            fix = f" ({result.problem.fix})" if result.problem.fix else ""
            lines.append(f"{result.name}: {result.status}: {result.problem.message}{fix}")
    if report.machine.governors not in (None, ("performance",)):
        lines.append(f"CPU frequency governor: {', '.join(report.machine.governors or ())}; the clock follows the load")
    missing = sorted({name for r in report.results if r.conditions for name in r.conditions.trust.missing})
    if missing:
        lines.append(f"not readable on this machine: {', '.join(missing)}")
    return lines


def latency_unit(report: Report) -> tuple[str, int]:
    """Return the unit that suits the quickest median: its name and its length in nanoseconds."""
    medians = [result.latency.p50_ns for result in report.results if result.latency is not None]
    return ("ms", 1_000_000) if not medians or min(medians) >= 1_000_000 else ("µs", 1_000)


def _input(result: Result) -> str:
    record = result.input
    assert record is not None
    origin = {"file": "from the file", "golden": "golden fixture", "random": "seeded random"}[record.origin]
    shapes = ", ".join(f"{name} {record.dtypes[name]} {list(shape)}" for name, shape in record.shapes.items())
    return "; ".join([f"input: {origin}, {shapes}", *record.notes])


def _bounds(result: Result, report: Report) -> str:
    assert result.latency is not None
    unit, unit_ns = latency_unit(report)
    parts = []
    for name, bound in result.latency.bounds.items():
        if bound.upper_ns is None:
            parts.append(f"{name} needs {bound.calls_missing} more calls")
        else:
            parts.append(f"{name} <= {_scaled(bound.upper_ns, unit_ns)} {unit}")
    confidence = next(iter(result.latency.bounds.values())).confidence
    return f"{result.latency.calls} calls; with {confidence:.0%} confidence {', '.join(parts)}"


def _cold_start(result: Result) -> list[str]:
    cold = result.cold_start
    if cold is None:
        return ["", ""]
    return [_scaled(cold.load_ns, 1_000_000), _scaled(cold.first_call_ns, 1_000_000)]


def _latencies(result: Result, unit_ns: int) -> list[str]:
    latency = result.latency
    undisturbed = None if result.undisturbed is None else result.undisturbed.p50_ns
    if latency is None:
        return ["", "", "", ""]
    return [_scaled(value, unit_ns) for value in (latency.p50_ns, latency.p90_ns, latency.p99_ns, undisturbed)]


def _throughput(result: Result) -> list[str]:
    if result.throughput is None:
        return ["", ""]
    return [f"{result.throughput.calls_per_s:,.0f}", f"{result.throughput.rows_per_s:,.0f}"]


def _scaled(value: float | None, unit: int, digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"
