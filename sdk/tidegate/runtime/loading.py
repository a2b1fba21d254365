"""From a bundle or a bare model file to a `Model`."""

from __future__ import annotations

import re
from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.bundle.manifest import Manifest, Variant
from tidegate.errors import ConfigError, DependencyError, InputError, NotFoundError
from tidegate.runtime.agreement import agreed_signature
from tidegate.runtime.backends import BACKENDS, ModelFile, installed_backends, open_model, runtime_of
from tidegate.runtime.model import Model
from tidegate.runtime.renaming import RenamedBackend

BACKEND_BY_SUFFIX = {".tflite": "litert", ".onnx": "onnx"}


def load(
    source: str | Path | Bundle,
    *,
    variant: str | None = None,
    backend: str | None = None,
    threads: int | None = None,
    raw: bool = False,
) -> Model:
    """Load a model, ready to run.

    Args:
        source: a bundle (opened, a `.tide` file or a directory), or a bare `.tflite` or `.onnx` file.
        variant: which one of the bundle; default: the first in the manifest's order whose runtime is installed.
        backend: `litert` or `onnx`: only variants of this one.
        threads: that one call may use; default 1, which is best for small models and leaves the device its other cores.
        raw: hand integer-quantised inputs and outputs through as integers; default: they are float32 outside, by the
            model's own scale and zero point.

    Raises:
        NotFoundError: no such file, variant, or variant of this backend.
        BundleError: the bundle is damaged, or its manifest and the model file disagree.
        ModelError: the runtime refuses the model.
        DependencyError: the runtime is not installed; the message names the extra.
        ConfigError: the settings cannot be meant.
        InputError: the source is no bundle and no model file.
    """
    if backend is not None and backend not in BACKENDS:
        raise ConfigError(f"no backend {backend!r}", fix=f"use one of {', '.join(BACKENDS)}")
    count = 1 if threads is None else threads
    if isinstance(source, Bundle):
        return _load_variant(source, variant, backend, count, raw)
    path = Path(source)
    if path.suffix == ".tide" or path.is_dir():
        with Bundle.open(path) as bundle:
            return _load_variant(bundle, variant, backend, count, raw)
    return _load_bare(path, variant, backend, count, raw)


def runnable_variants(manifest: Manifest) -> tuple[Variant, ...]:
    """Return the variants whose runtime is installed here and not older than they need, in the manifest's order."""
    runtimes = installed_backends()
    return tuple(
        variant
        for variant in manifest.variants
        if variant.backend in runtimes and runtime_suffices(runtimes[variant.backend], variant.minimum_runtime)
    )


def runtime_suffices(runtime: str, minimum: str) -> bool:
    """Say whether a runtime such as `onnxruntime 1.31.1` is at least of version `minimum`; "" asks for nothing."""
    return _numbers(runtime.rsplit(" ", 1)[-1]) >= _numbers(minimum)


def _load_bare(path: Path, variant: str | None, backend: str | None, threads: int, raw: bool) -> Model:
    if variant is not None:
        raise NotFoundError(
            f"{path} is a bare model without variants; asked for {variant!r}", fix="leave the variant out"
        )
    native = BACKEND_BY_SUFFIX.get(path.suffix)
    if native is None:
        raise InputError(
            f"{path} is neither a bundle (.tide, directory) nor a model file ({', '.join(BACKEND_BY_SUFFIX)})",
            fix="convert the model to one of these, or build a bundle with `tidegate build`",
        )
    if backend not in (None, native):
        raise ConfigError(f"backend {backend!r} does not run {path.suffix} files", fix=f"use backend {native!r}")
    _check_readable(path)
    return Model(open_model(native, ModelFile(str(path), path=path, threads=threads, raw=raw)))


def _load_variant(bundle: Bundle, variant: str | None, backend: str | None, threads: int, raw: bool) -> Model:
    chosen = _choose(bundle, variant, backend)
    origin = f"{bundle.path}: variant {chosen.id}"
    content = bundle.variant_bytes(chosen.id)
    opened = open_model(chosen.backend, ModelFile(origin, content=content, threads=threads, raw=raw))
    if chosen.tensor_names:
        opened = RenamedBackend(opened, chosen.tensor_names, origin=origin)
    signature = agreed_signature(bundle.manifest.signature, opened.signature, origin=origin, raw=raw)
    return Model(opened, signature=signature, manifest=bundle.manifest, variant_id=chosen.id)


def _choose(bundle: Bundle, variant: str | None, backend: str | None) -> Variant:
    """Return the first candidate whose runtime is installed, importing no runtime that is not needed for it."""
    candidates = bundle.manifest.variants if variant is None else (bundle.variant(variant),)
    if backend is not None:
        candidates = tuple(item for item in candidates if item.backend == backend)
    if not candidates:
        known = ", ".join(f"{item.id} ({item.backend})" for item in bundle.manifest.variants)
        asked = f"variant {variant!r} for backend {backend!r}" if variant else f"variant for backend {backend!r}"
        raise NotFoundError(f"bundle {bundle.path} has no {asked}; it has {known}", fix="choose one of these")
    refusals = []
    for candidate in candidates:
        try:
            runtime = runtime_of(candidate.backend)
        except DependencyError as error:
            refusals.append((f"{candidate.id}: {error.message}", error.fix))
            continue
        if runtime_suffices(runtime, candidate.minimum_runtime):
            return candidate
        refusals.append(
            (f"{candidate.id}: needs version {candidate.minimum_runtime}, found {runtime}", "upgrade that runtime")
        )
    raise DependencyError(
        f"bundle {bundle.path}: no variant can run here ({'; '.join(reason for reason, _ in refusals)})",
        fix=" or ".join(dict.fromkeys(fix for _, fix in refusals if fix)),
    )


def _check_readable(path: Path) -> None:
    """Tell a missing file from a bad model before a runtime blurs the two."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise NotFoundError(
            f"{path} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from error


def _numbers(version: str) -> tuple[int, ...]:
    found = [int(number) for number in re.findall(r"\d+", version)[:3]]
    # 2.1 and 2.1.0 are the same version.
    return (*found, *([0] * (3 - len(found))))
