"""`tidegate export`: a bundle in the form of another ecosystem."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.bundle.archive import pack
from tidegate.bundle.paths import MANIFEST_FILE
from tidegate.cli.printing import print_json
from tidegate.convert import oci
from tidegate.convert.folders import write_folder
from tidegate.convert.mirrors import mlflow
from tidegate.errors import ConfigError

DESCRIPTION = """Write a bundle as a folder that other tools read. --mlflow: an MLflow model with the bundle inside,
for `mlflow.pyfunc.load_model`. --oci: an OCI image layout in the CNCF ModelPack form, for `oras`, `skopeo` or `modctl`
to push to a registry. The same bundle gives the same bytes. Every file's digest is checked on the way."""

EXAMPLE = (
    "tidegate export voice-commands.tide --mlflow words-mlflow\ntidegate export voice-commands.tide --oci words-oci"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a .tide file or a bundle directory")
    parser.add_argument("--mlflow", type=Path, metavar="DIR", help="write an MLflow model there")
    parser.add_argument("--oci", type=Path, metavar="DIR", help="write an OCI image layout there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Write each folder that was asked for."""
    if arguments.mlflow is None and arguments.oci is None:
        raise ConfigError("there is nowhere to export to", fix="give --mlflow DIR, --oci DIR, or both")
    done: list[dict[str, object]] = []
    with Bundle.open(arguments.bundle) as bundle:
        if arguments.mlflow is not None:
            files = mlflow.files(bundle.manifest, _archive(bundle), version("tidegate"))
            done.append(_done("mlflow", arguments.mlflow, write_folder(arguments.mlflow, sorted(files.items()))))
        if arguments.oci is not None:
            done.append(_done("oci", arguments.oci, write_folder(arguments.oci, oci.layout(bundle))))
    if arguments.json:
        print_json(done)
    else:
        for item in done:
            print(f"{item['path']}  {item['form']}  {item['size_bytes']:,} bytes")
        sys.stderr.write("the folder is as trustworthy as its bundle; sign what you push\n")
    return 0


def _done(form: str, path: Path, size_bytes: int) -> dict[str, object]:
    return {"form": form, "path": str(path), "size_bytes": size_bytes}


def _archive(bundle: Bundle) -> bytes:
    """Return the bundle as one archive, with its manifest byte for byte."""
    files = sorted(((file.path, bundle.read(file.path)) for file in bundle.files), key=lambda item: item[0].encode())
    return b"".join(pack([(MANIFEST_FILE, bundle.manifest_bytes), *files]))
