"""What docs/updates.md says of states and settings is what the code says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from tidegate.bundle.manifest import TrialSettings
from tidegate.edge.diagram import mermaid
from tidegate.edge.update.probe import ProbeSettings
from tidegate.edge.update.settings import DeviceSettings
from tidegate.edge.update.states import TABLE, State
from tidegate.fetch.settings import FetchSettings

PAGE = (Path(__file__).parents[2] / "docs" / "updates.md").read_text(encoding="utf-8")


def test_picture_is_drawn_from_the_table() -> None:
    picture = f"```mermaid\n{mermaid(TABLE)}```"
    assert picture in PAGE, (
        "put into docs/updates.md what this prints: python -c 'from tidegate.edge.diagram import mermaid; "
        'from tidegate.edge.update.states import TABLE; print(mermaid(TABLE), end="")\''
    )
    assert picture.count(" / ") == len(TABLE)


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_each_state_is_explained(state: State) -> None:
    assert f"\n| {state.name} | " in PAGE


TRIAL = msgspec.structs.asdict(TrialSettings())
PROBE = {one.name: one.default for one in dataclasses.fields(ProbeSettings)}
FETCH = {one.name: one.default for one in dataclasses.fields(FetchSettings)}
DEVICE = {one.name: one.default for one in dataclasses.fields(DeviceSettings) if one.default is not dataclasses.MISSING}


@pytest.mark.parametrize(("name", "default"), [*TRIAL.items(), *PROBE.items(), *FETCH.items(), *DEVICE.items()])
def test_each_setting_stands_there_with_its_default(name: str, default: object) -> None:
    assert f"\n| `{name}` | {written(default)} |" in PAGE


@pytest.mark.parametrize("name", [one.name for one in dataclasses.fields(DeviceSettings)])
def test_each_setting_of_the_device_stands_there(name: str) -> None:
    assert f"\n| `{name}` | " in PAGE


def written(default: object) -> str:
    """Numbers without a needless fraction, None as JSON has it."""
    if default is None:
        return "null"
    if isinstance(default, tuple):
        return "[]"
    if default == "":
        return '`""`'
    return f"{default:.12g}" if isinstance(default, float) else str(default)
