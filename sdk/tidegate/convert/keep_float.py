"""Which layers stay in float32 although the variant is int8: a logarithm in front, a soft-max behind."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from tidegate.errors import ConfigError

SHOWN = 8


def kept_names(names: Iterable[str], patterns: Sequence[str], origin: str) -> list[str]:
    """Return the names that a pattern fits, in the given order.

    Args:
        names: of operators, such as `net/front_end/Log`; a fused one has several, joined by `;`.
        patterns: shell patterns that are held against each whole name, such as `*front_end*`.
        origin: how messages call the model.

    Raises:
        ConfigError: a pattern fits nothing; the message shows some names.
    """
    known = list(dict.fromkeys(name for name in names if name))
    for pattern in patterns:
        if not any(_fits(name, pattern) for name in known):
            raise ConfigError(
                f"{origin}: no operator fits --keep-float {pattern!r}; there are {', '.join(known[:SHOWN])}"
                + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""),
                fix="name the layer, with * around it",
            )
    return [name for name in known if any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(part, pattern) for part in name.split(";"))
