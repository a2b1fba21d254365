"""SPEC.toml: what the author says about a release, as typed values.

Every table that describes the release has the same keys as the manifest; paths are relative to the specification.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from tidegate.bundle.manifest import BackendName, Budgets, DecoderSettings, FrontEnd, PrefilterSettings, TrialSettings
from tidegate.errors import ConfigError, DependencyError, NotFoundError, ResourceError
from tidegate.profile import Options as ProfileOptions
from tidegate.profile import TensorKind

BACKEND_BY_SUFFIX: dict[str, BackendName] = {".tflite": "litert", ".onnx": "onnx"}

DEFAULT_TOLERANCE = 1e-3


class BundleTable(msgspec.Struct, frozen=True, kw_only=True):
    """[bundle]: what the release is."""

    name: str
    version: str
    release: int = 0
    description: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    labels_file: str = ""
    """a text file with one label a line, instead of `labels`"""
    mirrors: bool = True
    """write the manifest's facts into every model file too, where other tools look for them"""
    reference: str = ""
    """id of the variant that the others are held against; default: the first that can run here"""


class SourceTable(msgspec.Struct, frozen=True, kw_only=True):
    """[source]: the trained model that variants without a file are made from."""

    file: str
    """`.keras`, a SavedModel directory, `.joblib`, `.pkl`, `.onnx` or `.tflite`"""
    data: str = ""
    """representative rows, an .npz with `input/NAME`; int8 variants need it"""
    keep_float: tuple[str, ...] = ()
    """shell patterns of the operators that stay float32 in int8 variants"""


class VariantTable(msgspec.Struct, frozen=True, kw_only=True):
    """[[variant]]: one model file, in the order of preference."""

    id: str
    """of a variant that is made from [source]: what `tidegate convert` calls it, such as `tflite-int8`"""
    file: str = ""
    """none: made from [source]"""
    backend: BackendName | None = None
    """default: from the file's suffix"""
    precision: str = ""
    """default: told from the weights, else `as-is`"""
    tolerance: float | None = None
    """for the golden fixture; default: that of [golden]"""
    evaluation_tolerance: float | None = None
    """for the evaluation data; default: that of [evaluation], else `tolerance`, else that of [golden]"""
    minimum_agreement: float | None = None
    """share of the evaluation data's rows with the reference's decision; default: that of [evaluation]"""
    minimum_runtime: str = ""
    hardware: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    tensor_names: dict[str, str] = {}
    """the file's own tensor name by the bundle's, where the variants' names differ"""


class GoldenTable(msgspec.Struct, frozen=True, kw_only=True):
    """[golden]: the fixture that every variant must reproduce."""

    file: str = ""
    """an .npz with `input/NAME` and `output/NAME`; none: made from seeded random inputs. Without any `output/NAME`, the
    outputs are taken from the reference"""
    tolerance: float = DEFAULT_TOLERANCE
    """largest absolute difference allowed"""
    seed: int = 0
    """of the random inputs"""


class EvaluationTable(msgspec.Struct, frozen=True, kw_only=True):
    """[evaluation]: labelled data that parity, metrics and criteria are measured on; it does not travel."""

    data: str
    """an .npz as docs/evaluation.md describes it"""
    criteria: str = ""
    """a criteria.toml; it travels as the asset `criteria`"""
    baseline: str = ""
    """the released bundle, for `not_worse_than`"""
    bench: str = ""
    """a report of `tidegate bench`, for latency and memory; default: what a criterion asks for is measured here"""
    tolerance: float | None = None
    """largest absolute difference from the reference on this data; default: the variant's own, else that of [golden]"""
    minimum_agreement: float | None = None
    """share of rows, 0 to 1, on which a variant must decide as the reference does; default: any"""


class ProfileTable(msgspec.Struct, frozen=True, kw_only=True):
    """[profile]: the reference profile, made from the evaluation data."""

    make: bool = True
    false_alarm_rate: float = ProfileOptions.false_alarm_rate
    window_rows: tuple[int, ...] = ProfileOptions.window_rows
    seed: int = ProfileOptions.seed
    kinds: dict[str, TensorKind] = {}
    """what an input is, where its form does not say so"""


class InputTable(msgspec.Struct, frozen=True, kw_only=True):
    """[inputs.NAME]: what the model file cannot say about an input."""

    finite: bool = False
    """refuse NaN and infinities before the model"""


class BuildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that `build` needs to know; `directory` is where its paths start."""

    bundle: BundleTable
    variant: tuple[VariantTable, ...]
    source: SourceTable | None = None
    golden: GoldenTable = GoldenTable()
    evaluation: EvaluationTable | None = None
    profile: ProfileTable = ProfileTable()
    front_end: FrontEnd | None = None
    prefilter: PrefilterSettings | None = None
    decoder: DecoderSettings | None = None
    budgets: Budgets | None = None
    trial: TrialSettings | None = None
    inputs: dict[str, InputTable] = {}
    assets: dict[str, str] = {}
    provenance: dict[str, str] = {}
    directory: Path = Path()


_NOT_IN_FILE = frozenset({"directory"})


def read_spec(path: Path) -> BuildSpec:
    """Read and check a specification.

    Raises:
        NotFoundError: the file is not there.
        ConfigError: not TOML, an unknown key (the nearest known one is named), or a value of the wrong type.
        DependencyError: no TOML parser, on Python 3.10 without `tidegate[build]`.
    """
    table = _parse_toml(read_bytes(path, "specification", fix="check the path"), path)
    _check_keys(table, BuildSpec, str(path), "")
    try:
        spec = msgspec.convert(table, BuildSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}", fix="mend that key; docs/bundle-format.md shows every one") from error
    return msgspec.structs.replace(spec, directory=path.parent)


def spec_for_models(
    models: Mapping[str, Path],
    *,
    name: str,
    version: str,
    tolerance: float = DEFAULT_TOLERANCE,
    tolerances: Mapping[str, float] | None = None,
) -> BuildSpec:
    """Return the specification of a bundle that holds nothing but bare model files.

    Args:
        models: model file by variant id, in the order of preference.
        name: of the bundle.
        version: semantic version.
        tolerance: by which the variants may differ on the generated fixture.
        tolerances: exceptions by variant id.

    Raises:
        ConfigError: an exception is for a variant that is not there.
    """
    exceptions = dict(tolerances or {})
    for id in exceptions:
        if id not in models:
            raise ConfigError(
                f"--tolerance is given for variant {id!r}; the variants are {', '.join(models)}", fix="name one of them"
            )
    return BuildSpec(
        bundle=BundleTable(name=name, version=version),
        variant=tuple(VariantTable(id=id, file=str(path), tolerance=exceptions.get(id)) for id, path in models.items()),
        golden=GoldenTable(tolerance=tolerance),
    )


def backend_of(variant: VariantTable) -> BackendName:
    """Return the backend that a variant names, or the one its file's suffix tells.

    Raises:
        ConfigError: neither tells.
    """
    backend = variant.backend or BACKEND_BY_SUFFIX.get(Path(variant.file).suffix)
    if backend is None:
        raise ConfigError(
            f"variant {variant.id!r}: file {variant.file!r} is neither .tflite nor .onnx",
            fix="give the file the suffix of its format",
        )
    return backend


def read_bytes(path: Path, what: str, *, fix: str = "check the path; it starts at the specification") -> bytes:
    """Return the content of a file that the author named.

    Args:
        path: where it is.
        what: how messages call it.
        fix: what to do when it is not there.

    Raises:
        NotFoundError: it is not there, or is a directory.
        ResourceError: the system refuses.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError(f"{what}: no file at {path}", fix=fix) from error
    except OSError as error:
        raise ResourceError(f"{what}: {path} could not be read: {error.strerror}", fix="check permissions") from error


def _parse_toml(raw: bytes, path: Path) -> dict[str, Any]:
    toml = _toml_module()
    try:
        table: dict[str, Any] = toml.loads(raw.decode())
    except (toml.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", fix="mend the syntax at that place") from error
    return table


def _toml_module() -> Any:
    """Return the standard library's TOML parser, or on Python 3.10 the package that it came from."""
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise DependencyError(
        "Python 3.10 has no TOML parser, and tomli is not installed", fix='pip install "tidegate[build]"'
    )


def _check_keys(table: Mapping[str, Any], kind: type[msgspec.Struct], origin: str, where: str) -> None:
    """Refuse keys that nothing reads: a misspelt one would be a setting silently lost."""
    known = [field.name for field in msgspec.structs.fields(kind) if field.name not in _NOT_IN_FILE]
    hints = get_type_hints(kind)
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            raise ConfigError(
                f"{origin}: unknown key {where + key!r}"
                + (f"; did you mean {where + near[0]!r}?" if near else f"; expected one of {', '.join(known)}"),
                fix="correct or remove the key",
            )
        for label, inner, item in _inner_tables(hints[key], value):
            _check_keys(item, inner, origin, f"{where}{key}{label}.")


def _inner_tables(hint: Any, value: Any) -> Iterator[tuple[str, type[msgspec.Struct], Mapping[str, Any]]]:
    """Yield the tables inside a value that have known keys, each with a label for messages and its type."""
    outer = get_origin(hint)
    if outer is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from ((f"[{index}]", kind, table) for _, kind, table in _inner_tables(get_args(hint)[0], item))
    elif outer is dict and isinstance(value, Mapping):
        for name, item in value.items():
            yield from ((f".{name}", kind, table) for _, kind, table in _inner_tables(get_args(hint)[1], item))
    elif outer is not None:
        for argument in get_args(hint):
            yield from _inner_tables(argument, value)
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(value, Mapping):
        yield "", hint, value
