"""A portable package in `onnx.reference`, ONNX's own evaluator, as it is: every architecture, every
op, a prompt and then one token a call, held to ONNX Runtime.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.graph_calls import Run, in_onnxruntime, score
from support.tolerances import OTHER_RUNTIME

TOKENS = 20  # beyond the windows of tiny models, whose rings wrap


def in_reference(package: Package) -> Run:
    evaluator = ReferenceEvaluator(str(package.graph))
    names = evaluator.output_names
    return lambda given: dict(zip(names, evaluator.run(None, dict(given)), strict=True))


def check(model_type: str, folder: Path, **options: Any) -> None:
    """Export a tiny model and compare; copied, since ONNX opens no weights of several links."""
    make_checkpoint(folder / "checkpoint", tiny_document(model_type), seed=5)
    package = export(folder / "checkpoint", folder / "package", weights="copy", **options)
    tokens = [token % package.manifest.vocab_size for token in range(3, 3 + 7 * TOKENS, 7)]
    expected = score(in_onnxruntime(package), package, tokens)
    found = score(in_reference(package), package, tokens)
    kv_dtype = options.get("kv_dtype", "float32")
    np.testing.assert_allclose(found, expected, atol=OTHER_RUNTIME[kv_dtype], rtol=0)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_architecture(model_type: str, tmp_path: Path) -> None:
    check(model_type, tmp_path)


@pytest.mark.parametrize("dense", ["int8", "packed"])
def test_projections_in_other_forms(dense: str, tmp_path: Path) -> None:
    check("gpt_oss", tmp_path, dense=dense)


def test_a_cache_of_16_bits(tmp_path: Path) -> None:
    check("gpt_oss", tmp_path, kv_dtype="float16")
