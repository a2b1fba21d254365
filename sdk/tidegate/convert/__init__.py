"""From trained models to a bundle: convert, read signatures, assemble, verify.

The names below are loaded when they are first asked for: a server that only needs a mirror brings no converter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.convert.conversion import Conversion, Converted, convert

__all__ = ["Conversion", "Converted", "convert"]


def __getattr__(name: str) -> object:
    """Return a public name from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tidegate.convert import conversion

    return getattr(conversion, name)
