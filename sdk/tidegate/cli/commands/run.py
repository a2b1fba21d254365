"""`tidegate run`: run a model once on arrays from an .npz file."""

from __future__ import annotations

import argparse
from pathlib import Path

from tidegate.bundle.arrays import Array, pack_arrays, unpack_arrays
from tidegate.bundle.atomic import write_atomically
from tidegate.bundle.dtypes import oip_name
from tidegate.cli.printing import print_json, print_table
from tidegate.errors import InputError, NotFoundError
from tidegate.runtime import Model, load

DESCRIPTION = """Run a model once. The input .npz holds one array for each input, under the input's name; the output
.npz is written with one array for each output. `tidegate inspect` shows names, dtypes and shapes."""

EXAMPLE = """tidegate run mlp.tide --input in.npz --output out.npz
tidegate run mlp.tide --input in.npz --output out.npz --variant onnx-fp32"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle, or a bare .onnx or .tflite file")
    parser.add_argument("--input", required=True, type=Path, metavar="IN.npz", help="arrays by input name")
    parser.add_argument("--output", required=True, type=Path, metavar="OUT.npz", help="where the outputs go")
    parser.add_argument("--variant", metavar="ID", help="default: the first that can run here")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Read, run, write, print the shapes."""
    inputs = _read(arguments.input)
    with load(arguments.bundle, variant=arguments.variant) as model:
        outputs = model.run(inputs)
        write_atomically(arguments.output, [pack_arrays(outputs)])
        if arguments.json:
            print_json(_as_json(model, arguments.output, outputs))
        else:
            print_table(
                ("output", "dtype", "shape"), [(n, oip_name(a.dtype), str(list(a.shape))) for n, a in outputs.items()]
            )
    return 0


def _read(path: Path) -> dict[str, Array]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"no input file at {path}", fix="check the path given with --input") from error
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror}", fix="name a readable .npz file") from error
    return unpack_arrays(raw, origin=str(path))


def _as_json(model: Model, path: Path, outputs: dict[str, Array]) -> dict[str, object]:
    return {
        "output": str(path),
        "variant": model.variant_id,
        "runtime": model.runtime,
        "provider": model.provider,
        "outputs": [{"name": n, "datatype": oip_name(a.dtype), "shape": list(a.shape)} for n, a in outputs.items()],
    }
