"""FP8 checkpoints against transformers' own decoding, and what is refused of quantized ones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from gptoss_onnx.checkpoint.finite import first_non_finite
from gptoss_onnx.checkpoint.fp8 import decode_fp8
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import open_checkpoint
from support.architecture_judge import Case
from support.fp8_checkpoint import write_fp8
from support.transformers_models import Judged, write_by_transformers

BLOCK = (16, 32)
Q = "model.layers.1.self_attn.q_proj.weight"
Edit = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Qwen3-MoE in FP8, with dense layers and experts, and decoded by transformers."""
    root = tmp_path_factory.mktemp("fp8")
    write_by_transformers("qwen3_moe", {"num_hidden_layers": 2}, root / "float32", sharded=False)
    write_fp8(root / "float32", root / "fp8", root / "decoded", BLOCK)
    return root / "fp8", root / "decoded"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_value_decodes_as_in_transformers(dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    values = codes[(codes & 0x7F) != 0x7F].repeat(8).reshape(16, 127).T[:, :8].contiguous()
    weight = torch.cat([values, values.flip(1)], dim=1)[:126].view(torch.float8_e4m3fn)
    scales = (torch.rand(7, 4, generator=torch.Generator().manual_seed(0)) + 0.1).to(dtype)
    expected = Fp8Dequantize(None)._dequantize_one(weight, scales, torch.bfloat16)
    found = [decode_fp8(weight[row : row + 5], scales, (18, 4), row) for row in range(0, 126, 5)]
    assert torch.equal(torch.cat(found), expected)


def test_a_part_of_a_block_at_the_edges_has_its_scale() -> None:
    weight = torch.ones(5, 7).to(torch.float8_e4m3fn)
    scales = torch.arange(6.0).reshape(2, 3)
    expected = scales.repeat_interleave(3, 0).repeat_interleave(3, 1)[:5, :7].bfloat16()
    assert torch.equal(decode_fp8(weight, scales, (3, 3), 0), expected)


def test_parameters_are_what_transformers_decodes(folders: tuple[Path, Path]) -> None:
    with open_checkpoint(folders[0]) as fp8, open_checkpoint(folders[1]) as decoded:
        assert fp8.parameters.keys() == decoded.parameters.keys()
        kinds = {parameter.dtype for parameter in fp8.parameters.values()}
        assert kinds == {"BF16"}
        for name, parameter in decoded.parameters.items():
            expected = decoded.load_parameter(name)
            assert torch.equal(fp8.load_parameter(name).float(), expected), name
            rows = parameter.rows
            middle = fp8.load_rows(fp8.parameters[name], rows // 3, rows - rows // 4)
            expected = expected.reshape(rows, -1)[rows // 3 : rows - rows // 4]
            assert torch.equal(middle.float(), expected), name


def test_the_reference_computes_what_transformers_does(folders: tuple[Path, Path]) -> None:
    fp8, decoded = folders
    model = AutoModelForCausalLM.from_pretrained(decoded, dtype=torch.float32)
    Case(Judged(model.eval(), fp8, model.config.vocab_size)).check_reference()


@pytest.mark.parametrize("name", [Q, f"{Q}_scale_inv"])
def test_a_weight_that_is_not_a_number_is_named(
    folders: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    with open_checkpoint(folders[0]) as whole:
        assert first_non_finite(whole) is None
    folder = _changed(folders[0], tmp_path, lambda tensors: tensors[name][1, 0:1].fill_(torch.nan))
    with open_checkpoint(folder) as checkpoint:
        assert first_non_finite(checkpoint) == f"{name}[1, 0] in model.safetensors is nan"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda tensors: tensors.pop(f"{Q}_scale_inv"), f"{Q}: found dtype F8_E4M3"),
        (
            lambda tensors: tensors.update({f"{Q}_scale_inv": torch.ones(3, 2)}),
            f"{Q}_scale_inv: found shape (3, 2) in model.safetensors, expected (12, 2)",
        ),
        (
            lambda tensors: tensors.update({Q: torch.ones(192, 64)}),
            f"{Q}: found dtype F32 in model.safetensors, expected F8_E4M3",
        ),
    ],
)
def test_weights_and_scales_that_do_not_fit_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, edit: Edit, words: str
) -> None:
    folder = _changed(folders[0], tmp_path, edit)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        ({"quant_method": "awq"}, "found quantization method 'awq'"),
        ({"quant_method": "awq"}, "AWQ weights are not read; take the checkpoint that they were"),
        ({"quant_method": "gptq"}, "GPTQ weights are not read"),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes weights are not read"),
        ({"quant_method": "fp8"}, "weight_block_size: missing, expected two integers"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "expected two integers"),
        (
            {"quant_method": "fp8", "weight_block_size": [16, 32], "activation_scheme": "static"},
            "quantization_config.activation_scheme: found 'static', expected 'dynamic'",
        ),
        (
            {"quant_method": "fp8", "weight_block_size": [16, 32], "fmt": "e5m2"},
            "quantization_config.fmt: found 'e5m2', expected 'e4m3'",
        ),
    ],
)
def test_other_quantizations_are_refused_by_name(
    folders: tuple[Path, Path], tmp_path: Path, quantization: dict[str, object], words: str
) -> None:
    folder = _changed(folders[0], tmp_path, lambda tensors: None)
    document = json.loads((folder / "config.json").read_text())
    document["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert words in str(caught.value)


def _changed(source: Path, folder: Path, edit: Edit) -> Path:
    """Copy a checkpoint into `folder`, its tensors changed."""
    tensors = load_file(source / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder
