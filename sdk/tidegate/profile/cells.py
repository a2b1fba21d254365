"""Fixed cells made from the reference: bins of numbers, cells of categories."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tidegate.profile.document import INNER_BINS, OTHER_CELLS, OWN_CELLS, Category
from tidegate.profile.measures.column import Floats

Ints = NDArray[np.int64]

_OWN_SHARE = 1 / 32
_OWN_ROWS = 10


def bin_edges(values: Floats) -> Floats:
    """Return ascending edges at quantiles of the reference, each one of its values, and one just above its largest.

    Values that occur often make fewer bins. What lies below the least or above the largest value seen falls into an
    open bin on either side, which the reference leaves empty.
    """
    if not len(values):
        return np.zeros(0)
    levels = np.arange(INNER_BINS) / INNER_BINS
    distinct = np.unique(values)
    inner = distinct if len(distinct) <= INNER_BINS else np.unique(np.quantile(values, levels, method="inverted_cdf"))
    return np.append(inner, np.nextafter(distinct[-1], np.inf))


def bins_of(values: Floats, edges: Floats) -> Ints:
    """Return the bin of each value: the number of edges that are not above it."""
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def top_categories(values: Sequence[str]) -> tuple[tuple[Category, ...], tuple[int, ...], int]:
    """Return the categories with a count of their own, the counts of the others, and how many there are.

    Up to 16 categories all have their own count. Of more, those with at least 1/32 of the rows and 10 rows have one, 16
    at most. A share is asked for, and not simply the first 16, because the first of many equal ones are first by luck:
    in the next window they would all seem to shrink.
    """
    counts = Counter(values)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) > OWN_CELLS:
        least = max(_OWN_ROWS, _OWN_SHARE * len(values))
        own = [item for item in ordered if item[1] >= least][:OWN_CELLS]
    else:
        own = ordered
    other = [0] * OTHER_CELLS
    for value, count in ordered[len(own) :]:
        other[other_cell(value)] += count
    return tuple(Category(value=value, count=count) for value, count in own), tuple(other), len(ordered)


def other_cell(value: str) -> int:
    """Return which of the counts of others a category belongs to."""
    return zlib.crc32(value.encode("utf-8", "surrogatepass")) % OTHER_CELLS


def cells_of(values: Sequence[str], own: Mapping[str, int]) -> Ints:
    """Return the cell of each category; `own` gives the place of those with a count of their own."""
    found = Counter(values)
    cell = {value: own.get(value, len(own) + other_cell(value)) for value in found}
    return np.array([cell[value] for value in values], dtype=np.int64)
