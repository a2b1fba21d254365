"""`tidegate call`: one call to a server, or what the server says about itself."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate.bundle.arrays import pack_arrays, unpack_arrays
from tidegate.bundle.atomic import write_atomically
from tidegate.bundle.dtypes import oip_name
from tidegate.bundle.manifest import TensorSpec
from tidegate.cli.files import read_file
from tidegate.cli.printing import print_json, print_table
from tidegate.cli.server_options import add_server, tls_of, token_of
from tidegate.client import Client, ModelDescription
from tidegate.errors import ConfigError

DESCRIPTION = """Call a model on a server of the Open Inference Protocol once. The input .npz holds one array for each
input, under the input's name; the output .npz is written with one array for each output. With a model and no input,
the model's signature is shown; with neither, the server and its models."""

EXAMPLE = """tidegate call 127.0.0.1:8001
tidegate call 127.0.0.1:8001 mlp
tidegate call 127.0.0.1:8001 mlp --input in.npz --output out.npz
tidegate call models.example:8443 mlp --tls-ca ca.pem --token-file token"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("target", metavar="HOST:PORT", help="the server")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name of the model")
    parser.add_argument("--input", type=Path, metavar="IN.npz", help="arrays by input name")
    parser.add_argument("--output", type=Path, metavar="OUT.npz", help="where the outputs go")
    parser.add_argument("--version", default="", metavar="V", help="default: the highest")
    parser.add_argument("--timeout-s", type=float, default=30.0, metavar="S", help="for the whole call; default 30")
    add_server(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Infer, or show the model, or show the server, as the arguments ask."""
    _check(arguments)
    # What fails is said in our own messages; grpc's core would add lines of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with Client(
        arguments.target, timeout_s=arguments.timeout_s, tls=tls_of(arguments), token=token_of(arguments)
    ) as client:
        if arguments.input is not None:
            _infer(client, arguments)
        elif arguments.model is not None:
            _show_model(client.model_metadata(arguments.model, arguments.version), as_json=arguments.json)
        else:
            _show_server(client, as_json=arguments.json)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if (arguments.input is None) != (arguments.output is None):
        raise ConfigError("--input and --output go together; found one", fix="give both, or neither to see the model")
    if arguments.model is None and (arguments.input is not None or arguments.version):
        raise ConfigError("no model is named", fix="write MODEL after HOST:PORT")


def _infer(client: Client, arguments: argparse.Namespace) -> None:
    inputs = unpack_arrays(read_file(arguments.input, "--input"), origin=str(arguments.input))
    outputs = client.infer(arguments.model, inputs, version=arguments.version)
    write_atomically(arguments.output, [pack_arrays(outputs)])
    rows = [(name, oip_name(array.dtype), list(array.shape)) for name, array in outputs.items()]
    if arguments.json:
        described = [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in rows]
        print_json({"output": str(arguments.output), "model": arguments.model, "outputs": described})
    else:
        print_table(("output", "dtype", "shape"), [(name, datatype, str(shape)) for name, datatype, shape in rows])


def _show_model(model: ModelDescription, *, as_json: bool) -> None:
    if as_json:
        print_json(_described(model))
        return
    print(
        f"{model.name}, versions {', '.join(model.versions) or 'not stated'}, {model.platform or 'platform not stated'}"
    )
    sides = (("input", model.signature.inputs), ("output", model.signature.outputs))
    print_table(("side", "name", "dtype", "shape"), [_row(side, spec) for side, specs in sides for spec in specs])


def _described(model: ModelDescription) -> dict[str, Any]:
    """Return what the server stated, and nothing that it did not: the protocol has no word for `finite`."""

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "dtype": spec.dtype, "shape": spec.shape} for spec in specs]

    signature = {"inputs": tensors(model.signature.inputs), "outputs": tensors(model.signature.outputs)}
    return {
        "name": model.name,
        "versions": model.versions,
        "platform": model.platform,
        "signature": signature,
        "properties": model.properties,
    }


def _row(side: str, spec: TensorSpec) -> tuple[str, str, str, str]:
    return side, spec.name, spec.dtype, str(list(spec.shape))


def _show_server(client: Client, *, as_json: bool) -> None:
    server, ready = client.server_metadata(), client.ready()
    # Triton's repository extension, or the part of it that Tidegate has; a server without still says what it is.
    models = client.models() if {"model_repository", "repository_index"} & set(server.extensions) else ()
    if as_json:
        print_json({"target": client.target, "ready": ready, "server": server, "models": models})
        return
    print(f"{server.name} {server.version} at {client.target}: {'ready' if ready else 'not ready'}")
    print_table(
        ("model", "version", "state"),
        [(model.name, model.version, "ready" if model.ready else "not ready") for model in models],
    )
