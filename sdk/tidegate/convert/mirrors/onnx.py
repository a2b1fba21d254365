"""The mirror in an ONNX model: entries of `metadata_props`, each key with the prefix `tidegate.`.

A repeated field of a protobuf message may stand anywhere in it, so the entries are added at the end of the file and
every other byte stays where it was. That needs no onnx package, keeps weights that tools would rewrite, and makes the
next release's file differ from this one in nothing but what changed.
"""

from __future__ import annotations

from tidegate.convert.mirrors.facts import Facts, from_strings, to_strings, unreadable
from tidegate.runtime.onnx_file import entry, length_delimited, walk

PREFIX = "tidegate."

MAXIMUM_BYTES = (1 << 31) - 1
"""A protobuf message cannot be longer."""

_METADATA_PROPS = 14


def write(content: bytes, facts: Facts) -> bytes:
    """Return the model with these facts in place of those that an earlier build wrote.

    Args:
        content: an ONNX model.
        facts: what to say.

    Raises:
        BundleError: the file is no ONNX model, or would be longer than a protobuf message can be.
    """
    added = b"".join(_property(PREFIX + name, value) for name, value in sorted(to_strings(facts).items()))
    mirrored = without(content) + added
    if len(mirrored) > MAXIMUM_BYTES:
        raise unreadable("ONNX model", ValueError(f"{len(mirrored)} bytes; a protobuf message ends at {MAXIMUM_BYTES}"))
    return mirrored


def read(content: bytes, *, origin: str = "ONNX model") -> Facts | None:
    """Return the facts that `write` put into a model, None when there are none.

    Raises:
        BundleError: they are damaged.
    """
    try:
        found = dict(
            entry(field.value)
            for field in walk(content)
            if field.number == _METADATA_PROPS and isinstance(field.value, memoryview)
        )
    except IndexError as error:
        raise unreadable(origin, error) from error
    ours = {key.removeprefix(PREFIX): value for key, value in found.items() if key.startswith(PREFIX)}
    return from_strings(ours, origin=origin) if ours else None


def without(content: bytes) -> bytes:
    """Return the model as it was before `write`.

    Raises:
        BundleError: the file is no ONNX model.
    """
    try:
        ours = [
            (field.start, field.end)
            for field in walk(content)
            if field.number == _METADATA_PROPS
            and isinstance(field.value, memoryview)
            and entry(field.value)[0].startswith(PREFIX)
        ]
    except IndexError as error:
        raise unreadable("ONNX model", error) from error
    if not ours:
        return content
    kept, position = [], 0
    for start, end in ours:
        kept.append(content[position:start])
        position = end
    return b"".join([*kept, content[position:]])


def _property(key: str, value: str) -> bytes:
    return length_delimited(_METADATA_PROPS, length_delimited(1, key.encode()) + length_delimited(2, value.encode()))
