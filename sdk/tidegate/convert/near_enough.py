"""Is a variant near enough to what it stands for? What was stated against what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tidegate.bundle import Manifest, Parity
from tidegate.convert.spec import BuildSpec, VariantTable
from tidegate.convert.tolerances import suggested
from tidegate.errors import ConfigError
from tidegate.evaluate import Evaluation


def check_shares(spec: BuildSpec) -> None:
    """Refuse tolerances and shares that cannot be meant, and a reference that is not there.

    Raises:
        ConfigError: names the table.
    """
    tables = {f"variant {variant.id!r}: ": variant for variant in spec.variant}
    stated = [(f"{where}evaluation_tolerance", one.evaluation_tolerance) for where, one in tables.items()]
    shares = [(f"{where}minimum_agreement", one.minimum_agreement) for where, one in tables.items()]
    if spec.evaluation is not None:
        stated.append(("[evaluation] tolerance", spec.evaluation.tolerance))
        shares.append(("[evaluation] minimum_agreement", spec.evaluation.minimum_agreement))
    elif any(share is not None for _, share in shares):
        raise ConfigError(
            "a minimum_agreement is stated, and there is no [evaluation] to measure it on",
            fix='give labelled data: [evaluation] data = "eval.npz"',
        )
    for name, tolerance in stated:
        if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
            raise ConfigError(f"{name} is {tolerance}; expected a finite number of 0 or more", fix="mend it")
    for name, share in shares:
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"{name} is {share}; expected a share, 0 to 1", fix="99 % is 0.99")
    known = [variant.id for variant in spec.variant]
    if spec.bundle.reference and spec.bundle.reference not in known:
        raise ConfigError(
            f"[bundle] reference is {spec.bundle.reference!r}; the variants are {', '.join(known)}", fix="name one"
        )


def source_problems(spec: BuildSpec, manifest: Manifest, parity: Mapping[str, Parity]) -> list[str]:
    """Return what is wrong with the variants that were made from a source, held against that source."""
    tables = {variant.id: variant for variant in spec.variant}
    return [
        problem
        for id, found in parity.items()
        for problem in _problems(spec, tables[id], found, "its source", _has_floats(manifest))
    ]


def evaluation_problems(spec: BuildSpec, manifest: Manifest, evaluation: Evaluation, *, decoded: bool) -> list[str]:
    """Return what is wrong with the variants, held against the reference on the evaluation data.

    Raises:
        ConfigError: a least agreement is stated for a model that decides nothing.
    """
    tables = {variant.id: variant for variant in spec.variant}
    problems: list[str] = []
    for result in evaluation.variants:
        table, found = tables[result.id], result.parity
        if found is None:
            continue
        if found.agreement is None and _minimum_agreement(spec, table) is not None:
            raise ConfigError(
                f"a minimum_agreement is stated for variant {table.id!r}, but the model decides nothing: it gives "
                "numbers",
                fix="state evaluation_tolerance instead",
            )
        comparable = _has_floats(manifest) and not decoded
        problems += _problems(spec, table, found, f"{evaluation.reference!r} on the evaluation data", comparable)
    return problems


def advice() -> str:
    """Return what to do about variants that are not near enough."""
    return (
        "if that is near enough for you, say so in that [[variant]] (evaluation_tolerance, minimum_agreement); else "
        "give more representative data, or keep the layers of a wide range in float32 ([source] keep_float)"
    )


def _problems(spec: BuildSpec, table: VariantTable, found: Parity, against: str, comparable: bool) -> Iterator[str]:
    tolerance, error = _tolerance(spec, table), found.maximum_error
    what = f"variant {table.id!r}"
    if error is None and comparable:
        yield f"{what} differs from {against} in shape or in where it has NaN ({found.rows} rows)"
    if error is not None and error > tolerance:
        yield (
            f"{what} is off by {error:.3g} from {against} ({found.rows} rows); its tolerance is {tolerance:g}, and "
            f"{suggested(error):g} would cover it"
        )
    least = _minimum_agreement(spec, table)
    if least is not None and found.agreement is not None and found.agreement < least:
        yield (
            f"{what} decides like {against} on {found.agreement:.2%} of {found.rows} rows; at least {least:.2%} is "
            f"demanded, so {100 * (least - found.agreement):.2f} points are missing"
        )


def _tolerance(spec: BuildSpec, table: VariantTable) -> float:
    general = spec.evaluation.tolerance if spec.evaluation is not None else None
    stated = (table.evaluation_tolerance, general, table.tolerance)
    return next((tolerance for tolerance in stated if tolerance is not None), spec.golden.tolerance)


def _minimum_agreement(spec: BuildSpec, table: VariantTable) -> float | None:
    general = spec.evaluation.minimum_agreement if spec.evaluation is not None else None
    return general if table.minimum_agreement is None else table.minimum_agreement


def _has_floats(manifest: Manifest) -> bool:
    return any(spec.dtype.startswith(("FP", "BF")) for spec in manifest.signature.outputs)
