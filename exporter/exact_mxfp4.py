"""Whether dense experts are MXFP4 that was widened: they could be packed again without loss.

A block of 32 numbers is MXFP4 if all of them are levels 0, 0.5, 1, 1.5, 2, 3, 4 or 6, of either
sign, times one power of two. The smallest power under which the largest number is a level, 4 or 6,
has all levels of the larger ones, so no other has to be tried.
"""

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.mxfp4 import BLOCK
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.config import ExpertsConfig

PIECE = 1 << 20  # numbers read together
_BLOCKS = 2048  # looked at together: what that needs stays in the cache
_BIAS, _MANTISSA = 127, 23  # of float32: of its exponent, and bits behind that
_TO_LARGEST = 3  # frexp of 4 and of 6
_LEAST_POWER = -126  # one less, the least scale, would be multiplied by 2^128, beyond float32


def first_inexact(checkpoint: Checkpoint, progress: Progress) -> str | None:
    """Return the first matrices of dense experts that are not MXFP4; None if all are.

    Reads them, a piece at a time, until it finds one; `progress` hears of the bytes.
    """
    named = dense_experts(checkpoint)
    total = sum(checkpoint.parameters[name].stored_nbytes for name in named)
    progress.begin("looking for MXFP4 in the experts", total)
    for name, columns in named.items():
        parameter = checkpoint.parameters[name]
        depth, width = parameter.shape[-2 if columns else -1], parameter.shape[-1]
        if depth % BLOCK:
            return parameter.name
        step = max(1, PIECE // width // BLOCK) * BLOCK  # whole blocks, whichever way they lie
        each = parameter.stored_nbytes / parameter.rows
        for first in range(0, parameter.rows, step):
            end = min(first + step, parameter.rows)
            if not is_mxfp4(checkpoint.load_rows(parameter, first, end), columns=columns):
                return parameter.name
            progress.advance(round((end - first) * each))
    return None


def dense_experts(checkpoint: Checkpoint) -> dict[str, bool]:
    """Return the decoder's names of the experts' matrices that are not packed, and of each whether
    its columns are what an expert multiplies.
    """
    found = {}
    for index, layer in enumerate(checkpoint.config.layers):
        experts = layer.feed_forward
        if isinstance(experts, ExpertsConfig) and experts.storage != "mxfp4":
            for name in ("gate_up_proj", "down_proj"):
                path = f"model.layers.{index}.mlp.experts.{name}"
                found[path] = experts.storage == "columns"
    return found


def is_mxfp4(weight: Tensor, *, columns: bool = False) -> bool:
    """Say whether each block of `weight` has a scale under which all its numbers are E2M1 levels.

    Args:
        weight: (R, C), or (C, R) for `columns`; float32, float16 or bfloat16. C is a multiple of
            32.
        columns: the blocks lie along the first axis, as where experts are stored (in, out).
    """
    rows = weight.T.contiguous() if columns else weight
    return all(_are_levels(blocks) for blocks in rows.reshape(-1, BLOCK).split(_BLOCKS))


def _are_levels(blocks: Tensor) -> bool:
    numbers = blocks.float().abs()
    powers = torch.frexp(numbers.amax(1, keepdim=True)).exponent - _TO_LARGEST
    exponents = 1 - powers.clamp(min=_LEAST_POWER)
    doubled = numbers * (exponents + _BIAS << _MANTISSA).view(torch.float32)  # times 2^exponents
    whole = doubled == doubled.floor()
    # twice the levels: 0 to 4, 6, 8, 12; what is not finite is none of them
    level = (doubled <= 4) | (doubled == 6) | (doubled == 8) | (doubled == 12)
    return bool((whole & level).all())
