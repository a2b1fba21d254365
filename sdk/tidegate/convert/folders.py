"""Write a folder whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tidegate.errors import ConfigError, NotFoundError, ResourceError


def write_folder(out: Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Write these files as the content of a new folder; after a failure there is none. Returns how many bytes.

    Args:
        out: where; nothing, or an empty folder.
        files: path inside it, with `/` between parts, and content.

    Raises:
        ConfigError: something is there already.
        NotFoundError: the folder above does not exist.
        ResourceError: the disk refuses.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"{out} is there already and not empty", fix="name a new folder, or remove this one")
        written = 0
        with tempfile.TemporaryDirectory(
            prefix=f".{out.name[:100]}-", dir=out.parent, ignore_cleanup_errors=True
        ) as scratch:
            whole = Path(scratch) / "whole"
            whole.mkdir()
            for path, content in files:
                target = whole / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                written += len(content)
            if out.exists():
                out.rmdir()
            whole.rename(out)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{out.parent} is not a directory", fix="make the directory first") from error
    except OSError as error:
        raise ResourceError(
            f"{out} could not be written: {error.strerror or error}", fix="check free space and permissions"
        ) from error
    return written
