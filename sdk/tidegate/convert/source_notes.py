"""Take out of an ONNX file what tells of the author's machine: which line of which source file made each node.

PyTorch's exporters write it. The one that goes through `torch.export` puts entries under `pkg.torch.` and
`pkg.onnxscript.` into `metadata_props` of nodes, functions, graphs, values and tensors (`pkg.torch.onnx.stack_trace`
holds a whole traceback, paths included); the older one puts `FILE.py(LINE)` into the `doc_string` of each node. No
runtime reads any of it, and a release that was exported in another folder would have other bytes.

Only those fields go, and the lengths around them are written anew: weights, operators and every other byte stay as
they stand, and a file without such notes stays the same bytes. What the author says of the whole model (its own
`doc_string`, its own entries) stays too. Field numbers are those of onnx.proto3 (ONNX 1.17).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tidegate.runtime.onnx_file import Field, entry, length_delimited, walk

TOOL_PREFIXES = ("pkg.torch.", "pkg.onnxscript.")
"""Of keys that a PyTorch exporter writes for its own debugging."""

MAXIMUM_DEPTH = 100
"""Of messages inside messages; protobuf's own readers go no deeper."""

_SOURCE_LINE = re.compile(r"""\.pyw?(?:"|')?(?:\(\d+\)|:\d+|,\s*line\s+\d+)""")
"""`net.py(12)`, `net.py:12`, `File "net.py", line 12`."""


class _Kind(NamedTuple):
    """Where a message keeps what concerns us."""

    document: int
    """field of its doc_string, 0 for none"""
    properties: int
    """field of its metadata_props, 0 for none"""
    inner: dict[int, str]
    """fields whose messages may hold notes at some depth"""


_KINDS = {
    "model": _Kind(0, 14, {7: "graph", 25: "function"}),
    "graph": _Kind(10, 16, {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value"}),
    "function": _Kind(8, 14, {7: "node", 11: "attribute", 12: "value"}),
    "node": _Kind(6, 9, {5: "attribute"}),
    "attribute": _Kind(13, 0, {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"}),
    "value": _Kind(3, 4, {}),
    "tensor": _Kind(12, 16, {}),
}


def without_source_notes(content: bytes) -> bytes:
    """Return an ONNX model without notes about its author's source files; without any, the same bytes.

    Raises:
        IndexError: the file is damaged, or no reader of protobuf would take it.
    """
    # Searching costs a thousandth of the walk; a weight that spells `.py` by chance costs the walk and no more.
    if not any(word in content for word in (b"pkg.torch.", b"pkg.onnxscript.", b".py")):
        return content
    return _cleaned(memoryview(content), "model", 0) or content


def _cleaned(message: memoryview, name: str, depth: int) -> bytes | None:
    """Return a message without its notes, None when it has none."""
    if depth > MAXIMUM_DEPTH:
        raise IndexError(depth)
    kind = _KINDS[name]
    parts: list[bytes | memoryview] = []
    position = 0
    for field in walk(message):
        if not isinstance(field.value, memoryview):
            continue
        put: bytes | None = None
        if _is_note(field, kind, by_key_only=name == "model"):
            put = b""
        elif field.number in kind.inner:
            inner = _cleaned(field.value, kind.inner[field.number], depth + 1)
            put = None if inner is None else length_delimited(field.number, inner)
        if put is not None:
            parts += [message[position : field.start], put]
            position = field.end
    return b"".join([*parts, message[position:]]) if parts else None


def _is_note(field: Field, kind: _Kind, *, by_key_only: bool) -> bool:
    if not isinstance(field.value, memoryview):
        return False
    if field.number == kind.document:
        return _names_a_line(bytes(field.value).decode(errors="replace"))
    if field.number != kind.properties:
        return False
    key, value = entry(field.value)
    return key.startswith(TOOL_PREFIXES) or (not by_key_only and _names_a_line(value))


def _names_a_line(text: str) -> bool:
    return _SOURCE_LINE.search(text) is not None
