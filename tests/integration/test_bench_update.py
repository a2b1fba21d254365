"""The benchmark of updates on a real channel: each kind of change is what it says, and counted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tidegate.bench.update import Cost, Memory, main

DENSE = str(Path(__file__).parents[1] / "data" / "dense.tflite")


def test_each_kind_of_change_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([DENSE, DENSE, DENSE, "--runs", "1", "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    costs = {cost.kind: cost for cost in (msgspec.json.decode(line, type=Cost) for line in lines)}
    assert {kind: cost.outcome for kind, cost in costs.items()} == {
        "no change": "up to date",
        "same content": "noted",
        "labels only": "activated",
        "head only": "activated",
        "full retrain": "activated",
    }
    assert [costs[kind].requests for kind in ("no change", "same content")] == [2, 4]
    assert costs["no change"].wire_bytes < costs["same content"].wire_bytes < costs["labels only"].wire_bytes
    assert "assets/labels.txt" in costs["labels only"].fetched
    assert "assets/labels.txt" not in costs["head only"].fetched
    assert costs["labels only"].rollback_ms is not None
    memory = msgspec.json.decode(last, type=Memory)
    assert 0 < memory.import_mb < memory.check_mb <= memory.update_mb
