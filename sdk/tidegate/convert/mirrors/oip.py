"""The mirror as Open Inference Protocol v2 metadata: what a server of that protocol answers to ModelMetadata.

The protocol gives name, versions, platform and tensors fields of their own; the rest are its `properties`, a table of
strings. In Triton and KServe a version is any string, so the semantic version stands as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.bundle.manifest import Manifest, Signature, TensorSpec, Variant
from tidegate.convert.mirrors.facts import Facts, facts_of, from_strings, to_strings, unreadable

PREFIX = "tidegate."
"""Of the properties that hold the facts; the plain ones beside them are for people."""


def metadata(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    """Return the fields of a ModelMetadataResponse for one variant.

    `description`, `licence`, `labels` (one a line), `version` and `variant` are plain properties, as
    `tidegate serve` names them; `tidegate.NAME` are the facts that `read` takes back.
    """
    facts = facts_of(manifest, variant)
    plain = {
        "version": manifest.version,
        "variant": variant.id,
        "description": manifest.description,
        "licence": manifest.licence,
        "labels": "\n".join(manifest.labels),
    }
    properties = {name: value for name, value in plain.items() if value}
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": variant.backend,
        "inputs": [_tensor(spec) for spec in manifest.signature.inputs],
        "outputs": [_tensor(spec) for spec in manifest.signature.outputs],
        "properties": properties | {PREFIX + name: value for name, value in to_strings(facts).items()},
    }


def read(answer: Mapping[str, Any], *, origin: str = "model metadata") -> Facts | None:
    """Return the facts in the properties of an answer, None when it has none.

    Raises:
        BundleError: they are damaged, or contradict the tensors beside them.
    """
    properties: Mapping[str, str] = answer.get("properties", {})
    ours = {key.removeprefix(PREFIX): value for key, value in properties.items() if key.startswith(PREFIX)}
    if not ours:
        return None
    facts = from_strings(ours, origin=origin)
    if _tensors(facts.signature) != {"inputs": list(answer["inputs"]), "outputs": list(answer["outputs"])}:
        raise unreadable(origin, ValueError("its properties and its tensors disagree"))
    return facts


def _tensors(signature: Signature) -> dict[str, list[dict[str, Any]]]:
    return {
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": list(spec.shape)}
