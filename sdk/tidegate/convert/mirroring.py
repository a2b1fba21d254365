"""Write the mirrors of a manifest into the variants of its release."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tidegate.bundle import Manifest, Variant, digest
from tidegate.bundle.manifest import BackendName
from tidegate.convert.mirrors import onnx, tflite
from tidegate.convert.mirrors.facts import Facts, facts_of


def mirrored(
    manifest: Manifest, files: dict[str, bytes], note: Callable[[str], None] = lambda sentence: None
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the release with its facts inside every variant that can hold them, and the digests of those files.

    Args:
        manifest: of the release.
        files: content by path inside the bundle.
        note: receives a sentence for each variant that stays as it is.

    Raises:
        BundleError: a model file is damaged, or would grow beyond what its format holds.
        DependencyError: the `flatbuffers` package is not installed.
    """
    written = dict(files)
    variants: list[Variant] = []
    for variant in manifest.variants:
        content = files[variant.file]
        reason = obstacle(variant, content)
        if reason:
            note(f"variant {variant.id!r} is packed without a mirror of the manifest: {reason}")
        else:
            content = write(variant, content, facts_of(manifest, variant))
        written[variant.file] = content
        variants.append(msgspec.structs.replace(variant, sha256=digest(content), size_bytes=len(content)))
    return msgspec.structs.replace(manifest, variants=tuple(variants)), written


def obstacle(variant: Variant, content: bytes) -> str:
    """Return why a variant cannot hold a mirror, "" when it can.

    Raises:
        BundleError: the model file is damaged.
    """
    return tflite.obstacle(content) if variant.backend == "litert" else ""


def write(variant: Variant, content: bytes, facts: Facts) -> bytes:
    """Return the model file with these facts inside.

    Raises:
        BundleError: it is damaged.
        DependencyError: the `flatbuffers` package is not installed.
    """
    return tflite.write(content, facts) if variant.backend == "litert" else onnx.write(content, facts)


def without(variant: Variant, content: bytes) -> bytes:
    """Return the model file as the author gave it.

    Raises:
        BundleError: it is damaged.
    """
    return tflite.without(content) if variant.backend == "litert" else onnx.without(content)


def read(variant: Variant, content: bytes) -> Facts | None:
    """Return the facts that a variant's file carries, None when it has none.

    Raises:
        BundleError: they are damaged.
    """
    return facts_in(variant.backend, content, origin=f"variant {variant.id!r}")


def facts_in(backend: BackendName, content: bytes, *, origin: str) -> Facts | None:
    """Return the facts that a model file carries, None when it has none.

    Raises:
        BundleError: they are damaged.
    """
    return tflite.read(content, origin=origin) if backend == "litert" else onnx.read(content, origin=origin)
