"""Run the golden fixture on every variant that this machine can run, and name those that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tidegate.bundle import Bundle, GoldenFixture, Manifest, OutputError, Variant
from tidegate.errors import DependencyError, TidegateError
from tidegate.runtime import Model, load

Status = Literal["passed", "failed", "loaded", "not runnable"]


@dataclass(frozen=True)
class VariantReport:
    """What became of one variant."""

    id: str
    status: Status
    """`loaded`: it runs here, and the bundle has no golden fixture to hold it against"""
    runtime: str = ""
    """such as `ai_edge_litert 2.3.0`; empty when not runnable"""
    provider: str = ""
    """what executes the operators, as the runtime reports it"""
    outputs: tuple[OutputError, ...] = ()
    """each output of the fixture"""
    problem: str = ""
    """why it failed, or why it cannot run here"""

    @property
    def maximum_error(self) -> float | None:
        """The largest absolute error over all outputs; None when nothing was compared."""
        return max((output.maximum_error for output in self.outputs), default=None)


def verify_bundle(
    bundle: Bundle, progress: Callable[[int], None] | None = None, *, variant: str | None = None
) -> list[VariantReport]:
    """Load every variant and hold its outputs against the golden fixture.

    Args:
        bundle: an open bundle.
        progress: told how many variants are behind us.
        variant: only this one.

    Raises:
        NotFoundError: there is no such variant.
        BundleError: the golden fixture cannot be read.
    """
    chosen = bundle.manifest.variants if variant is None else (bundle.variant(variant),)
    golden = bundle.golden()
    reports: list[VariantReport] = []
    for done, one in enumerate(chosen, start=1):
        reports.append(_verify_variant(bundle, one, golden))
        if progress is not None:
            progress(done)
    return reports


def _verify_variant(bundle: Bundle, variant: Variant, golden: GoldenFixture | None) -> VariantReport:
    try:
        model = load(bundle, variant=variant.id)
    except DependencyError as error:
        advice = f" ({error.fix})" if error.fix else ""
        return VariantReport(variant.id, "not runnable", problem=error.message + advice)
    except TidegateError as error:
        return VariantReport(variant.id, "failed", problem=error.message)
    with model:
        if golden is None:
            return VariantReport(variant.id, "loaded", model.runtime, model.provider)
        try:
            errors = golden_errors(bundle.manifest, variant.id, model, golden)
        except TidegateError as error:
            return VariantReport(variant.id, "failed", model.runtime, model.provider, problem=error.message)
        bad = [describe(error) for error in errors if not error.within]
        return VariantReport(
            variant.id, "failed" if bad else "passed", model.runtime, model.provider, errors, "; ".join(bad)
        )


def golden_errors(manifest: Manifest, variant_id: str, model: Model, golden: GoldenFixture) -> tuple[OutputError, ...]:
    """Run the golden fixture on a loaded variant and hold each output against it, by the variant's own tolerance.

    Raises: what `Model.run` raises.
    """
    promised = manifest.golden
    tolerance = 0.0 if promised is None else promised.tolerance_by_variant.get(variant_id, promised.tolerance)
    return tuple(golden.compare(model.run(golden.inputs), tolerance))


def describe(error: OutputError) -> str:
    """Return in words how far an output is off."""
    if error.problem:
        return f"output {error.name!r} {error.problem}"
    return f"output {error.name!r} is off by {error.maximum_error:.3g}; the tolerance is {error.tolerance:.3g}"
