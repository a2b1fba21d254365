"""SIGKILL at the calls by which `tidegate predict` changes files: repeating the command gives the same bytes.

By default at every twentieth call; TIDEGATE_KILL=all makes a kill at each (`make kill-test`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEWEST_POINTS = 30
"""So that a worker that counts nothing cannot pass."""


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".npz"])
def test_killed_anywhere_the_repeated_run_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    step = 1 if os.environ.get("TIDEGATE_KILL") == "all" else 20
    words = [sys.executable, "-m", "tests.integration.predict_kill_worker", tmp_path, suffix, step]
    # Threads of a library for linear algebra do not survive a fork.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"{suffix}: {found['points']} points, {found['kills']} kills")
    assert found["points"] >= FEWEST_POINTS
    assert found["kills"] == len(range(len(suffix) % step, found["points"], step))
