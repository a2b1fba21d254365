"""Write plain values as YAML 1.1 that every reader takes the same way: block tables, all text in double quotes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Plain = str | bool | int | Mapping[str, "Plain"]

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def document(table: Mapping[str, Plain]) -> str:
    """Return a YAML document; keys stand in the order of the table."""
    return "".join(f"{line}\n" for line in _lines(table, ""))


def _lines(table: Mapping[str, Plain], indent: str) -> Iterator[str]:
    for key, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{indent}{_scalar(key)}: {_scalar(value)}"
        elif value:
            yield f"{indent}{_scalar(key)}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{_scalar(key)}: {{}}"


def _scalar(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value.isidentifier() and value.isascii() and value.lower() not in _READ_AS_SOMETHING_ELSE:
        return value
    return '"' + "".join(map(_letter, value)) + '"'


_READ_AS_SOMETHING_ELSE = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null", "_"})
"""Words that YAML 1.1 takes for truth values or nothing."""


def _letter(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isascii() and letter.isprintable():
        return letter
    return f"\\U{ord(letter):08x}"
