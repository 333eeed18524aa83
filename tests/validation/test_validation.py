"""`validate`: it passes what is right, fails what is wrong, and refuses what it cannot judge."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gptoss_onnx.errors import CheckpointError, PackageError, ParityError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate, write_golden_vectors
from gptoss_onnx.validation.judging.metrics import compare
from support.tolerances import METRICS


def damaged_copy(checkpoint: Path, target: Path, name: str, value: float) -> Path:
    """Copy a checkpoint with one tensor scaled by `value` (NaN spoils it)."""
    shutil.copytree(checkpoint, target)
    tensors = load_file(target / "model.safetensors")
    tensors[name] = tensors[name] * value
    save_file(tensors, target / "model.safetensors")
    return target


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_a_true_package_passes_every_case(
    tiny_package: Package, tiny_checkpoint: Path, kernels: str
) -> None:
    report = validate(tiny_package.folder, tiny_checkpoint, kernels=kernels)
    assert report.passed, report.table()
    names = [row.name for row in report.rows]
    assert len(set(names)) == len(names)
    assert {cell.case for cell in report.cells if cell.difference is None} >= {"load", "greedy"}
    lines = report.table().splitlines()
    assert lines[-1].startswith("PASS: ")
    assert any(line.startswith(f"{kernels}: {kernels} kernels") for line in lines)


def test_full_suite_goes_beyond_the_original_context(
    tiny_package: Package, tiny_checkpoint: Path
) -> None:
    report = validate(tiny_package.folder, tiny_checkpoint, suite="full", kernels="native")
    assert report.passed, report.table()
    assert "long context" in {row.name for row in report.rows}


@pytest.mark.parametrize(
    "name", ["model.layers.2.self_attn.sinks", "model.layers.1.mlp.router.bias"]
)
def test_one_changed_tensor_fails(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """The package has other weights than the reference it is held to, in one small tensor."""
    package = export(
        damaged_copy(tiny_checkpoint, tmp_path / "other", name, 1.25), tmp_path / "package"
    )
    report = validate(package.folder, tiny_checkpoint, kernels="native")
    assert not report.passed
    assert report.cell("prefill").state == "failed"
    assert "FAIL" in report.table()


@pytest.mark.parametrize("activations", ["bf16", "int8"])
def test_narrow_activations_pass_their_own_limits(
    demo_package: Package, demo_checkpoint: Path, activations: str
) -> None:
    report = validate(demo_package.folder, demo_checkpoint, activations=activations)
    assert report.passed, report.table()
    prefill = report.cell("prefill")
    assert prefill.difference.max_abs > 1e-3  # measured, and really narrower
    assert f", {activations}, on cpu" in report.table()


@pytest.mark.parametrize("kv_dtype", ["float16", "bfloat16"])
def test_narrow_caches_pass_their_own_limits(
    tiny_checkpoint: Path, tmp_path: Path, kv_dtype: str
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", kv_dtype=kv_dtype)
    report = validate(package.folder, tiny_checkpoint, kernels="native")
    assert report.passed, report.table()
    prefill = report.cell("prefill")
    assert prefill.difference.max_abs > 1e-5  # measured, and really narrower


def test_another_model_is_refused(tiny_package: Package, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "other", tiny_document(sliding_window=16))
    with pytest.raises(ParityError, match="sliding_window: 8 and 16"):
        validate(tiny_package.folder, tmp_path / "other")
    make_checkpoint(tmp_path / "third", tiny_document("gpt2"))
    with pytest.raises(ParityError, match=r": model_type differs \(model_type: gpt_oss and gpt2\)"):
        validate(tiny_package.folder, tmp_path / "third")


def test_weights_that_are_not_finite_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = damaged_copy(
        tiny_checkpoint, tmp_path / "broken", "model.layers.0.self_attn.o_proj.weight", float("nan")
    )
    with pytest.raises(
        CheckpointError, match=r"o_proj\.weight\[0, 0\] in model\.safetensors is nan"
    ):
        validate(export(broken, tmp_path / "package").folder, broken)


def test_report_is_json_and_lies_where_asked(
    tiny_package: Package, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    report = validate(tiny_package.folder, tiny_checkpoint, kernels="native")
    document = json.loads(report.write(tmp_path / "new" / "folder").read_text())
    assert document["passed"] is True
    assert document["cells"][1]["difference"]["max_abs"] == report.cells[1].difference.max_abs
    assert set(document["versions"]) >= {"torch", "onnxruntime", "gptoss-onnx"}


def test_golden_vectors_are_written_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    package = export(tiny_checkpoint, tmp_path / "package")
    golden = package.folder / "golden" / "golden.json"
    before = golden.read_text()
    with pytest.raises(PackageError, match="delete it"):
        write_golden_vectors(package.folder, tiny_checkpoint)
    shutil.rmtree(golden.parent)
    write_golden_vectors(package.folder, tiny_checkpoint)
    assert golden.read_text() == before


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(2, 40), st.integers(0, 2**31))
def test_metrics_equal_torch(positions: int, vocabulary: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    expected = 3 * torch.randn(positions, vocabulary, generator=generator)
    found = expected + 0.1 * torch.randn(positions, vocabulary, generator=generator)
    difference = compare(found.numpy(), expected.numpy())
    theirs = torch.nn.functional.kl_div(
        found.double().log_softmax(-1),
        expected.double().log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    assert difference.kl == pytest.approx(float(theirs), abs=METRICS)
    assert difference.max_abs == pytest.approx(float((found - expected).abs().max()), abs=METRICS)
    assert difference.top1 == pytest.approx(
        float((found.argmax(-1) == expected.argmax(-1)).double().mean())
    )


def test_metrics_refuse_what_cannot_be_judged() -> None:
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(ParityError, match="the reference has"):
        compare(ones, ones[:1])
    with pytest.raises(ParityError, match="not finite"):
        compare(ones, ones * np.nan)
    with pytest.raises(ParityError, match="no positions"):
        compare(ones[:0], ones[:0])
    assert compare(ones * np.nan, ones).max_abs == np.inf
