"""Sections of the benchmarks' page about what grows: rows that decode together, and contexts."""

from typing import Any

from report_tables import PEER, section, table


def together(document: dict[str, Any]) -> str:
    """Return the section of one rows.py run."""
    rows = [
        [
            point["activations"],
            str(point["rows"]),
            f"{point['seconds'] * 1e3:.0f}",
            f"{point['rows'] / point['seconds']:.1f}",
            f"{point['speedup']:.2f}",
            f"{point['bound']:.2f}",
            f"{point['experts']:.1f}",
        ]
        for point in document["points"]
    ]
    header = ["activations", "rows", "ms a call", "tokens/s", "× one row", "bound", "experts"]
    title = f"## Rows that decode together, {document['layers']} layers, {document['dense']} dense"
    return section(title, document, table(header, rows))


def contexts(document: dict[str, Any]) -> str:
    """Return the section of one contexts.py run."""
    points = document["points"]
    first: dict[str, dict[str, Any]] = {}
    for point in points:
        first.setdefault(point["contender"], point)
    peer = {point["context"]: point for point in points if point["contender"] == PEER}
    rows = []
    for point in points:
        row = [point["contender"], f"{point['context']:,}"]
        theirs = None if point["contender"] == PEER else peer.get(point["context"])
        for key in ("prefill", "decode"):
            row.append(f"{point[key] * 1e3:,.1f}")
            row.append(f"{point[key] / first[point['contender']][key]:.2f}")
            row.append(f"{theirs[key] / point[key]:.2f}" if theirs else "")
        rows.append(row)
    header = ["", "tokens before"]
    for what in ("512 tokens, ms", "one token, ms"):
        header += [what, "growth", f"× {PEER}"]
    return section(f"## Long contexts, {document['layers']} layers", document, table(header, rows))
