"""Which of two versions comes first: precedence of Semantic Versioning 2.0.0, section 11."""

from __future__ import annotations


def precedence(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]:
    """Return a sort key; build metadata (after `+`) does not count, a pre-release comes before its release."""
    core, _, suffix = version.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    parts = suffix.split(".") if suffix else []
    identifiers = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
    return numbers, not suffix, identifiers
