"""`export --target openvino` in OpenVINO: the package's own file, with its weights where they are
linked, held to ONNX Runtime on the same inputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.columns.runtimes import CASES
from gptoss_onnx.validation.columns.served import Served
from support.graph_calls import PROMPT, Run, greedy, in_onnxruntime, score
from support.tolerances import OTHER_RUNTIME

PYTHON = Path(__file__).parents[2] / "build" / "clients" / "openvino" / "bin" / "python"
GREEDY = 24
TOKENS = 30

pytestmark = [
    pytest.mark.openvino,
    pytest.mark.clients,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="no build/clients/openvino: run tests/clients/openvino_venv.sh"
    ),
]


@contextmanager
def in_openvino(package: Package) -> Iterator[Run]:
    with Served("openvino", package.graph, [str(PYTHON)]) as served:
        yield served.ask


def check(package: Package) -> None:
    """Compare logits of a prompt and of single tokens after it, and what greedy choice makes."""
    vocabulary = package.manifest.vocab_size
    tokens = [token % vocabulary for token in range(3, 3 + 7 * TOKENS, 7)]
    stock = in_onnxruntime(package)
    expected = score(stock, package, tokens)
    with in_openvino(package) as run:
        found = score(run, package, tokens)
        chosen = greedy(run, package, tokens[:PROMPT], GREEDY)
    np.testing.assert_allclose(found, expected, atol=OTHER_RUNTIME["float32"], rtol=0)
    assert chosen == greedy(stock, package, tokens[:PROMPT], GREEDY)
    assert all(layer.window < PROMPT + GREEDY for layer in package.manifest.cache)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture(model_type: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type), seed=5)
    check(export(tmp_path / "checkpoint", tmp_path / "package", target="openvino"))


def test_projections_in_8_bits(tiny_checkpoint: Path, tmp_path: Path) -> None:
    check(export(tiny_checkpoint, tmp_path / "package", target="openvino", dense="int8"))


def test_validate_judges_it_there(tiny_checkpoint: Path, tmp_path: Path) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", target="openvino")
    clients = {"openvino": str(PYTHON)}
    report = validate(package.folder, tiny_checkpoint, runtimes=["openvino"], clients=clients)
    assert report.passed, report.table()
    assert {row.name for row in report.rows} == {"load", *CASES}
    assert report.columns[0].runs.endswith(" on cpu (as is)")
