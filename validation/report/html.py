"""A report as one self-contained page: readable on a phone, without JavaScript, in light and dark.

Everything that comes from outside goes through `markup.text`. Should something slip through, the
page's policy lets no script run and nothing be fetched.
"""

import base64
import hashlib
from importlib.resources import files

from gptoss_onnx.validation.report.document import (
    FAILURES,
    FORMAT,
    FORMAT_VERSION,
    Column,
    Report,
    State,
)
from gptoss_onnx.validation.report.html_cells import details
from gptoss_onnx.validation.report.html_matrix import comparisons, matrix
from gptoss_onnx.validation.report.markup import code, facts, sign, text
from gptoss_onnx.validation.report.words import summary, verdict

STYLES = ("page.css", "page_tables.css", "page_phone.css")
STATES: tuple[State, ...] = ("passed", "failed", "refused")  # whose look each exit code has


def to_html(report: Report) -> str:
    """Return the report as an HTML document."""
    folder = files(__package__)
    style = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}; form-action 'none'">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="{FORMAT} {FORMAT_VERSION}">
<link rel="icon" href="data:,">
<title>{verdict(report)}: {text(report.package, 200)}, parity report</title>
<style>{style}</style>
</head>
<body>
{_header(report)}
<main>
{_overview(report)}
{details(report)}
{_columns(report)}
{_run(report)}
</main>
</body>
</html>
"""


def _header(report: Report) -> str:
    state = STATES[report.exit_code]
    links = [
        ("#cases", "Cases", report.rows),
        ("#compared", "Graph and weights", report.comparisons),
        ("#details", "Details", report.cells),
        ("#columns", "Columns", report.columns),
        ("#run", "This run", True),
    ]
    found = "".join(f'<li><a href="{to}">{name}</a></li>' for to, name, there in links if there)
    return f"""<header class="{state}">
<p class="kind">Parity report of gptoss-onnx</p>
<h1>{text(report.package)}</h1>
<p class="verdict"><strong>{sign(state)} {verdict(report)}</strong> {text(summary(report))}</p>
<p class="against">Held to the float32 reference of <b>{text(report.reference)}</b></p>
<nav aria-label="Sections"><ul>{found}</ul></nav>
</header>"""


def _overview(report: Report) -> str:
    """Return the matrix and the comparisons; one that failed comes first, because it explains the
    cases.
    """
    parts = [matrix(report), comparisons(report)]
    failed = any(entry.state in FAILURES for entry in report.comparisons)
    return "\n".join(reversed(parts) if failed else parts)


def _columns(report: Report) -> str:
    if not report.columns:
        return ""
    entries = "".join(_column(report, column) for column in report.columns if column.is_asked)
    return f"""<section id="columns">
<h2>Columns</h2>
<p>What ran the package, and the command that judges it alone.</p>
<div class="panels">{entries}</div>
</section>"""


def _column(report: Report, column: Column) -> str:
    pairs = {"Runs": column.runs, "Held to": str(column.limits or "limits of each cell")}
    if column.missing:
        pairs = {"Not available": column.missing}
    return f"""<article class="panel">
<h3>{text(column.name)}</h3>
{facts(pairs)}
{code(report, column)}
</article>"""


def _run(report: Report) -> str:
    seed = "" if report.error is not None else str(report.seed)
    run = {"Suite": report.suite, "Seed": seed}
    machine = {name.capitalize(): value for name, value in report.machine.items()}
    return f"""<section id="run">
<h2>This run</h2>
{facts({**run, **machine, **report.versions})}
<p>All of it again:</p>
{code(report)}
</section>"""
