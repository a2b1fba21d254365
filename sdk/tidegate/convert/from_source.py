"""The step from a trained model to variant files, inside a build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from tidegate.bundle import Parity, digest
from tidegate.convert.conversion import Converted, convert
from tidegate.convert.routes import SourceKind
from tidegate.convert.spec import BuildSpec, SourceTable, VariantTable
from tidegate.errors import ConfigError

Progress = Callable[[str, int, int], None]
"""Receives what is being done, the steps behind us, and all steps."""

_FRAMEWORKS: dict[SourceKind, tuple[str, ...]] = {
    "keras": ("keras", "tensorflow", "tf2onnx"),
    "savedmodel": ("tensorflow", "tf2onnx"),
    "sklearn": ("scikit-learn", "skl2onnx"),
    "onnx": ("onnx", "onnxruntime"),
    "tflite": (),
}
"""Distributions that shape what a conversion gives."""


@dataclass(frozen=True)
class Sourced:
    """A specification in which every variant has a file."""

    spec: BuildSpec
    parity: Mapping[str, Parity]
    """of each variant that was made, against the source in its own framework, by variant id"""


def from_source(spec: BuildSpec, folder: Path, note: Callable[[str], None], progress: Progress) -> Sourced:
    """Make the variants that have no file of their own.

    Args:
        spec: what the author says.
        folder: where the files go; it exists.
        note: receives sentences that the author should see.
        progress: told how many variants are made.

    Raises:
        ConfigError: a variant has no file and there is no [source], or the source gives no such variant.
        NotFoundError, InputError, DependencyError, ModelError, BundleError, ResourceError: as `convert`.
    """
    wanted = [variant.id for variant in spec.variant if not variant.file]
    if spec.source is None:
        if wanted:
            raise ConfigError(
                f"variant {wanted[0]!r} has no file, and there is no [source] to make it from",
                fix='give it `file = "..."`, or name the trained model: [source] file = "model.keras"',
            )
        return Sourced(spec, {})
    if not wanted:
        raise ConfigError(
            f"nothing is made from [source] {spec.source.file!r}: every variant has a file",
            fix="leave `file` out of the variants that are to be made, or remove [source]",
        )
    made: list[Converted] = []

    def done(converted: Converted) -> None:
        made.append(converted)
        progress("converting", len(made), len(wanted))

    progress("converting", 0, len(wanted))
    path = spec.directory / spec.source.file
    conversion = convert(
        path,
        wanted,
        folder,
        data=spec.directory / spec.source.data if spec.source.data else None,
        keep_float=spec.source.keep_float,
        note=note,
        done=done,
    )
    files = {converted.id: converted for converted in made}
    variants = tuple(variant if variant.file else _with_file(variant, files[variant.id]) for variant in spec.variant)
    provenance = _provenance(spec.source, path, conversion.kind) | spec.provenance
    whole = msgspec.structs.replace(spec, variant=variants, provenance=provenance)
    return Sourced(whole, {converted.id: converted.parity for converted in made})


def _with_file(variant: VariantTable, converted: Converted) -> VariantTable:
    """Name the file and its precision: told from the weights, else (trees have none) the one that was asked for.

    The file's path is absolute: others start at the specification, and this one lies beside the bundle.
    """
    asked = converted.id.partition("-")[2].removesuffix("-io")
    precision = variant.precision or converted.precision or asked
    return msgspec.structs.replace(variant, file=str(converted.path.resolve()), precision=precision)


def _provenance(source: SourceTable, path: Path, kind: SourceKind) -> dict[str, str]:
    """Return what the variants were made from and with; the author's own words of the same name win."""
    stated = {"source_file": Path(source.file).name, "source_sha256": _digest(path)}
    versions = ", ".join(f"{name} {_version(name)}" for name in _FRAMEWORKS[kind])
    return stated | ({"converted_with": versions} if versions else {})


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; of a directory, that of the lines `SHA-256  PATH` of its files, sorted by path."""
    if path.is_file():
        return digest(path.read_bytes())
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    return digest("".join(f"{digest(file.read_bytes())}  {name}\n" for name, file in files).encode())


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"
