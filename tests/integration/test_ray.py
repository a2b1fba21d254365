"""Runs the cases of `ray_cases.py` in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("ray_cases.py")

TIMEOUT_S = 800


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_the_cases_on_a_cluster() -> None:
    """Ray starts its processes by a fork that runs Python code, which hangs for good beside another test's threads."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)],
        cwd=CASES.parents[2],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
