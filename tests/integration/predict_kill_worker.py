"""Kill a batch run with SIGKILL at the calls that change its files, repeat it, and compare with a run left in peace.

    python -m tests.integration.predict_kill_worker HOME FORMAT STEP

One JSON line: how many points there were, and how many kills were made (at every STEP-th).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime  # noqa: F401 imported once, for all children
from tests.deadly_calls import Point, killer, recorder, watch
from tests.forked import ended, in_child
from tests.served import linear_bundle

from tidegate.predict import PredictSettings, predict

ROWS = 2500
BAD_ROWS = (700, 2400)
SETTINGS = PredictSettings(keys=("id",), on_error="skip", checkpoint_rows=1)


class Run:
    """One job, whose files are all below a directory of its own."""

    def __init__(self, home: Path, suffix: str) -> None:
        """Write bundle and input."""
        self.home, self.suffix = home, suffix
        self.bundle, self.source = linear_bundle(home, factor=2.0), home / "in.jsonl"
        x = np.random.default_rng(1).normal(size=(ROWS, 4)).tolist()
        rows = [{"id": row, "x": None if row in BAD_ROWS else x[row]} for row in range(ROWS)]
        self.source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def points(self) -> list[Point]:
        """Run in peace and count."""
        out = self._made("peace")

        def run() -> list[Point]:
            points: list[Point] = []
            watch(out, recorder(out, points))
            self._predict(out)
            return points

        return in_child(run)

    def killed(self, point: Point) -> None:
        """Kill at a point, repeat the command, and hold what there is against the run in peace."""
        out = self._made("killed")

        def run() -> None:
            watch(out, killer(point.number))
            self._predict(out)

        how, what = ended(run)
        assert how == "died of SIGKILL", f"{point}: {how} {what}"
        left = out / f"out{self.suffix}"
        whole = contents(self.home / "peace")
        if left.exists():
            assert contents(out).items() >= whole.items(), f"{point}: an output without what belongs to it"
        in_child(lambda: self._predict(out))
        assert contents(out) == whole, f"{point}: {sorted(contents(out))}"
        shutil.rmtree(out)

    def _predict(self, out: Path) -> None:
        predict(self.bundle, self.source, out / f"out{self.suffix}", SETTINGS)

    def _made(self, name: str) -> Path:
        (self.home / name).mkdir()
        return self.home / name


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main(home: Path, suffix: str, step: int) -> None:
    """Go through the points."""
    run = Run(home, suffix)
    points = run.points()
    chosen = points[len(suffix) % step :: step]
    for point in chosen:
        run.killed(point)
    print(json.dumps({"points": len(points), "kills": len(chosen)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
