"""Deltas: how to make a new model file out of an old one and few bytes. Needs `tidegate[delta]` (zstandard) when used.

The format is docs/delta-format.md. Devices apply (`apply`, `apply_file`); publishers make (`make`, `choose`).
"""

from tidegate.delta.apply import Limits, apply, apply_file
from tidegate.delta.format import METHODS, Header, Identity, Method, read_header
from tidegate.delta.make import MAXIMUM_PERCENT, Delta, choose, make

__all__ = [
    "MAXIMUM_PERCENT",
    "METHODS",
    "Delta",
    "Header",
    "Identity",
    "Limits",
    "Method",
    "apply",
    "apply_file",
    "choose",
    "make",
    "read_header",
]
