"""`tidegate predict`: a bundle on every row of a file or directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tidegate.cli.printing import Bars, print_json, print_table
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.predict import PredictSummary

DESCRIPTION = """Run a bundle on every row of a table or every file of a directory, and write the answers as a table.
Each input is fed by the column of its own name, or as --column says. Repeat the command after a crash: it goes on where
it stopped, and the output is the same. Memory does not grow with the input. A directory holds .wav or .npy files; a
speech bundle answers audio files with their transcript, segment by segment."""

EXAMPLE = """tidegate predict mlp.tide --input rows.parquet --output answers.parquet --key id
tidegate predict fraud.tide --input payments.csv --output answers.csv --column x=amount,age,hour --on-error skip
tidegate predict voice-commands.tide --input recordings/ --output transcripts.jsonl"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a .tide file or a bundle directory")
    parser.add_argument("--input", required=True, type=Path, metavar="IN", help=".parquet .csv .jsonl .npz, or DIR")
    parser.add_argument("--output", required=True, type=Path, metavar="OUT", help=".parquet .csv .jsonl .npz")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="INPUT=COL[,COL]",
        help="what feeds an input; several columns of numbers make a vector; may be repeated",
    )
    parser.add_argument("--key", action="append", default=[], metavar="COL", help="carry it through; may be repeated")
    parser.add_argument(
        "--on-error", choices=("fail", "skip"), default="fail", help="skip: reasons go to OUT.errors.jsonl"
    )
    parser.add_argument("--variant", metavar="ID", help="default: the first that can run here")
    parser.add_argument("--backend", choices=("litert", "onnx"), help="default: that of the variant")
    parser.add_argument("--threads", type=int, metavar="N", help="of the runtime; default 1")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows a call; default 32")
    parser.add_argument("--whole-inputs", action="store_true", help="a row holds whole inputs, first axis included")
    parser.add_argument(
        "--checkpoint-rows", type=int, default=8192, metavar="N", help="rows a crash may cost; default 8192"
    )
    parser.add_argument(
        "--checkpoint-s", type=float, default=10.0, metavar="S", help="seconds a crash may cost; default 10"
    )
    parser.add_argument("--restart", action="store_true", help="throw away what an unfinished run left")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Predict and say what was done; 1 when rows were there and not one could be answered."""
    from tidegate.predict import PredictSettings, predict

    settings = PredictSettings(
        columns=_columns(arguments.column),
        keys=tuple(arguments.key),
        on_error=arguments.on_error,
        variant=arguments.variant,
        backend=arguments.backend,
        threads=arguments.threads,
        batch_rows=arguments.batch_size,
        whole_inputs=arguments.whole_inputs,
        checkpoint_rows=arguments.checkpoint_rows,
        checkpoint_s=arguments.checkpoint_s,
        restart=arguments.restart,
    )
    with Bars() as bars:
        summary = predict(arguments.bundle, arguments.input, arguments.output, settings, on_progress=bars.show)
    if arguments.json:
        print_json(msgspec.to_builtins(summary))
    else:
        _print(summary)
    if summary.failed:
        sys.stderr.write(f"tidegate: {summary.failed} rows were left out; {summary.errors} says why\n")
    return 1 if summary.failed and not summary.answered else 0


def _columns(words: list[str]) -> dict[str, tuple[str, ...]]:
    columns: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, separator, listed = word.partition("=")
        if not separator or not name or not all(listed.split(",")):
            raise ConfigError(f"--column {word!r}; expected INPUT=COLUMN", fix="write --column x=amount,age")
        if name in columns:
            raise ConfigError(f"--column maps input {name!r} twice", fix="name all its columns in one --column")
        columns[name] = tuple(listed.split(","))
    return columns


def _print(summary: PredictSummary) -> None:
    rate = summary.rows - summary.resumed
    per_s = f"{rate / summary.wall_s:,.0f}" if summary.wall_s else "-"
    print_table(
        ("rows", "answered", "failed", "resumed", "seconds", "rows/s"),
        [
            (
                str(summary.rows),
                str(summary.answered),
                str(summary.failed),
                str(summary.resumed),
                f"{summary.wall_s:.1f}",
                per_s,
            )
        ],
    )
    print(f"{summary.model['bundle']} {summary.model['version']}, {summary.model['variant']}: {summary.output}")
