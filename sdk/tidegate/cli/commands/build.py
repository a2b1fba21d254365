"""`tidegate build`: pack model files into one checked bundle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from tidegate.cli.printing import print_json, print_table
from tidegate.cli.reports import HEADER, report_json, report_row
from tidegate.convert.build import BuildResult, build, default_output
from tidegate.convert.spec import DEFAULT_TOLERANCE, BuildSpec, read_spec, spec_for_models
from tidegate.convert.variant_ids import variant_ids
from tidegate.errors import ConfigError

DESCRIPTION = """Pack model files into one bundle: read the signature from the models, check that all variants agree,
hold each against the golden fixture, write the .tide file. With bare --model files the fixture is made from seeded
random inputs, and its outputs come from the first model."""

EXAMPLE = """tidegate build SPEC.toml -o voice-commands.tide
tidegate build --model mlp.onnx --model mlp.tflite --name mlp --version 1.0.0 -o mlp.tide
tidegate build --model fp32=mlp.onnx --model int8=small.onnx --tolerance int8=0.1 --name mlp --version 1.0.0"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.toml", help="what the release is")
    parser.add_argument(
        "--model", action="append", default=[], metavar="[ID=]FILE", help="a bare .onnx or .tflite file; may repeat"
    )
    parser.add_argument("--name", help="name of the bundle, with --model")
    parser.add_argument("--version", help="semantic version, with --model")
    parser.add_argument(
        "--tolerance",
        action="append",
        default=[],
        metavar="[ID=]NUMBER",
        help=f"largest absolute difference between --model files (default {DEFAULT_TOLERANCE:g}), or of one of them; "
        "may repeat",
    )
    parser.add_argument("--no-mirrors", action="store_true", help="leave --model files byte for byte as they are")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.tide", help="default: NAME-VERSION.tide here")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Build and say what was written."""
    spec = _spec(arguments)
    result = build(spec, arguments.output or default_output(spec), _note)
    if arguments.json:
        print_json(_as_json(result))
    else:
        _print(result)
    return 0


def _spec(arguments: argparse.Namespace) -> BuildSpec:
    bare = {"--name": arguments.name, "--version": arguments.version}
    if arguments.spec is not None:
        only_bare = {"--model": arguments.model, "--tolerance": arguments.tolerance, **bare}
        given = [name for name, value in {**only_bare, "--no-mirrors": arguments.no_mirrors}.items() if value]
        if given:
            raise ConfigError(
                f"{arguments.spec} and {given[0]} were both given",
                fix="give a specification, or --model with --name and --version",
            )
        return read_spec(arguments.spec)
    if not arguments.model:
        raise ConfigError(
            "there is nothing to build", fix="give SPEC.toml, or --model FILE --name NAME --version X.Y.Z"
        )
    missing = [name for name in ("--name", "--version") if not bare[name]]
    if missing:
        raise ConfigError(f"--model needs {' and '.join(missing)} too", fix="add them, such as --version 1.0.0")
    tolerances = _tolerances(arguments.tolerance)
    spec = spec_for_models(
        variant_ids(arguments.model),
        name=arguments.name,
        version=arguments.version,
        tolerance=tolerances.pop("", DEFAULT_TOLERANCE),
        tolerances=tolerances,
    )
    return msgspec.structs.replace(spec, bundle=msgspec.structs.replace(spec.bundle, mirrors=not arguments.no_mirrors))


def _tolerances(words: list[str]) -> dict[str, float]:
    """Return the number of each `NUMBER` or `ID=NUMBER` by its id, "" where there is none."""
    found: dict[str, float] = {}
    for word in words:
        id, _, number = word.rpartition("=")
        try:
            found[id] = float(number)
        except ValueError as error:
            raise ConfigError(
                f"--tolerance {word!r} is no number and no ID=NUMBER", fix="give such as --tolerance tflite-int8=0.1"
            ) from error
    return found


def _note(sentence: str) -> None:
    sys.stderr.write(f"note: {sentence}\n")


def _print(result: BuildResult) -> None:
    manifest = result.manifest
    print(f"{result.path}  {result.path.stat().st_size:,} bytes  {manifest.name} {manifest.version}")
    print_table(HEADER, [report_row(report) for report in result.reports])


def _as_json(result: BuildResult) -> dict[str, object]:
    return {
        "path": str(result.path),
        "size_bytes": result.path.stat().st_size,
        "name": result.manifest.name,
        "version": result.manifest.version,
        "variants": [report_json(report) for report in result.reports],
    }
