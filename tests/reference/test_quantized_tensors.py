"""Checkpoints of other quantizations whose config.json does not say so: refused by the cause."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document

PROJECTION = "model.layers.0.self_attn.q_proj"
EXPERTS = "model.layers.0.mlp.experts"
SCHEMES = {
    "bitsandbytes nf4": ("bitsandbytes", [
        f"{PROJECTION}.weight.absmax",
        f"{PROJECTION}.weight.quant_map",
        f"{PROJECTION}.weight.quant_state.bitsandbytes__nf4",
    ]),
    "bitsandbytes' state alone": (
        "bitsandbytes", [f"{PROJECTION}.weight.quant_state.bitsandbytes__fp4"]
    ),
    "bitsandbytes int8": ("bitsandbytes", [f"{PROJECTION}.SCB"]),
    "NVFP4": ("NVFP4", [
        f"{PROJECTION}.weight_scale", f"{PROJECTION}.weight_scale_2", f"{PROJECTION}.input_scale"
    ]),
    "NVFP4 experts": ("NVFP4", [
        f"{EXPERTS}.gate_up_proj_weight_scale", f"{EXPERTS}.gate_up_proj_weight_scale_2"
    ]),
    "NVFP4 of compressed-tensors": ("NVFP4", [
        f"{PROJECTION}.weight_packed", f"{PROJECTION}.weight_global_scale"
    ]),
    "compressed-tensors": ("compressed-tensors", [
        f"{PROJECTION}.weight_packed", f"{PROJECTION}.weight_scale"
    ]),
    "GPTQ": ("GPTQ or AWQ", [f"{PROJECTION}.qweight", f"{PROJECTION}.qzeros"]),
    "FP8, a scale a tensor": ("FP8", [f"{PROJECTION}.weight_scale", f"{PROJECTION}.input_scale"]),
    "FP8 keys": ("FP8", ["model.layers.0.self_attn.k_scale"]),
    "FP8 without its config": (
        "FP8 without a quantization_config in config.json", [f"{PROJECTION}.weight_scale_inv"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense") / "checkpoint"
    make_checkpoint(folder, tiny_document("gpt_oss"), layout="hf-bf16")
    return folder


def with_tensors(dense: Path, folder: Path, added: dict[str, torch.Tensor]) -> Path:
    shutil.copytree(dense, folder)
    save_file(load_file(dense / "model.safetensors") | added, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(("scheme", "names"), SCHEMES.values(), ids=SCHEMES)
def test_the_cause_is_one_line(scheme: str, names: list[str], dense: Path, tmp_path: Path) -> None:
    folder = with_tensors(dense, tmp_path / "checkpoint", {name: torch.ones(4) for name in names})
    with pytest.raises(CheckpointError) as refused, open_checkpoint(folder):
        pass
    line = str(refused.value)
    assert line.startswith(f"{folder}: found {scheme}: ")
    assert any(name in line for name in names)
    assert line.endswith("take the checkpoint that it was made from")
    assert "\n" not in line


def test_fp8_numbers_without_scales(dense: Path, tmp_path: Path) -> None:
    weight = load_file(dense / "model.safetensors")[f"{PROJECTION}.weight"]
    added = {f"{PROJECTION}.weight": weight.to(torch.float8_e4m3fn)}
    folder = with_tensors(dense, tmp_path / "checkpoint", added)
    with pytest.raises(CheckpointError, match=r"found FP8 without .*: a tensor such as") as refused:
        open_checkpoint(folder)
    assert "\n" not in str(refused.value)


def test_config_and_tensors_of_modelopt(dense: Path, tmp_path: Path) -> None:
    """Where config.json says it, that is the cause."""
    folder = with_tensors(
        dense, tmp_path / "checkpoint", {f"{PROJECTION}.weight_scale_2": torch.ones(1)}
    )
    document = json.loads((folder / "config.json").read_text())
    document["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="ModelOpt's weights are not read"):
        open_checkpoint(folder)
