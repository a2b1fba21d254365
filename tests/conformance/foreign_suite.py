"""The conformance suite against servers of other projects, beside ours: the table of docs/conformance.md.

    .venv/bin/python -m tests.conformance.foreign_suite [kserve] [mlserver]

The servers and their environments are those of `foreign_servers.py`. Prints the counts, then every check on which not
all servers have the same verdict, in Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.foreign.checks import MODEL
from tests.conformance.foreign_servers import ROOT, SERVERS, prepare, running

from tidegate.cloud import Server
from tidegate.conformance import CHECKS, Result, Run, Source, Verdict, run
from tidegate.convert.build import build
from tidegate.convert.spec import BuildSpec, BundleTable, VariantTable

OURS = "tidegate"

DENSE = "dense"


def main() -> int:
    """Ask each server everything, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", default=sorted(SERVERS), help="default: all")
    parser.add_argument("--python", default=sys.executable, help="makes the environments; default: this one")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "foreign", help="where they are kept")
    arguments = parser.parse_args()
    with ours() as target:
        runs = {OURS: run(target, model=DENSE)}
    for name in arguments.servers:
        environment = arguments.directory / name
        prepare(SERVERS[name], environment, arguments.python)
        with running(SERVERS[name], environment) as target:
            runs[name] = run(target, model=DENSE)
    print_counts(runs)
    print_differences(runs)
    return 0


@contextmanager
def ours() -> Iterator[str]:
    """Serve the same ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        spec = BuildSpec(
            bundle=BundleTable(name=DENSE, version="1.0.0"),
            variant=(VariantTable(id="onnx", file=str(MODEL)),),
            directory=MODEL.parent,
        )
        bundle = Path(folder) / "dense.tide"
        build(spec, bundle)
        with Server([bundle]) as server:
            yield server.address


def print_counts(runs: dict[str, Run]) -> None:
    """Print how many checks ended how, by source."""
    print("| server | source | pass | fail | not offered |\n| --- | --- | --- | --- | --- |")
    for name, found in runs.items():
        for source in Source:
            counts = " | ".join(str(found.count(verdict, source)) for verdict in Verdict)
            print(f"| {found.server if name == OURS else f'{name}: {found.server}'} | {source.value} | {counts} |")
    print()


def print_differences(runs: dict[str, Run]) -> None:
    """Print each check that not all servers pass, unless none offers it."""
    print(f"| check | source | expected | {' | '.join(runs)} |\n| --- | --- | --- |{' --- |' * len(runs)}")
    by_name = {name: {result.check.name: result for result in found.results} for name, found in runs.items()}
    for check in CHECKS:
        results = [found[check.name] for found in by_name.values()]
        if len({result.finding.verdict for result in results}) > 1:
            cells = " | ".join(_cell(result) for result in results)
            print(f"| {check.name} | {check.source.value} | {check.expected} | {cells} |")


def _cell(result: Result) -> str:
    verdict, found = result.finding.verdict, result.finding.found.replace("|", "/")
    code = found.partition(":")[0]
    found = code if code.isupper() else found[:60]
    return "pass" if verdict is Verdict.PASS else f"**fail** {found}" if verdict is Verdict.FAIL else verdict.value


if __name__ == "__main__":
    raise SystemExit(main())
