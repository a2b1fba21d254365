"""The arrays that a benchmark feeds: from the user's file, else from the golden fixture, else random."""

from __future__ import annotations

from pathlib import Path

from tidegate.bundle import Bundle
from tidegate.bundle.arrays import unpack_arrays
from tidegate.errors import NotFoundError
from tidegate.runtime.feeds import Array, Feeds, make_feeds

MODEL_SUFFIXES = (".tflite", ".onnx")


def is_model_file(source: str) -> bool:
    """Tell a bare model file from a bundle by its suffix."""
    return Path(source).suffix in MODEL_SUFFIXES


def feeds_of_bundle(source: str, batch: int | None, input_file: str | None) -> Feeds:
    """Choose the input for a bundle: the user's file, else its golden fixture, else random.

    Raises: what `Bundle.open`, `read_arrays` and `make_feeds` raise.
    """
    with Bundle.open(source) as bundle:
        given = read_arrays(input_file)
        fixture = bundle.golden() if given is None else None
        golden = None if fixture is None else fixture.inputs
        return make_feeds(bundle.manifest.signature, batch=batch, given=given, golden=golden)


def read_arrays(input_file: str | None) -> dict[str, Array] | None:
    """Return the arrays of an .npz file, or None without one.

    Raises:
        NotFoundError: no such file.
        InputError: it is not an .npz of plain arrays.
    """
    if input_file is None:
        return None
    path = Path(input_file)
    if not path.is_file():
        raise NotFoundError(f"there is no file {input_file}", fix="give --input an .npz file that exists")
    return unpack_arrays(path.read_bytes(), origin=input_file)
