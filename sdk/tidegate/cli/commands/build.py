"""`tidegate build`: a trained model, or ready model files, into one checked bundle."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tidegate.cli.printing import Bars, complain, print_json, print_table
from tidegate.cli.quality import print_quality
from tidegate.cli.quiet import foreign_output_hidden
from tidegate.cli.reports import HEADER, report_json, report_row
from tidegate.convert.build import Candidate, default_output, prove, refusal, write
from tidegate.convert.spec import DEFAULT_TOLERANCE, BuildSpec, read_spec, spec_for_models
from tidegate.convert.variant_ids import variant_ids
from tidegate.errors import ConfigError
from tidegate.evaluate.report import Verdict

DESCRIPTION = """Build one bundle: convert the trained model where the specification names one, read the signature,
check that all variants agree, hold each against the golden fixture and the evaluation data, judge the acceptance
criteria, make the reference profile, write the .tide file. With bare --model files the fixture is made from seeded
random inputs, and its outputs come from the first model.

exit codes:
  0  the bundle is written
  1  a criterion fails, a variant is outside its tolerance, or the build failed: nothing is written
  2  used wrongly: the command line, the specification, the criteria
  3  wait: no criterion fails, but for one at least there is not enough data to say: nothing is written
With --allow-failing a release that ends in 1 by its figures, or in 3, is written, marked as failing in its manifest,
and the exit code is 0. No channel takes such a bundle."""

EXAMPLE = """tidegate build SPEC.toml -o voice-commands.tide
tidegate build SPEC.toml --allow-failing
tidegate build --model mlp.onnx --model mlp.tflite --name mlp --version 1.0.0 -o mlp.tide
tidegate build --model fp32=mlp.onnx --model int8=small.onnx --tolerance int8=0.1 --name mlp --version 1.0.0"""

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "wait": 3}


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
    parser.add_argument(
        "--allow-failing",
        action="store_true",
        help="write a release whose criteria or parity did not pass; its manifest is marked as failing",
    )
    parser.add_argument("--verbose", action="store_true", help="show what the converters print, on standard error")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prove the release, write it if it passes, say what was found; the exit code is the verdict."""
    spec = _spec(arguments)
    out = arguments.output or default_output(spec)
    candidate = _proven(arguments, spec, out)
    is_written = candidate.verdict == "pass" or arguments.allow_failing
    if is_written:
        write(candidate, out)
    if arguments.json:
        print_json(_as_json(candidate, out if is_written else None))
    else:
        _print(candidate, out if is_written else None)
    if candidate.verdict != "pass" and is_written:
        sys.stderr.write(f"note: {refusal(candidate).message}; written all the same, and marked as failing\n")
    elif candidate.verdict != "pass":
        complain(refusal(candidate))
    return 0 if is_written else EXIT_CODES[candidate.verdict]


def _proven(arguments: argparse.Namespace, spec: BuildSpec, out: Path) -> Candidate:
    """Do all that takes long, with progress; what the converters print is hidden."""
    with ExitStack() as stack:
        converts = spec.source is not None
        stream = stack.enter_context(foreign_output_hidden(shown=arguments.verbose)) if converts else sys.stderr

        def note(sentence: str) -> None:
            print(f"note: {sentence}", file=stream, flush=True)

        bars = stack.enter_context(Bars(stream))
        return prove(spec, out, note, bars.show, allow_failing=arguments.allow_failing)


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


def _print(candidate: Candidate, path: Path | None) -> None:
    manifest = candidate.release.manifest
    if path is None:
        print(f"not written: {manifest.name} {manifest.version}")
    else:
        failing = "  FAILING" if manifest.failing else ""
        print(f"{path}  {path.stat().st_size:,} bytes  {manifest.name} {manifest.version}{failing}")
    print_table(HEADER, [report_row(report) for report in candidate.reports])
    print_quality(manifest)


def _as_json(candidate: Candidate, path: Path | None) -> dict[str, object]:
    manifest = candidate.release.manifest
    return {
        "path": None if path is None else str(path),
        "size_bytes": None if path is None else path.stat().st_size,
        "name": manifest.name,
        "version": manifest.version,
        "verdict": candidate.verdict,
        "failing": manifest.failing,
        "problems": candidate.problems,
        "variants": [
            report_json(report) | {"parity": variant.parity, "metrics": variant.metrics}
            for report, variant in zip(candidate.reports, manifest.variants, strict=True)
        ],
        "criteria": manifest.criteria,
    }
