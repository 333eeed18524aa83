"""`validate` proves a small package of every architecture, case by case."""

from pathlib import Path

import pytest

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_case_holds(model_type: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type), seed=7, dtype="F32")
    package = export(tmp_path / "checkpoint", tmp_path / "package")
    report = validate(package.folder, tmp_path / "checkpoint")
    assert report.passed, report.table()
    names = {case.name for case in report.cases}
    assert {"load", "prefill", "decode", "ragged batch", "rewind", "empty past", "greedy"} <= names
