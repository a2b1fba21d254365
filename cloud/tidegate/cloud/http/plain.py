"""A protobuf message as plain JSON: field names as in the .proto file, 64-bit numbers as numbers, nothing left out.

The canonical JSON of protobuf writes 64-bit numbers as text, and the protocol's REST form does not.
"""

from __future__ import annotations

from typing import Any


def plain(message: Any) -> dict[str, Any]:
    """Return a message as JSON values; unset submessages and unset choices are left out."""
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value(field: Any, value: Any) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {str(key): _single(entry, value[key]) for key in sorted(value)}
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        return _single(field, value)
    return [_single(field, item) for item in value]


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value.decode("latin-1") if isinstance(value, bytes) else value
