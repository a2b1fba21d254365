"""How the report on one variant looks in a table and in JSON; `build` and `verify` share it."""

from __future__ import annotations

from tidegate.runtime.verify import VariantReport

HEADER = ("variant", "result", "largest error", "tolerance", "runtime", "note")


def report_row(report: VariantReport) -> tuple[str, ...]:
    """Return the cells under `HEADER`."""
    error = "-" if report.maximum_error is None else f"{report.maximum_error:.2e}"
    tolerance = f"{report.outputs[0].tolerance:g}" if report.outputs else "-"
    runtime = f"{report.runtime}, {report.provider}" if report.runtime else "-"
    return (report.id, report.status, error, tolerance, runtime, report.problem)


def report_json(report: VariantReport) -> dict[str, object]:
    """Return the report for machines; an error without a finite size is null, and `problem` says why."""
    return {
        "id": report.id,
        "status": report.status,
        "runtime": report.runtime,
        "provider": report.provider,
        "maximum_error": report.maximum_error,
        "problem": report.problem,
        "outputs": [
            {
                "name": output.name,
                "maximum_error": output.maximum_error,
                "tolerance": output.tolerance,
                "within": output.within,
                "problem": output.problem,
            }
            for output in report.outputs
        ],
    }
