"""Speech bundles on a directory of audio: each file through the bundle's own prefilter, endpointer and decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tidegate.bundle.arrays import Array
from tidegate.errors import InputError, ModelError, ResourceError
from tidegate.predict.predictor import Answers
from tidegate.predict.rows import ColumnSpec, Rows
from tidegate.predict.sources.directory import PATH

if TYPE_CHECKING:
    from tidegate.edge import Listener, SegmentResult

OUTPUTS = (
    ColumnSpec("text", "BYTES", 0),
    ColumnSpec("duration_s", "FP64", 0),
    ColumnSpec("segment_text", "BYTES", 1),
    ColumnSpec("segment_label", "BYTES", 1),
    ColumnSpec("segment_confidence", "FP64", 1),
    ColumnSpec("segment_start_s", "FP64", 1),
    ColumnSpec("segment_end_s", "FP64", 1),
)
"""A row a file: all words, and what `tidegate listen` says of each segment."""


class SpeechPredictor:
    """A listener that answers files, as a device would."""

    reads = (PATH,)
    read_rows = 1
    outputs = OUTPUTS

    def __init__(self, listener: Listener) -> None:
        """Take a listener; it is closed with this."""
        self._listener = listener

    def answer(self, rows: Rows) -> Answers:
        """See `Answerer.answer`."""
        from tidegate.edge import WavSource

        places: list[int] = []
        columns: dict[str, list[Array]] = {spec.name: [] for spec in OUTPUTS}
        faults: dict[int, str] = {}
        for place, path in enumerate(rows.cells[PATH]):
            try:
                segments = list(self._listener.listen(WavSource(Path(path))))
            except (InputError, ModelError, ResourceError) as error:
                faults[place] = error.message
                continue
            places.append(place)
            for name, value in _columns(segments, self._listener.summary.duration_s).items():
                columns[name].append(value)
        return Answers(places, columns, faults)

    def close(self) -> None:
        """Free the model."""
        self._listener.close()


def _columns(segments: list[SegmentResult], duration_s: float) -> dict[str, Array]:
    return {
        "text": _texts([" ".join(segment.text for segment in segments if segment.text)]).reshape(()),
        "duration_s": np.asarray(duration_s, np.float64),
        "segment_text": _texts([segment.text for segment in segments]),
        "segment_label": _texts([segment.label for segment in segments]),
        "segment_confidence": np.array([segment.confidence for segment in segments], np.float64),
        "segment_start_s": np.array([segment.start_s for segment in segments], np.float64),
        "segment_end_s": np.array([segment.end_s for segment in segments], np.float64),
    }


def _texts(words: list[str]) -> Array:
    array = np.empty(len(words), object)
    array[:] = [word.encode() for word in words]
    return array
