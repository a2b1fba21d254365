"""`tidegate verify`: digests, schema, and the golden fixture on every runnable variant."""

from __future__ import annotations

import argparse
from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.cli.printing import Progress, print_json, print_table
from tidegate.cli.reports import HEADER, report_json, report_row
from tidegate.errors import BundleError
from tidegate.runtime.verify import VariantReport, verify_bundle

DESCRIPTION = """Check a bundle: its layout and manifest, the SHA-256 of every file, and the golden fixture on every
variant whose runtime is installed here. Variants that cannot run here are named. Exit code 1 when anything failed, or
when no variant could run."""

EXAMPLE = "tidegate verify voice-commands.tide\ntidegate verify voice-commands.tide --variant tflite-int8 --json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a .tide file or a bundle directory")
    parser.add_argument("--variant", metavar="ID", help="run only this variant")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Check the files, then the variants; print; say whether all is well."""
    try:
        return _verify(arguments)
    except BundleError as error:
        if arguments.json:
            print_json(_refusal(arguments.bundle, error))
        raise


def _verify(arguments: argparse.Namespace) -> int:
    with Bundle.open(arguments.bundle) as bundle:
        bundle.verify_files()
        bar = Progress("verifying", len(bundle.manifest.variants))
        try:
            reports = verify_bundle(bundle, bar.update, variant=arguments.variant)
        finally:
            bar.close()
        ok = _all_well(reports)
        if arguments.json:
            print_json(_as_json(bundle, reports, ok))
        else:
            _print(bundle, reports, ok)
    return 0 if ok else 1


def _refusal(path: Path, error: BundleError) -> dict[str, object]:
    """Return the answer about a bundle that cannot be opened, or whose files are not what it promises."""
    return {
        "bundle": str(path),
        "ok": False,
        "problem": error.message,
        "kind": type(error).__name__,
        "what_to_do": error.fix or "",
        "files": [],
        "variants": [],
    }


def _all_well(reports: list[VariantReport]) -> bool:
    statuses = {report.status for report in reports}
    return "failed" not in statuses and statuses != {"not runnable"}


def _print(bundle: Bundle, reports: list[VariantReport], ok: bool) -> None:
    print(f"{bundle.path}: {bundle.manifest.name} {bundle.manifest.version}")
    print(f"schema and layout as the format says; {len(bundle.files)} files with the right SHA-256")
    if bundle.manifest.golden is None:
        print("no golden fixture: variants are only loaded, their results are not compared")
    print_table(HEADER, [report_row(report) for report in reports])
    print(_verdict(reports, ok))


def _verdict(reports: list[VariantReport], ok: bool) -> str:
    failed = [report.id for report in reports if report.status == "failed"]
    absent = [report.id for report in reports if report.status == "not runnable"]
    if failed:
        return f"FAILED: {', '.join(failed)}"
    if not ok:
        return "FAILED: no variant can run here"
    return "verified" + (f", except what cannot run here: {', '.join(absent)}" if absent else "")


def _as_json(bundle: Bundle, reports: list[VariantReport], ok: bool) -> dict[str, object]:
    return {
        "bundle": str(bundle.path),
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "ok": ok,
        "problem": "" if ok else _verdict(reports, ok),
        "files": [{"file": file.path, "sha256": file.sha256, "size_bytes": file.size_bytes} for file in bundle.files],
        "variants": [report_json(report) for report in reports],
    }
