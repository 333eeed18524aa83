"""The report: states and exit codes, the JSON document and back, and the table that people read."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import onnx
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package
from gptoss_onnx.json_text import dump_json
from gptoss_onnx.validation import Report, validate
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
    Row,
    State,
)

COLUMN = Column("native", "native kernels", "native", "exact", "cpu", EXACT, "--kernels native")
MISSING = Column("portable", "", "portable", "bf16", "cpu", None, "", "they have no bf16")


def report_of(*states: State, comparison: State | None = None) -> Report:
    """Return a report of one case a state."""
    rows = [Row(f"case {index}", "what is done") for index in range(len(states))]
    cells = [Cell(row.name, "native", state, 0.5) for row, state in zip(rows, states, strict=True)]
    found = Finding("layers.3 MoEDispatch", "alpha", "1.703125", "1.702")
    comparisons = [Comparison("graph", "as exported", comparison, 0.1, (found,))]
    return Report(
        package="package",
        reference="checkpoint",
        suite="quick",
        seed=1,
        versions={"torch": "2"},
        machine={"cores": "2"},
        columns=(COLUMN, MISSING),
        rows=tuple(rows),
        cells=tuple(cells),
        comparisons=tuple(comparisons) if comparison else (),
    )


@pytest.mark.parametrize(
    ("states", "comparison", "code"),
    [
        (("passed",), None, 0),
        (("passed", "not available"), "passed", 0),
        (("passed", "failed"), None, 1),
        (("passed", "refused"), None, 1),
        (("passed",), "failed", 1),
        (("not available",), None, 2),
        ((), None, 2),
    ],
)
def test_the_exit_code_says_what_was_judged(
    states: tuple[State, ...], comparison: State | None, code: int
) -> None:
    report = report_of(*states, comparison=comparison)
    assert (report.exit_code, report.passed) == (code, code == 0)


def test_an_error_is_no_verdict() -> None:
    report = dataclasses.replace(report_of(), error="package: not a folder")
    assert report.exit_code == 2
    assert report.table() == "NOT JUDGED: package: not a folder"


def test_json_and_back() -> None:
    full = Cell(
        "case 0",
        "native",
        "failed",
        0.5,
        Difference(3, 0.25, None, 1e-7, 1.0),
        "said",
        (0.5, 0.25),
        (LayerError(0, 1e-6, 1e-5),),
        (Tie(3, 1, 1e-7, "as the reference"),),
        Divergence(1, "SinkAttention", 1e-2, 0.5, 3.0, "layers.1 SinkAttention"),
    )
    report = dataclasses.replace(report_of("failed", comparison="failed"), cells=(full,))
    assert Report.from_json(json.loads(dump_json(report.to_json()))) == report


def test_what_is_not_finite_comes_back() -> None:
    broken = Cell("case 0", "native", "failed", 0.5, Difference(3, math.nan, math.inf, None, None))
    report = dataclasses.replace(report_of("failed"), cells=(broken,))
    back = Report.from_json(json.loads(dump_json(report.to_json())))
    assert back.cells[0].difference is not None
    assert math.isnan(back.cells[0].difference.max_abs)
    assert (back.cells[0].difference.mean_abs, back.cells[0].difference.kl) == (math.inf, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "of version 1, expected gptoss-onnx-parity of version 2"),
        ({"cells": [{}]}, r"missing cells\[0\]\.case, .*\.seconds, .*\.state"),
        ({"seed": "1"}, "seed: found '1', expected int"),
    ],
)
def test_other_documents_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Report.from_json(json.loads(dump_json(report_of("passed").to_json())) | change)


def test_the_table_names_what_was_found_and_what_was_not_judged() -> None:
    lines = report_of("passed", "failed", comparison="failed").table().splitlines()
    assert lines[0] == "graph: as exported: FAILED, 0.1 s"
    assert lines[1] == "  layers.3 MoEDispatch alpha: 1.703125, expected 1.702"
    assert "portable: not judged: they have no bf16" in lines
    assert lines[-1] == "FAIL: 2 of 3 checks failed; not judged: portable (see above)"


def test_what_an_op_refuses_is_a_failure(
    tiny_package: Package, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A graph that ONNX Runtime opens and cannot run."""
    folder = shutil.copytree(tiny_package.folder, tmp_path / "package")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    node = next(node for node in model.graph.node if node.op_type == "MoEDispatchMXFP4")
    next(entry for entry in node.attribute if entry.name == "top_k").i = 99  # of few experts
    onnx.save(model, folder / "model.onnx")
    report = validate(folder, tiny_checkpoint, kernels="native")
    assert report.exit_code == 1
    assert report.cell("prefill").state == "refused"
    assert report.cell("prefill").note
