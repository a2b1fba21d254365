from __future__ import annotations

import json

import pytest

from tidegate.bench.observers import main


def test_each_observer_is_measured_with_both_kinds_of_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["request"], row["observer"]) for row in rows] == [
        (kind, observer) for kind in ("answered", "refused") for observer in ("metrics", "log of failures")
    ]
    # Of one round the best is the median.
    assert all(row["median_ns"] == row["best_ns"] for row in rows)
