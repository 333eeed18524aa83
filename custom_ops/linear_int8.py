"""PyTorch definition of `ai.gptoss::LinearInt8`: a projection on 8-bit weights with a scale for
each block of 32.

Legend: N tokens, K input width (a multiple of 32), M output width.
"""

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.checks import check_linear, expect_multiple, expect_shape

BLOCK = 32  # weights along K that share a scale
LARGEST = 127  # symmetric: −128 is not used


@torch.library.custom_op("gptoss::linear_int8", mutates_args=())
def linear_int8(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x · (weight · scales)ᵀ + bias, computed in the dtype of `x`.

    Args:
        x: (N, K), any floating dtype.
        weight: int8 (M, K).
        scales: (M, K/32); each multiplies 32 neighbours of a row.
        bias: (M) or None.

    Returns:
        (N, M) in the dtype of `x`.

    Raises:
        InputError: the shapes do not fit.
    """
    check_linear("LinearInt8", x, weight, bias)
    expect_multiple("LinearInt8", "x", x, 1, BLOCK, "(N, K) with K a multiple of 32", least=0)
    expect_shape(
        "LinearInt8", "scales", scales, (weight.shape[0], weight.shape[1] // BLOCK), "(M, K/32)"
    )
    wide = dequantize_int8(weight, scales, x.dtype)
    return torch.nn.functional.linear(x, wide, None if bias is None else bias.to(x.dtype))


@linear_int8.register_fake
def _(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the int8 weights (M, K) and float32 scales (M, K/32) nearest to `weight`.

    A scale is the largest magnitude of its block over 127; quotients are rounded to the nearest,
    ties to even. Where there is nothing to scale, a block of zeros or one so small that its scale
    would be a subnormal, weights and scale are zero. A block that is not finite gets a scale that
    is not finite: callers refuse it.

    Args:
        weight: (M, K), any floating dtype.
    """
    # (M, K/32, 32), ours to overwrite
    blocks = weight.to(torch.float32, copy=True).unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(2) / LARGEST
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, 0.0, scales)
    divisors = torch.where(scales == 0, torch.inf, scales)
    return blocks.div_(divisors.unsqueeze(2)).round_().to(torch.int8).flatten(1), scales


def dequantize_int8(weight: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return int8 weights (M, K) times their scales (M, K/32), rounded to `dtype`."""
    blocks = weight.to(dtype).unflatten(1, (-1, BLOCK))
    wide: Tensor = blocks * scales.to(dtype).unsqueeze(2)
    return wide.flatten(1)
