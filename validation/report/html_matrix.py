"""The page's overview: the matrix of cases and columns, and what the comparisons found."""

from gptoss_onnx.validation.report.document import Cell, Column, Comparison, Report, Row
from gptoss_onnx.validation.report.markup import badge, kind, sign, table, text
from gptoss_onnx.validation.report.words import SIGNS, number

MOST_FINDINGS = 500  # of one comparison; the JSON document has all
HEADS = ("where", "what", "found", "expected")


def matrix(report: Report) -> str:
    """Return the matrix: a sign, a word and the largest error for each cell."""
    if not report.rows:
        return ""
    ran = [(place, it) for place, it in enumerate(report.columns) if not it.missing]
    missing = "".join(
        f"<p>{text(column.name)} was not judged: {text(column.missing)}</p>"
        for column in report.columns
        if column.missing and column.is_asked
    )
    left_out = ", ".join(column.name for column in report.columns if not column.is_asked)
    if left_out:
        missing += f"<p>Not asked for: {text(left_out)}.</p>"
    cells = {(cell.case, cell.column): cell for cell in report.cells}
    heads = "".join(
        f'<th role="columnheader" scope="col">{text(column.name)}</th>' for _, column in ran
    )
    rows = "".join(
        _row(
            row,
            [
                _cell(f"cell-{index}-{place}", column, cells.get((row.name, column.name)))
                for place, column in ran
            ],
        )
        for index, row in enumerate(report.rows)
    )
    legend = "".join(f"<li>{badge(state)}</li>" for state in SIGNS)
    return f"""<section id="cases">
<h2>Cases</h2>
{missing}<div class="scroll" role="region" aria-label="Cases and columns" tabindex="0">
<table class="matrix" role="table">
<thead role="rowgroup">
<tr role="row"><th role="columnheader" scope="col">case</th>{heads}</tr>
</thead>
<tbody role="rowgroup">
{rows}</tbody>
</table>
</div>
<ul class="legend">{legend}<li>numbers: the largest error in logits</li></ul>
</section>"""


def comparisons(report: Report) -> str:
    """Return what differs between the package and a fresh export."""
    if not report.comparisons:
        return ""
    entries = "".join(map(_comparison, report.comparisons))
    return f"""<section id="compared">
<h2>Graph and weights</h2>
<p>What lies in the package, against what an export of the reference has.</p>
{entries}
</section>"""


def _row(row: Row, entries: list[str]) -> str:
    head = f'{text(row.name)}<span class="what">{text(row.description)}</span>'
    return f'<tr role="row"><th role="rowheader" scope="row">{head}</th>{"".join(entries)}</tr>\n'


def _cell(anchor: str, column: Column, cell: Cell | None) -> str:
    # the name of the column shows on a phone alone, where the heads do not
    of = f'<span class="of">{text(column.name)}</span>'
    if cell is None:
        state = f'{sign("not available")} <span class="word">not available</span>'
        return f'<td role="cell" class="not-available">{of} {state}</td>'
    error = number(cell.difference.max_abs) if cell.difference else ""
    errors = f' <span class="error">{error}</span>' if error else ""
    state = f'{sign(cell.state)} <span class="word">{cell.state}</span>{errors}'
    link = f'<a href="#{anchor}">{of} {state}</a>'
    return f'<td role="cell" class="{kind(cell.state)}">{link}</td>'


def _comparison(entry: Comparison) -> str:
    rows = [
        (finding.where, finding.what, finding.found, finding.expected)
        for finding in entry.findings[:MOST_FINDINGS]
    ]
    left = len(entry.findings) - len(rows)
    found = table(HEADS, rows, "findings") if rows else ""
    if left:
        found += f"<p>and {left} more, which the JSON document lists.</p>"
    note = f'<p class="note">{text(entry.note)}</p>' if entry.note else ""
    return f"""<article class="panel wide {kind(entry.state)}">
<h3>{text(entry.name)} {badge(entry.state)}</h3>
<p class="what">{text(entry.description)}; {entry.seconds:.1f} s</p>
{note}{found}
</article>
"""
