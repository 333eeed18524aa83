"""Every architecture passes the parity cases that its users run on their packages."""

from pathlib import Path

import pytest

from gptoss_onnx.exporter import export
from gptoss_onnx.package import GOLDEN_FILE
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate

# None of them may leave out one of these.
CASES = {
    "decode",
    "every chunk size",
    "kept positions",
    "token ids",
    "even batches",
    "ragged batches",
    "ragged chunks",
    "rewind",
    "capacities",
    "stale slots",
    "late positions",
    "late rows",
    "greedy",
}


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_quick_suite(model_type: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type), seed=3)
    package = export(tmp_path / "checkpoint", tmp_path / "package")
    assert (package.folder / GOLDEN_FILE).is_file()
    report = validate(package.folder, tmp_path / "checkpoint", kernels="native")
    assert report.passed, report.table()
    assert {row.name for row in report.rows} >= CASES
    assert all(cell.state == "passed" for cell in report.cells)
