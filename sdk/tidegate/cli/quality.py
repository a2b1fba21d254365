"""What a manifest says of the quality of its release; `build` and `inspect` share it."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.bundle import CriterionResult, Manifest, Variant
from tidegate.cli.printing import print_table
from tidegate.profile import NumberFeature, Profile

_MACHINE_BOUND = ("latency_p95_ms", "rss_mb")


def print_quality(manifest: Manifest) -> None:
    """Print parity and metrics of the variants, and the verdicts; nothing where nothing was measured."""
    _print_evaluation(manifest)
    _print_criteria(manifest.criteria)


def print_profile(profile: Profile) -> None:
    """Print what the reference profile is about, a line for each tensor."""
    windows = ", ".join(map(str, profile.window_rows))
    print(
        f"\nreference profile: {len(profile.features)} features of {profile.rows} rows, false-alarm rate "
        f"{profile.false_alarm_rate:g} for windows of {windows} rows"
    )
    rows = []
    for rule in profile.tensors:
        features = [feature for feature in profile.features if feature.tensor == rule.tensor]
        numbers = sum(isinstance(feature, NumberFeature) for feature in features)
        absent = max((feature.missing + feature.null for feature in features), default=0)
        rows.append(
            (
                printable(rule.tensor),
                rule.kind,
                str(numbers),
                str(len(features) - numbers),
                f"{absent / profile.rows:.2%}",
            )
        )
    print_table(("tensor", "kind", "numbers", "categories", "missing or null"), rows)


def printable(text: str) -> str:
    """Return text from a bundle without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _print_evaluation(manifest: Manifest) -> None:
    data = manifest.evaluation
    names = sorted({name for variant in manifest.variants for name in variant.metrics})
    if data is None and not names:
        return
    measured = "as the author stated" if data is None else f"on {data.rows} rows, SHA-256 {data.sha256[:12]}"
    print(f"\nmetrics and parity, {measured}")
    print_table(
        ("variant", *map(printable, names), "same decision", "maximum error", "mean error", "held against"),
        [
            (variant.id, *(_number(variant.metrics.get(name)) for name in names), *_parity(variant))
            for variant in manifest.variants
        ],
    )


def _parity(variant: Variant) -> Sequence[str]:
    found = variant.parity
    if found is None:
        return ("-", "-", "-", "-")
    same = "-" if found.agreement is None else f"{found.agreement:.2%}"
    return (same, _error(found.maximum_error), _error(found.mean_error), found.reference)


def _print_criteria(criteria: Sequence[CriterionResult]) -> None:
    if not criteria:
        return
    print("\nacceptance criteria")
    print_table(
        ("verdict", "criterion", "rows", "variant", "demand", "estimate", "lower", "upper", "confidence", "samples"),
        [
            (
                one.verdict.upper(),
                printable(one.name),
                printable(one.scope),
                one.variant,
                printable(one.demand),
                _number(one.estimate),
                _number(one.lower),
                _number(one.upper),
                f"{one.confidence:g}",
                str(one.samples),
            )
            for one in criteria
        ],
    )
    # Which machine a figure was measured on: it holds for no other.
    for one in criteria:
        if one.metric in _MACHINE_BOUND:
            print(f"{printable(one.name)} ({one.variant}): {printable(one.reason)}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"
