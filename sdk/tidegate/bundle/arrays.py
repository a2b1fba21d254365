"""Named arrays in one `.npz` file, in and out, without pickle.

Writing is deterministic: sorted members, stored, constant times. A BYTES array (numpy `object` of `bytes`) has no
.npy form without pickle, and numpy's `S` loses trailing zeros, so it is written as two members: `bytes:NAME`, uint8
[n], every element as four bytes of little-endian length and its bytes, as in the Open Inference Protocol; and
`shape:NAME`, int64 [rank]. BF16 is written as numpy writes it, two bytes an element under the descriptor `V2`, and `V2`
is read as BF16: there is no other meaning for it. Reading never allocates more than the file's stated sizes allow.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.bundle.archive import pack
from tidegate.bundle.dtypes import BF16, is_bare_bfloat16, numpy_dtype, oip_name
from tidegate.errors import InputError

Array = NDArray[Any]

DEFAULT_LIMIT_BYTES = 1 << 30

_BYTES = "bytes:"
_SHAPE = "shape:"

# What zipfile, zlib and numpy's header parser are known to raise on bytes that are not an .npz.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
)


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Return the bytes of an .npz with these arrays; the same arrays give the same bytes.

    Raises:
        InputError: a dtype that the Open Inference Protocol does not name, or a BYTES element that is not bytes or str.
    """
    members: dict[str, Array] = {}
    for name, array in arrays.items():
        if oip_name(array.dtype) == "BYTES":
            members[_BYTES + name] = _packed_bytes(name, array)
            members[_SHAPE + name] = np.asarray(array.shape, dtype=np.int64)
        else:
            members[name] = array
    return b"".join(pack((f"{name}.npy", _npy(members[name])) for name in sorted(members)))


def unpack_arrays(raw: bytes, *, origin: str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> dict[str, Array]:
    """Return the arrays of an .npz; numpy's `S` and `U` arrays come back as BYTES, object arrays of bytes.

    Args:
        raw: the file.
        origin: how error messages call it.
        limit_bytes: the most that the arrays may take together.

    Raises:
        InputError: not an .npz, damaged, pickled objects inside, or larger than the limit.
        DependencyError: there is BF16 inside, and `ml_dtypes` is not installed.
    """
    try:
        members = _read_members(raw, origin, limit_bytes)
    except _UNREADABLE as error:
        raise InputError(
            f"{origin} is not a readable .npz file: {error}",
            fix="write it with numpy.savez, without object arrays",
        ) from error
    arrays: dict[str, Array] = {}
    for name, array in members.items():
        if name.startswith(_BYTES):
            plain = name.removeprefix(_BYTES)
            arrays[plain] = _unpacked_bytes(plain, array, members.get(_SHAPE + plain), origin)
        elif not name.startswith(_SHAPE):
            arrays[name] = _as_objects(array) if array.dtype.kind in "SU" else array
    return arrays


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # np.require, unlike np.ascontiguousarray, keeps a scalar a scalar.
    np.lib.format.write_array(buffer, np.require(little_endian, requirements="C"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _read_members(raw: bytes, origin: str, limit_bytes: int) -> dict[str, Array]:
    members: dict[str, Array] = {}
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > limit_bytes:
            raise InputError(
                f"{origin} holds {total} bytes of arrays; expected at most {limit_bytes}", fix="send less at once"
            )
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name in members or name == info.filename:
                raise InputError(
                    f"{origin}: member {info.filename!r} is not an .npy file, or occurs twice",
                    fix="write it with numpy.savez",
                )
            members[name] = _read_npy(archive.read(info), f"{origin}: array {name!r}")
    return members


def _read_npy(raw: bytes, origin: str) -> Array:
    """Parse one .npy; the header's shape is held against the bytes that are there before anything is allocated."""
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise InputError(f"{origin} has .npy version {version}; expected 1.0 or 2.0", fix="write it with numpy.savez")
    if dtype.itemsize == 0:
        raise InputError(f"{origin} has elements of no bytes ({dtype})", fix="write it with numpy.savez")
    if dtype.hasobject:
        raise InputError(f"{origin} holds pickled objects, which are refused", fix="save bytes as dtype 'S'")
    there, expected = len(raw) - stream.tell(), math.prod(shape) * dtype.itemsize
    if any(size < 0 for size in shape) or there != expected:
        raise InputError(
            f"{origin} has {there} bytes of data; expected {expected} for {dtype} {list(shape)}",
            fix="the file is damaged; write it again",
        )
    flat = np.frombuffer(raw, dtype=dtype, offset=stream.tell()) if expected else np.empty(math.prod(shape), dtype)
    if is_bare_bfloat16(dtype):
        dtype = numpy_dtype(BF16)
        flat = flat.view(dtype)
    array = flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")


def _packed_bytes(name: str, array: Array) -> Array:
    parts: list[bytes] = []
    for element in array.ravel().tolist():
        encoded = element.encode() if isinstance(element, str) else element
        if not isinstance(encoded, bytes):
            raise InputError(
                f"array {name!r} holds a {type(element).__name__}; expected bytes or str",
                fix="give the array a numeric dtype, or bytes elements",
            )
        parts.append(struct.pack("<I", len(encoded)) + encoded)
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def _unpacked_bytes(name: str, packed: Array, shape: Array | None, origin: str) -> Array:
    if shape is None or shape.dtype.kind != "i" or shape.ndim != 1 or packed.dtype != np.uint8:
        raise InputError(f"{origin}: BYTES array {name!r} lacks its shape, or is not uint8", fix="write it again")
    raw, elements, position = packed.tobytes(), [], 0
    while position + 4 <= len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        elements.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    sizes = [int(size) for size in shape]
    if position != len(raw) or any(size < 0 for size in sizes) or math.prod(sizes) != len(elements):
        raise InputError(
            f"{origin}: BYTES array {name!r} has {len(elements)} elements; expected shape {sizes}", fix="write it again"
        )
    flat = np.empty(len(elements), dtype=object)
    flat[:] = elements
    return flat.reshape(sizes)


def _as_objects(array: Array) -> Array:
    encoded = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
    return encoded.astype(object)
