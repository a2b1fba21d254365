"""Verdicts: what drifts is seen, what does not is left alone, what is too little waits. All draws are seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidegate.errors import ConfigError
from tidegate.profile import Alarm, FeatureResult, Options, Profile, Tail, Window, judge, overall, profile_from
from tidegate.profile.tails import fit, interpolated, level, threshold_at

RNG = np.random.default_rng(11)
ROWS = 2000
OPTIONS = Options(replicates=1000, window_rows=(200, 1000))


def rows(count: int, shift: float = 0.0, deviation: float = 1.0, nan: float = 0.02, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    number = rng.normal(shift, deviation, (count, 1))
    number[rng.random(count) < nan] = np.nan
    words = np.array([f"w{code}".encode() for code in rng.zipf(1.6, count) % 300], dtype=object)
    return {"x": number, "w": words, "constant": np.full((count, 1), 3.0)}


PROFILE: Profile = profile_from(rows(ROWS, seed=100), {}, options=OPTIONS)


def judged(inputs: dict[str, Any], profile: Profile = PROFILE, correction: Any = "none") -> dict[str, FeatureResult]:
    window = Window(profile)
    window.add(inputs)
    return {result.feature: result for result in judge(window, correction)}


@pytest.mark.parametrize(
    ("change", "statistic"),
    [
        ({"shift": 0.5}, "mean"),
        ({"deviation": 1.4}, "spread"),
        ({"nan": 0.2}, "missing"),
        ({"shift": 30.0}, "ks"),
    ],
)
def test_a_change_is_seen_by_its_statistic(change: dict[str, float], statistic: str) -> None:
    result = judged(rows(1000, **change))["input/x/value"]  # type: ignore[arg-type]
    assert result.verdict == "drift"
    assert statistic in result.reason
    assert result.level < 0.001


def test_other_categories_are_seen() -> None:
    window = rows(1000)
    window["w"] = np.array([b"new"] * 100 + window["w"][100:].tolist(), dtype=object)
    result = judged(window)["input/w/value"]
    assert (result.verdict, result.statistics[0].name) == ("drift", "chi2")


def test_of_a_window_without_drift_the_statistic_nearest_to_its_threshold_is_shown() -> None:
    """Not the count of missing rows, of which there are none: its fitted tail calls even zero unlikely."""
    profile = profile_from({"x": np.random.default_rng(1).normal(size=(ROWS, 1))}, {}, options=OPTIONS)
    (result,) = judged({"x": np.random.default_rng(2).normal(size=(300, 1))}, profile).values()
    assert result.verdict == "ok"
    shares = [one.value / one.threshold for one in result.statistics]
    assert shares == sorted(shares, reverse=True)
    assert result.statistics[0].name != "missing"
    assert shares[0] > 0


def test_a_constant_is_judged_by_bins_alone() -> None:
    (feature,) = (one for one in PROFILE.features if one.tensor == "input/constant")
    assert set(feature.alarms[0].statistics) == {"missing", "ks", "chi2"}
    window = rows(1000)
    assert judged(window)["input/constant/value"].verdict == "ok"
    window["constant"][:100] = 3.5
    assert judged(window)["input/constant/value"].verdict == "drift"
    window["constant"][:100] = 2.5
    assert judged(window)["input/constant/value"].verdict == "drift"


@pytest.mark.parametrize("count", [200, 500, 1000, 4000])
def test_false_alarms_stay_near_the_rate(count: int) -> None:
    """1 % is stated; 150 windows with 4 features give 6, and more than 18 has a chance below 1 in 10,000."""
    alarms = sum(
        result.verdict == "drift" for seed in range(150) for result in judged(rows(count, seed=1000 + seed)).values()
    )
    assert alarms <= 18


@pytest.mark.parametrize("correction", ["bonferroni", "holm"])
def test_a_correction_holds_the_rate_for_all_features_together(correction: str) -> None:
    """1 % of windows is stated: of 150, more than 7 have a chance below 1 in 1,000."""
    alarms = [
        overall(tuple(judged(rows(300, seed=2000 + seed), correction=correction).values())) for seed in range(150)
    ]
    assert alarms.count("drift") <= 7


def test_holm_finds_all_that_bonferroni_finds() -> None:
    for seed in range(40):
        window = rows(300, shift=0.2, nan=0.05, seed=seed)
        found = {
            correction: {name for name, one in judged(window, correction=correction).items() if one.verdict == "drift"}
            for correction in ("none", "bonferroni", "holm")
        }
        assert found["bonferroni"] <= found["holm"] <= found["none"]


def test_an_unknown_correction_is_refused() -> None:
    with pytest.raises(ConfigError, match="fdr"):
        judged(rows(300), correction="fdr")


def test_too_few_rows_wait() -> None:
    results = judged(rows(199, shift=50.0))
    assert {result.verdict for result in results.values()} == {"wait"}
    assert overall(tuple(results.values())) == "wait"
    assert "at least 200" in results["input/x/value"].reason


def test_too_few_values_wait_unless_that_itself_is_drift() -> None:
    assert judged(rows(1000, nan=0.9))["input/x/value"].verdict == "drift"
    sparse = profile_from({"x": rows(ROWS, nan=0.6, seed=5)["x"]}, {}, options=OPTIONS)
    result = judged({"x": rows(300, nan=0.6, seed=6)["x"]}, sparse)["input/x/value"]
    assert result.verdict == "wait"
    assert [one.name for one in result.statistics] == ["missing"]


def test_a_feature_without_values_is_judged_by_its_missing_rows_alone() -> None:
    empty = profile_from({"x": np.full((100, 1), np.nan)}, {}, options=OPTIONS)
    assert judged({"x": np.full((300, 1), np.nan)}, empty)["input/x/value"].verdict == "ok"
    assert judged({"x": np.zeros((300, 1))}, empty)["input/x/value"].verdict == "drift"


def test_a_tensor_that_the_window_lacks_is_absent() -> None:
    results = judged({"x": rows(300)["x"]})
    assert results["input/w/value"].verdict == "absent"
    assert overall(tuple(results.values())) == "ok"


def test_a_small_reference_has_wide_thresholds() -> None:
    """Its own mean may be off by 0.1 deviations: a long window must not take that for drift."""
    alarms = 0
    for seed in range(60):
        reference = rows(100, nan=0.0, seed=3000 + seed)["x"]
        profile = profile_from({"x": reference}, {}, options=OPTIONS)
        alarms += judged({"x": rows(1000, nan=0.0, seed=seed)["x"]}, profile)["input/x/value"].verdict == "drift"
    assert alarms <= 5


def test_extreme_values_do_not_break_the_arithmetic() -> None:
    huge = np.where(RNG.random((300, 1)) < 0.5, 1e149, -1e149)
    profile = profile_from({"x": huge}, {}, options=OPTIONS)
    assert judged({"x": np.where(RNG.random((300, 1)) < 0.5, 1e149, -1e149)}, profile)["input/x/value"].verdict == "ok"
    window = rows(1000)
    window["x"][:100] = 1e308
    window["x"][100:200] = -1e150
    assert judged(window)["input/x/value"].verdict == "drift"


def test_the_exponential_tail_is_that_of_chi_square() -> None:
    """Five per cent points of z²: 3.84; 0.3 %: 8.81; 0.05 %: 12.1."""
    tail = fit(np.random.default_rng(0).normal(size=200_000) ** 2)
    assert tail.at(0.003) == pytest.approx(8.81, rel=0.03)
    assert tail.at(0.0005) == pytest.approx(12.1, rel=0.05)


def test_level_and_threshold_are_each_other_s_inverse() -> None:
    tail = Tail(threshold=3.0, scale=1.8)
    assert level("mean", 3.0, tail, 0.004) == pytest.approx(0.004)
    assert level("mean", threshold_at("mean", tail, 0.004, 1e-5), tail, 0.004) == pytest.approx(1e-5)
    assert level("chi2", threshold_at("chi2", tail, 0.004, 1e-5), tail, 0.004) == pytest.approx(1e-5)


def test_thresholds_between_sizes_are_linear_in_the_logarithm() -> None:
    alarms = tuple(
        Alarm(window_rows=size, tests=2.0, statistics={"ks": Tail(threshold=threshold, scale=1.0)})
        for size, threshold in ((100, 1.0), (10_000, 3.0))
    )
    found = {size: interpolated(alarms, size).statistics["ks"].threshold for size in (100, 1000, 10_000, 1_000_000)}
    assert found == {100: 1.0, 1000: pytest.approx(2.0), 10_000: 3.0, 1_000_000: 3.0}
