"""MXFP4 rounding: the fake quantisation that training sees and the packing that the checkpoint
holds.

A block is 32 neighbouring values of the last axis. Its scale is a power of two (E8M0, bias 127) and
each value one of sixteen E2M1 levels (OCP Microscaling Formats 1.0). Both entries below round with
the same two functions, so what was trained is what is stored.
"""

import torch
from torch import Tensor

BLOCK = 32
# Index is the 4-bit code; bit 3 is the sign.
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def fake_quantize(weight: Tensor) -> Tensor:
    """Round to the MXFP4 grid; the gradient passes straight through. (..., K) fp32 → (..., K)
    fp32.
    """
    with torch.no_grad():
        blocks = weight.unflatten(-1, (-1, BLOCK))  # (..., K/32, 32)
        scale = torch.exp2(_exponents(blocks))
        delta = (_round_to_levels(blocks / scale) * scale).flatten(-2) - weight
    return weight + delta


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Encode as the checkpoint stores it.

    weight (..., K) fp32 → blocks (..., K/32, 16) uint8, low nibble first, and scales (..., K/32)
    uint8.
    """
    blocks = weight.unflatten(-1, (-1, BLOCK))
    exponents = _exponents(blocks)
    rounded = _round_to_levels(blocks / torch.exp2(exponents))
    magnitudes = torch.tensor(LEVELS[:8])
    codes = torch.searchsorted(magnitudes, rounded.abs().contiguous()) + 8 * (rounded < 0)
    nibbles = codes.to(torch.uint8)
    packed = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    return packed, (exponents.squeeze(-1) + 127).to(torch.uint8)


def _exponents(blocks: Tensor) -> Tensor:
    """Scale exponent of each block, (..., K/32, 32) → (..., K/32, 1).

    The smallest power of two that brings the largest value to at most 7: what lies in (6, 7] rounds
    to 6, which costs less than halving the resolution of the whole block.
    """
    largest = blocks.abs().amax(-1, keepdim=True).clamp_min(2.0**-60)
    return torch.ceil(torch.log2(largest / 7))


def _round_to_levels(x: Tensor) -> Tensor:
    """Nearest E2M1 level; |x| ≤ 7. Steps are ½ below 2, 1 below 4 and 2 above."""
    magnitude = x.abs()
    step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    return (torch.round(x / step) * step).clamp(-6, 6)
