"""An evaluation for people, as titled tables of text; the terminal and the HTML page show the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tidegate.evaluate.report import Evaluation, Figure, Judgement

WIDEST_MATRIX = 12
"""A confusion matrix with more classes is shown as its most frequent confusions."""
MOST_CONFUSIONS = 20
MOST_SLICES = 30


@dataclass(frozen=True)
class Table:
    """One table."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default=())


def tables(evaluation: Evaluation, *, wide: bool) -> list[Table]:
    """Return every table of the report, in reading order; those without rows are left out.

    Args:
        evaluation: what to show.
        wide: there is room for sentences in a column; otherwise they stand below the table.
    """
    found = [
        _criteria(evaluation, wide),
        _variants(evaluation),
        _skill(evaluation),
        _confusion(evaluation),
        _classes(evaluation),
        _slices(evaluation),
        _tags(evaluation),
    ]
    return [table for table in found if table.rows]


def heading(evaluation: Evaluation) -> str:
    """Return one line that says what was evaluated on what."""
    return (
        f"{evaluation.name} {evaluation.version}, variant {evaluation.variant}: "
        f"{evaluation.rows} rows of {evaluation.data}"
    )


def verdict_line(evaluation: Evaluation) -> str:
    """Return the verdict on the release in one line; empty without criteria."""
    if evaluation.verdict is None:
        return ""
    counts = dict.fromkeys(("pass", "fail", "wait"), 0)
    for judgement in evaluation.criteria:
        counts[judgement.verdict] += 1
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    meaning = {"pass": "every promise is kept", "fail": "a promise is broken", "wait": "not enough data to say"}
    return f"verdict: {evaluation.verdict.upper()}: {meaning[evaluation.verdict]} ({said})"


def number(value: float | None) -> str:
    """Return a figure with as many digits as it deserves."""
    if value is None:
        return "-"
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2e}"


def interval(figure: Figure | None) -> str:
    """Return a figure with its bounds: `0.93 [0.91, 0.95]`."""
    if figure is None or figure.value is None:
        return "-"
    return f"{figure.value:.3f} [{_bound(figure.lower)}, {_bound(figure.upper)}]"


def _criteria(evaluation: Evaluation, wide: bool) -> Table:
    header = [
        "verdict",
        "criterion",
        "rows",
        "variant",
        "demand",
        "estimate",
        "lower",
        "upper",
        "confidence",
        "samples",
    ]
    rows = [_judgement(judgement) for judgement in evaluation.criteria]
    reasons = [judgement.reason for judgement in evaluation.criteria]
    notes = []
    if any(judgement.baseline is not None for judgement in evaluation.criteria):
        notes.append("Of a comparison with the baseline, estimate and bounds are the difference; positive is better.")
    if wide:
        rows = [[*row, reason] for row, reason in zip(rows, reasons, strict=True)]
        return Table("Criteria", [*header, "why"], rows, notes)
    # Lines with the same reason say it once.
    said = dict.fromkeys(
        f"{judgement.verdict.upper()} {judgement.name}, {judgement.scope}: {judgement.reason}"
        for judgement in evaluation.criteria
    )
    return Table("Criteria", header, rows, [*notes, *said])


def _judgement(judgement: Judgement) -> list[str]:
    few = judgement.samples < judgement.minimum_samples
    return [
        judgement.verdict.upper(),
        judgement.name,
        judgement.scope,
        judgement.variant,
        judgement.demand,
        number(judgement.estimate),
        number(judgement.lower),
        number(judgement.upper),
        f"{judgement.confidence:g}",
        f"{judgement.samples} of {judgement.minimum_samples}" if few else str(judgement.samples),
    ]


def _variants(evaluation: Evaluation) -> Table:
    names = list(dict.fromkeys(name for result in evaluation.variants for name in result.metrics))
    rows = []
    for result in evaluation.variants:
        parity = result.parity
        if result.status != "evaluated":
            rows.append([result.id, *["-"] * (len(names) + 4), f"{result.status}: {result.problem}"])
            continue
        rows.append(
            [
                result.id,
                *(interval(result.metrics.get(name)) for name in names),
                "reference" if parity is None else number(parity.agreement),
                "-" if parity is None else number(parity.maximum_error),
                "-" if parity is None else number(parity.mean_error),
                f"{result.size_bytes:,}",
                f"{result.runtime}, {result.provider}",
            ]
        )
    baseline = evaluation.baseline
    if baseline is not None:
        figures = [interval(baseline.metrics.get(name)) for name in names]
        rows.append([f"baseline {baseline.name} {baseline.version} {baseline.variant}", *figures, *["-"] * 4, ""])
    return Table(
        "Variants",
        ["variant", *names, "same decision", "largest error", "mean error", "bytes", "runtime"],
        rows,
        [f"In brackets: one-sided bounds at {evaluation.confidence:g} each."],
    )


def _skill(evaluation: Evaluation) -> Table:
    measured = next(result.metrics for result in evaluation.variants if result.id == evaluation.variant)
    rows = [
        [name, number(value), number(measured[name].value) if name in measured else "-"]
        for name, value in evaluation.no_skill.items()
    ]
    notes = []
    if evaluation.positive_class is not None:
        notes.append(f"Precision, recall, F1 and AUC-PR are about class {evaluation.positive_class!r}.")
    elif evaluation.classes:
        notes.append("Precision, recall and F1 are means over the classes.")
    if evaluation.calibration_error is not None:
        notes.append(f"Expected calibration error of the scores: {evaluation.calibration_error:.4f}.")
    return Table("No-skill baseline", ["metric", "no skill", evaluation.variant], rows, notes)


def _confusion(evaluation: Evaluation) -> Table:
    classes, matrix = evaluation.classes, evaluation.confusion
    if not matrix:
        return Table("Confusion matrix", [], [])
    shown = [index for index in range(len(classes)) if any(matrix[index]) or any(row[index] for row in matrix)]
    undecided = any(row[-1] for row in matrix)
    if len(shown) <= WIDEST_MATRIX:
        columns = [*shown, len(classes)] if undecided else shown
        header = ["truth \\ decision", *(classes[i] if i < len(classes) else "none" for i in columns)]
        rows = [[classes[i], *(str(matrix[i][j]) for j in columns)] for i in shown]
        return Table("Confusion matrix", header, rows)
    wrong = [
        (matrix[i][j], classes[i], classes[j] if j < len(classes) else "none")
        for i in range(len(classes))
        for j in range(len(classes) + 1)
        if i != j and matrix[i][j]
    ]
    wrong.sort(key=lambda item: (-item[0], item[1], item[2]))
    note = f"The {MOST_CONFUSIONS} most frequent of {len(wrong)}; --json has the whole matrix."
    return Table(
        "Confusions",
        ["truth", "decision", "rows"],
        [[truth, decision, str(count)] for count, truth, decision in wrong[:MOST_CONFUSIONS]],
        [note] if len(wrong) > MOST_CONFUSIONS else [],
    )


def _classes(evaluation: Evaluation) -> Table:
    return Table(
        "Classes",
        ["class", "rows", "precision", "recall", "F1", "AUC-PR", "no skill"],
        [
            [
                result.name,
                str(result.rows),
                interval(result.precision),
                interval(result.recall),
                interval(result.f1),
                number(result.average_precision),
                number(result.no_skill_average_precision),
            ]
            for result in evaluation.by_class
        ],
    )


def _slices(evaluation: Evaluation) -> Table:
    names = list(dict.fromkeys(name for result in evaluation.slices for name in result.metrics))
    if not names:
        return Table("Slices", [], [])
    sign = 1 if evaluation.task == "classification" else -1
    worst = sorted(evaluation.slices, key=lambda result: sign * (result.metrics[names[0]].value or 0.0))
    note = f"The {MOST_SLICES} worst of {len(worst)}; --json has all." if len(worst) > MOST_SLICES else ""
    return Table(
        "Slices, the worst first",
        ["slice", "rows", *names],
        [
            [
                f"{result.slice}={result.value}",
                str(result.metrics[names[0]].samples),
                *(interval(result.metrics.get(name)) for name in names),
            ]
            for result in worst[:MOST_SLICES]
        ],
        [note] if note else [],
    )


def _tags(evaluation: Evaluation) -> Table:
    return Table(
        "Tags, the largest share of the error first",
        ["tag", "rows", "share of rows", "share of error", "error rate", "error rate elsewhere"],
        [
            [
                tag.tag,
                str(tag.rows),
                _percent(tag.share_of_rows),
                _percent(tag.share_of_error),
                interval(tag.error_rate),
                number(tag.error_rate_elsewhere),
            ]
            for tag in evaluation.tags
        ],
    )


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
