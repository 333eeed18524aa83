"""Reports to show: of every kind of cell, of hostile texts, and of a run that could not judge."""

import math
from dataclasses import replace
from typing import Any

from gptoss_onnx.validation.judging.limits import EXACT
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.judging.outcome import Tie
from gptoss_onnx.validation.report.document import (
    Cell,
    Column,
    Comparison,
    Divergence,
    Finding,
    LayerError,
    Report,
    Row,
)

ROWS = {
    "load": "opened in ONNX Runtime, and passed by onnx.checker",
    "prefill": "the whole sequence in one call",
    "decode": "one token a call, beyond the window",
    "chunks of 7": "the sequence in calls of 7 tokens",
    "ragged batch": "three rows of different lengths, right-padded, decoding in turns",
    "rewind": "wrong tokens taken back within the reserve, again and again",
    "greedy": "64 tokens, chosen one by one",
}
SMALL = Difference(141, 1.6e-5, 1.4e-6, 1.6e-12, 1.0)
LARGE = Difference(141, 0.31, 0.012, 2.4e-3, 0.943)
# Scripts, ends of CDATA sections, workflow commands, Markdown, quotes, controls, and length.
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=https://example.com/x onerror=alert(1)>",
    "]]><x/>&amp;&lt;",
    "::error::owned",
    "\n::add-mask::a\n",
    "##[error]owned",
    "|[a](https://example.com)|`b`|**c**|\n# d",
    "\"'><svg onload=alert(1)>",
    "\x00\x1b[2J\r\x7f\x85\u202e\u2028\ufffe\uffff\ud800",
    "x" * 10_000,
    "</style></pre></code><!--",
)


def column(name: str, **changes: Any) -> Column:
    """Return a column that runs the exact kernels."""
    runs = f"{name} kernels (avx512), exact, on cpu"
    made = Column(name, runs, name, "exact", "cpu", EXACT, f"--kernels {name}")
    return replace(made, **changes)


def cell(case: str, of: str, **changes: Any) -> Cell:
    """Return a cell that passed with small errors at every position."""
    errors = tuple(1e-6 * (1 + index % 11) for index in range(141))
    made = Cell(case, of, "passed", 0.1, SMALL, by_position=errors)
    return replace(made, **changes)


def report(cells: tuple[Cell, ...], **changes: Any) -> Report:
    """Return a report of some cells, in two columns unless others are given."""
    cases = dict.fromkeys(cell.case for cell in cells)
    made = Report(
        package="demo/package",
        reference="demo/checkpoint",
        suite="quick",
        seed=20250805,
        versions={"gptoss-onnx": "0.2.0", "onnxruntime": "1.32.0"},
        machine={"processor": "a processor with avx512", "cores": "2"},
        columns=(column("native"), column("portable")),
        rows=tuple(Row(name, ROWS.get(name, name)) for name in cases),
        cells=cells,
    )
    return replace(made, **changes)


def passing() -> Report:
    """Return a report in which everything passed."""
    cells = [cell(case, of) for case in ROWS for of in ("native", "portable")]
    comparison = Comparison("graph", "nodes and attributes against a fresh export", "passed", 0.9)
    return report(tuple(cells), comparisons=(comparison,))


def failing() -> Report:
    """Return a report with a cell of every state, and everything that a cell can hold."""
    errors = tuple(2e-5 if index < 40 else 0.31 * index / 140 for index in range(141))
    layers = tuple(
        LayerError(index, 2e-6 if index < 3 else 0.04 * index, 1e-4) for index in range(12)
    )
    ties = tuple(Tie(17 + 9 * index, 3, 2.1e-7, "as the reference") for index in range(3))
    text = (
        "layer 3, MoEDispatchMXFP4: relative error 4.1e-02, inputs of size 1.2e+00, at most 8.4e+00"
    )
    departs = Divergence(3, "MoEDispatchMXFP4", 4.1e-2, 1.2, 8.4, text)
    cells = []
    for case in ROWS:
        cells.append(cell(case, "native"))
        cells.append(
            cell(
                case,
                "portable",
                state="failed",
                difference=LARGE,
                by_position=errors,
                by_layer=layers,
                ties=ties,
                divergence=departs,
            )
        )
        drift = tuple(0.001 * (1 + index % 20) for index in range(141))
        moved = replace(LARGE, max_abs=max(drift))
        cells.append(cell(case, "ort", state="accepted", difference=moved, by_position=drift))
    cells[0] = replace(cells[0], difference=None, by_position=())
    cells[4] = replace(
        cells[4],
        difference=Difference(141, math.inf, math.nan, math.inf, 0.0),
        by_position=(1e-5,) * 100 + (math.nan, math.inf) * 20 + (0.0,),
        divergence=None,
    )
    cells[12] = replace(
        cells[12],
        state="refused",
        difference=None,
        by_position=(),
        note="SinkAttention: new_lengths: found 3 for a chunk of 2, expected at most 2",
    )
    cells[14] = replace(
        cells[14],
        state="not available",
        difference=None,
        by_position=(),
        note="the manifest lists rewinding as not supported",
    )
    findings = (
        Finding("layers.3 MoEDispatchMXFP4", "alpha", "1.703125", "1.702"),
        Finding(
            "model.layers.3.mlp.experts.gate_up_proj_blocks", "row 7", "1 byte differs", "none"
        ),
    )
    return report(
        tuple(cells),
        columns=(
            column("native"),
            column("portable"),
            column("ort"),
            column("node", missing="gptoss-node is not found on the PATH", limits=None),
        ),
        comparisons=(
            Comparison("graph", "nodes, attributes and bodies", "failed", 0.9, findings),
            Comparison("weights", "every tensor, byte by byte", "passed", 0.2, (), "4.0 MB read"),
        ),
    )


def hostile(text: str) -> Report:
    """Return a report in which every text is this one."""
    difference = replace(LARGE, max_abs=math.nan)
    bad = Cell(
        text,
        text,
        "failed",
        0.1,
        difference,
        text,
        (0.1, math.nan),
        (LayerError(0, math.inf, 1e-4),),
        (Tie(0, 0, 0.0, text),),
        Divergence(0, text, 0.1, 1.0, 2.0, text),
    )
    refused = replace(bad, column=f"{text} again", state="refused")
    columns = tuple(
        Column(name, text, text, text, text, EXACT, text, missing)
        for name, missing in ((text, ""), (f"{text} again", ""), (f"{text} missing", text))
    )
    finding = Finding(text, text, text, text)
    return Report(
        package=text,
        reference=text,
        suite=text,
        seed=1,
        versions={text: text},
        machine={text: text},
        columns=columns,
        rows=(Row(text, text),),
        cells=(bad, refused),
        comparisons=(Comparison(text, text, "failed", 0.1, (finding,), text),),
    )


def not_judged(error: str = "demo/package: manifest.json: not found") -> Report:
    """Return a report of a run that could not judge."""
    return Report("demo/package", "demo/checkpoint", "quick", 0, {}, {}, error=error)
