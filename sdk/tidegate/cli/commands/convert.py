"""`tidegate convert`: a trained model in, TFLite and ONNX variants out."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from tidegate.cli.printing import print_json, print_table
from tidegate.cli.quiet import foreign_output_hidden
from tidegate.convert import Conversion, Converted, convert

DESCRIPTION = """Convert a trained model: .keras, a SavedModel directory, a scikit-learn .joblib or .pkl (which runs
code from that file), or a ready .onnx or .tflite. Each variant is run and held against the source. Variants:
tflite-fp32, tflite-fp16, tflite-dynamic-int8, tflite-int8 (float32 in and out), tflite-int8-io, onnx-fp32, onnx-fp16,
onnx-dynamic-int8, onnx-int8; onnx or tflite take a ready file as it is. The int8 ones need --data."""

EXAMPLE = """tidegate convert model.keras --to tflite-fp32,onnx-fp32 -o variants
tidegate convert model.keras --to tflite-int8,onnx-int8 --data representative.npz -o variants
tidegate convert pipeline.joblib --to onnx-fp32 -o variants --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="SOURCE", help="the trained model")
    parser.add_argument(
        "--to", required=True, metavar="VARIANT[,...]", help="what to make; may repeat", action="append"
    )
    parser.add_argument("--data", type=Path, metavar="ROWS.npz", help="representative rows, one array input/NAME each")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: here")
    parser.add_argument("--name", help="what the files are called after; default: the source's name")
    parser.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="PATTERN",
        help="operators that stay float32 in int8 variants, such as '*front_end*'; may repeat",
    )
    parser.add_argument("--verbose", action="store_true", help="show what the converters print, on standard error")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Convert, showing each variant as it is done; print what was made."""
    wanted = [variant.strip() for list_ in arguments.to for variant in list_.split(",") if variant.strip()]
    with foreign_output_hidden(shown=arguments.verbose) as say:
        result = convert(
            arguments.source,
            wanted,
            arguments.output,
            data=arguments.data,
            name=arguments.name,
            keep_float=arguments.keep_float,
            note=lambda sentence: print(f"note: {sentence}", file=say, flush=True),
            done=_progress(len(wanted), say),
        )
    if arguments.json:
        print_json(_as_json(result))
    else:
        _print(result)
    return 0


def _progress(total: int, say: TextIO) -> Callable[[Converted], None]:
    """Return what writes one line for each variant that is done, if anybody is watching."""
    numbers = itertools.count(1)

    def show(converted: Converted) -> None:
        if say.isatty():
            say.write(f"[{next(numbers)}/{total}] {converted.id}  {converted.seconds:.1f} s\n")
            say.flush()

    return show


def _print(result: Conversion) -> None:
    rows = "random input" if result.on_generated_input else "the representative data"
    print(f"{result.origin} ({result.kind}); compared on {result.variants[0].parity.rows} rows of {rows}")
    print_table(
        ("variant", "file", "bytes", "maximum error", "same label", "seconds"),
        [
            (
                made.id,
                made.path.name,
                f"{made.size_bytes:,}",
                "-" if made.parity.maximum_error is None else f"{made.parity.maximum_error:.2e}",
                "-" if made.parity.agreement is None else f"{made.parity.agreement:.2%}",
                f"{made.seconds:.1f}",
            )
            for made in result.variants
        ],
    )


def _as_json(result: Conversion) -> dict[str, object]:
    return {
        "source": result.origin,
        "kind": result.kind,
        "compared_on": "generated" if result.on_generated_input else "data",
        "variants": [
            {
                "id": made.id,
                "file": os.fspath(made.path),
                "backend": made.backend,
                "precision": made.precision,
                "sha256": made.sha256,
                "size_bytes": made.size_bytes,
                "seconds": made.seconds,
                "rows": made.parity.rows,
                "maximum_error": made.parity.maximum_error,
                "mean_error": made.parity.mean_error,
                "agreement": made.parity.agreement,
            }
            for made in result.variants
        ],
    }
