"""Arrays in .npz files: every dtype, the same bytes, and nothing that an attacker's file can set off."""

from __future__ import annotations

import hashlib
import io
import pickle
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidegate.bundle import GoldenFixture
from tidegate.bundle.arrays import pack_arrays, unpack_arrays
from tidegate.bundle.dtypes import NAMES, numpy_dtype
from tidegate.errors import BundleError, InputError

Array = NDArray[Any]

SHAPES = st.lists(st.integers(0, 4), max_size=3)


@given(st.sampled_from(sorted(NAMES)), SHAPES, st.binary(max_size=4096))
def test_every_dtype_and_shape_comes_back(name: str, shape: list[int], noise: bytes) -> None:
    count = int(np.prod(shape))
    dtype = numpy_dtype(name)
    if name == "BYTES":
        array: Array = np.empty(count, dtype=object)
        array[:] = [noise[i : i + i % 5] + b"\0" * (i % 3) for i in range(count)]
    else:
        array = np.frombuffer((noise or b"\1").ljust(count * dtype.itemsize, b"\1")[: count * dtype.itemsize], dtype)
    array = array.reshape(shape)
    found = unpack_arrays(pack_arrays({"a/b:0": array}), origin="test")["a/b:0"]
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert found.tolist() == array.tolist() if name == "BYTES" else found.tobytes() == array.tobytes()


def test_bytes_are_the_same_whatever_the_order_and_memory_layout() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    words = np.array([b"go", "stöp"], dtype=object)
    first = pack_arrays({"x": x, "words": words})
    assert first == pack_arrays({"words": words, "x": np.asfortranarray(x)})
    assert first == pack_arrays({"words": words, "x": x.astype(">f4")})
    assert hashlib.sha256(first).hexdigest() == "fa968c3ed576f5c8953658fa64e5a3144018ecdf143031b0abfd056d150dd37f"


def test_bfloat16_is_what_numpy_writes_of_it() -> None:
    x = np.array([[1.5, -2, np.nan]], numpy_dtype("BF16"))
    buffer = io.BytesIO()
    np.savez(buffer, x=x)
    assert np.load(io.BytesIO(buffer.getvalue()))["x"].dtype == np.dtype("V2")
    for raw in (buffer.getvalue(), pack_arrays({"x": x})):
        found = unpack_arrays(raw, origin="test")["x"]
        assert found.dtype is x.dtype
        assert found.tobytes() == x.tobytes()


def test_numpy_reads_ours_and_we_read_numpys() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(np.load(io.BytesIO(pack_arrays({"x": x})))["x"], x)
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, x=np.asfortranarray(x), s=np.array([b"a", b"bc"]), u=np.array(["ä"]), z=np.float32(3))
        found = unpack_arrays(buffer.getvalue(), origin="test")
        assert np.array_equal(found["x"], x)
        assert (found["s"].tolist(), found["u"].tolist()) == ([b"a", b"bc"], ["ä".encode()])
        assert found["z"].shape == ()
        assert found["z"].dtype == np.float32
        assert found["z"].item() == 3.0


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy_header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        raise AssertionError("never built")


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "not a readable .npz"),
        (b"\x93NUMPY", "not a readable .npz"),
        (npz({"a.txt": b"hello"}), "is not an .npy file"),
        (npz({"a.npy": b"hello world"}), "not a readable .npz"),
        (npz({"a.npy": npy_header("(10,)")}), "has 0 bytes of data; expected 40"),
        (npz({"a.npy": npy_header(f"({1 << 60},)")}), "has 0 bytes of data"),
        (npz({"a.npy": npy_header("(-1, -4)") + bytes(16)}), "bytes of data"),
        (npz({"a.npy": npy_header("(2,)", "'|O'") + pickle.dumps([1, 2])}), "pickled objects"),
        (npz({"a.npy": npy_header(f"({1 << 50},)", "'|S0'")}), "elements of no bytes"),
        (npz({"bytes:a.npy": npy_header("(4,)", "'|u1'") + bytes(4)}), "lacks its shape"),
        (
            npz({"bytes:a.npy": npy_header("(5,)", "'|u1'") + bytes(5), "shape:a.npy": npy_header("(0,)", "'<i8'")}),
            "BYTES",
        ),
        (npz({"a.npy": b"\x93NUMPY\x09\x00" + bytes(100)}), "not a readable .npz|version"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused(raw: bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        unpack_arrays(raw, origin="evil.npz")


def test_a_compressed_bomb_is_refused_before_it_expands() -> None:
    raw = npz({"a.npy": npy_header(f"({16 << 20},)", "'|u1'") + bytes(16 << 20)}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(InputError, match="expected at most 1000000"):
        unpack_arrays(raw, origin="bomb.npz", limit_bytes=1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("array", [np.array([1, None], object), np.array([1 + 2j]), np.array(["2026-01-01"], "M8[D]")])
def test_what_no_tensor_can_hold_is_not_written(array: Array) -> None:
    with pytest.raises(InputError):
        pack_arrays({"a": array})


def test_a_fixture_with_a_stray_array_is_refused() -> None:
    with pytest.raises(BundleError, match="has an array 'x'; expected names that begin with 'input/' or 'output/'"):
        GoldenFixture.from_npz(pack_arrays({"x": np.zeros(1)}))


VALID = pack_arrays({"input/x": np.arange(4, dtype=np.float32), "input/s": np.array([b"ab", b""], object)})


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_mutated_bytes_are_read_or_refused(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(VALID)
    for at, value in changes:
        raw[at] = value
    try:
        fixture = GoldenFixture.from_npz(bytes(raw))
    except BundleError:
        return
    assert all(isinstance(array, np.ndarray) for array in fixture.inputs.values())
