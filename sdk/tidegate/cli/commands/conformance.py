"""`tidegate conformance`: hold any server of the Open Inference Protocol against what the protocol says."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.printing import Bars, print_json, print_table
from tidegate.cli.server_options import add_server, tls_of, token_of
from tidegate.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from tidegate.conformance import Result, Run

DESCRIPTION = """Ask a server of the Open Inference Protocol over gRPC about a hundred questions, good and wrong ones,
and print what it answered, what was expected, and who says so: the protocol's text (OIP), Triton's extensions and
status codes (Triton), or gRPC itself. Any server may be asked, not only Tidegate's. Exit code 0: nothing failed; 1:
something did, or nobody answered. The questions about datatypes need the small models that --write-models writes, as
bundles and as ONNX files in the layout of Triton's repository; without them they count as not offered."""

EXAMPLE = """tidegate conformance 127.0.0.1:8001
tidegate conformance triton.example.com:8001 --model densenet --source oip
tidegate conformance 127.0.0.1:8081 --model mlp --input x:FP32:-1,64 --json
tidegate conformance models.example:8443 --model mlp --tls-ca ca.pem --token-file operator.key
tidegate conformance --list
tidegate conformance --write-models models/"""

SOURCES = ("oip", "triton", "grpc")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("target", nargs="?", metavar="HOST:PORT", help="the server")
    parser.add_argument("--model", default="", metavar="NAME", help="default: the first that the server lists as ready")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:DATATYPE:SIZES",
        help="an input that the metadata leaves out or wrong; may be repeated",
    )
    parser.add_argument(
        "--source",
        action="append",
        choices=SOURCES,
        help="ask only what this source says; may be repeated",
    )
    parser.add_argument("--with-control", action="store_true", help="unload the model under load, and load it again")
    parser.add_argument("--timeout-s", type=float, default=30.0, metavar="S", help="for each call; default 30")
    add_server(parser)
    parser.add_argument("--failed", action="store_true", help="show only what failed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--list", action="store_true", help="show every check and who says so, without a server")
    parser.add_argument("--write-models", type=Path, metavar="DIR", help="write the models of the datatype checks")


def run(arguments: argparse.Namespace) -> int:
    """Run the suite and show what it found; or list the checks, or write the models."""
    if [arguments.target is None, not arguments.list, arguments.write_models is None].count(False) != 1:
        raise ConfigError("expected a server, --list, or --write-models DIR", fix="give one of the three")
    try:
        import tidegate.conformance
    except ImportError as error:
        raise DependencyError(f"the suite needs protobuf: {error}", fix="pip install 'tidegate[client]'") from error
    if arguments.write_models is not None:
        for path in tidegate.conformance.write_models(arguments.write_models):
            print(path)
        return 0
    if arguments.list:
        _list(arguments)
        return 0
    found = _run(arguments)
    if arguments.json:
        print_json(_document(found))
    else:
        _print(found, only_failed=arguments.failed)
    return 0 if found.passed else 1


def _run(arguments: argparse.Namespace) -> Run:
    from tidegate.conformance import CHECKS, Source, run
    from tidegate.conformance.subject import parse_input

    # What fails is said in our own messages; grpc's core would add lines of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    done = 0
    with Bars() as bars:

        def show(result: Result) -> None:
            nonlocal done
            done += 1
            bars.show("asking", done, len(CHECKS))

        return run(
            arguments.target,
            model=arguments.model,
            inputs=[parse_input(text) for text in arguments.input],
            sources=[source for source in Source if _is_wanted(source.value, arguments)],
            control=arguments.with_control,
            timeout_s=arguments.timeout_s,
            tls=tls_of(arguments),
            token=token_of(arguments),
            on_result=show,
        )


def _list(arguments: argparse.Namespace) -> None:
    from tidegate.conformance import CHECKS

    checks = [check for check in CHECKS if _is_wanted(check.source.value, arguments)]
    if arguments.json:
        print_json([{"name": c.name, "source": c.source.value, "rule": c.rule, "expected": c.expected} for c in checks])
        return
    rows = [(check.name, check.source.value, check.rule, check.expected) for check in checks]
    print_table(("check", "source", "rule", "expected"), rows)


def _is_wanted(source: str, arguments: argparse.Namespace) -> bool:
    return arguments.source is None or source.lower() in arguments.source


def _print(found: Run, *, only_failed: bool) -> None:
    from tidegate.conformance import Source, Verdict

    print(f"{found.server} at {found.target}, model {found.model}")
    rows = [
        (check.name, check.source.value, finding.verdict.value, check.expected, finding.found)
        for check, finding in ((result.check, result.finding) for result in found.results)
        if not only_failed or finding.verdict is Verdict.FAIL
    ]
    if rows:
        print_table(("check", "source", "verdict", "expected", "found"), rows)
    print()
    print_table(
        ("source", *(verdict.value for verdict in Verdict)),
        [
            (source.value, *(str(found.count(verdict, source)) for verdict in Verdict))
            for source in Source
            if any(result.check.source is source for result in found.results)
        ],
    )


def _document(found: Run) -> dict[str, object]:
    from tidegate.conformance import Source, Verdict

    return {
        "target": found.target,
        "server": found.server,
        "model": found.model,
        "passed": found.passed,
        "counts": {
            source.value: {verdict.value: found.count(verdict, source) for verdict in Verdict} for source in Source
        },
        "checks": [
            {
                "name": result.check.name,
                "source": result.check.source.value,
                "rule": result.check.rule,
                "expected": result.check.expected,
                "found": result.finding.found,
                "verdict": result.finding.verdict.value,
            }
            for result in found.results
        ],
    }
