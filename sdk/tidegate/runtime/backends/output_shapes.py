"""Which shapes a model's outputs will have, from the dimensions that it declares."""

from __future__ import annotations

from tidegate.runtime.backends.protocol import Shape


def output_shapes(
    inputs: list[tuple[int | str | None, ...]],
    outputs: list[tuple[int | str | None, ...]],
    shapes: tuple[Shape, ...],
) -> tuple[Shape, ...] | None:
    """Return the shape of every output for inputs of these shapes, or None where they do not follow.

    Args:
        inputs: declared dimensions of each input: a size, a name, or None where nothing is known.
        outputs: the same of each output.
        shapes: the sizes that the inputs really have.
    """
    sizes: dict[str, int] = {}
    for declared, shape in zip(inputs, shapes, strict=True):
        for dimension, size in zip(declared, shape, strict=True):
            if isinstance(dimension, str) and sizes.setdefault(dimension, size) != size:
                return None
    found: list[Shape] = []
    for declared in outputs:
        known = [sizes.get(item, -1) if isinstance(item, str) else -1 if item is None else item for item in declared]
        if any(size < 0 for size in known):
            return None
        found.append(tuple(known))
    return tuple(found)
