"""SIGKILL at the calls that change a device's files: there is always a working model, and never an unverified byte.

By default at every sixth of the states of the disk that a kill can leave, and every third of these devices is brought
to the newest version; TIDEGATE_KILL=all makes a kill at every point and brings every device there (`make kill-test`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.device_scenes import SCENES

from tidegate.testing.channels import write_keys

ROOT = Path(__file__).parents[2]
FEWEST_POINTS = 12
"""So that a worker that counts nothing cannot pass."""


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    write_keys(directory)
    return directory


@pytest.mark.parametrize("scene", SCENES)
def test_killed_anywhere_the_device_has_a_working_model_and_the_next_update_succeeds(
    scene: str, key_files: Path, tmp_path: Path
) -> None:
    extent = ["--all"] if os.environ.get("TIDEGATE_KILL") == "all" else ["--step", "6", "--every", "3"]
    words = [sys.executable, "-m", "tests.integration.device_kill_worker", tmp_path / "home", key_files, scene]
    # Threads of a library for linear algebra do not survive a fork.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words] + extent, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"{scene}: {found['points']} points, {found['states']} states, {found['killed']} killed")
    assert found["points"] >= FEWEST_POINTS
    assert sum(found["answered"].values()) == found["killed"] > 1
