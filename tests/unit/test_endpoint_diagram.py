"""The picture of the endpointer in the docs is the one its table gives."""

from __future__ import annotations

from pathlib import Path

from tidegate.edge.diagram import mermaid
from tidegate.edge.endpoint import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "pipeline.md"


def test_picture_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{mermaid(TABLE)}```" in PAGE.read_text(encoding="utf-8"), (
        "run `python -m tidegate.edge.diagram` and put its output into docs/pipeline.md"
    )


def test_every_pair_is_drawn() -> None:
    drawn = mermaid(TABLE)
    assert drawn.count(" / ") == len(TABLE)
