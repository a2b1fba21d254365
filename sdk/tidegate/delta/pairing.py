"""Which tensor of the new model is the successor of which tensor of the old one."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator

from tidegate.delta.plan import MAXIMUM_REGIONS, Plan, Region
from tidegate.delta.weights import Weights

Key = Callable[[Weights], Hashable]

KEYS: tuple[Key, ...] = (
    lambda weights: (weights.dtype, weights.width, weights.name, weights.shape, weights.size_bytes),
    lambda weights: (weights.dtype, weights.width, weights.shape, weights.size_bytes),
    lambda weights: (weights.dtype, weights.width, weights.size_bytes),
    lambda weights: (weights.dtype, weights.width, weights.name),
)
"""What two tensors must have in common, the surest first. Equals are paired in the order of their place. By the last
key, tensors of different size are paired as far as the shorter goes: an output layer or a vocabulary that grew."""


def pair(old: Iterable[Weights], new: Iterable[Weights]) -> Plan:
    """Return the plan that stores each new tensor as the difference to its old one; those without one are left out."""
    old_left, new_left = list(old), list(new)
    regions: list[Region] = []
    for key in KEYS:
        pairs = list(_matches(old_left, new_left, key))
        taken_old = {before.offset for before, _ in pairs}
        taken_new = {after.offset for _, after in pairs}
        old_left = [weights for weights in old_left if weights.offset not in taken_old]
        new_left = [weights for weights in new_left if weights.offset not in taken_new]
        regions.extend(
            Region(before.offset, after.offset, min(before.size_bytes, after.size_bytes) // after.width, after.width)
            for before, after in pairs
        )
    largest = sorted(regions, key=lambda region: region.size_bytes, reverse=True)[:MAXIMUM_REGIONS]
    return Plan(tuple(sorted(largest, key=lambda region: region.new_offset)))


def _matches(old: Iterable[Weights], new: Iterable[Weights], key: Key) -> Iterator[tuple[Weights, Weights]]:
    waiting: defaultdict[Hashable, deque[Weights]] = defaultdict(deque)
    for weights in old:
        waiting[key(weights)].append(weights)
    for weights in new:
        queue = waiting[key(weights)]
        if queue:
            yield queue.popleft(), weights
