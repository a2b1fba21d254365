"""`tidegate evaluate`: metrics with bounds, parity of the variants, acceptance criteria."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.bundle import Bundle
from tidegate.bundle.atomic import write_atomically
from tidegate.cli.files import read_file
from tidegate.cli.printing import Bars, print_table
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.evaluate import Evaluation, Options
    from tidegate.evaluate.evaluating import Transcribe
    from tidegate.runtime import Model

DESCRIPTION = """Run every variant that can run here on labelled data: metrics with bounds, parity of the variants,
confusion matrix, slices, tags, the no-skill baseline, and a verdict on each acceptance criterion.

exit codes:
  0  every criterion passes, or there are none
  1  a criterion fails, or a variant could not be evaluated that should run here
  2  used wrongly: the command line, the criteria file
  3  wait: no criterion fails, but for one at least there is not enough data to say"""

EXAMPLE = """tidegate evaluate voice-commands.tide --data eval.npz
tidegate evaluate new.tide --data eval.npz --criteria criteria.toml --baseline released.tide --html report.html
tidegate bench new.tide -o bench.json && tidegate evaluate new.tide --data eval.npz --criteria criteria.toml \\
  --bench bench.json"""

EXIT_CODES = {"pass": 0, "fail": 1, "wait": 3, None: 0}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a .tide file or a bundle directory")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE.npz",
        required=True,
        help="input/NAME arrays with label, target or text; tag/NAME and slice/NAME by row (see docs/evaluation.md)",
    )
    parser.add_argument("--criteria", type=Path, metavar="FILE.toml", help="what the release promises")
    parser.add_argument("--baseline", type=Path, metavar="OTHER", help="the released bundle, to compare with")
    parser.add_argument("--variant", metavar="ID", help="report on this variant (default: the first that can run)")
    parser.add_argument(
        "--reference", metavar="ID", help="measure parity against this variant (default: the first that can run)"
    )
    parser.add_argument(
        "--bench", type=Path, metavar="FILE", help="latency and memory: `tidegate bench BUNDLE -o FILE`"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one HTML file")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the precision-recall curve")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the report as JSON into a file")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, write, print; the exit code is the verdict."""
    from tidegate.evaluate import encode, evaluate, read_evaluation_set

    _check_outputs(arguments)
    with ExitStack() as open_files:
        options = _options(arguments, open_files)
        bundle = open_files.enter_context(Bundle.open(arguments.bundle))
        options = _with_measurements(arguments, options, bundle)
        data = read_evaluation_set(read_file(arguments.data, "--data"), origin=str(arguments.data))
        with Bars() as bars:
            evaluation = evaluate(bundle, data, options, bars.show)
    _write(arguments, evaluation)
    if arguments.json:
        sys.stdout.write(encode(evaluation).decode())
    else:
        _print(evaluation)
    return 1 if any(result.status == "failed" for result in evaluation.variants) else EXIT_CODES[evaluation.verdict]


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse a place that cannot be written to before the work is done."""
    for path in (arguments.html, arguments.png, arguments.output):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{path.parent} is not a directory", fix="make it first, or name another file")


def _options(arguments: argparse.Namespace, open_files: ExitStack) -> Options:
    from tidegate.evaluate import Options, read_criteria

    return Options(
        variant=arguments.variant,
        reference=arguments.reference,
        criteria=read_criteria(arguments.criteria) if arguments.criteria else None,
        baseline=open_files.enter_context(Bundle.open(arguments.baseline)) if arguments.baseline else None,
        transcriber=_transcriber,
    )


def _with_measurements(arguments: argparse.Namespace, options: Options, bundle: Bundle) -> Options:
    from dataclasses import replace

    from tidegate.evaluate import read_measurements

    if arguments.bench is None:
        return options
    raw = read_file(arguments.bench, "--bench")
    return replace(options, measurements=read_measurements(raw, bundle.manifest, origin=str(arguments.bench)))


def _transcriber(model: Model) -> Transcribe:
    from tidegate.speech import Transcriber

    speech = Transcriber(model)
    return lambda samples: speech.transcribe(samples).text


def _write(arguments: argparse.Namespace, evaluation: Evaluation) -> None:
    from tidegate.evaluate import encode

    if arguments.output:
        write_atomically(arguments.output, [encode(evaluation)])
    if not (arguments.html or arguments.png):
        return
    from tidegate.evaluate.page import html_page
    from tidegate.evaluate.plot import precision_recall_png

    curve = precision_recall_png(evaluation)
    if arguments.html:
        write_atomically(arguments.html, [html_page(evaluation, curve)])
    if arguments.png and curve is not None:
        write_atomically(arguments.png, [curve])
    elif arguments.png:
        sys.stderr.write(f"no precision-recall curve without scores: {arguments.png} is not written\n")


def _print(evaluation: Evaluation) -> None:
    from tidegate.evaluate.table import heading, tables, verdict_line

    print(heading(evaluation))
    for table in tables(evaluation, wide=False):
        print(f"\n{table.title}")
        print_table(table.header, table.rows)
        for note in table.notes:
            print(note)
    if evaluation.verdict is not None:
        print(f"\n{verdict_line(evaluation)}")
