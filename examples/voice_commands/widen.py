"""Start a large network from a trained small one: same function, more room to learn.

After Chen, Goodfellow and Shlens, "Net2Net" (2015), in its simplest form: the
small weights fill the first channels, new channels do not feed old ones, new
residual blocks add nothing.  So the large network begins exactly as good as the
small one, and its new random channels learn what is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def widen(small: Any, large: Any) -> None:
    """Set the weights of ``large`` so that it computes what ``small`` computes."""
    known = {layer.name: layer for layer in small.layers}
    for layer in large.layers:
        if not layer.get_weights():
            continue
        if layer.name in known:
            old, new = known[layer.name].get_weights(), layer.get_weights()
            layer.set_weights([_placed(a, b, layer.name) for a, b in zip(old, new, strict=True)])
        elif layer.name.endswith("pointwise_norm"):
            gamma, *rest = layer.get_weights()
            layer.set_weights([np.zeros_like(gamma), *rest])


def _placed(old: Float, new: Float, name: str) -> Float:
    """Return ``new`` with ``old`` in its first channels, and no way from new inputs to old outputs."""
    if name == "probabilities" and old.ndim == 2:
        # The input is three kinds of pooling, one after another.
        return _block(old.reshape(3, -1, old.shape[1]), new.reshape(3, -1, new.shape[1])).reshape(new.shape)
    return _block(old, new)


def _block(old: Float, new: Float) -> Float:
    filled = new.copy()
    if old.ndim >= 3 and old.shape[-1] > 2:
        filled[..., : old.shape[-1]] = 0.0
    filled[tuple(slice(0, length) for length in old.shape)] = old
    return filled
