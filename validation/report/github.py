"""A report in GitHub Actions: annotations on the run, and a summary of the job in Markdown.

Workflow commands are lines that begin with `::`, which the runner reads from stdout and stderr
alike. Source of the rules: `command.ts` of actions/toolkit, and "Workflow commands for GitHub
Actions" in GitHub's documentation.
"""

from html import escape

from gptoss_onnx.validation.report.document import FAILURES, Cell, Column, Comparison, Report
from gptoss_onnx.validation.report.words import (
    SIGNS,
    command,
    failing,
    number,
    on_one_line,
    summary,
    verdict,
    why,
)

MOST_ANNOTATIONS = 10  # errors of one step that GitHub shows
MOST_LINES = 10  # of one annotation
MOST_LETTERS = 1000  # of one line of an annotation, or text of the summary
MOST_ROWS = 100  # of a table of the summary, of which GitHub takes a mebibyte
# What Markdown or HTML may take for more than text.
_MARKS = frozenset("\\`*_{}[]()<>#+-.!|&~@:\"'=$")


def annotations(report: Report) -> list[str]:
    """Return workflow commands: an error for every comparison and column in which something
    failed; the last one says how many are left out.
    """
    title = "gptoss-onnx validate"
    if report.error is not None:
        return [_error(title, f"could not judge: {report.error}")]
    found = [
        (f"{entry.name} of the package", _compared(entry))
        for entry in report.comparisons
        if entry.state in FAILURES
    ]
    for name, cells in _by_column(report).items():
        column = _column(report, name)
        lines = [_cut(f"{cell.case}: {why(cell, column)}") for cell in cells[:MOST_LINES]]
        if len(cells) > MOST_LINES:
            lines.append(f"and {len(cells) - MOST_LINES} more: see the summary of this job")
        lines.append(f"again: {command(report, column)}")
        count = sum(cell.column == name for cell in report.cells)
        found.append((f"{name}: {len(cells)} of {count} cases failed", "\n".join(lines)))
    if len(found) > MOST_ANNOTATIONS:
        left = len(found) - MOST_ANNOTATIONS + 1
        rest = (title, f"{left} more columns failed: see the summary of this job")
        found = [*found[: MOST_ANNOTATIONS - 1], rest]
    return [_error(title, text) for title, text in found]


def quoted(text: str, token: str) -> str:
    """Return lines of a log that hold no workflow commands for the runner, whatever the text says.

    `token` is random, and chosen anew each time: whoever knew it could end the quotation.
    """
    return f"::stop-commands::{token}\n{text}\n::{token}::"


def job_summary(report: Report) -> str:
    """Return the report as Markdown for a job's summary."""
    lines = [
        f"## {verdict(report)}: {_text(report.package)}",
        "",
        _text(summary(report)),
        "",
    ]
    if report.rows:
        lines += [*_matrix(report), ""]
    for entry in report.comparisons:
        lines += _comparison(entry)
    failed = _by_column(report)
    for name, cells in failed.items():
        column = _column(report, name)
        lines += [f"**{_text(name)}**", ""]
        for cell in cells[:MOST_ROWS]:
            lines.append(f"- {SIGNS[cell.state]} {_text(cell.case)}: {_text(why(cell, column))}")
        if len(cells) > MOST_ROWS:
            lines.append(f"- and {len(cells) - MOST_ROWS} more, which the report lists")
        lines += ["", *_code(command(report, column)), ""]
    if not failed:
        lines += _code(command(report))
    return "\n".join(lines) + "\n"


def _matrix(report: Report) -> list[str]:
    """Return the matrix as a table: a sign, and the largest error, for each cell."""
    cells = {(cell.case, cell.column): cell for cell in report.cells}
    ran = [column for column in report.columns if column.is_asked]
    lines = [
        "| | " + " | ".join(_text(column.name) for column in ran) + " |",
        "|---" * (len(ran) + 1) + "|",
    ]
    for row in report.rows[:MOST_ROWS]:
        entries = []
        for column in ran:
            cell = cells.get((row.name, column.name))
            error = cell.difference.max_abs if cell and cell.difference else None
            state = cell.state if cell else "not available"
            entries.append(f"{SIGNS[state]} {number(error) or state}")
        lines.append(f"| {_text(row.name)} | {' | '.join(entries)} |")
    if len(report.rows) > MOST_ROWS:
        lines.append(f"| and {len(report.rows) - MOST_ROWS} more |")
    return lines


def _comparison(entry: Comparison) -> list[str]:
    lines = [f"**{_text(entry.name)}**: {SIGNS[entry.state]} {entry.state} {_text(entry.note)}", ""]
    if entry.findings:
        lines += ["| where | what | found | expected |", "|---|---|---|---|"]
        for finding in entry.findings[:MOST_ROWS]:
            parts = (finding.where, finding.what, finding.found, finding.expected)
            lines.append("| " + " | ".join(map(_text, parts)) + " |")
        if len(entry.findings) > MOST_ROWS:
            lines += ["", f"and {len(entry.findings) - MOST_ROWS} more; see the report."]
        lines.append("")
    return lines


def _compared(entry: Comparison) -> str:
    first = [str(finding) for finding in entry.findings[:3]]
    left = len(entry.findings) - len(first)
    more = [f"and {left} more"] if left > 0 else []
    return "\n".join(filter(None, [entry.note, *first, *more])) or entry.state


def _by_column(report: Report) -> dict[str, list[Cell]]:
    """Return the cells that failed, by the names of their columns."""
    found: dict[str, list[Cell]] = {column.name: [] for column in report.columns}
    for cell in failing(report):
        found.setdefault(cell.column, []).append(cell)
    return {name: cells for name, cells in found.items() if cells}


def _column(report: Report, name: str) -> Column | None:
    return next((column for column in report.columns if column.name == name), None)


def _cut(text: str) -> str:
    return on_one_line(text, MOST_LETTERS)


def _error(title: str, text: str) -> str:
    lines = "\n".join(on_one_line(line, MOST_LETTERS) for line in text.split("\n"))
    return f"::error title={_property(on_one_line(title, 200))}::{_data(lines)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _text(text: str) -> str:
    """Return a text for one cell of a table, with nothing that Markdown or HTML would act on."""
    line = on_one_line(text, MOST_LETTERS)
    return "".join(f"&#{ord(letter)};" if letter in _MARKS else letter for letter in line)


def _code(text: str) -> list[str]:
    return [f"<pre><code>{escape(on_one_line(text, 10 * MOST_LETTERS))}</code></pre>"]
