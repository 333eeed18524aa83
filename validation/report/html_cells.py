"""The page's details: for each case a panel for every column that ran it."""

import math
import re

from gptoss_onnx.validation.report import charts
from gptoss_onnx.validation.report.document import FAILURES, Cell, Column, Report, Row
from gptoss_onnx.validation.report.markup import badge, code, kind, sign, table, text
from gptoss_onnx.validation.report.words import measured

NUMBER = re.compile(r"[\d.]+e-\d+")  # which no line may break
MOST_TIES = 50  # of one cell; the JSON document has all


def details(report: Report) -> str:
    """Return all cases, those open that did not simply pass."""
    if not report.cells:
        return ""
    places = {column.name: place for place, column in enumerate(report.columns)}
    cases: dict[str, list[Cell]] = {}
    for cell in report.cells:
        cases.setdefault(cell.case, []).append(cell)
    entries = "".join(
        _case(report, index, row, places, cases.get(row.name, []))
        for index, row in enumerate(report.rows)
    )
    return f"""<section id="details">
<h2>Details</h2>
<p>What failed is open; the others open at a touch.</p>
{entries}
</section>"""


def _case(report: Report, index: int, row: Row, places: dict[str, int], cells: list[Cell]) -> str:
    opened = " open" if any(cell.state in (*FAILURES, "accepted") for cell in cells) else ""
    panels = "".join(
        _panel(report, f"cell-{index}-{places.get(cell.column, len(places))}", cell)
        for cell in cells
    )
    signs = "".join(f'<span class="{kind(cell.state)}">{sign(cell.state)}</span>' for cell in cells)
    return f"""<details{opened}>
<summary><span class="name">{text(row.name)}</span> <span class="signs">{signs}</span>
<span class="what">{text(row.description)}</span></summary>
<div class="panels">{panels}</div>
</details>
"""


def _panel(report: Report, anchor: str, cell: Cell) -> str:
    column = next((entry for entry in report.columns if entry.name == cell.column), None)
    parts = [
        f"<h3>{text(cell.column)} {badge(cell.state)}</h3>",
        f'<p class="note">{text(cell.note)}</p>' if cell.note else "",
        _measured(cell, column),
        _divergence(cell),
        _drawings(cell, column),
        _ties(cell),
        code(report, column),
    ]
    body = "\n".join(filter(None, parts))
    return f'<article class="panel {kind(cell.state)}" id="{anchor}">\n{body}\n</article>\n'


def _measured(cell: Cell, column: Column | None) -> str:
    line = measured(cell.difference, column.limits if column else None)
    seconds = f"{cell.seconds:.1f} s"
    said = text(f"{line}; {seconds}" if line else seconds)
    whole = NUMBER.sub(r'<span class="number">\g<0></span>', said)
    return f'<p class="measured">{whole}</p>'


def _divergence(cell: Cell) -> str:
    found = cell.divergence
    if found is None:
        return ""
    place = "outside of the layers" if found.layer is None else f"layer {found.layer}"
    head = f"<h4>Departs first in {place}: {text(found.op)}</h4>"
    return f'<div class="divergence">{head}<p>{text(found.text)}</p></div>'


def _drawings(cell: Cell, column: Column | None) -> str:
    limit = column.limits.max_abs if column and column.limits else math.inf
    positions = cell.difference.positions if cell.difference else 0
    drawn = ""
    if cell.by_position:
        count = max(positions, len(cell.by_position))
        drawn = charts.by_position(cell.by_position, count, limit)
    return drawn + (charts.by_layer(cell.by_layer) if cell.by_layer else "")


def _ties(cell: Cell) -> str:
    if not cell.ties:
        return ""
    rows = [
        (str(tie.position), str(tie.layer), f"{tie.margin:.1e}", tie.decided)
        for tie in cell.ties[:MOST_TIES]
    ]
    left = len(cell.ties) - len(rows)
    more = f"<p>and {left} more, which the JSON document lists.</p>" if left else ""
    found = table(("position", "layer", "margin", "decided"), rows, "ties")
    count = f"{len(cell.ties)} router ties" if len(cell.ties) > 1 else "1 router tie"
    told = "The reference chose these experts by less than the error that is allowed."
    return f'<details class="ties"><summary>{count}</summary><p>{told}</p>{found}{more}</details>'
