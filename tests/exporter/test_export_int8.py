"""`export --dense int8`: the file it writes, the graph it rewrites, what it leaves alone, and what
it refuses.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.custom_ops.linear_int8 import quantize_int8
from gptoss_onnx.errors import CheckpointError, InputError, PackageError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.package import INT8_FILE
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session, open_package
from gptoss_onnx.validation import validate, write_golden_vectors
from support.exported import valid_manifest, weight_files
from support.native_levels import needs_native
from support.tolerances import PACKAGE_LOGITS_INT8

LOSS = "int8 weights"  # the case of `validate` that compares with the checkpoint's own weights
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.fixture(scope="module")
def package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    checkpoint = shutil.copytree(demo_checkpoint, tmp_path_factory.mktemp("int8") / "checkpoint")
    return export(checkpoint, checkpoint.parent / "package", dense="int8")


@pytest.fixture(scope="module")
def graph(package: Package) -> onnx.ModelProto:
    return onnx.load(package.folder / "model.onnx", load_external_data=False)


def test_the_file_holds_the_quantized_projections(package: Package, demo_checkpoint: Path) -> None:
    """Read by safetensors' own reader, compared with the quantizer on whole matrices."""
    source, stored = (
        load_file(demo_checkpoint / "model.safetensors"),
        load_file(package.folder / INT8_FILE),
    )
    layers = len(package.manifest.cache)
    names = [
        f"model.layers.{layer}.self_attn.{name}" for layer in range(layers) for name in PROJECTIONS
    ]
    names.append("lm_head")
    assert set(stored) == {
        f"{name}.{part}" for name in names for part in ("weight_int8", "weight_scales")
    }
    for name in names:
        weight, scales = quantize_int8(source[f"{name}.weight"])
        assert torch.equal(stored[f"{name}.weight_int8"], weight)
        assert torch.equal(stored[f"{name}.weight_scales"], scales)


def test_the_graph_has_8_bits_in_the_projections_and_the_checkpoint_elsewhere(
    package: Package, graph: onnx.ModelProto
) -> None:
    nodes = {
        op: [node for node in graph.graph.node if node.op_type == op]
        for op in ("Linear", "LinearInt8")
    }
    layers = len(package.manifest.cache)
    assert [node.name.rsplit(".", 2)[1] for node in nodes["Linear"]] == ["router"] * layers
    assert "model.layers.0.self_attn.q_proj.LinearInt8" in {
        node.name for node in nodes["LinearInt8"]
    }
    assert len(nodes["LinearInt8"]) == 4 * layers + 1
    files = weight_files(graph)
    ours = {name for node in nodes["LinearInt8"] for name in node.input[1:3]}
    assert {name for name, file in files.items() if file == INT8_FILE} == ours
    assert not any("self_attn" in name and name.endswith("_proj.weight") for name in files)
    assert {function.name for function in graph.functions} >= {"Linear", "LinearInt8"}


def test_the_manifest_says_what_is_lossy_and_what_is_not(package: Package) -> None:
    manifest = valid_manifest(package.folder)
    layers = len(manifest.cache)
    assert {use.name: use.count for use in manifest.ops} == {
        "Linear": layers,
        "LinearInt8": 4 * layers + 1,
        "MoEDispatchMXFP4": layers,
        "SinkAttention": layers,
    }
    assert manifest.lossy == ("q, k, v, o and lm_head in int8 (block 32)",)
    assert not manifest.weights.bit_identical
    assert [(entry.name, entry.origin) for entry in manifest.weights.files] == [
        ("model.safetensors", "checkpoint"),
        (INT8_FILE, "export"),
    ]
    assert (package.folder / "model.safetensors").stat().st_nlink == 2
    assert (package.folder / INT8_FILE).stat().st_nlink == 1


def test_the_new_file_may_be_copied_but_not_changed(package: Package, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    for path in package.folder.iterdir():
        if path.is_file() and path.name != INT8_FILE:
            os.link(path, folder / path.name)
    shutil.copyfile(package.folder / INT8_FILE, folder / INT8_FILE)  # with a time of its own
    open_package(folder)
    with (folder / INT8_FILE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(PackageError, match=rf"{INT8_FILE}: changed since the package was written"):
        open_package(folder)


def test_weights_may_be_copied_and_not_referred_to(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copied = export(tiny_checkpoint, tmp_path / "copied", dense="int8", weights="copy")
    onnx.checker.check_model(copied.folder / "model.onnx", full_check=True)
    with pytest.raises(InputError, match="choose --weights link or copy"):
        export(tiny_checkpoint, tmp_path / "referred", dense="int8", weights="reference")
    assert not (tmp_path / "referred").exists()


def test_a_tied_embedding_stays_and_lm_head_is_quantized(tmp_path: Path) -> None:
    make_checkpoint(
        tmp_path / "checkpoint",
        tiny_document(tie_word_embeddings=True),
        layout="hf-bf16",
        dtype="F16",
    )
    package = export(tmp_path / "checkpoint", tmp_path / "package", dense="int8")
    graph = onnx.load(package.folder / "model.onnx", load_external_data=False).graph
    users = {
        name: [node.op_type for node in graph.node if name in node.input]
        for name in ("model.embed_tokens.weight", "lm_head.weight_int8")
    }
    assert users == {"model.embed_tokens.weight": ["Gather"], "lm_head.weight_int8": ["LinearInt8"]}
    report = validate(package.folder, tmp_path / "checkpoint", kernels="portable")
    # How much random weights lose is a matter of luck; that the package is the reference with 8
    # bits is not.
    assert set(report.failed()) <= {LOSS}, report.table()


def _of_width_48(**heads: int) -> dict[str, Any]:
    """Return the config.json of a model whose hidden size int8 and MXFP4 cannot have in blocks."""
    return tiny_document(hidden_size=48, quantization_config=None, **heads)


def test_projections_of_other_widths_keep_the_checkpoints_weights(tmp_path: Path) -> None:
    document = _of_width_48(num_attention_heads=4, num_key_value_heads=2)
    make_checkpoint(tmp_path / "checkpoint", document)
    package = export(tmp_path / "checkpoint", tmp_path / "package", dense="int8")
    assert package.manifest.lossy == (
        "o in int8 (block 32); q, k, v and lm_head as in the checkpoint, whose input width is no "
        "multiple of 32",
    )
    with Session.open(package.folder, threads=1) as session:
        assert np.isfinite(session.score([1, 2, 3])).all()


def test_a_model_of_other_widths_throughout_is_refused(tmp_path: Path) -> None:
    document = _of_width_48(num_attention_heads=3, num_key_value_heads=1)
    make_checkpoint(tmp_path / "checkpoint", document)
    with pytest.raises(
        InputError, match="--dense int8: found input widths 48, expected a multiple of 32"
    ):
        export(tmp_path / "checkpoint", tmp_path / "package", dense="int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_a_weight_that_is_not_finite_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the checkpoint is so large that an export does not read all of its weights."""
    monkeypatch.setattr("gptoss_onnx.exporter.export_package.GOLDEN_LIMIT", 0)
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    tensors = load_file(tmp_path / "checkpoint" / "model.safetensors")
    tensors["model.layers.1.self_attn.v_proj.weight"][5, 3] = torch.inf
    save_file(tensors, tmp_path / "checkpoint" / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"layers\.1\.self_attn\.v_proj\.weight: not finite in rows 0 to "
    ):
        export(tmp_path / "checkpoint", tmp_path / "package", dense="int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_a_full_disk_is_noticed_before_anything_is_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PackageError, match=r"the int8 weights need .* are free"):
        export(tiny_checkpoint, tmp_path / "package", dense="int8")
    assert not list(tmp_path.iterdir())


def test_golden_vectors_are_those_of_the_quantized_reference(
    package: Package, demo_checkpoint: Path
) -> None:
    """A client proves itself on what this package computes, not on what was lost when it was
    made.
    """
    golden = json.loads((package.folder / "golden" / "golden.json").read_text())
    with Session.open(package.folder, kernels="portable", threads=1) as session:
        for case in golden["cases"]:
            logits = session.score(case["token_ids"])[case["positions"]]
            found = logits[:, golden["sampled_indices"]]
            np.testing.assert_allclose(found, case["sampled_logits"], atol=PACKAGE_LOGITS_INT8)


def test_golden_vectors_written_later_are_the_same(
    package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(package.folder, tmp_path / "package", copy_function=os.link)
    shutil.move(folder / "golden", tmp_path / "golden")
    write_golden_vectors(folder, demo_checkpoint)
    written = [
        json.loads((place / "golden.json").read_text())
        for place in (tmp_path / "golden", folder / "golden")
    ]
    assert written[0] == written[1]


@needs_native
@pytest.mark.parametrize("activations", ["exact", "bf16", "int8"])
def test_validate_judges_the_package_and_measures_the_loss(
    package: Package, demo_checkpoint: Path, activations: str
) -> None:
    report = validate(package.folder, demo_checkpoint, kernels="native", activations=activations)
    assert report.passed, report.table()
    loss = report.cell(LOSS)
    assert loss.difference.kl > 1e-6  # measured, and really lossy
    assert "against the checkpoint's own weights (KL ≤" in report.table()


def test_validate_fails_where_the_quantized_weights_are_others(
    package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    """The package agrees with itself and not with the checkpoint."""
    folder = shutil.copytree(package.folder, tmp_path / "package", copy_function=os.link)
    content = bytearray((folder / INT8_FILE).read_bytes())
    content[-500_000:] = bytes(500_000)
    (folder / INT8_FILE).unlink()
    (folder / INT8_FILE).write_bytes(content)
    report = validate(folder, demo_checkpoint, kernels="portable")
    assert report.failed() == [LOSS]
