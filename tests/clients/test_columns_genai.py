"""`validate --runtime genai`: what onnxruntime-genai says of a package, held to the reference."""

import shutil
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.validation import Report, validate
from gptoss_onnx.validation.columns import genai
from support.genai_client import PYTHON, marks

pytestmark = marks


def judge(package: Path, checkpoint: Path) -> Report:
    return validate(package, checkpoint, runtimes=["genai"], clients={"genai": str(PYTHON)})


@pytest.mark.parametrize(
    ("name", "activations"), [("ort_package", "exact"), ("ort_int8_package", "int8")]
)
def test_it_is_a_column(
    name: str, activations: str, demo_checkpoint: Path, request: pytest.FixtureRequest
) -> None:
    """Experts of 8 bits are held to what activations of 8 bits cost, which are its default."""
    package: Package = request.getfixturevalue(name)
    report = judge(package.folder, demo_checkpoint)
    assert report.passed, report.table()
    rows = {"load", "prefill", f"chunks of {genai.CHUNK}", *genai.CASES}
    assert {row.name for row in report.rows} == rows
    assert report.columns[0].activations == activations
    assert report.columns[0].runs.startswith("onnxruntime-genai 0.18.")


def test_what_it_refuses_is_a_refused_cell(
    ort_package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    package = shutil.copytree(ort_package.folder, tmp_path / "package", copy_function=shutil.copy2)
    (package / "genai_config.json").write_text('{"model": {"type": "no such model"}}')
    report = judge(package, demo_checkpoint)
    (cell,) = report.cells
    assert (cell.case, cell.state, report.exit_code) == ("load", "refused", 1)
    assert cell.note.startswith("genai: RuntimeError")
