"""What recognition returns: words with their times, and the search results that belong to them.

All times are seconds. Whoever makes a value says what they count from: the transcriber from the first sample of the
segment, the pipeline and the server from the moment the device began to listen (`Transcript.shifted`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Word:
    """One recognised word."""

    text: str
    start_s: float
    end_s: float
    confidence: float
    """0 to 1"""


@dataclass(frozen=True)
class Transcript:
    """What was said in one segment."""

    text: str
    """the words with single spaces between them; empty when none was recognised"""
    confidence: float
    """the lowest of the words' confidences; without a word, the highest smoothed probability of `label`"""
    words: tuple[Word, ...] = ()
    label: str = ""
    """without a word: the rejected label that fits best, such as `silence` or `unknown`"""

    def shifted(self, offset_s: float) -> Transcript:
        """Return the same transcript with every time moved by `offset_s` seconds."""
        return replace(
            self,
            words=tuple(
                replace(word, start_s=word.start_s + offset_s, end_s=word.end_s + offset_s) for word in self.words
            ),
        )


@dataclass(frozen=True)
class SearchResult:
    """One entry of a catalogue that fits a transcript."""

    id: str
    title: str
    snippet: str
    score: float
    """higher is better; comparable within one answer only"""
