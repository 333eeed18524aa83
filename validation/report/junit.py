"""A report as JUnit XML: a suite for each column, a test case for each cell.

The form is that of Ant and Jenkins, which GitLab, Azure Pipelines, Buildkite and most others read:
a failure is a cell that failed, an error one that was refused, a skip what is not available. The
comparisons are a suite of their own.
"""

from xml.etree import ElementTree

from gptoss_onnx.validation.report.document import Cell, Column, Comparison, Report, State
from gptoss_onnx.validation.report.words import command, on_one_line, shown, why

TOOL = "gptoss-onnx validate"
COMPARED = "against a fresh export"
MOST_FINDINGS = 100  # of one comparison
# What a state is called in JUnit; None for a test case that passed.
KINDS: dict[State, str | None] = {
    "passed": None,
    "accepted": None,
    "failed": "failure",
    "refused": "error",
    "not available": "skipped",
}

Element = ElementTree.Element


def to_junit(report: Report) -> bytes:
    """Return the report as an XML document in UTF-8."""
    root = Element("testsuites", name=TOOL)
    if report.error is not None:
        suite = _suite(root, TOOL)
        case = _case(suite, TOOL, "judge", 0.0)
        _result(case, "error", on_one_line(report.error), command(report))
    if report.comparisons:
        suite = _suite(root, COMPARED)
        for comparison in report.comparisons:
            _comparison(suite, comparison, command(report))
    for column in report.columns:
        if column.is_asked:
            _column(root, report, column)
    for suite in root:
        _count(suite)
    _count(root)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _column(root: Element, report: Report, column: Column) -> None:
    suite = _suite(root, column.name)
    properties = ElementTree.SubElement(suite, "properties")
    facts = {"package": report.package, "reference": report.reference, "suite": report.suite}
    facts |= {"runs": column.runs, "limits": str(column.limits or "")}
    for name, value in {**facts, **report.versions, **report.machine}.items():
        if value:
            text = on_one_line(str(value))
            ElementTree.SubElement(properties, "property", name=on_one_line(name), value=text)
    cells = {cell.case: cell for cell in report.cells if cell.column == column.name}
    for row in report.rows:
        if row.name in cells:
            _cell(suite, cells[row.name], column, command(report, column))
        elif column.missing:
            case = _case(suite, column.name, row.name, 0.0)
            _result(case, "skipped", on_one_line(column.missing))


def _cell(suite: Element, cell: Cell, column: Column, repeat: str) -> None:
    case = _case(suite, column.name, cell.case, cell.seconds)
    kind = KINDS[cell.state]
    said = why(cell, column)
    if kind is None:
        ElementTree.SubElement(case, "system-out").text = said
    else:
        layers = [
            f"layer {entry.layer}: relative error {entry.relative:.1e}, allowed {entry.allowed:.1e}"
            for entry in cell.by_layer
            if not entry.relative <= entry.allowed
        ]
        _result(case, kind, said, *layers, f"again: {repeat}")


def _comparison(suite: Element, comparison: Comparison, repeat: str) -> None:
    case = _case(suite, COMPARED, comparison.name, comparison.seconds)
    kind = KINDS[comparison.state]
    findings = [on_one_line(str(finding)) for finding in comparison.findings[:MOST_FINDINGS]]
    left = len(comparison.findings) - len(findings)
    if left:
        findings.append(f"and {left} more")
    first = findings[0] if findings else comparison.description
    said = on_one_line(comparison.note) or first
    if kind is None:
        ElementTree.SubElement(case, "system-out").text = said
    else:
        _result(case, kind, said, *findings, f"again: {repeat}")


def _suite(root: Element, name: str) -> Element:
    return ElementTree.SubElement(root, "testsuite", name=on_one_line(name))


def _case(suite: Element, of: str, name: str, seconds: float) -> Element:
    names = {"classname": on_one_line(of), "name": on_one_line(name)}
    return ElementTree.SubElement(suite, "testcase", names, time=f"{seconds:.3f}")


def _result(case: Element, kind: str, message: str, *lines: str) -> None:
    """Add a failure, an error or a skip; its message heads its text, which some show alone."""
    result = ElementTree.SubElement(case, kind, message=message)
    if kind != "skipped":
        result.set("type", "refused" if kind == "error" else "parity")
        result.text = "\n".join([message, *map(shown, lines)])


def _count(element: Element) -> None:
    """Set the counts that readers expect on a suite and on the root."""
    found = list(element.iter("testcase"))
    element.set("tests", str(len(found)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(kind) is not None for case in found)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in found):.3f}")
