"""`export --experts mxfp4`: what it writes, what it says of it, what it leaves alone, and what it
refuses.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4
from gptoss_onnx.custom_ops.mxfp4_quantize import quantize_mxfp4
from gptoss_onnx.errors import CheckpointError, InputError, PackageError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.manifest import Manifest, TensorError
from gptoss_onnx.package import EXPERTS_FILE, ORT_WEIGHTS
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.rounded import apply
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation import validate
from support.exported import valid_manifest
from support.fp8_checkpoint import write_fp8
from support.tolerances import GAPS, LEAST_GAP, MXFP4_ROUNDING
from support.transformers_models import write_by_transformers

LOSS = "MXFP4 experts"  # the case of `validate` that compares with the checkpoint's own weights
EXPERTS = "model.layers.0.mlp.experts"
GATED = {"use_swiglu": True, "bias": True}
UNGATED = {"use_swiglu": False, "bias": True, "use_rms_norm": False}
# Architecture, changes to its config.json: gates and ups in turns and in halves, with biases and
# without, and no gate; shares over the chosen experts and over all.
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt-oss": ("gpt_oss", {}),
    "mixtral": ("mixtral", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "gated with biases": ("gpt_oss_lab", GATED),
    "not gated": ("gpt_oss_lab", UNGATED),
}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("gpt_oss", {}, tmp_path_factory.mktemp("dense") / "checkpoint")


@pytest.fixture(scope="module")
def package(dense: Path) -> Package:
    return export(dense, dense.parent / "package", experts="mxfp4")


def made(architecture: str, changes: dict[str, Any], folder: Path) -> Path:
    make_checkpoint(folder, {**tiny_document(architecture), **changes}, layout="hf-bf16")
    return folder


def test_the_file_holds_what_the_quantizer_makes(package: Package, dense: Path) -> None:
    stored, ours = load_file(dense / "model.safetensors"), load_file(package.folder / EXPERTS_FILE)
    names = [name for name in stored if name.endswith(("gate_up_proj", "down_proj"))]
    assert set(ours) == {f"{name}_{part}" for name in names for part in ("blocks", "scales")}
    errors = {error.name: error.relative_rms for error in package.manifest.rounded[0].errors}
    assert set(errors) == set(names)
    for name in names:
        experts = [quantize_mxfp4(expert, columns=True) for expert in stored[name]]
        assert torch.equal(ours[f"{name}_blocks"], torch.stack([each.blocks for each in experts]))
        assert torch.equal(ours[f"{name}_scales"], torch.stack([each.scales for each in experts]))
        wide = stored[name].mT.float()
        lost = (decode_mxfp4(ours[f"{name}_blocks"], ours[f"{name}_scales"]) - wide).norm()
        assert errors[name] == pytest.approx(float(lost / wide.norm()), rel=1e-3)
        assert 0 < errors[name] < MXFP4_ROUNDING


def test_graph_and_manifest_say_so(package: Package, dense: Path) -> None:
    manifest = valid_manifest(package.folder)
    assert manifest.lossy == ("experts in MXFP4 (block 32)",)
    assert not manifest.weights.bit_identical
    assert manifest.has_op("MoEDispatchMXFP4")
    assert not manifest.has_op("MoEDispatch")
    assert [(entry.name, entry.origin) for entry in manifest.weights.files] == [
        ("model.safetensors", "checkpoint"),
        (EXPERTS_FILE, "export"),
    ]


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize(("architecture", "changes"), FAMILY.values(), ids=FAMILY)
def test_packages_of_the_family_multiply_what_they_hold(
    architecture: str, changes: dict[str, Any], target: str, tmp_path: Path
) -> None:
    """Against the reference with the package's own weights, and not with the checkpoint's."""
    if target == "ort" and changes is UNGATED:
        pytest.skip("ONNX Runtime's MoE has no such activation")
    checkpoint = made(architecture, changes, tmp_path / "checkpoint")
    made_package = export(checkpoint, tmp_path / "package", experts="mxfp4", target=target)
    tokens = torch.randint(320, (20,), generator=torch.Generator().manual_seed(0)).tolist()
    with open_checkpoint(checkpoint) as opened:
        own = Decoder.from_checkpoint(opened).score(tokens)
        rounded = valid_manifest(made_package.folder).rounded
        model = apply(Decoder.from_checkpoint(opened), made_package.folder, rounded)
        expected = model.score(tokens)
    tolerance = GAPS * LEAST_GAP * float(expected.abs().max())
    for kernels in ("auto", "portable") if target == "portable" else ("auto",):
        with Session.open(made_package.folder, kernels=kernels, threads=1) as session:
            found = torch.as_tensor(session.score(tokens, chunk=len(tokens)))
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert float((expected - own).abs().max()) > 100 * tolerance


def test_validate_judges_the_package_and_measures_the_loss(package: Package, dense: Path) -> None:
    report = validate(package.folder, dense, kernels="native")
    assert set(report.failed()) <= {LOSS}  # random routers choose by a hair
    assert report.cell(LOSS).difference.kl > 1e-3


def test_validate_finds_an_error_that_is_another(package: Package, dense: Path) -> None:
    folder = shutil.copytree(package.folder, package.folder.parent / "other")
    manifest = Manifest.read(folder)
    (rounded,) = manifest.rounded
    errors = (TensorError(rounded.errors[0].name, 0.01), *rounded.errors[1:])
    replace(manifest, rounded=(replace(rounded, errors=errors),)).write(folder)
    report = validate(folder, dense, kernels="native")
    assert "error of model.layers.0.mlp.experts.down_proj" in report.table()


def test_an_old_manifest_without_errors_is_read(package: Package, tmp_path: Path) -> None:
    document = package.manifest.document()
    document["rounded"] = [{"kind": "dense-int8", "file": EXPERTS_FILE, "block": 32}]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    (entry,) = Manifest.read(tmp_path).rounded
    assert entry.errors == ()
    assert not entry.exact
    assert list(Manifest.read(tmp_path).document()["rounded"]) == document["rounded"]
    document["rounded"][0]["errors"] = [{"name": "a", "relative_rms": 1.5}]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(PackageError, match=r"errors\[0\].relative_rms: found 1.5, expected"):
        Manifest.read(tmp_path)


def test_a_copy_holds_no_dense_experts(dense: Path, tmp_path: Path) -> None:
    copied = export(dense, tmp_path / "copied", experts="mxfp4", weights="copy")
    onnx.checker.check_model(copied.folder / "model.onnx", full_check=True)
    held = {
        name
        for entry in copied.manifest.weights.files
        for name in load_file(copied.folder / entry.name)
    }
    assert not any(name.endswith(("gate_up_proj", "down_proj")) for name in held)
    assert "model.layers.0.mlp.experts.down_proj_blocks" in held


def test_target_ort_links_what_it_does_not_compute(dense: Path, tmp_path: Path) -> None:
    linked = export(dense, tmp_path / "package", experts="mxfp4", target="ort", dense="checkpoint")
    names = [entry.name for entry in linked.manifest.weights.files]
    assert names == ["model.safetensors", ORT_WEIGHTS]
    assert linked.manifest.rounded[0].file == ORT_WEIGHTS


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(
    bad: float, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the quantizer too, which reads checkpoints of which nothing else is read."""
    checkpoint = shutil.copytree(dense, tmp_path / "checkpoint")
    stored = load_file(checkpoint / "model.safetensors")
    name = "model.layers.1.mlp.experts.gate_up_proj"
    stored[name][3, 40, 7] = bad
    save_file(stored, checkpoint / "model.safetensors")
    monkeypatch.setattr("gptoss_onnx.exporter.export_package.GOLDEN_LIMIT", 0)
    with pytest.raises(CheckpointError, match=f"{name}: found a weight that is not finite"):
        export(checkpoint, tmp_path / "package", experts="mxfp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "MXFP4 already": ("gpt_oss", {}, {}, "that are MXFP4 already, expected dense ones"),
    "no experts": ("llama", {}, {}, "found no experts, expected some"),
    "an odd width": (
        "mixtral", {"intermediate_size": 80}, {}, "of width 80, expected a multiple of 32"
    ),
    "reference": ("mixtral", {}, {"weights": "reference"}, "choose --weights link or copy"),
    "an older ONNX Runtime": (
        "mixtral", {}, {"target": "ort", "onnxruntime": "1.28"}, "leave --onnxruntime out"
    ),
    "CUDA": ("mixtral", {}, {"target": "ort", "provider": "cuda"}, "leave --experts out"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "changes", "options", "text"), REFUSED.values(), ids=REFUSED
)
def test_what_cannot_be_quantized_is_refused(
    architecture: str,
    changes: dict[str, Any],
    options: dict[str, Any],
    text: str,
    tmp_path: Path,
) -> None:
    document = {**tiny_document(architecture), **changes}
    make_checkpoint(tmp_path / "checkpoint", document, sparse=True)
    with pytest.raises(InputError, match=text) as refused:
        export(tmp_path / "checkpoint", tmp_path / "package", experts="mxfp4", **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "package").exists()


def test_fp8_experts_become_what_their_decoded_values_do(tmp_path: Path) -> None:
    changes = {"num_hidden_layers": 1, "decoder_sparse_step": 1}
    write_by_transformers("qwen3_moe", changes, tmp_path / "own", sharded=False)
    write_fp8(tmp_path / "own", tmp_path / "fp8", tmp_path / "decoded", (16, 32))
    package = export(tmp_path / "fp8", tmp_path / "package", experts="mxfp4")
    ours = load_file(package.folder / EXPERTS_FILE)
    decoded = load_file(tmp_path / "decoded" / "model.safetensors")
    for expert in range(len(ours[f"{EXPERTS}.down_proj_blocks"])):
        found = quantize_mxfp4(decoded[f"{EXPERTS}.{expert}.down_proj.weight"])
        assert torch.equal(ours[f"{EXPERTS}.down_proj_blocks"][expert], found.blocks)
        assert torch.equal(ours[f"{EXPERTS}.down_proj_scales"][expert], found.scales)
