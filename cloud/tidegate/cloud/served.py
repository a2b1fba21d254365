"""One version of a model in memory: loaded, proven on its golden fixture, and ready to be called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle import Bundle, Manifest, Signature
from tidegate.cloud.batching import Batcher, BatchSettings
from tidegate.cloud.queueing import Arrays
from tidegate.cloud.rows import rows_are_independent
from tidegate.cloud.short_runs import ShortRuns, cost_follows_shape
from tidegate.cloud.statistics import Statistics
from tidegate.errors import ModelError
from tidegate.runtime import Model, load
from tidegate.runtime.process import resident_bytes
from tidegate.runtime.validation import checked_feeds
from tidegate.speech import Catalogue, Transcriber

CATALOGUE_ASSET = "catalogue"

FORMS_KEPT = 256
"""Sets of input dtypes and shapes that a version remembers as right."""


@dataclass(frozen=True)
class LoadSettings:
    """How versions are loaded."""

    variant: str | None = None
    """id; None for the first whose runtime is installed"""
    threads: int | None = None
    """of the runtime, per model; None for its default"""
    catalogue: bytes | None = None
    """JSON lines that replace the bundles' own catalogues"""
    batching: BatchSettings = field(default_factory=BatchSettings)
    """for models that can be batched"""
    batching_by_model: Mapping[str, BatchSettings] = field(default_factory=dict)
    """exceptions"""


class Usage:
    """Counts who uses a version, so that it is freed by the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._users = 0
        self._on_unused: Callable[[], None] | None = None

    @property
    def users(self) -> int:
        """Requests in flight."""
        return self._users

    def begin(self) -> bool:
        """Count one more user; False when the version is retired, and another one has to be looked up."""
        with self._lock:
            if self._on_unused is not None:
                return False
            self._users += 1
            return True

    def end(self) -> None:
        """Count one user less; the last one of a retired version frees it."""
        with self._lock:
            self._users -= 1
            on_unused = self._on_unused
            if on_unused is None or self._users:
                return
        self._free(on_unused)

    def retire(self, on_unused: Callable[[], None]) -> None:
        """Let nobody begin any more, and have `on_unused` called after the last user: now, if there is none.

        Args:
            on_unused: called once, from the thread of the last user or from this one.
        """
        with self._changed:
            self._on_unused = on_unused
            if self._users:
                return
        self._free(on_unused)

    def wait_until_freed(self, timeout_s: float) -> bool:
        """Wait until the retired version was freed; return whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._users < 0, timeout_s)

    def _free(self, on_unused: Callable[[], None]) -> None:
        on_unused()
        with self._changed:
            self._users = -1
            self._changed.notify_all()


@dataclass(frozen=True)
class ServedModel:
    """One loaded, warm version of a model."""

    manifest: Manifest
    model: Model
    transcriber: Transcriber | None
    """None: not a speech model"""
    catalogue: Catalogue | None
    batcher: Batcher
    """runs requests for tensors"""
    statistics: Statistics
    memory_bytes: int = 0
    """what the process grew by while this version was loaded; 0 where it cannot be told"""
    usage: Usage = field(default_factory=Usage)
    reference_profile: bytes | None = None
    """the bundle's, as it is in the file; what values are counted against"""

    @property
    def name(self) -> str:
        """The bundle's name, by which it is called."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.manifest.version

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        return self.model.signature

    def checked(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Return the inputs in the signature's order, after checking names, dtypes, shapes and numbers.

        Dtypes and shapes that passed before pass again without another look, unless the numbers count as well.

        Raises:
            InputError: as `tidegate.runtime.validation.checked_feeds`.
        """
        names = self._input_names
        if len(feeds) == len(names):
            found = [feeds.get(name) for name in names]
            form = tuple([(array.dtype, array.shape) for array in found if array.__class__ is np.ndarray])
            if form in self._passed and len(form) == len(names):
                return tuple(found)  # type: ignore[arg-type]
        arrays = tuple(checked_feeds(self.signature, feeds))
        if self._form_suffices and len(self._passed) < FORMS_KEPT:
            self._passed.add(tuple([(array.dtype, array.shape) for array in arrays]))
        return arrays

    @cached_property
    def _input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.model.signature.inputs)

    @cached_property
    def _form_suffices(self) -> bool:
        return not any(spec.finite or spec.dtype == "BYTES" for spec in self.model.signature.inputs)

    @cached_property
    def _passed(self) -> set[tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]]:
        return set()

    @cached_property
    def output_names(self) -> list[str]:
        """Every output, in the signature's order."""
        return [spec.name for spec in self.model.signature.outputs]

    def close(self) -> None:
        """Free the model and the index."""
        self.batcher.close()
        self.model.close()
        if self.catalogue is not None:
            self.catalogue.close()

    def let_go(self) -> None:
        """Free a version that was replaced. A recognition stream keeps the version it began with until it ends."""
        if self.transcriber is None:
            self.close()
        else:
            self.batcher.close()


def load_served(
    path: Path, *, variant: str | None = None, threads: int | None = None, catalogue: bytes | None = None
) -> ServedModel:
    """Open a bundle, load one variant, and prove it on the golden fixture before anybody may call it.

    Raises:
        As `load_bundle`, and what `Bundle.open` raises.
    """
    with Bundle.open(path) as bundle:
        return load_bundle(bundle, LoadSettings(variant, threads, catalogue))


def load_bundle(
    bundle: Bundle,
    settings: LoadSettings,
    *,
    on_loaded: Callable[[], None] = lambda: None,
    computing: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> ServedModel:
    """Load one variant of an open bundle and prove it on the golden fixture before anybody may call it.

    Args:
        bundle: open; it may be closed afterwards.
        settings: which variant, and how.
        on_loaded: told between loading and warming.
        computing: entered around every run.

    Raises:
        NotFoundError, BundleError, IntegrityError, DependencyError: as `tidegate.runtime.load`.
        InputError: the catalogue is not one.
        ModelError: the model does not load, or answers the golden inputs otherwise than the bundle promises.
    """
    before_bytes = resident_bytes() or 0
    manifest = bundle.manifest
    is_speech = manifest.front_end is not None and manifest.decoder is not None
    raw_catalogue = settings.catalogue if settings.catalogue is not None else bundle.asset(CATALOGUE_ASSET)
    model = load(bundle, variant=settings.variant, threads=settings.threads)
    try:
        on_loaded()
        _warm_up(bundle, model)
        statistics = Statistics()
        short = ShortRuns(cost_follows_shape(model.backend, bundle.variant_bytes(model.variant_id)))
        batching = settings.batching_by_model.get(manifest.name, settings.batching)
        if batching.padding is not None:
            batching.padding.check(model.signature)
        return ServedModel(
            manifest=manifest,
            model=model,
            transcriber=Transcriber(model) if is_speech else None,
            catalogue=Catalogue.from_jsonl(raw_catalogue) if is_speech and raw_catalogue is not None else None,
            batcher=Batcher(
                manifest.name,
                _by_position(model),
                batching,
                statistics,
                batched=batching.maximum_rows > 1 and rows_are_independent(model, bundle.golden()),
                short=short,
                computing=computing,
            ),
            statistics=statistics,
            memory_bytes=max(0, (resident_bytes() or 0) - before_bytes),
            reference_profile=bundle.reference_profile(),
        )
    except BaseException:
        model.close()
        raise


def _by_position(model: Model) -> Callable[[Arrays], Arrays]:
    """Return the model as a function of arrays in the signature's order."""
    inputs = [spec.name for spec in model.signature.inputs]
    outputs = [spec.name for spec in model.signature.outputs]
    if len(inputs) == len(outputs) == 1:

        def single(arrays: Arrays) -> Arrays:
            return (model(arrays[0]),)

        return single

    def several(arrays: Arrays) -> Arrays:
        found = model.run(dict(zip(inputs, arrays, strict=True)))
        return tuple([found[name] for name in outputs])

    return several


def _warm_up(bundle: Bundle, model: Model) -> None:
    """Run the golden inputs once: the first call pays for lazy set-up, and a broken model never becomes ready."""
    golden, promise = bundle.golden(), bundle.manifest.golden
    if golden is None or promise is None:
        return
    tolerance = promise.tolerance_by_variant.get(model.variant_id, promise.tolerance)
    worst = [error for error in golden.compare(model.run(golden.inputs), tolerance) if not error.within]
    if worst:
        raise ModelError(
            f"{bundle.path}: variant {model.variant_id} answers the golden inputs otherwise than promised: output "
            f"{worst[0].name!r} {worst[0].problem or f'is off by {worst[0].maximum_error:g}'}; "
            f"tolerance {tolerance:g}",
            fix="run `tidegate verify` on the bundle and serve another variant with --variant",
        )
