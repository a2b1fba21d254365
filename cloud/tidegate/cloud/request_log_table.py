"""Kept requests as tables: a column for each input under its own name, as `tidegate predict` takes them.

Outputs are called `output.NAME`, everything else `log.NAME`. An input whose name collides with one of those becomes
`input.NAME`. Arrays are nested lists of their own element type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.cloud.request_log_record import LoggedRequest, LoggedSegment, Record
from tidegate.errors import DependencyError

Shape = tuple[Any, ...]


def pyarrow() -> Any:
    """Return the package.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError(
            f"logging requests needs pyarrow: {error}", fix="pip install 'tidegate[batch]'"
        ) from error
    return pyarrow


def shape_of(record: Record) -> Shape:
    """Return what records have in common that can share a table."""
    if isinstance(record, LoggedSegment):
        return ("speech",)
    columns = [
        (kind, name, array.dtype.str if array.dtype != object else "object", array.ndim)
        for kind, arrays in (("input", record.inputs), ("output", record.outputs))
        for name, array in sorted(arrays.items())
    ]
    return ("tensors", record.rows_first, *columns)


def table(records: Sequence[Record]) -> Any:
    """Return records of one shape as a table of pyarrow."""
    segments = [record for record in records if isinstance(record, LoggedSegment)]
    return _speech(segments) if segments else _tensors([one for one in records if isinstance(one, LoggedRequest)])


def _tensors(records: Sequence[LoggedRequest]) -> Any:
    arrow = pyarrow()
    rows = [_rows(record) for record in records]
    each = [record for record, count in zip(records, rows, strict=True) for _ in range(count)]
    columns: dict[str, Any] = {
        **_common(each),
        "log.id": arrow.array([one.id for one in each], arrow.string()),
        "log.row": arrow.array([row for count in rows for row in range(count)], arrow.int32()),
        "log.took_ms": arrow.array([one.took_ms for one in each], arrow.float64()),
        "log.error_kind": arrow.array([one.error_kind for one in each], arrow.string()),
        "log.error": arrow.array([one.error for one in each], arrow.string()),
    }
    first = records[0]
    for name in sorted(first.outputs):
        columns[f"output.{name}"] = nested([cell for one in records for cell in _cells(one, one.outputs[name])])
    for name in sorted(first.inputs):
        cells = [cell for one in records for cell in _cells(one, one.inputs[name])]
        columns[f"input.{name}" if name in columns else name] = nested(cells)
    return arrow.table(columns)


def _speech(records: Sequence[LoggedSegment]) -> Any:
    arrow = pyarrow()
    return arrow.table(
        {
            **_common(records),
            "log.segment_id": arrow.array([one.segment_id for one in records], arrow.uint64()),
            "log.start_s": arrow.array([one.start_s for one in records], arrow.float64()),
            "log.end_s": arrow.array([one.end_s for one in records], arrow.float64()),
            "log.device_bundle": arrow.array([one.device_bundle for one in records], arrow.string()),
            "audio": arrow.array([one.audio for one in records], arrow.binary()),
            "sample_rate_hz": arrow.array([one.sample_rate_hz for one in records], arrow.int32()),
            "output.transcript": arrow.array([one.transcript for one in records], arrow.string()),
            "output.label": arrow.array([one.rejected_label for one in records], arrow.string()),
        }
    )


def _common(each: Sequence[Record]) -> dict[str, Any]:
    arrow = pyarrow()
    times_us = [one.time_ns // 1000 for one in each]
    return {
        "log.time": arrow.array(times_us, arrow.timestamp("us", tz="UTC")),
        "log.model": arrow.array([one.model for one in each], arrow.string()),
        "log.version": arrow.array([one.version for one in each], arrow.string()),
        "log.label": arrow.array([one.label for one in each], arrow.string()),
        "log.variant": arrow.array([one.variant for one in each], arrow.string()),
        "log.reasons": arrow.array([list(one.reasons) for one in each], arrow.list_(arrow.string())),
        "log.share": arrow.array([one.share for one in each], arrow.float64()),
        "log.confidence": arrow.array([one.confidence for one in each], arrow.float64()),
    }


def _rows(record: LoggedRequest) -> int:
    if not record.rows_first:
        return 1
    return min((len(array) for arrays in (record.inputs, record.outputs) for array in arrays.values()), default=1)


def _cells(record: LoggedRequest, array: NDArray[Any]) -> list[NDArray[Any]]:
    return [array[row, ...] for row in range(_rows(record))] if record.rows_first else [array]


def nested(cells: Sequence[NDArray[Any]]) -> Any:
    """Return arrays of one dtype and number of axes as a column of nested lists.

    Args:
        cells: one for each row; their sizes may differ.
    """
    arrow = pyarrow()
    flat = np.concatenate([cell.reshape(-1) for cell in cells]) if cells else np.zeros(0, np.float32)
    if flat.dtype == object or flat.dtype.kind in "SU":
        values = arrow.array([_bytes(item) for item in flat.tolist()], arrow.binary())
    elif flat.dtype.kind in "biuf":
        values = arrow.array(flat)
    else:  # bfloat16, which Parquet does not have
        values = arrow.array(flat.astype(np.float32))
    axes = cells[0].ndim if cells else 0
    for axis in reversed(range(axes)):
        lengths = np.concatenate([np.full(math.prod(cell.shape[:axis]), cell.shape[axis], np.int64) for cell in cells])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = arrow.ListArray.from_arrays(arrow.array(offsets), values)
    return values


def _bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()
