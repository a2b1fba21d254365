"""Every node test of the `onnx` package that bare ONNX Runtime passes gives the same output out of a bundle.

`TIDEGATE_ONNX_NODES=8` takes one test in eight, the same ones each time; the default is all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.conformance.onnx_nodes import cases, in_sample, known_gaps, run, version

ONE_IN = int(os.environ.get("TIDEGATE_ONNX_NODES", "1"))


@pytest.mark.timeout(1200)
def test_node_tests_give_the_same_output_out_of_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {name: case for name, case in cases().items() if in_sample(name, ONE_IN)}
    gaps = {name: reason for name, reason in known_gaps().items() if in_sample(name, ONE_IN)}
    outcomes = [run(case, tmp_path) for case in chosen.values()]
    passed_bare = [outcome for outcome in outcomes if outcome.bare]
    failed = {outcome.name: outcome.problem for outcome in passed_bare if outcome.problem}
    with capsys.disabled():
        print(
            f"\n{len(outcomes)} node tests ({version()}): bare ONNX Runtime passes {len(passed_bare)}, "
            f"a bundle {len(passed_bare) - len(failed)} of these, {len(failed)} are known gaps"
        )
    assert {name: problem for name, problem in failed.items() if name not in gaps} == {}
    assert sorted(gaps.keys() - failed.keys()) == [], "these lines of onnx_node_gaps.txt have gone stale"
    # Guards the test itself: a harness that takes everything for unsupported would pass the lines above.
    assert len(passed_bare) > 0.6 * len(outcomes)
