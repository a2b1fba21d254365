"""Parquet: tensors as nested lists, the run's facts under `tidegate` in the schema's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.bundle.dtypes import BF16
from tidegate.predict.outputs.blocks import Blocks, as_text, even_blocks
from tidegate.predict.rows import ColumnSpec, Values
from tidegate.predict.sources.parquet import import_pyarrow

METADATA_KEY = "tidegate"

_ARROW = {
    "BOOL": "bool_",
    "FP16": "float16",
    BF16: "float32",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
"""pyarrow's types that have another name than the datatype. Parquet has no bfloat16; float32 holds all of it."""


def write_parquet(path: Path, specs: Sequence[ColumnSpec], blocks: Blocks, metadata: bytes) -> None:
    """Write a file; a block is a row group.

    Raises:
        DependencyError: pyarrow is not installed.
        OSError: the disk refuses.
    """
    arrow, parquet = import_pyarrow()
    schema = arrow.schema(
        [arrow.field(spec.name, _type(arrow, spec)) for spec in specs], metadata={METADATA_KEY: metadata}
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for block in even_blocks(blocks, specs):
            writer.write_batch(_batch(arrow, schema, specs, block))


def _batch(arrow: Any, schema: Any, specs: Sequence[ColumnSpec], block: Mapping[str, Values]) -> Any:
    columns = [_column(arrow, spec, block[spec.name]) for spec in specs]
    return arrow.record_batch(columns, schema=schema)


def _column(arrow: Any, spec: ColumnSpec, values: Values) -> Any:
    if not isinstance(values, np.ndarray) or spec.dtype == "BYTES" or values.size == 0:
        return arrow.array(as_text(values, spec), type=_type(arrow, spec))
    plain = values.astype(np.float32) if spec.dtype == BF16 else np.ascontiguousarray(values)
    column = arrow.array(plain.reshape(-1))
    count = values.size
    for size in reversed(values.shape[1:]):
        count //= size
        column = arrow.ListArray.from_arrays(arrow.array(np.arange(count + 1, dtype=np.int32) * size), column)
    return column


def _type(arrow: Any, spec: ColumnSpec) -> Any:
    kind = getattr(arrow, _ARROW.get(spec.dtype, spec.dtype.lower()))()
    for _ in range(spec.rank):
        kind = arrow.list_(kind)
    return kind
