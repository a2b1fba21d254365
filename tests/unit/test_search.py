"""The catalogue: ranking, hostile queries, malformed lines, several threads."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.errors import DependencyError, InputError, StateError
from tidegate.speech import Catalogue

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice_commands" / "catalogue.jsonl"
WORDS = ("yes", "no", "up", "down", "left", "right", "stop", "go", "on", "off", "weather", "music")


def catalogue(*entries: dict[str, object]) -> Catalogue:
    return Catalogue.from_jsonl("\n".join(json.dumps(entry) for entry in entries).encode())


SMALL = catalogue(
    {"id": "a", "title": "Lights on", "text": "All lamps of the room", "keywords": "light lamp"},
    {"id": "b", "title": "Weather", "text": "Rain, then lights in the sky", "keywords": ["forecast", "near"]},
    {"id": "c", "title": "Médiathèque", "text": "Bücher und Musik"},
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("light", ["a", "b"]),  # keyword before text
        ("LIGHTS", ["a", "b"]),
        ("forecast", ["b"]),
        ("lamp forecast", ["a", "b"]),
        ("mediatheque", ["c"]),
        ("BÜCHER", ["c"]),
        ("nothing like it", []),
        ("", []),
        ("   ", []),
        ('"', []),
        ("*", []),
        ("rain*", ["b"]),
        ("-rain", ["b"]),
        ("title:rain", ["b"]),
        ("NEAR(rain, 2)", ["b"]),
        ("near", ["b"]),
        ("AND", []),
        ('rain" OR "lamp', ["b", "a"]),
        ("rain'; DROP TABLE entry; --", ["b"]),
        ("\x00rain\x00", ["b"]),
        ("\ud800 rain", ["b"]),
        ("_", []),
    ],
)
def test_query_finds(query: str, found: list[str]) -> None:
    results = SMALL.search(query)
    assert sorted(result.id for result in results) == sorted(found)
    assert [result.score for result in results] == sorted((result.score for result in results), reverse=True)


def test_keyword_ranks_before_text() -> None:
    assert [result.id for result in SMALL.search("light")] == ["a", "b"]


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_query_breaks_the_index(query: str) -> None:
    assert len(SMALL.search(query)) <= 3
    assert [result.id for result in SMALL.search("forecast")] == ["b"]


@given(
    st.lists(st.sampled_from(["NEAR", "AND", "OR", "NOT", '"', "*", "-", "(", ")", ":", "^", "+", "rain"]), max_size=12)
)
@settings(max_examples=300, deadline=None)
def test_query_syntax_is_plain_text(parts: list[str]) -> None:
    found = {result.id for result in SMALL.search(" ".join(parts))}
    assert ("b" in found) == bool({"rain", "NEAR"} & set(parts))


def test_limit() -> None:
    assert len(SMALL.search("light", limit=1)) == 1
    assert SMALL.search("light", limit=0) == ()
    assert SMALL.search("light", limit=-1) == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json", "line 2"),
        (b'{"id": "x"}', "title"),
        (b'{"id": 5, "title": "x"}', "id"),
        (b'["id"]', "line 2"),
        (b'{"id": "first", "title": "again"}', "line 1"),
        (b'{"id": "x", "title": "\xff"}', "line 2"),
    ],
)
def test_malformed_line_is_named(line: bytes, message: str) -> None:
    raw = b'{"id": "first", "title": "fine"}\n' + line + b"\n"
    with pytest.raises(InputError, match="catalogue, line 2") as caught:
        Catalogue.from_jsonl(raw)
    assert message in caught.value.message
    assert caught.value.fix


def test_empty_lines_and_byte_order_mark_are_skipped() -> None:
    raw = b'\xef\xbb\xbf{"id": "a", "title": "one"}\r\n\n  \n{"id": "b", "title": "two"}'
    assert len(Catalogue.from_jsonl(raw)) == 2


def test_empty_catalogue_finds_nothing() -> None:
    assert Catalogue.from_jsonl(b"").search("weather") == ()


def test_sqlite_without_fts5_is_a_dependency_error(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=_WithoutFts5, **kwargs))
    with pytest.raises(DependencyError, match="no such module") as caught:
        Catalogue.from_jsonl(b"")
    assert "FTS5" in str(caught.value.fix)


class _WithoutFts5(sqlite3.Connection):
    """Asks the real SQLite for a module that it does not have, as every build without FTS5 is asked."""

    def execute(self, statement: str, parameters: object = ()) -> sqlite3.Cursor:
        assert parameters == ()
        return super().execute(statement.replace("USING fts5(", "USING fts5_that_is_missing("))


def test_search_after_close() -> None:
    closed = catalogue({"id": "a", "title": "b"})
    closed.close()
    closed.close()
    with pytest.raises(StateError):
        closed.search("b")


def test_several_threads_search_at_once() -> None:
    wrong: list[str] = []

    def search(query: str, expected: list[str]) -> None:
        for _ in range(200):
            found = [result.id for result in SMALL.search(query)]
            if found != expected:
                wrong.append(f"{query}: {found}")

    threads = [threading.Thread(target=search, args=pair) for pair in [("forecast", ["b"]), ("lamp", ["a"])] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("word", WORDS)
def test_the_example_answers_each_command_first_with_its_own_entries(word: str) -> None:
    results = Catalogue.from_jsonl(EXAMPLE.read_bytes()).search(word, limit=2)
    assert [result.id.partition("-")[0] for result in results] == [word, word]
    assert all(result.title and result.snippet for result in results)
