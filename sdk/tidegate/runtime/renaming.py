"""A model file whose tensors have other names than the bundle's signature: converters rename as they like."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidegate.bundle.manifest import Signature, TensorSpec
from tidegate.errors import BundleError
from tidegate.runtime.backends.protocol import Array, Backend, Bound, Shape, Single, run_once


def renamed_signature(signature: Signature, tensor_names: Mapping[str, str], *, origin: str) -> Signature:
    """Return a model file's signature under the bundle's names.

    Args:
        signature: as the file states it.
        tensor_names: the file's own name by the bundle's name; tensors that are not in it keep theirs.
        origin: how messages call the file.

    Raises:
        BundleError: the file has no tensor of a stated name.
    """
    bundle_names = {own: name for name, own in tensor_names.items()}
    present = [spec.name for spec in (*signature.inputs, *signature.outputs)]
    for own, name in bundle_names.items():
        if own not in present:
            raise BundleError(
                f"{origin}: tensor_names maps {name!r} to {own!r}, which the file lacks; it has {', '.join(present)}",
                fix="correct tensor_names of that variant, and rebuild",
            )

    def renamed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(msgspec.structs.replace(spec, name=bundle_names.get(spec.name, spec.name)) for spec in specs)

    return Signature(inputs=renamed(signature.inputs), outputs=renamed(signature.outputs))


class RenamedBackend:
    """A loaded model file that goes by the bundle's names; calls are by position, so nothing is lost per call."""

    def __init__(self, inner: Backend, tensor_names: Mapping[str, str], *, origin: str) -> None:
        self.name = inner.name
        self.runtime = inner.runtime
        self.provider = inner.provider
        self.signature = renamed_signature(inner.signature, tensor_names, origin=origin)
        self._inner = inner

    def bind(self, shapes: tuple[Shape, ...]) -> Bound:
        """Prepare for inputs of these shapes."""
        return self._inner.bind(shapes)

    def bind_single(self, shape: Shape) -> Single:
        """Prepare for one input of this shape."""
        return self._inner.bind_single(shape)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Bind to the shapes of these arrays and run once."""
        return run_once(self, feeds)

    def close(self) -> None:
        """Let go of the model."""
        self._inner.close()
