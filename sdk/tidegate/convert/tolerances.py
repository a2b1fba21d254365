"""What to tell an author whose variant misses the golden fixture: how far off it is, and how to say that it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidegate.bundle.manifest import Manifest, Variant
from tidegate.runtime.verify import VariantReport

ROUNDED = frozenset({"int8", "dynamic-int8", "int16", "uint8", "fp16", "bf16"})
"""Precisions whose results differ from fp32 by their nature."""

HEADROOM = 1.5
"""A stated tolerance above the error that was measured, so that another processor's rounding fits too."""


def advice(manifest: Manifest, reports: Sequence[VariantReport], *, generated: bool) -> str:
    """Return what to do about the variants that failed.

    Args:
        manifest: of the release.
        reports: of all its variants.
        generated: the fixture was made from random inputs, not given by the author.
    """
    failed = [report for report in reports if report.status == "failed"]
    measured = {
        report.id: report.maximum_error
        for report in failed
        if report.maximum_error is not None and math.isfinite(report.maximum_error)
    }
    if len(measured) < len(failed):
        return "mend the variant: no tolerance covers what differs in shape, in bytes or in its NaN"
    variants = {variant.id: variant for variant in manifest.variants}
    pair = ", ".join(f"--tolerance {id}={suggested(error):g}" for id, error in measured.items())
    parts = [_reason(manifest, [variants[id] for id in measured])]
    parts.append(f"if that is near enough for you, say so: {pair}, or `tolerance` in that [[variant]]; else mend it")
    if generated:
        parts.append("inputs of your own in [golden] tell more than random ones")
    return "; ".join(part for part in parts if part)


def suggested(error: float) -> float:
    """Return a tolerance with one significant digit that covers an error with some headroom."""
    wanted = error * HEADROOM
    if wanted <= 0:
        return 0.0
    step = 10.0 ** math.floor(math.log10(wanted))
    return float(f"{math.ceil(wanted / step - 1e-9) * step:.1g}")


def _reason(manifest: Manifest, failed: list[Variant]) -> str:
    reference = manifest.variants[0]
    kinds = {variant.precision for variant in (*failed, reference)} & ROUNDED
    if not kinds:
        return ""
    return f"{' and '.join(sorted(kinds))} rounds, so some difference is to be expected"
