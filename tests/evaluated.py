"""Small bundles to evaluate: linear models whose right answers can be written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.models import make_onnx

from tidegate.bundle import Manifest, Signature, TensorSpec, Variant, digest, write_bundle

FEATURES = 3


def linear_model(folder: Path, name: str, weights: NDArray[Any], *, softmax: bool = True) -> Path:
    """Write y[rows, k] = softmax(x[rows, 3] @ weights) and return its path."""
    last = ("Softmax", ["z"], ["y"]) if softmax else ("Identity", ["z"], ["y"])
    return make_onnx(
        folder / f"{name}.onnx",
        [("MatMul", ["x", "w"], ["z"]), last],
        {"x": ("FP32", ["rows", FEATURES])},
        {"y": ("FP32", ["rows", weights.shape[1]])},
        {"w": weights.astype(np.float32)},
    )


def write_linear_bundle(
    folder: Path,
    variants: Mapping[str, NDArray[Any]],
    *,
    labels: Sequence[str] = (),
    name: str = "linear",
    version: str = "1.0.0",
    softmax: bool = True,
    finite: bool = True,
) -> Path:
    """Write a bundle of linear models, one variant each, and return its path."""
    columns = next(iter(variants.values())).shape[1]
    files = {
        f"variants/{id}.onnx": linear_model(folder, f"{name}-{version}-{id}", weights, softmax=softmax).read_bytes()
        for id, weights in variants.items()
    }
    manifest = Manifest(
        schema="tidegate.bundle/1",
        name=name,
        version=version,
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, FEATURES), finite=finite),),
            outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, columns)),),
        ),
        labels=tuple(labels),
        variants=tuple(
            Variant(
                id=id,
                backend="onnx",
                precision="fp32",
                file=f"variants/{id}.onnx",
                sha256=digest(files[f"variants/{id}.onnx"]),
                size_bytes=len(files[f"variants/{id}.onnx"]),
            )
            for id in variants
        ),
    )
    path = folder / f"{name}-{version}.tide"
    write_bundle(manifest, files, path)
    return path


def save(path: Path, **arrays: Any) -> Path:
    """Write an .npz; `__` in a name stands for `/`."""
    named: dict[str, Any] = {name.replace("__", "/"): np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **named)
    return path
