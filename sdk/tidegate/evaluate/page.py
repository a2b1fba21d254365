"""An evaluation as one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
from html import escape

from tidegate.evaluate.report import Evaluation
from tidegate.evaluate.table import Table, heading, tables, verdict_line

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 2rem auto; max-width: 76rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; color: #55606e; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } td.figure { text-align: right; white-space: nowrap; }
.badge { display: inline-block; padding: 0 .6em; border-radius: .3em; color: #fff; font-weight: 600; }
.pass { background: #1a7f37; } .fail { background: #c4281b; } .wait { background: #8a6100; }
.verdict { font-size: 1.05rem; margin: .8rem 0; color: inherit; }
img { max-width: 100%; height: auto; }
"""


def html_page(evaluation: Evaluation, curve_png: bytes | None) -> bytes:
    """Return the page, UTF-8.

    Args:
        evaluation: what to show.
        curve_png: the precision-recall curve, embedded; None: no such section.
    """
    title = f"{evaluation.name} {evaluation.version}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Evaluation of {escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(heading(evaluation))}</p>",
        f"<p>Data SHA-256 {escape(evaluation.data_sha256)}</p>",
    ]
    if evaluation.verdict is not None:
        parts.append(f'<p class="verdict">{_badge(evaluation.verdict)} {escape(verdict_line(evaluation))}</p>')
    parts += [_section(table) for table in tables(evaluation, wide=True)]
    if curve_png is not None:
        data = base64.b64encode(curve_png).decode()
        parts.append("<h2>Precision and recall</h2>")
        parts.append(f'<img alt="{escape(_in_words(evaluation), quote=True)}" src="data:image/png;base64,{data}">')
    parts.append("</body></html>\n")
    return "\n".join(parts).encode()


def _section(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "\n".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in table.rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>{notes}"
    )


def _cell(cell: str) -> str:
    if cell in ("PASS", "FAIL", "WAIT"):
        return f"<td>{_badge(cell.lower())}</td>"
    plain = cell.strip("-").replace(",", "").replace(".", "", 1).replace(" %", "").replace("e-", "")
    return f'<td class="figure">{escape(cell)}</td>' if plain.isdigit() else f"<td>{escape(cell)}</td>"


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{verdict.upper()}</span>'


def _in_words(evaluation: Evaluation) -> str:
    """Return what the picture shows, for those who cannot see it."""
    areas = ", ".join(f"{curve.label}: area {curve.average_precision:.3f}" for curve in evaluation.curves)
    return f"Precision-recall curve; {areas}"
