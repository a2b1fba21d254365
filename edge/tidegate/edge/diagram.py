"""Draw a state table as a Mermaid diagram, so that the picture in the docs cannot differ from the code.

python -m tidegate.edge.diagram
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from tidegate.edge.endpoint import TABLE

State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)
Action = TypeVar("Action", bound=Enum)


def mermaid(table: Mapping[tuple[State, Event], tuple[State, Action]]) -> str:
    """Return a `stateDiagram-v2`: one arrow for each pair of states, its label the events and their actions."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), (target, action) in table.items():
        arrows.setdefault((state.name, target.name), []).append(f"{event.value} / {action.value}")
    lines = [f"    {source} --> {target}: {'<br>'.join(labels)}" for (source, target), labels in arrows.items()]
    return "\n".join(["stateDiagram-v2", *lines]).replace("_", " ") + "\n"


if __name__ == "__main__":
    print(mermaid(TABLE), end="")
