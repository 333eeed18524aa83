"""Rewrite a checkpoint in FP8 with a scale a block, and decode it again as transformers does."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

LARGEST = 448.0  # of E4M3
PLAIN = ("embed_tokens", "lm_head", "norm", "gate.weight")  # what published files leave as it is


def write_fp8(source: Path, fp8: Path, decoded: Path, block: tuple[int, int]) -> None:
    """Write the checkpoint in `source` (one file) to `fp8`, and to `decoded` what that decodes to.

    `block`: rows and columns that share a scale; every projection is a multiple of it.
    """
    stored: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    decode = Fp8Dequantize(None)._dequantize_one
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith(".weight") or any(part in name for part in PLAIN):
            stored[name] = plain[name] = tensor
            continue
        quantized, scales = _quantize(tensor, block)
        stored |= {name: quantized, f"{name}_scale_inv": scales}
        plain[name] = decode(quantized, scales, torch.bfloat16).float()
    document = json.loads((source / "config.json").read_text())
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    in_fp8 = {"quantization_config": quantization | {"weight_block_size": list(block)}}
    for folder, tensors, more in ((fp8, stored, in_fp8), (decoded, plain, {})):
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(document | more))


def _quantize(weight: Tensor, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return E4M3 (R, C) and the scales (R/rows, C/columns), float32 as Qwen3's or bfloat16."""
    rows, columns = block
    tiles = weight.float().reshape(len(weight) // rows, rows, -1, columns)
    scales = tiles.abs().amax(dim=(1, 3)) / LARGEST
    if len(weight) % (2 * rows):
        scales = scales.bfloat16()
    quantized = tiles / scales.float()[:, None, :, None]
    return quantized.reshape(weight.shape).to(torch.float8_e4m3fn), scales
