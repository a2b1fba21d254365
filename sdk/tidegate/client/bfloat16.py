"""BF16 tensors as numpy arrays of ml_dtypes.bfloat16, which is where numpy has that type; its wire form is two bytes.

`ml_dtypes` is not installed with the client: TensorFlow, JAX and onnx bring it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import DependencyError

NAME = "BF16"


def is_bfloat16(array: NDArray[Any]) -> bool:
    """Return whether an array has ml_dtypes' type, without importing it."""
    # To numpy it is a type of no kind of its own; asking for the kind first is twenty times faster.
    return array.dtype.kind == "V" and array.dtype.name == "bfloat16"


def as_words(array: NDArray[Any]) -> NDArray[np.uint16]:
    """Return the same memory as uint16, which every part of the protocol's code can write."""
    return np.ascontiguousarray(array).view(np.uint16)


def from_words(words: NDArray[Any]) -> NDArray[Any]:
    """Return the same memory as bfloat16.

    Raises:
        DependencyError: ml_dtypes is not installed.
    """
    try:
        import ml_dtypes
    except ImportError as error:
        raise DependencyError(
            "the answer holds BF16, which numpy alone has no dtype for", fix="pip install ml_dtypes"
        ) from error
    return words.view(ml_dtypes.bfloat16)
