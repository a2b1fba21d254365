"""`.npz` files, read in stretches straight out of the archive, so that an array never is in memory as a whole."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.bundle.dtypes import BF16, is_bare_bfloat16, numpy_dtype, oip_name
from tidegate.errors import InputError
from tidegate.predict.rows import Cells, Rows
from tidegate.predict.sources.protocol import file_identity, not_carried, unreadable

BYTES_PREFIX, SHAPE_PREFIX = "bytes:", "shape:"
"""Members of a BYTES array, as `tidegate.bundle.arrays` writes it."""

_LENGTH = struct.Struct("<I")

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, SyntaxError, TypeError,
               ValueError, struct.error, tokenize.TokenError)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    """One array in the archive."""

    file: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class NpzSource:
    """An `.npz` whose arrays have the row as their first axis."""

    keys: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """Read the headers.

        Raises:
            NotFoundError: no such file.
            InputError: not an .npz, pickled objects inside, or arrays of different numbers of rows.
        """
        self._path = path
        self.origin = str(path)
        self.identity = file_identity(path)
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = _members(archive, self.origin)
        except _UNREADABLE as error:
            raise InputError(f"{path} is not a readable .npz: {error}", fix="write it with numpy.savez") from error
        except OSError as error:
            raise unreadable(path, error) from error
        rows = {name: member.shape[0] for name, member in self._members.items()}
        if len(set(rows.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise InputError(f"{path}: arrays differ in rows: {found}", fix="give every array the same first axis")
        self.columns: tuple[str, ...] = tuple(self._members)
        self.steps: int = next(iter(rows.values()), 0)

    def dtype(self, column: str) -> str:
        """See `Source.dtype`."""
        member = self._members[column]
        if len(member.shape) != 1:
            raise not_carried(self.origin, column, f"an array {list(member.shape)}")
        return oip_name(member.dtype)

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[Rows]:
        """See `Source.read`."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                streams = {name: _opened(archive, self._members[name], first) for name in columns}
                for start in range(first, self.steps, count):
                    size = min(count, self.steps - start)
                    cells = {name: _taken(stream, self._members[name], size) for name, stream in streams.items()}
                    yield Rows(start, size, cells, start + size)
        except _UNREADABLE as error:
            raise InputError(f"{self.origin} is damaged: {error}", fix="write it again") from error
        except OSError as error:
            raise unreadable(self._path, error) from error


def _members(archive: zipfile.ZipFile, origin: str) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    for file in archive.namelist():
        name = file.removesuffix(".npy")
        if name.startswith(SHAPE_PREFIX):
            continue
        with archive.open(file) as stream:
            dtype, shape = _header(stream)
        if name.startswith(BYTES_PREFIX):
            name = name.removeprefix(BYTES_PREFIX)
            with archive.open(f"{SHAPE_PREFIX}{name}.npy") as stream:
                _header(stream)
                shape = tuple(np.frombuffer(stream.read(), "<i8").tolist())
            dtype = np.dtype(object)
        elif dtype.hasobject:
            raise InputError(f"{origin}: array {name!r} holds pickled objects, which are refused", fix="save text as U")
        # An array without an axis has no rows; the facts that `tidegate predict` writes are one.
        if shape:
            found[name] = _Member(file, dtype, shape)
    return found


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    if fortran_order and len(shape) > 1:
        raise ValueError("an array is in Fortran order, which cannot be read by rows")
    return numpy_dtype(BF16) if is_bare_bfloat16(dtype) else dtype, shape


def _opened(archive: zipfile.ZipFile, member: _Member, first: int) -> IO[bytes]:
    """Return the member's bytes from a row on."""
    stream = archive.open(member.file)
    _header(stream)
    elements = first * math.prod(member.shape[1:])
    if member.dtype.kind != "O":
        stream.seek(elements * member.dtype.itemsize, 1)
        return stream
    for _ in range(elements):
        stream.seek(_LENGTH.unpack(stream.read(_LENGTH.size))[0], 1)
    return stream


def _taken(stream: IO[bytes], member: _Member, rows: int) -> Cells:
    shape = (rows, *member.shape[1:])
    count = math.prod(shape)
    if member.dtype.kind == "O":
        texts = np.empty(count, object)
        texts[:] = [stream.read(_LENGTH.unpack(stream.read(_LENGTH.size))[0]) for _ in range(count)]
        return texts.reshape(shape)
    raw = stream.read(count * member.dtype.itemsize)
    if len(raw) != count * member.dtype.itemsize:
        raise EOFError(f"{member.file} ends too early")
    array: Array = np.frombuffer(raw, member.dtype).reshape(shape)
    return array.astype(member.dtype.newbyteorder("="), copy=False)
