"""From trained models to a bundle: convert, read signatures, assemble, verify."""

from tidegate.convert.conversion import Conversion, Converted, convert

__all__ = ["Conversion", "Converted", "convert"]
