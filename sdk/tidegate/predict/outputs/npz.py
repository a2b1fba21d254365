"""`.npz`: an array a column, written stretch by stretch, a pass over the parts for each column.

Text is written as `tidegate.bundle.arrays` does: `bytes:NAME` and `shape:NAME`. The run's facts are the JSON text in
the array `tidegate`.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import numpy_dtype
from tidegate.errors import InputError
from tidegate.predict.outputs.blocks import Blocks
from tidegate.predict.rows import ColumnSpec, Values, shapes_of
from tidegate.predict.sources.npz import BYTES_PREFIX, SHAPE_PREFIX

METADATA_ARRAY = "tidegate"
_MIDNIGHT = (1980, 1, 1, 0, 0, 0)


def write_npz(path: Path, specs: Sequence[ColumnSpec], blocks: Blocks, metadata: bytes) -> None:
    """Write a file; the same rows give the same bytes.

    Raises:
        InputError: a column whose rows differ in shape, which one array cannot hold.
        OSError: the disk refuses.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for spec in specs:
            shape = _shape(spec, (block[spec.name] for block in blocks()))
            if spec.dtype == "BYTES":
                _add(archive, f"{SHAPE_PREFIX}{spec.name}", np.array(shape, np.int64))
                size = sum(len(raw) for raw in _texts(blocks, spec.name))
                name = f"{BYTES_PREFIX}{spec.name}"
                _add_stream(archive, name, np.dtype(np.uint8), (size,), _texts(blocks, spec.name))
            else:
                _add_stream(archive, spec.name, numpy_dtype(spec.dtype), shape, _numbers(blocks, spec.name))
        _add(archive, METADATA_ARRAY, np.array(metadata.decode()))


def _shape(spec: ColumnSpec, parts: Iterator[Values]) -> tuple[int, ...]:
    """Return the shape of the whole column."""
    rows, shapes = 0, set[tuple[int, ...]]()
    for values in parts:
        if len(values):
            rows += len(values)
            shapes |= shapes_of(values)
    if len(shapes) > 1:
        found = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise InputError(
            f"column {spec.name!r} changes its shape from row to row: {found}", fix="write .parquet or .jsonl"
        )
    return (rows, *(next(iter(shapes)) if shapes else (0,) * spec.rank))


def _numbers(blocks: Blocks, name: str) -> Iterator[bytes]:
    for block in blocks():
        for values in [block[name]] if isinstance(block[name], np.ndarray) else block[name]:
            array = np.asarray(values)
            yield np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _texts(blocks: Blocks, name: str) -> Iterator[bytes]:
    for block in blocks():
        for values in block[name]:
            for item in np.asarray(values, object).reshape(-1).tolist():
                yield len(item).to_bytes(4, "little") + item


def _add(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    _add_stream(archive, name, array.dtype, array.shape, iter([array.tobytes()]))


def _add_stream(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], raw: Iterator[bytes]
) -> None:
    header = io.BytesIO()
    described = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _MIDNIGHT), "w", force_zip64=True) as member:
        member.write(header.getvalue())
        for chunk in raw:
            member.write(chunk)
