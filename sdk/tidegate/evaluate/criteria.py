"""`criteria.toml`: what a release promises, in a form that can turn out false.

The file is read at release, and is meant to be read by the canary and by alarms as well, so it says nothing about where
the figures come from.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from tidegate.errors import ConfigError, DependencyError, NotFoundError, ResourceError
from tidegate.evaluate.contributions import BY_CLASS, LOWER_IS_BETTER

SCHEMA = "tidegate.criteria/1"

CRITERIA_ASSET = "criteria"
"""The asset of a bundle that holds the file it was judged by at build."""

Metric = Literal[
    "accuracy", "precision", "recall", "f1", "auc_pr", "word_error_rate", "mean_error",
    "latency_p95_ms", "size_bytes", "rss_mb",
]  # fmt: skip
MEASURED_ELSEWHERE = ("latency_p95_ms", "rss_mb", "size_bytes")
"""They are about the model as a program, not about its answers: no slice, no class, no baseline."""

DEFAULT_CONFIDENCE = 0.95
EACH_VARIANT = "each"

MINIMUM_SAMPLES = {"exact": 1, "resampled": 30, "compared": 30}
"""Unless the criterion says otherwise. An exact bound is right for any number of samples. Resampling needs some to draw
from. A comparison without a margin cannot prove that there is no loss, so it must at least have had a chance to see
one; what loss it rules out is part of every verdict."""


class Criterion(msgspec.Struct, frozen=True, kw_only=True, rename={"of_class": "class"}):
    """[[criterion]]: one promise."""

    metric: Metric
    name: str = ""
    """how reports call it; default: the promise in words"""
    of_class: str | int | None = None
    """`class`: for precision, recall, F1, AUC-PR; default: the positive class of two, else the mean over all classes"""
    slice: str | None = None
    """`NAME`: every value of the slice, each by itself; `NAME=VALUE`: one of them; default: all rows"""
    tag: str | None = None
    """only rows with this tag"""
    at_least: float | None = None
    at_most: float | None = None
    not_worse_than: Literal["baseline"] | None = None
    """the released model on the same rows"""
    margin: float = 0.0
    """with `not_worse_than`: the loss that is allowed. More than 0: the model must prove that it loses no more. 0: it
    must not be shown to lose anything"""
    minimum_samples: int | None = None
    """fewer, and the verdict is wait; default: see `MINIMUM_SAMPLES`"""
    confidence: float | None = None
    """default: that of the file"""
    variant: str | None = None
    """an id, or `each`; default: the variant that the report is about"""


class Criteria(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    criterion: tuple[Criterion, ...]
    schema: Literal["tidegate.criteria/1"] = "tidegate.criteria/1"
    confidence: float = DEFAULT_CONFIDENCE
    """of every bound, unless a criterion has its own; above 0.5 and below 1"""


def read_criteria(path: Path) -> Criteria:
    """Read and check a criteria file.

    Raises:
        NotFoundError: there is no such file.
        ResourceError: the system refuses to read it.
        ConfigError: not TOML, an unknown key (the nearest known one is named), or a promise that cannot be meant.
        DependencyError: no TOML parser, on Python 3.10 without `tidegate[build]`.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError(f"no criteria file {path}", fix="check the path") from error
    except OSError as error:
        raise ResourceError(f"{path} could not be read: {error.strerror}", fix="check permissions") from error
    return parse_criteria(raw, origin=str(path))


def parse_criteria(raw: bytes, *, origin: str) -> Criteria:
    """Parse the bytes of a criteria file; see `read_criteria`."""
    table = _parse_toml(raw, origin)
    _check_keys(table, Criteria, origin, "")
    items = table.get("criterion")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise ConfigError(f"{origin} has no [[criterion]]", fix="state at least one promise")
    for number, item in enumerate(items, 1):
        _check_keys(item, Criterion, origin, f"criterion {number}: ")
        _check_metric(item, f"{origin}: criterion {number}")
    try:
        criteria = msgspec.convert(table, Criteria)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {error}", fix="docs/evaluation.md shows every key") from error
    _check_confidence(criteria.confidence, origin)
    for number, criterion in enumerate(criteria.criterion, 1):
        for problem in _problems(criterion):
            raise ConfigError(f"{origin}: criterion {number}: {problem}", fix="docs/evaluation.md shows every key")
        if criterion.confidence is not None:
            _check_confidence(criterion.confidence, f"{origin}: criterion {number}")
    named = tuple(
        msgspec.structs.replace(criterion, name=criterion.name or in_words(criterion))
        for criterion in criteria.criterion
    )
    names = [criterion.name for criterion in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{origin}: two criteria are called {twice!r}", fix="give each its own name")
    return msgspec.structs.replace(criteria, criterion=named)


def in_words(criterion: Criterion) -> str:
    """Return a promise in words, such as `recall of 'stop' on slice room: at least 0.9`."""
    of = f" of {criterion.of_class!r}" if criterion.of_class is not None else ""
    where = f" on slice {criterion.slice}" if criterion.slice else f" on tag {criterion.tag}" if criterion.tag else ""
    by = f" of variant {criterion.variant}" if criterion.variant else ""
    return f"{criterion.metric}{of}{where}{by}: {demand(criterion)}"


def demand(criterion: Criterion) -> str:
    """Return the bound in words."""
    if criterion.at_least is not None:
        return f"at least {criterion.at_least:g}"
    if criterion.at_most is not None:
        return f"at most {criterion.at_most:g}"
    return "not worse than the baseline" + (f" by more than {criterion.margin:g}" if criterion.margin else "")


def _problems(criterion: Criterion) -> Iterable[str]:
    metric = criterion.metric
    bounds = [name for name in ("at_least", "at_most", "not_worse_than") if getattr(criterion, name) is not None]
    if len(bounds) != 1:
        yield f"has {' and '.join(bounds) or 'no bound'}; expected one of at_least, at_most, not_worse_than"
        return
    bound, right = bounds[0], "at_most" if metric in LOWER_IS_BETTER else "at_least"
    if bound in ("at_least", "at_most"):
        value = getattr(criterion, bound)
        if bound != right:
            yield f"{metric} is better the {'lower' if right == 'at_most' else 'higher'} it is; use {right}"
        if not math.isfinite(value):
            yield f"{bound} is {value}; expected a finite number"
        if right == "at_least" and not 0 <= value <= 1:
            yield f"{bound} is {value:g}; {metric} lies within 0 and 1"
        if right == "at_most" and value < 0:
            yield f"{bound} is {value:g}; {metric} is never negative"
    if not (math.isfinite(criterion.margin) and criterion.margin >= 0):
        yield f"margin is {criterion.margin}; expected 0 or more"
    if criterion.margin and bound != "not_worse_than":
        yield "margin goes with not_worse_than only"
    if criterion.minimum_samples is not None and criterion.minimum_samples < 1:
        yield f"minimum_samples is {criterion.minimum_samples}; expected 1 or more"
    if criterion.slice is not None and criterion.tag is not None:
        yield "has both slice and tag; expected one of them"
    if criterion.of_class is not None and metric not in BY_CLASS:
        yield f"class goes with {', '.join(BY_CLASS)}; not with {metric}"
    if metric in MEASURED_ELSEWHERE and (criterion.slice or criterion.tag or bound == "not_worse_than"):
        yield f"{metric} has no slice, no tag and no baseline; use at_most"


def _check_confidence(confidence: float, origin: str) -> None:
    if not 0.5 < confidence < 1:
        raise ConfigError(f"{origin}: confidence is {confidence}; expected above 0.5 and below 1", fix="0.95 is usual")


def _check_metric(item: Mapping[str, Any], origin: str) -> None:
    metric, known = item.get("metric"), get_args(Metric)
    if metric not in known:
        near = difflib.get_close_matches(str(metric), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise ConfigError(f"{origin}: metric is {metric!r}; {hint}", fix="correct the metric")


def _check_keys(table: Mapping[str, Any], kind: type[msgspec.Struct], origin: str, where: str) -> None:
    """Refuse keys that nothing reads: a misspelt bound would be a promise silently lost."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise ConfigError(f"{origin}: {where}unknown key {key!r}; {hint}", fix="correct or remove the key")


def _parse_toml(raw: bytes, origin: str) -> dict[str, Any]:
    toml = _toml_module()
    try:
        table: dict[str, Any] = toml.loads(raw.decode())
    except (toml.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{origin} is not TOML: {error}", fix="mend the syntax at that place") from error
    return table


def _toml_module() -> Any:
    """Return the standard library's TOML parser, or on Python 3.10 the package that it came from."""
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise DependencyError(
        "Python 3.10 has no TOML parser, and tomli is not installed", fix='pip install "tidegate[build]"'
    )
