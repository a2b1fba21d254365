"""What has come back on a speech stream and was not taken yet."""

from __future__ import annotations

from typing import Any

from tidegate.client.recognized import RecognizedSegment, read_segment


class SegmentAnswers:
    """The answers of one stream: every final one, and of each open segment the newest interim one."""

    def __init__(self) -> None:
        self.waiting_for: set[int] = set()
        """segments that were begun and have no final answer yet"""
        self._finals: dict[int, RecognizedSegment] = {}
        self._interims: dict[int, RecognizedSegment] = {}

    def take(self, response: Any) -> None:
        """Note a StreamingRecognizeResponse. An answer replaces the interim one of its segment."""
        segment = read_segment(response)
        self._interims.pop(segment.segment_id, None)
        if segment.is_final:
            self.waiting_for.discard(segment.segment_id)
            self._finals[segment.segment_id] = segment
        else:
            self._interims[segment.segment_id] = segment

    def has(self, segment_id: int, *, interim: bool) -> bool:
        """Return whether something of a segment is here: its final answer or, with `interim`, an interim one."""
        return segment_id in self._finals or (interim and segment_id in self._interims)

    def pop(self, segment_id: int) -> RecognizedSegment:
        """Return a segment's final answer, or else its interim one, which must be here."""
        found = self._finals if segment_id in self._finals else self._interims
        return found.pop(segment_id)

    def pop_finals(self) -> list[RecognizedSegment]:
        """Return all final answers, in order of segment id."""
        return _all(self._finals)

    def pop_interims(self) -> list[RecognizedSegment]:
        """Return all interim answers, in order of segment id."""
        return _all(self._interims)


def _all(found: dict[int, RecognizedSegment]) -> list[RecognizedSegment]:
    ordered = [found[segment_id] for segment_id in sorted(found)]
    found.clear()
    return ordered
