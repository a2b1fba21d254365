"""A loaded model: checks what comes in, runs it, and may be called from several threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import NUMPY_BY_NAME
from tidegate.bundle.manifest import Manifest, Signature
from tidegate.errors import InputError, StateError
from tidegate.runtime.backends.protocol import Array, Backend, Bound, Shape
from tidegate.runtime.validation import checked_array, checked_feeds, is_finite

_ndarray = np.ndarray


class Model:
    """One variant, ready to run. Made by `tidegate.runtime.load`.

    Several threads may call it; calls take turns. It is a context manager, and `close` frees the runtime's memory.

    An array of the same dtype object and shape as in the call before takes a short way: three comparisons stand in for
    the whole check, and the runtime is already set for that shape. Any other array is checked in full.
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
        self._lock = threading.Lock()
        self._output_names = [spec.name for spec in self._ordered.outputs]
        self._is_one_to_one = len(self._ordered.inputs) == len(self._ordered.outputs) == 1
        self._input_name = self._ordered.inputs[0].name if self._is_one_to_one else ""
        self._output_name = self._output_names[0] if self._is_one_to_one else ""
        self._finite = any(spec.finite for spec in self._ordered.inputs)
        # What the short way compares with; None never equals, so that the full check comes first.
        self._shapes: tuple[Shape, ...] | None = None
        self._shape: Shape | None = None
        self._dtype: np.dtype[Any] | None = None
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
            StateError: the model is closed.
        """
        with self._lock:
            if len(feeds) == 1:
                array: Any = feeds.get(self._input_name)
                if array.__class__ is _ndarray and array.dtype is self._dtype and array.shape == self._shape:
                    if self._finite and not is_finite(array):
                        checked_feeds(self._ordered, feeds)
                    return {self._output_name: self._bound(array)[0]}
            return dict(zip(self._output_names, self._run_checked(feeds), strict=True))

    def __call__(self, array: Array) -> Array:
        """Run a model that has one input and one output.

        Args:
            array: of exactly the input's dtype and of a shape that fits.

        Returns:
            A fresh array.

        Raises:
            InputError: the array does not fit, or the model has several inputs or outputs.
            ModelError: the runtime failed.
            StateError: the model is closed.
        """
        with self._lock:
            if array.__class__ is _ndarray and array.dtype is self._dtype and array.shape == self._shape:
                if self._finite and not is_finite(array):
                    checked_array(self._ordered.inputs[0], array)
                return self._bound(array)[0]
            return self._call_checked(array)

    def close(self) -> None:
        """Free the runtime's memory; a later call raises StateError. A second close does nothing."""
        with self._lock:
            backend, self._opened = self._opened, None
            self._shapes = self._shape = self._dtype = None
            self._bound = _not_bound
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
        (output,) = self._run_checked({self._input_name: array})
        return output

    def _run_checked(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Check, bind if the shapes changed, run. The lock is held."""
        backend = self._opened
        if backend is None:
            raise StateError("the model is closed", fix="load it again with tidegate.runtime.load")
        arrays = checked_feeds(self._ordered, feeds)
        shapes = tuple([array.shape for array in arrays])
        if shapes != self._shapes:
            self._bind(backend, shapes)
        return self._bound(*arrays)

    def _bind(self, backend: Backend, shapes: tuple[Shape, ...]) -> None:
        # A backend that fails half-way has no shapes set: forget the old ones first.
        self._shapes = self._shape = self._dtype = None
        self._bound = backend.bind(shapes)
        self._shapes = shapes
        if self._is_one_to_one:
            dtype = NUMPY_BY_NAME[self._ordered.inputs[0].dtype]
            # What an object array holds is not known from its dtype: strings always take the full check.
            if dtype.kind != "O":
                self._shape, self._dtype = shapes[0], dtype


def _not_bound(*arrays: Array) -> tuple[Array, ...]:
    raise StateError("the model is not bound to any shape", fix="this is a defect of Tidegate; please report it")
