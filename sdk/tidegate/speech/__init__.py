"""From audio to words and search results, shared by device and server."""

from __future__ import annotations

from tidegate.speech.search import Catalogue
from tidegate.speech.transcriber import Transcriber
from tidegate.speech.transcript import SearchResult, Transcript, Word

__all__ = ["Catalogue", "SearchResult", "Transcriber", "Transcript", "Word"]
