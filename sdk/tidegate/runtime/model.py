"""A loaded model: checks what comes in, runs it, and may be called from several threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import numpy_dtype
from tidegate.bundle.manifest import Manifest, Signature, TensorSpec
from tidegate.errors import InputError, ResourceError, StateError
from tidegate.runtime.backends.protocol import Array, Backend, Bound, Shape, Single
from tidegate.runtime.validation import check_finite, checked_feeds

_ndarray = np.ndarray

SHAPES_KNOWN = 256
"""Shapes that a model with a single input remembers as right."""


class Model:
    """One variant, ready to run. Made by `tidegate.runtime.load`.

    Several threads may call it; calls take turns. It is a context manager, and `close` frees the runtime's memory.

    An array of the same dtype object and shape as in the call before takes a short way: three comparisons stand in for
    the whole check, and the runtime is already set for that shape. `Model(array)` knows other shapes that were right
    before, so that a server's batches are not checked again and again. Any other array is checked in full.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        signature: Signature | None = None,
        manifest: Manifest | None = None,
        variant_id: str = "",
    ) -> None:
        """Wrap a loaded backend.

        Args:
            backend: the loaded model file; this object closes it.
            signature: what to state and check instead of the file's own; the same names.
            manifest: the bundle's, None for a bare file.
            variant_id: of the manifest, "" for a bare file.
        """
        self.signature = signature or backend.signature
        self.manifest = manifest
        self.variant_id = variant_id
        self.backend = backend.name
        self.runtime = backend.runtime
        self.provider = backend.provider
        specs = {spec.name: spec for spec in self.signature.inputs}
        self._ordered = Signature(
            inputs=tuple(specs[spec.name] for spec in backend.signature.inputs), outputs=backend.signature.outputs
        )
        self._opened: Backend | None = backend
        # Reentrant, so that a Ctrl-C that lands between `acquire` and `try` below does not hang `close`.
        self._lock = threading.RLock()
        self._output_names = [spec.name for spec in self._ordered.outputs]
        self._is_one_to_one = len(self._ordered.inputs) == len(self._ordered.outputs) == 1
        self._input_name = self._ordered.inputs[0].name if self._is_one_to_one else ""
        self._output_name = self._output_names[0] if self._is_one_to_one else ""
        # What the short way compares with; None never equals, so that the full check comes first.
        self._shapes: tuple[Shape, ...] | None = None
        self._shape: Shape | None = None
        self._dtype: np.dtype[Any] | None = None
        self._passed: set[Shape] = set()
        """shapes of a single input that were run before, with `_passed_dtype`"""
        self._passed_dtype: np.dtype[Any] | None = None
        self._single: Single = _not_bound
        self._bound: Bound = _not_bound

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Args:
            feeds: one array for each input of the signature, of exactly its dtype and of a shape that fits.

        Returns:
            A fresh array for each output, by name.

        Raises:
            InputError: a name, dtype, shape or NaN does not fit; nothing has run.
            ModelError: the runtime failed.
            ResourceError: not enough memory.
            StateError: the model is closed.
        """
        lock = self._lock
        lock.acquire()
        try:
            if len(feeds) == 1 and self._input_name in feeds:
                array = feeds[self._input_name]
                if array.__class__ is _ndarray and array.dtype is self._dtype and array.shape == self._shape:
                    return {self._output_name: self._single(array)}
            return dict(zip(self._output_names, self._run_checked(feeds), strict=True))
        finally:
            lock.release()

    def __call__(self, array: Array) -> Array:
        """Run a model that has one input and one output.

        Args:
            array: of exactly the input's dtype and of a shape that fits.

        Returns:
            A fresh array.

        Raises:
            InputError: the array does not fit, or the model has several inputs or outputs.
            ModelError: the runtime failed.
            ResourceError: not enough memory.
            StateError: the model is closed.
        """
        # `with` costs more than acquire and release do.
        lock = self._lock
        lock.acquire()
        try:
            if array.__class__ is _ndarray and array.dtype is self._dtype and array.shape == self._shape:
                return self._single(array)
            return self._call_checked(array)
        finally:
            lock.release()

    def close(self) -> None:
        """Free the runtime's memory; a later call raises StateError. A second close does nothing."""
        with self._lock:
            backend, self._opened = self._opened, None
            self._unbind()
            if backend is not None:
                backend.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        of = f"{self.manifest.name} {self.manifest.version} {self.variant_id}" if self.manifest else "bare model"
        return f"<Model {of} on {self.runtime}, {self.provider}>"

    def _call_checked(self, array: Array) -> Array:
        if not self._is_one_to_one:
            raise InputError(
                f"the model has {len(self.signature.inputs)} inputs and {len(self.signature.outputs)} outputs; "
                "calling it with one array needs one of each",
                fix="use model.run({name: array, ...})",
            )
        if array.__class__ is _ndarray and array.dtype is self._passed_dtype and array.shape in self._passed:
            return self._run_bound(self._backend(), [array])[0]
        (output,) = self._run_checked({self._input_name: array})
        return output

    def _backend(self) -> Backend:
        if self._opened is None:
            raise StateError("the model is closed", fix="load it again with tidegate.runtime.load")
        return self._opened

    def _run_checked(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Check and run. The lock is held."""
        backend = self._backend()
        return self._run_bound(backend, checked_feeds(self._ordered, feeds))

    def _run_bound(self, backend: Backend, arrays: list[Array]) -> tuple[Array, ...]:
        """Bind if the shapes changed, and run."""
        shapes = tuple([array.shape for array in arrays])
        try:
            if shapes != self._shapes:
                self._bind(backend, shapes)
            return (self._single(arrays[0]),) if self._is_one_to_one else self._bound(*arrays)
        except MemoryError as error:
            raise ResourceError(
                f"not enough memory for inputs of shape {', '.join(str(list(shape)) for shape in shapes)}: {error}",
                fix="run it in smaller batches",
            ) from error

    def _bind(self, backend: Backend, shapes: tuple[Shape, ...]) -> None:
        # A backend that fails half-way is set for no shape: forget the old one first.
        self._unbind()
        if not self._is_one_to_one:
            self._bound = backend.bind(shapes)
        else:
            single, spec = backend.bind_single(shapes[0]), self._ordered.inputs[0]
            self._single = _finite_only(spec, single) if spec.finite else single
            # What an object array holds is not known from its dtype: strings always take the full check.
            if spec.dtype != "BYTES":
                self._shape, self._dtype = shapes[0], numpy_dtype(spec.dtype)
                self._passed_dtype = self._dtype
                if len(self._passed) < SHAPES_KNOWN:
                    self._passed.add(shapes[0])
        self._shapes = shapes

    def _unbind(self) -> None:
        self._shapes = self._shape = self._dtype = None
        self._single, self._bound = _not_bound, _not_bound


def _finite_only(spec: TensorSpec, single: Single) -> Single:
    def call(array: Array) -> Array:
        check_finite(spec, array)
        return single(array)

    return call


def _not_bound(*arrays: Array) -> Any:
    raise StateError("the model is not bound to any shape", fix="this is a defect of Tidegate; please report it")
