"""Write an evaluation into a manifest, so that a release says what it was measured to be."""

from __future__ import annotations

import msgspec

from tidegate.bundle import CriterionResult, EvaluationData, Manifest, Variant
from tidegate.evaluate.report import Evaluation, Judgement, VariantResult


def recorded(manifest: Manifest, evaluation: Evaluation) -> Manifest:
    """Return the manifest with parity, metrics, and criteria; `failing` is set when a criterion failed.

    Figures that the author stated in `metrics` give way to measured ones of the same name.
    """
    results = {result.id: result for result in evaluation.variants}
    return msgspec.structs.replace(
        manifest,
        variants=tuple(
            _variant(variant, results[variant.id]) if variant.id in results else variant
            for variant in manifest.variants
        ),
        evaluation=EvaluationData(sha256=evaluation.data_sha256, rows=evaluation.rows),
        criteria=tuple(_criterion(judgement) for judgement in evaluation.criteria),
        failing=manifest.failing or evaluation.verdict == "fail",
    )


def _variant(variant: Variant, result: VariantResult) -> Variant:
    measured = {name: figure.value for name, figure in result.metrics.items() if figure.value is not None}
    return msgspec.structs.replace(variant, metrics={**variant.metrics, **measured}, parity=result.parity)


def _criterion(judgement: Judgement) -> CriterionResult:
    return CriterionResult(
        name=judgement.name,
        metric=judgement.metric,
        scope=judgement.scope,
        variant=judgement.variant,
        demand=judgement.demand,
        verdict=judgement.verdict,
        confidence=judgement.confidence,
        samples=judgement.samples,
        estimate=judgement.estimate,
        lower=judgement.lower,
        upper=judgement.upper,
        reason=judgement.reason,
    )
