"""Add metadata buffers to a TFLite file without changing a byte of what is there.

In a flatbuffer every reference points forward. So a new root can stand in front: a header with a new root table, new
vectors of buffers and metadata, and then the whole old file, to whose parts the new vectors refer. The old header stays
behind as bytes that nothing refers to. The header's length is a multiple of 64, so that weights keep their alignment.

Field numbers from TFLite's schema.fbs (version 3c).
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.errors import BundleError
from tidegate.runtime import flatbuffer

IDENTIFIER = b"TFL3"

ORIGINAL = "TIDEGATE_ORIGINAL"
"""Metadata that says where the file as the author gave it lies in this one: offset and length, 8 bytes each."""

_ALIGNMENT = 64
_MODEL_FIELDS = 10
_SUBGRAPHS, _BUFFERS, _METADATA, _SIGNATURES = 2, 4, 6, 7
_UNIX_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Tensors:
    """The main graph's tensors, in its own order."""

    inputs: tuple[str, ...]
    """by the signature's names where the file has a signature"""
    outputs: tuple[str, ...]


def metadata(content: bytes) -> dict[str, bytes]:
    """Return the metadata buffers of a TFLite file by name.

    Raises:
        BundleError: the file is damaged.
    """
    try:
        model = flatbuffer.unsigned(content, 0)
        buffers = flatbuffer.tables(content, model, _BUFFERS)
        return {
            flatbuffer.text(content, item, 0): flatbuffer.data(content, buffers[flatbuffer.number(content, item, 1)], 0)
            for item in flatbuffer.tables(content, model, _METADATA)
        }
    except flatbuffer.DAMAGED as error:
        raise _damaged(error) from error


def main_tensors(content: bytes) -> Tensors:
    """Return the names of the main graph's inputs and outputs.

    Raises:
        BundleError: the file is damaged.
    """
    try:
        model = flatbuffer.unsigned(content, 0)
        graph = flatbuffer.tables(content, model, _SUBGRAPHS)[0]
        tensors = flatbuffer.tables(content, graph, 0)
        names = [flatbuffer.text(content, tensor, 3) for tensor in tensors]
        signature = _main_signature(content, model)
        return Tensors(
            inputs=_names(content, graph, 1, signature, 0, names),
            outputs=_names(content, graph, 2, signature, 1, names),
        )
    except flatbuffer.DAMAGED as error:
        raise _damaged(error) from error


def original(content: bytes) -> bytes:
    """Return the file as it was before `with_metadata` and `with_files`, the same object when it never met them.

    Raises:
        BundleError: the file is damaged.
    """
    place = metadata(content).get(ORIGINAL)
    if place is None or len(place) != 16:
        return content
    offset, length = struct.unpack("<QQ", place)
    return content[offset : offset + length]


def obstacle(content: bytes) -> str:
    """Return why nothing can be put in front of this file, "" when something can.

    Raises:
        BundleError: the file is damaged.
    """
    if content[4:8] != IDENTIFIER:
        return f"it is no TFLite file: bytes 4 to 8 are {content[4:8]!r}"
    try:
        model = flatbuffer.unsigned(content, 0)
        if any(
            flatbuffer.slot(content, model, n) for n in range(_MODEL_FIELDS, flatbuffer.field_count(content, model))
        ):
            return "its root has fields of a newer schema"
        if any(flatbuffer.slot(content, buffer, 1) for buffer in flatbuffer.tables(content, model, _BUFFERS)):
            return "its weights lie behind the flatbuffer, at places counted from the start of the file"
        operators = (
            operator
            for graph in flatbuffer.tables(content, model, _SUBGRAPHS)
            for operator in flatbuffer.tables(content, graph, 3)
        )
        if any(flatbuffer.slot(content, operator, 9) for operator in operators):
            return "an operator's options lie behind the flatbuffer, at places counted from the start of the file"
    except flatbuffer.DAMAGED as error:
        raise _damaged(error) from error
    if zipfile.is_zipfile(io.BytesIO(content)):
        return "a ZIP archive is appended to it already"
    return ""


def with_metadata(content: bytes, added: Mapping[str, bytes]) -> bytes:
    """Return the file with these metadata buffers beside those that it has, and with `ORIGINAL`.

    Args:
        content: a file for which `obstacle` is "".
        added: content by name; the names are not in the file.

    Raises:
        BundleError: the file is damaged.
    """
    try:
        # The header's length does not depend on the numbers in ORIGINAL, so the first pass measures it.
        length = len(_header(content, {**added, ORIGINAL: bytes(16)}))
        place = struct.pack("<QQ", length, len(content))
        return _header(content, {**added, ORIGINAL: place}) + content
    except flatbuffer.DAMAGED as error:
        raise _damaged(error) from error


def with_files(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return the file with a stored ZIP archive behind it: where TFLite metadata keeps its associated files."""
    if not files:
        return content
    out = io.BytesIO(content)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _UNIX_EPOCH_OF_ZIP)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def _header(content: bytes, added: Mapping[str, bytes]) -> bytes:
    model = flatbuffer.unsigned(content, 0)
    references = {n: flatbuffer.target(content, model, n) for n in range(1, _MODEL_FIELDS)}
    version_at = flatbuffer.slot(content, model, 0)
    buffers = flatbuffer.tables(content, model, _BUFFERS)
    entries = flatbuffer.tables(content, model, _METADATA)
    out = _Header()
    out.raw(bytes(4) + IDENTIFIER)
    present = [n for n in range(_MODEL_FIELDS) if n in (_BUFFERS, _METADATA) or (references.get(n) if n else True)]
    vtable = out.raw(
        struct.pack("<HH", 4 + 2 * _MODEL_FIELDS, 4 + 4 * _MODEL_FIELDS)
        + b"".join(struct.pack("<H", 4 + 4 * n if n in present else 0) for n in range(_MODEL_FIELDS))
    )
    root = out.raw(struct.pack("<i", out.position - vtable))
    version = flatbuffer.unsigned(content, version_at) if version_at is not None else 0
    slots = [out.raw(struct.pack("<I", version if n == 0 else 0)) for n in range(_MODEL_FIELDS)]
    out.refer(0, root)
    for n, place in references.items():
        if place is not None and n not in (_BUFFERS, _METADATA):
            out.refer_old(slots[n], place)
    out.refer(slots[_BUFFERS], out.position)
    buffer_slots = out.slots(len(buffers) + len(added))
    out.refer(slots[_METADATA], out.position)
    entry_slots = out.slots(len(entries) + len(added))
    for at, place in zip(buffer_slots, buffers, strict=False):
        out.refer_old(at, place)
    for at, place in zip(entry_slots, entries, strict=False):
        out.refer_old(at, place)
    for index, (name, value) in enumerate(sorted(added.items())):
        out.refer(entry_slots[len(entries) + index], out.metadata(name, len(buffers) + index))
        out.refer(buffer_slots[len(buffers) + index], out.buffer(value))
    return out.finished()


class _Header:
    """Bytes that are written front to back, with references filled in when their targets are known."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._old: list[tuple[int, int]] = []

    @property
    def position(self) -> int:
        return len(self._out)

    def raw(self, data: bytes) -> int:
        """Append, and return where it lies."""
        at = len(self._out)
        self._out += data
        return at

    def align(self, size: int, ahead: int = 0) -> None:
        """Append zeros until what comes `ahead` bytes later lies at a multiple of `size`."""
        self._out += bytes(-(len(self._out) + ahead) % size)

    def slots(self, count: int) -> list[int]:
        """Append a vector of references, and return where each is."""
        self.raw(struct.pack("<I", count))
        return [self.raw(bytes(4)) for _ in range(count)]

    def refer(self, at: int, place: int) -> None:
        """Let the reference at `at` point to `place` in the header."""
        struct.pack_into("<I", self._out, at, place - at)

    def refer_old(self, at: int, place: int) -> None:
        """Let the reference at `at` point to `place` in the old file, once it is known where that begins."""
        self._old.append((at, place))

    def metadata(self, name: str, buffer: int) -> int:
        """Append a Metadata table."""
        vtable = self.raw(struct.pack("<HHHHHH", 8, 12, 4, 8, 0, 0))
        table = self.raw(struct.pack("<iII", self.position - vtable, 8, buffer))
        encoded = name.encode()
        self.raw(struct.pack("<I", len(encoded)) + encoded + b"\0")
        self.align(4)
        return table

    def buffer(self, data: bytes) -> int:
        """Append a Buffer table; its data lies at a multiple of 16, as the schema asks."""
        vtable = self.raw(struct.pack("<HHHH", 6, 8, 4, 0))
        table = self.raw(struct.pack("<iI", self.position - vtable, 0))
        self.align(16, ahead=4)
        self.refer(table + 4, self.position)
        self.raw(struct.pack("<I", len(data)) + data)
        self.align(4)
        return table

    def finished(self) -> bytes:
        """Return the header, padded, with the references into the old file behind it."""
        self.align(_ALIGNMENT)
        for at, place in self._old:
            self.refer(at, len(self._out) + place)
        return bytes(self._out)


def _main_signature(content: bytes, model: int) -> int | None:
    found: int | None = None
    for signature in flatbuffer.tables(content, model, _SIGNATURES):
        if flatbuffer.number(content, signature, 4) == 0:
            if flatbuffer.text(content, signature, 2) == "serving_default":
                return signature
            found = signature if found is None else found
    return found


def _names(
    content: bytes, graph: int, graph_field: int, signature: int | None, field: int, tensors: list[str]
) -> tuple[str, ...]:
    by_index: dict[int, str] = {}
    if signature is not None:
        by_index = {
            flatbuffer.number(content, item, 1): flatbuffer.text(content, item, 0)
            for item in flatbuffer.tables(content, signature, field)
        }
    return tuple(by_index.get(index, tensors[index]) for index in flatbuffer.integers(content, graph, graph_field))


def _damaged(error: Exception) -> BundleError:
    return BundleError(f"TFLite model: it is no whole flatbuffer: {error}", fix="convert the model again")
