"""A directory of files, a row each: audio as `.wav`, or arrays as `.npy`.

Images are not read. Between a picture and a tensor stand its size, the order of its colours and a normalisation, and a
bundle does not state them; a guess would run without an error and answer wrongly. Save the arrays that the model was
trained on as `.npy`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.errors import InputError, ResourceError, TidegateError
from tidegate.predict.rows import Cells, Rows
from tidegate.predict.sources.protocol import file_identity, unreadable

FILE = "file"
PATH = "path"
"""Column of the whole path, for a reader that opens the file itself."""

CONTENT = "content"
"""Column of what is in the file."""

SUFFIXES = (".wav", ".npy")


class DirectorySource:
    """The `.wav` or `.npy` files of a directory and those below it, in the order of their names."""

    keys = (FILE,)

    def __init__(self, path: Path, *, sample_rate_hz: int | None) -> None:
        """List the files.

        Args:
            path: of the directory.
            sample_rate_hz: what the model wants; audio of another rate is resampled. None: audio is taken as it is.

        Raises:
            InputError: no such file, or both kinds.
        """
        self.origin = str(path)
        self._root = path
        self._sample_rate_hz = sample_rate_hz
        try:
            found = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
        except OSError as error:
            raise unreadable(path, error) from error
        kinds = sorted({file.suffix.lower() for file in found})
        if len(kinds) != 1:
            raise InputError(
                f"{path} holds {' and '.join(kinds) or 'neither .wav nor .npy'} files; expected one of the two kinds",
                fix="give a directory of audio or of arrays; save images as the arrays that the model takes",
            )
        self.is_audio = kinds == [".wav"]
        self._files = sorted(found, key=lambda file: file.relative_to(path).as_posix())
        self.columns: tuple[str, ...] = (FILE, PATH, CONTENT)
        self.steps = len(self._files)

    @property
    def identity(self) -> str:
        """See `Source.identity`."""
        listing = "\n".join(f"{self._name(file)} {file_identity(file)}" for file in self._files)
        return f"{self._root.name} {hashlib.sha256(listing.encode()).hexdigest()}"

    def dtype(self, column: str) -> str:
        """See `Source.dtype`."""
        if column == CONTENT:
            raise InputError(f"{self.origin}: content cannot be carried through", fix="carry file or path")
        return "BYTES"

    def read(self, columns: Sequence[str], first: int, count: int) -> Iterator[Rows]:
        """See `Source.read`; a file that cannot be used is the fault of its row."""
        read = self._read_audio if self.is_audio else _read_array
        for start in range(first, len(self._files), count):
            files = self._files[start : start + count]
            contents, faults = _contents(files, read) if CONTENT in columns else ([], {})
            cells: dict[str, Cells] = {
                FILE: [self._name(file) for file in files],
                PATH: [str(file) for file in files],
                CONTENT: contents,
            }
            yield Rows(start, len(files), {name: cells[name] for name in columns}, start + len(files), faults)

    def _name(self, file: Path) -> str:
        return file.relative_to(self._root).as_posix()

    def _read_audio(self, file: Path) -> Array:
        from tidegate.edge import WavSource
        from tidegate.speech.resample import StreamResampler

        with WavSource(file) as source:
            samples = np.concatenate(list(source.chunks()))
            if self._sample_rate_hz in (None, source.sample_rate_hz):
                return samples
            assert self._sample_rate_hz is not None
            resampler = StreamResampler(source.sample_rate_hz, self._sample_rate_hz)
        return np.concatenate([resampler.push(samples), resampler.finish()])


def _contents(files: Sequence[Path], read: Callable[[Path], Array]) -> tuple[list[Array | None], dict[int, str]]:
    contents: list[Array | None] = []
    faults: dict[int, str] = {}
    for place, file in enumerate(files):
        try:
            contents.append(read(file))
        except (InputError, ResourceError) as error:
            contents.append(None)
            faults[place] = _reason(error)
    return contents, faults


def _reason(error: TidegateError) -> str:
    return f"cannot be read: {error.message}"


def _read_array(file: Path) -> Array:
    try:
        array: Array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{file} is not a readable .npy: {error}", fix="write it with numpy.save") from error
    except OSError as error:
        raise unreadable(file, error) from error
    return array
