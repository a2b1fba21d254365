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
    counts = [_rows(record) for record in records]
    columns: dict[str, Any] = {
        **_common(records),
        "log.id": arrow.array([one.id for one in records], arrow.string()),
        "log.took_ms": arrow.array([one.took_ms for one in records], arrow.float64()),
        "log.error_kind": arrow.array([one.error_kind for one in records], arrow.string()),
        "log.error": arrow.array([one.error for one in records], arrow.string()),
    }
    owners = arrow.array(np.repeat(np.arange(len(records)), counts))
    columns = {name: column.take(owners) for name, column in columns.items()}
    columns["log.row"] = arrow.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts]))
    first = records[0]
    for name in sorted(first.outputs):
        columns[f"output.{name}"] = _column(records, counts, [one.outputs[name] for one in records])
    for name in sorted(first.inputs):
        column = _column(records, counts, [one.inputs[name] for one in records])
        columns[f"input.{name}" if name in columns else name] = column
    return arrow.table(columns)


def _column(records: Sequence[LoggedRequest], counts: Sequence[int], arrays: Sequence[NDArray[Any]]) -> Any:
    if not records[0].rows_first:
        return nested(arrays)
    return nested([array[:count] for array, count in zip(arrays, counts, strict=True)], stacked=True)


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


def nested(cells: Sequence[NDArray[Any]], *, stacked: bool = False) -> Any:
    """Return arrays of one dtype and number of axes as a column of nested lists.

    Args:
        cells: at least one; their sizes may differ.
        stacked: False: each is one row. True: the first axis of each counts rows.
    """
    arrow = pyarrow()
    flat = np.concatenate([cell.reshape(-1) for cell in cells])
    if flat.dtype == object or flat.dtype.kind in "SU":
        values = arrow.array([_bytes(item) for item in flat.tolist()], arrow.binary())
    elif flat.dtype.kind in "biuf":
        values = arrow.array(flat)
    else:  # bfloat16, which Parquet does not have
        values = arrow.array(flat.astype(np.float32))
    for axis in reversed(range(int(stacked), cells[0].ndim)):
        lengths = np.concatenate([np.full(math.prod(cell.shape[:axis]), cell.shape[axis], np.int64) for cell in cells])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = arrow.ListArray.from_arrays(arrow.array(offsets), values)
    return values


def _bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()
