"""A bundle as an OCI image layout in the form of the CNCF ModelPack specification, ready for any OCI registry.

Sources: OCI image specification 1.1 (image-layout.md, manifest.md, descriptor.md), and of modelpack/model-spec
docs/spec.md, docs/config.md and docs/annotations.md as of 2026-07. Every file of the bundle is a layer of its own, raw,
so that a registry stores a variant once however many releases share it; the layers' paths together are the bundle
directory. Nothing in it depends on time or machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import msgspec

from tidegate.bundle import Bundle, Manifest
from tidegate.bundle.paths import MANIFEST_FILE

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

_LAYER_TYPE = "application/vnd.cncf.model.{}.v1.raw"
_DOCUMENTS = frozenset({".md", ".rst", ".txt", ".pdf", ".html"})
_CODE = frozenset({".py", ".sh", ".js", ".c", ".cpp", ".h"})
_DOCUMENT_NAMES = frozenset({"license", "licence", "notice", "readme"})

_PRECISIONS = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
"""ModelPack's word by ours."""

_FORMATS = {"litert": "tflite", "onnx": "onnx"}


@dataclass(frozen=True)
class _File:
    path: str
    content: bytes
    kind: str
    """weight, weight.config, doc, code or dataset"""


def layout(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file of the image layout, a blob before what refers to it.

    Args:
        bundle: an open bundle; every file's digest is checked as it is read.

    Raises:
        IntegrityError: a file is not what the manifest promises.
    """
    layers: list[dict[str, Any]] = []
    for file in _files(bundle):
        descriptor = _descriptor(file.content, _LAYER_TYPE.format(file.kind))
        layers.append({**descriptor, "annotations": _annotations(file)})
        yield _blob(file.content)
    config = _json(_config(bundle.manifest, [layer["digest"] for layer in layers]))
    yield _blob(config)
    manifest = _json(_image_manifest(bundle.manifest, config, layers))
    yield _blob(manifest)
    yield LAYOUT_FILE, _json({"imageLayoutVersion": "1.0.0"})
    yield INDEX_FILE, _json(_index(bundle.manifest, manifest))


def _files(bundle: Bundle) -> Iterator[_File]:
    """Yield the weights in the author's order, then the manifest, then the rest by path."""
    manifest = bundle.manifest
    for variant in manifest.variants:
        yield _File(variant.file, bundle.read(variant.file), "weight")
    yield _File(MANIFEST_FILE, bundle.manifest_bytes, "weight.config")
    weights = {variant.file for variant in manifest.variants}
    for listed in bundle.files:
        if listed.path not in weights:
            yield _File(listed.path, bundle.read(listed.path), _kind(manifest, listed.path))


def _kind(manifest: Manifest, path: str) -> str:
    if manifest.golden is not None and path == manifest.golden.file:
        return "dataset"
    name = PurePosixPath(path)
    if name.suffix.lower() in _DOCUMENTS or name.stem.lower() in _DOCUMENT_NAMES:
        return "doc"
    return "code" if name.suffix.lower() in _CODE else "weight.config"


def _annotations(file: _File) -> dict[str, str]:
    attributes = {
        "name": file.path,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": len(file.content),
        "mtime": "1970-01-01T00:00:00Z",
        "typeflag": ord("0"),  # tar's letter for a regular file
    }
    return {
        "org.cncf.model.filepath": file.path,
        "org.cncf.model.file.metadata+json": _json(attributes).decode(),
    }


def _config(manifest: Manifest, diff_ids: list[str]) -> dict[str, Any]:
    descriptor: dict[str, Any] = {
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "licenses": [manifest.licence] if manifest.licence else [],
        "revision": manifest.provenance.get("source_commit", ""),
    }
    formats = dict.fromkeys(_FORMATS[variant.backend] for variant in manifest.variants)
    words = (variant.precision.removeprefix("dynamic-") for variant in manifest.variants)
    precisions = dict.fromkeys(_PRECISIONS[word] for word in words if word in _PRECISIONS)
    config: dict[str, Any] = {
        "format": ",".join(formats),
        "precision": ",".join(precisions),
        "quantization": "dynamic" if any(v.precision.startswith("dynamic-") for v in manifest.variants) else "",
        "capabilities": {"inputTypes": _inputs(manifest), "outputTypes": _outputs(manifest)},
    }
    return {
        "descriptor": {name: value for name, value in descriptor.items() if value},
        "config": {name: value for name, value in config.items() if value},
        "modelfs": {"type": "layers", "diffIds": diff_ids},
    }


def _inputs(manifest: Manifest) -> list[str]:
    if manifest.front_end is not None:
        return [manifest.front_end.kind]
    return ["text"] if {spec.dtype for spec in manifest.signature.inputs} == {"BYTES"} else ["other"]


def _outputs(manifest: Manifest) -> list[str]:
    is_text = manifest.decoder is not None or {spec.dtype for spec in manifest.signature.outputs} == {"BYTES"}
    return ["text"] if is_text else ["other"]


def _image_manifest(manifest: Manifest, config: bytes, layers: list[dict[str, Any]]) -> dict[str, Any]:
    annotations = {
        "org.opencontainers.image.title": manifest.name,
        "org.opencontainers.image.version": manifest.version,
        "org.opencontainers.image.description": manifest.description,
        "org.opencontainers.image.licenses": manifest.licence,
        "org.opencontainers.image.revision": manifest.provenance.get("source_commit", ""),
    }
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": _descriptor(config, CONFIG_TYPE),
        "layers": layers,
        "annotations": {name: value for name, value in annotations.items() if value},
    }


def _index(manifest: Manifest, image_manifest: bytes) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [
            {
                **_descriptor(image_manifest, MANIFEST_TYPE),
                "artifactType": ARTIFACT_TYPE,
                "annotations": {"org.opencontainers.image.ref.name": manifest.version},
            }
        ],
    }


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{_hex(content)}", "size": len(content)}


def _blob(content: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{_hex(content)}", content


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(value: object) -> bytes:
    """Return compact JSON in the order given: the digest is taken of these bytes."""
    return msgspec.json.encode(value)
