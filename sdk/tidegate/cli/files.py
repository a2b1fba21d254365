"""Files that a command line names."""

from __future__ import annotations

from pathlib import Path

from tidegate.errors import NotFoundError, ResourceError


def read_file(path: Path, option: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: as the user gave it.
        option: the argument it was given with, for messages.

    Raises:
        NotFoundError: there is none.
        ResourceError: the system refused to read it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}", fix=f"correct the path given with {option}") from error
    except OSError as error:
        raise ResourceError(
            f"{path} could not be read: {error.strerror}", fix=f"give a readable file with {option}"
        ) from error
