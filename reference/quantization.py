"""Quantized checkpoints: which are read, and what to do about the others.

MXFP4 experts are parameters of the model. FP8 weights, one scale a block of rows and columns as
DeepSeek and Qwen3 publish them, are decoded to bfloat16 while they are read, as transformers does
(`Fp8Dequantize` in its `integrations/finegrained_fp8.py`, 5.23).
"""

from collections.abc import Mapping
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields, shown
from gptoss_onnx.checkpoint.fp8 import Block
from gptoss_onnx.errors import CheckpointError

# Keys that quantization tools have written.
KEYS = ("quantization_config", "compression_config", "quantization")
FP8_SCALE = "_scale_inv"  # behind the name of a weight: its scales
_METHODS = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "modelopt": "ModelOpt's",
}


def refuse_quantization(document: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError for a quantization that is not read; `where` names the config.json."""
    for key in KEYS:
        found = document.get(key)
        if found is None:
            continue
        method = found.get("quant_method") if isinstance(found, Mapping) else found
        if method not in ("mxfp4", "fp8"):
            name = _METHODS.get(str(method), "such")
            raise CheckpointError(
                f"{where}: found quantization method {shown(method)} in {key}, expected 'mxfp4', "
                f"'fp8' or no {key}: {name} weights are not read; take the checkpoint that they "
                "were made from, and round it with --dense int8 if it is too large"
            )


def read_fp8_block(fields: Fields) -> Block | None:
    """Return the rows and columns that share a scale; None if the checkpoint is not in FP8.

    What is wrong is noted in `fields.problems`.
    """
    document = fields.value("quantization_config")
    if not isinstance(document, Mapping) or document.get("quant_method") != "fp8":
        return None
    quantization = Fields(document, fields.problems, "quantization_config.")
    for key, only in (("fmt", "e4m3"), ("activation_scheme", "dynamic"), ("scale_fmt", "float")):
        if quantization.has(key):
            quantization.one_of(key, (only,))
    block = quantization.value("weight_block_size")
    sizes = block if isinstance(block, list) else []
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        quantization.wrong("weight_block_size", "two integers of at least 1, rows and columns")
        return None
    return sizes[0], sizes[1]
