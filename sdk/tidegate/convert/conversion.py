"""From one trained model to the variants that its author asks for, each held against the source."""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.bundle import Parity, digest
from tidegate.bundle.arrays import Array
from tidegate.bundle.atomic import write_atomically
from tidegate.bundle.dtypes import is_float
from tidegate.bundle.manifest import BackendName
from tidegate.convert.job import Job
from tidegate.convert.model_files import read_model
from tidegate.convert.precision import precision_of
from tidegate.convert.routes import Route, SourceKind, needs_data, routes_for
from tidegate.convert.rows import PARITY_ROWS, Rows, fitted_rows, generated_rows, read_rows
from tidegate.convert.sources import Source, identify
from tidegate.convert.spec import BACKEND_BY_SUFFIX
from tidegate.errors import ConfigError, ModelError, ResourceError
from tidegate.evaluate.parity import parity
from tidegate.evaluate.running import run_rows
from tidegate.runtime import load

LARGE_ERROR = 0.2
"""Above this, of a variant that was quantised, the author is told what may help."""

_MODULES: dict[SourceKind, str] = {
    "keras": "keras",
    "savedmodel": "savedmodel",
    "sklearn": "sklearn",
    "onnx": "ready",
    "tflite": "ready",
}
"""Which module opens and runs a source: its functions `opened` and `outputs`."""


@dataclass(frozen=True)
class Converted:
    """One variant that was made."""

    id: str
    path: Path
    backend: BackendName
    precision: str
    """told from the weights in the file; "" when they do not tell"""
    sha256: str
    size_bytes: int
    seconds: float
    """taken by the steps that no variant before had taken, and by the comparison"""
    parity: Parity
    """against the source"""


@dataclass(frozen=True)
class Conversion:
    """All that one call made."""

    origin: str
    kind: SourceKind
    variants: tuple[Converted, ...]
    on_generated_input: bool
    """there was no representative data, so parity was measured on random input"""


def convert(
    source: Any,
    variants: Sequence[str],
    out_dir: str | Path,
    *,
    data: str | Path | Mapping[str, Array] | None = None,
    name: str | None = None,
    keep_float: Sequence[str] = (),
    note: Callable[[str], None] = lambda sentence: None,
    done: Callable[[Converted], None] = lambda converted: None,
) -> Conversion:
    """Convert a model. Files are called `NAME-VARIANT.tflite` and `.onnx`; each appears whole or not at all.

    Args:
        source: a path (`.keras`, SavedModel directory, `.joblib`, `.pkl`, `.onnx`, `.tflite`), a Keras model or a
            scikit-learn estimator.
        variants: such as `tflite-fp32`, `tflite-int8`, `onnx-fp32`.
        out_dir: made if need be.
        data: representative rows: arrays [rows, ...] by input name, or the path of an .npz with `input/NAME`. Needed
            for `int8` variants; all variants are held against the source on its first rows, else on random input.
        name: what the files are called after; default: the source's own.
        keep_float: shell patterns (`*front_end*`) of the operators that stay float32 in int8 variants.
        note: receives sentences that the author should see.
        done: receives each variant when it is finished.

    Raises:
        ConfigError: a source, variant or data that cannot be meant; the message says what can be made.
        NotFoundError: no such file.
        InputError: the data is not readable.
        DependencyError: a framework is missing; the message names the extra.
        ModelError: a conversion failed; the message names the layer or the operator.
        BundleError: an ONNX model whose weights lie outside its folder.
        ResourceError: the disk refuses.
    """
    origin = identify(source)
    routes = routes_for(origin.kind, variants)
    rows = read_rows(data)
    _check_data(routes, rows, origin)
    out = _made_directory(Path(out_dir))
    with tempfile.TemporaryDirectory(prefix="tidegate-convert-") as scratch:
        job = Job(origin.origin, Path(scratch), rows, tuple(keep_float), note)
        with _prints_to_stderr():
            workshop = _Workshop(origin, job)
        made: list[Converted] = []
        for variant, route in routes.items():
            started = time.perf_counter()
            with _prints_to_stderr():
                path = workshop.take(route)
                found = workshop.compare(path, variant)
            target = out / f"{name or origin.name}-{variant}{path.suffix}"
            made.append(_delivered(path, target, variant, found, started, note))
            done(made[-1])
    return Conversion(origin.origin, origin.kind, tuple(made), on_generated_input=not rows)


class _Workshop:
    """Takes steps, each one once, and knows what the source itself answers."""

    def __init__(self, source: Source, job: Job) -> None:
        self._module = _module(_MODULES[source.kind])
        self._job = job
        self._made: dict[Route, Any] = {(): self._module.opened(source)}
        self._rows: Rows = {}
        self._expected: dict[str, Array] = {}

    def take(self, route: Route) -> Path:
        """Return the file at the end of a route."""
        for length in range(1, len(route) + 1):
            taken = route[:length]
            if taken not in self._made:
                module, function = taken[-1].split(":")
                self._made[taken] = getattr(_module(module), function)(self._made[taken[:-1]], self._job)
        path: Path = self._made[route]
        return path

    def compare(self, path: Path, variant: str) -> Parity:
        """Run a variant and the source on the same rows.

        Raises:
            ModelError: the runtime refuses the variant, or it answers in other shapes or names.
        """
        job = self._job
        with load(path) as model:
            signature = model.signature
            if not self._rows:
                rows = fitted_rows(job.rows, signature, job.origin) if job.rows else generated_rows(signature)
                self._rows = {name: array[:PARITY_ROWS] for name, array in rows.items()}
                self._expected = self._module.outputs(self._made[()], self._rows)
            found = run_rows(model, self._rows, f"{job.origin}: {variant}", lambda done: None)
        return _parity(self._expected, found, len(next(iter(self._rows.values()))), f"{job.origin}: {variant}")


def _check_data(routes: Mapping[str, Route], rows: Rows, source: Source) -> None:
    needy = [variant for variant, route in routes.items() if needs_data(route)]
    if needy and not rows:
        raise ConfigError(
            f"{', '.join(needy)} of {source.origin} needs representative data",
            fix="give some hundred rows of real input: --data ROWS.npz with one array input/NAME for each input",
        )


def _made_directory(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{out} is a file; a directory is needed", fix="name another one") from error
    except OSError as error:
        raise ResourceError(f"{out} cannot be made: {error.strerror}", fix="check permissions") from error
    return out


def _delivered(
    path: Path, target: Path, variant: str, found: Parity, started: float, note: Callable[[str], None]
) -> Converted:
    backend = BACKEND_BY_SUFFIX[path.suffix]
    content = read_model(path, backend, variant)
    precision = precision_of(content, backend)
    asked = variant.partition("-")[2].removesuffix("-io")
    if asked and precision and precision != asked:
        note(f"{variant}: the weights are {precision}, not {asked}: nothing in this model was worth the change")
    if found.maximum_error is not None and found.maximum_error > LARGE_ERROR:
        note(
            f"{variant}: an output differs by {found.maximum_error:.2g} from the source's; where layers of a wide "
            "range (logarithm, power spectrum) became int8, keep them in float32: keep_float, --keep-float"
        )
    write_atomically(target, [content])
    seconds = time.perf_counter() - started
    return Converted(variant, target, backend, precision, digest(content), len(content), seconds, found)


def _parity(expected: Mapping[str, Array], found: Mapping[str, Array], rows: int, origin: str) -> Parity:
    """Compare numbers by their difference, and labels by the share of rows with the same one."""
    unnamed = [name for name in expected if name not in found]
    if unnamed:
        raise ModelError(
            f"{origin} has no output {unnamed[0]!r}; it has {', '.join(map(repr, found))}",
            fix="this is a defect of the conversion; please report it",
        )
    numbers = [name for name, array in expected.items() if is_float(array.dtype)]
    labels = [name for name, array in expected.items() if not is_float(array.dtype)]
    same = [np.mean(expected[name].reshape(rows, -1) == found[name].reshape(rows, -1)) for name in labels]
    return parity(
        "source",
        rows,
        {name: expected[name] for name in numbers},
        {name: found[name] for name in numbers},
        float(min(same)) if same else None,
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"tidegate.convert.{name}")


def _prints_to_stderr() -> contextlib.redirect_stdout[Any]:
    """Keep what converters print apart from results."""
    return contextlib.redirect_stdout(sys.stderr)
