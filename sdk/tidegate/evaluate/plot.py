"""The precision-recall curve as PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tidegate.errors import DependencyError
from tidegate.evaluate.report import Curve, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def precision_recall_png(evaluation: Evaluation) -> bytes | None:
    """Return a PNG of the precision-recall curves, the baseline's dashed; None when the model gives no scores.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    if not evaluation.curves:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the curve needs matplotlib, which is not installed", fix='pip install "tidegate[evaluate]"'
        ) from error
    # The object interface: pyplot would keep state and look for a display.
    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, curve in enumerate(evaluation.curves):
        _draw(axes, curve, curve.label, f"C{number}", "-")
    for number, curve in enumerate(evaluation.baseline.curves if evaluation.baseline else ()):
        _draw(axes, curve, f"baseline: {curve.label}", f"C{number}", "--")
    if len(evaluation.curves) == 1:
        share = evaluation.curves[0].no_skill
        axes.axhline(share, color="0.6", linestyle=":", label=f"no skill, {share:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    axes.set_title(f"{evaluation.name} {evaluation.version}, {evaluation.variant}, {evaluation.rows} rows", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    buffer = io.BytesIO()
    # Without the library's version and the date, the same evaluation gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, curve: Curve, name: str, colour: str, style: str) -> None:
    """Draw steps: between two measured points precision is not known to be any better than at the next one."""
    recall, precision = (0.0, *curve.recall), (curve.precision[0], *curve.precision)
    label = f"{name}, area {curve.average_precision:.3f}"
    axes.step(recall, precision, where="pre", color=colour, linestyle=style, linewidth=1.5, label=label)
