"""`validate --runtime openvino`: what OpenVINO says of a package, held to the reference."""

from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.columns.runtimes import CASES

PYTHON = Path(__file__).parents[2] / "build" / "clients" / "openvino" / "bin" / "python"

pytestmark = [
    pytest.mark.openvino,
    pytest.mark.clients,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="no build/clients/openvino: run tests/clients/openvino_venv.sh"
    ),
]


def test_it_is_a_column(demo_package: Package, demo_checkpoint: Path) -> None:
    clients = {"openvino": str(PYTHON)}
    report = validate(demo_package.folder, demo_checkpoint, runtimes=["openvino"], clients=clients)
    assert report.passed, report.table()
    assert {row.name for row in report.rows} == {"load", *CASES}
    assert report.columns[0].runs.startswith("portable bodies in OpenVINO 2026.4.")
