"""The tables of docs/exporters.md, from what exporters.py found."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters_ways import WAYS

Result = Mapping[str, Any]

MARK = "<!-- Written by benchmarks/exporters.py from here on. -->"
TITLES = {
    "demo": "The demo checkpoint (MXFP4, six layers, trained)",
    "bf16": "A bf16 checkpoint (experts as a fine-tune has them, random)",
    "yarn": "Past 4096 tokens (MXFP4, YaRN from 4096 to 8192 without truncation, random)",
}
WORDS = {"passed": "ok", "failed": "**failed**", "refused": "**refused**", "not available": "–"}


def write_page(page: Path, results: Sequence[Result]) -> None:
    """Write the tables of all results behind the mark in the page."""
    head, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{page}: found no line {MARK}, expected one; put it where tables go")
    order = [way.name for way in WAYS]
    results = sorted(results, key=lambda result: order.index(result["way"]))
    sections = [_ways(results)]
    for checkpoint, title in TITLES.items():
        here = [result for result in results if result["checkpoint"] == checkpoint]
        if here:
            sections.append(f"## {title}\n\n{_summary(here)}\n\n{_matrix(here)}\n\n{_notes(here)}")
    body = "\n\n".join(section.strip() for section in sections)
    page.write_text(f"{head}{MARK}\n\n{body}\n", encoding="utf-8")


def _ways(results: Sequence[Result]) -> str:
    versions = {result["way"]: result["version"] for result in results}
    rows = [(way.name, versions.get(way.name, ""), way.says) for way in WAYS]
    return "## The exporters\n\n" + _table(("name", "version", "what was run"), rows)


def _summary(results: Sequence[Result]) -> str:
    """Return one line an exporter: verdict, counts, largest error, bytes and seconds."""
    rows = []
    for result in results:
        cells = _cells(result)
        count = {state: sum(cell["state"] == state for cell in cells) for state in WORDS}
        bad = count["failed"] + count["refused"]
        errors = [cell["max_abs"] for cell in cells if cell["max_abs"] is not None]
        rows.append(
            (
                result["way"],
                "no export" if result["report"] is None else "FAIL" if bad else "PASS",
                str(count["passed"]),
                str(bad),
                str(count["not available"]),
                f"{max(errors):.1e}" if errors else "",
                f"{result['nbytes'] / 1e6:.1f} MB" if result["nbytes"] else "",
                f"{result['seconds']:.0f}" if result["report"] else "",
            )
        )
    heads = ("exporter", "verdict", "passed", "failed", "not available", "max error", "on disk")
    return _table((*heads, "export, CPU seconds"), rows)


def _matrix(results: Sequence[Result]) -> str:
    """Return the cases as rows and the exporters that were judged as columns."""
    judged = [result for result in results if result["report"] is not None]
    cases = dict.fromkeys(cell["case"] for result in judged for cell in _cells(result))
    rows = []
    for case in cases:
        row = [case]
        for result in judged:
            found = [cell for cell in _cells(result) if cell["case"] == case]
            row.append(" / ".join(_word(cell) for cell in found))
        rows.append(tuple(row))
    return _table(("case", *(result["way"] for result in judged)), rows)


def _notes(results: Sequence[Result]) -> str:
    """Return what exporters said when they failed, and what the notes of cells say, each once."""
    lines = []
    for result in results:
        if result["error"]:
            lines.append(f"- **{result['way']}**: {_code(result['error'])}")
        notes: dict[str, list[str]] = {}
        for cell in _cells(result):
            if cell["state"] != "passed" and cell["note"]:
                notes.setdefault(cell["note"], []).append(cell["case"])
        lines += [
            f"- **{result['way']}**, {', '.join(dict.fromkeys(cases))}: {_code(note)}"
            for note, cases in notes.items()
        ]
    return "\n".join(lines)


def _cells(result: Result) -> Sequence[Mapping[str, Any]]:
    return [] if result["report"] is None else result["report"]["cells"]


def _word(cell: Mapping[str, Any]) -> str:
    word = WORDS[cell["state"]]
    return word if cell["max_abs"] is None else f"{word} {cell['max_abs']:.0e}"


def _code(text: str) -> str:
    """Return a text that Markdown takes as it is."""
    return f"`{text.replace('`', chr(39))}`"


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
