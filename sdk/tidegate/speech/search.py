"""Search results for a transcript: a small catalogue in an in-memory SQLite FTS5 index.

A catalogue is JSON Lines in UTF-8, one entry a line: `{"id": "...", "title": "...", "text": "...", "keywords": "..."}`.
`id` and `title` are required; `text` is what is shown, `keywords` are further words it is found by. Entries are ranked
by BM25, keywords before title before text. Any word of the query may match; words are reduced to their stem (Porter),
so that `lights` finds `light`.
"""

from __future__ import annotations

import re
import sqlite3
import threading

import msgspec

from tidegate.errors import DependencyError, InputError, StateError
from tidegate.speech.transcript import SearchResult

LARGEST_QUERY_WORDS = 32
"""Words of a query that are searched for; what comes after them is ignored."""

SNIPPET_WORDS = 16

_WEIGHTS = "0.0, 4.0, 1.0, 8.0"
"""BM25 weight of the columns id, title, text, keywords."""

_WORD = re.compile(r"[^\W_]+")


class _Entry(msgspec.Struct, frozen=True):
    id: str
    title: str
    text: str = ""
    keywords: str | list[str] = ""


class Catalogue:
    """Entries to be found by what was said. Safe to call from several threads."""

    def __init__(self, connection: sqlite3.Connection, size: int) -> None:
        """Use `Catalogue.from_jsonl`."""
        self._connection: sqlite3.Connection | None = connection
        self._size = size
        self._lock = threading.Lock()

    @classmethod
    def from_jsonl(cls, raw: bytes, *, origin: str = "catalogue") -> Catalogue:
        """Build the index.

        Args:
            raw: JSON Lines, UTF-8; empty lines are skipped.
            origin: how error messages call it.

        Raises:
            InputError: a line is not an entry, or an id occurs twice; the message gives the line's number.
            DependencyError: this Python's SQLite was built without FTS5.
        """
        entries = _parsed(raw, origin)
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            connection.execute(
                "CREATE VIRTUAL TABLE entry USING fts5("
                "id UNINDEXED, title, text, keywords, tokenize = 'porter unicode61')"
            )
        except sqlite3.OperationalError as error:
            connection.close()
            raise DependencyError(
                f"this Python's SQLite {sqlite3.sqlite_version} cannot build the catalogue: {error}",
                fix="use a Python whose SQLite has FTS5 (the usual builds do), or listen without a catalogue",
            ) from error
        connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?)", [_row(entry) for entry in entries])
        connection.commit()
        return cls(connection, len(entries))

    def __len__(self) -> int:
        return self._size

    def search(self, text: str, limit: int = 3) -> tuple[SearchResult, ...]:
        """Return the entries that fit `text` best, best first.

        Args:
            text: what was said. It is taken as plain words: nothing in it is query syntax.
            limit: most results wanted; 0 or less gives none.

        Raises:
            StateError: the catalogue is closed.
        """
        query = _match_expression(text)
        with self._lock:
            if self._connection is None:
                raise StateError("the catalogue is closed", fix="search before close()")
            if not query or limit <= 0:
                return ()
            rows = self._connection.execute(
                f"SELECT id, title, snippet(entry, 2, '', '', '…', {SNIPPET_WORDS}), -bm25(entry, {_WEIGHTS}) AS score "  # noqa: S608
                "FROM entry WHERE entry MATCH ? ORDER BY score DESC, rowid LIMIT ?",
                (query, limit),
            ).fetchall()
        return tuple(SearchResult(id=row[0], title=row[1], snippet=row[2], score=row[3]) for row in rows)

    def close(self) -> None:
        """Free the index. Closing again does nothing."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _match_expression(text: str) -> str:
    """Return the FTS5 expression for any of the words of `text`; each is a quoted string, so none is an operator."""
    words = dict.fromkeys(_WORD.findall(text.casefold()))
    return " OR ".join(f'"{word}"' for word in list(words)[:LARGEST_QUERY_WORDS])


def _parsed(raw: bytes, origin: str) -> list[_Entry]:
    entries: list[_Entry] = []
    line_by_id: dict[str, int] = {}
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{origin}, line {number}: {error}",
                fix='write one JSON object a line: {"id": "...", "title": "...", "text": "...", "keywords": "..."}',
            ) from error
        if entry.id in line_by_id:
            raise InputError(
                f"{origin}, line {number}: id {entry.id!r} is already that of line {line_by_id[entry.id]}",
                fix="give each entry an id of its own",
            )
        line_by_id[entry.id] = number
        entries.append(entry)
    return entries


def _row(entry: _Entry) -> tuple[str, str, str, str]:
    keywords = entry.keywords if isinstance(entry.keywords, str) else " ".join(entry.keywords)
    return entry.id, entry.title, entry.text, keywords
