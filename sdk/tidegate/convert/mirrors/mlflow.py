"""The mirror as an MLflow model: a folder with `MLmodel`, its signature in MLflow's tensor form, and the bundle.

The flavour is `python_function`, loaded by `tidegate.runtime.pyfunc`, so that `mlflow.pyfunc.load_model(DIR)` runs the
bundle on whichever backend is installed. All facts are in `metadata`. Only the fields that MLflow reads are written:
time and identity would make two exports of one release differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import numpy_dtype, oip_name
from tidegate.bundle.manifest import Manifest, Signature, TensorSpec
from tidegate.convert.mirrors.facts import Facts, facts_of, from_strings, to_strings, unreadable
from tidegate.convert.mirrors.yaml_text import Plain, document
from tidegate.errors import BundleError, InputError

MODEL_FILE = "MLmodel"
BUNDLE_FILE = "bundle.tide"
REQUIREMENTS_FILE = "requirements.txt"
LOADER = "tidegate.runtime.pyfunc"
PREFIX = "tidegate."


def files(manifest: Manifest, bundle: bytes, tidegate_version: str) -> dict[str, bytes]:
    """Return the files of the MLflow model by name.

    Args:
        manifest: of the bundle.
        bundle: the `.tide` archive.
        tidegate_version: what the requirements ask for at least.

    Raises:
        BundleError: a tensor's datatype has no numpy dtype, so MLflow cannot state it.
    """
    # The extras of the distribution are called as the backends are.
    extras = ",".join(sorted({variant.backend for variant in manifest.variants}))
    return {
        MODEL_FILE: _mlmodel(manifest, len(bundle)).encode(),
        REQUIREMENTS_FILE: f"tidegate[{extras}]>={tidegate_version}\n".encode(),
        BUNDLE_FILE: bundle,
    }


def read(mlmodel: Mapping[str, Any], *, origin: str = MODEL_FILE) -> Facts | None:
    """Return the facts in a parsed `MLmodel`, None when it has none.

    Raises:
        BundleError: they are damaged, or contradict the signature beside them.
    """
    metadata: Mapping[str, str] = mlmodel.get("metadata") or {}
    ours = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    if not ours:
        return None
    facts = from_strings(ours, origin=origin)
    stated = signature(mlmodel["signature"], origin=origin)
    if _bare(stated) != _bare(facts.signature):
        raise unreadable(origin, ValueError("its metadata and its signature disagree"))
    return facts


def signature(table: Mapping[str, Any], *, origin: str = MODEL_FILE) -> Signature:
    """Return the signature of an `MLmodel`'s `signature` table, which holds JSON in strings.

    Raises:
        BundleError: it is none of tensors.
    """
    try:
        return Signature(
            inputs=tuple(_spec(item) for item in json.loads(table["inputs"])),
            outputs=tuple(_spec(item) for item in json.loads(table["outputs"])),
        )
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise unreadable(origin, error) from error


def _mlmodel(manifest: Manifest, size_bytes: int) -> str:
    facts = to_strings(facts_of(manifest))
    tables: dict[str, Plain] = {
        "flavors": {"python_function": {"loader_module": LOADER, "data": BUNDLE_FILE}},
        "metadata": {PREFIX + name: value for name, value in facts.items()},
        "model_size_bytes": size_bytes,
        "signature": {
            "inputs": json.dumps([_tensor(spec) for spec in manifest.signature.inputs]),
            "outputs": json.dumps([_tensor(spec) for spec in manifest.signature.outputs]),
        },
    }
    return document(tables)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    try:
        dtype = numpy_dtype(spec.dtype).name
    except InputError as error:
        raise BundleError(f"tensor {spec.name!r}: {error.message}", fix="cast it to FP32 inside the model") from error
    return {"name": spec.name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(spec.shape)}}


def _spec(item: Mapping[str, Any]) -> TensorSpec:
    tensor = item["tensor-spec"]
    return TensorSpec(name=item["name"], dtype=oip_name(np.dtype(tensor["dtype"])), shape=tuple(tensor["shape"]))


def _bare(whole: Signature) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.dtype, spec.shape) for spec in (*whole.inputs, *whole.outputs)]
