"""MXFP4 rounded to 4-bit integers in blocks of 32, for kernels that know no other 4-bit weights.

The 15 levels of E2M1 lie up to 6 apart from 0, in steps of ½ near it; sixteen equal steps cannot
hold them all. Each block gets the step, of a few, that loses least. Legend: R rows (any leading
dims), 16 bytes a block of 32 values.
"""

from functools import cache

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.mxfp4 import BLOCK, LEVELS, mxfp4_uint8_scales

ZERO_POINT = 8  # of the codes 0 … 15
# In halves of the block's scale, which all levels are multiples of: a step of 1 holds the levels up
# to 3 exactly, one of 2 reaches 6. Integers go down to −8 but only up to 7, so a step of −1 or −1.5
# reaches further up than down. With 66 steps from −2 to 2 the error falls from 6.2 to 6.0 % of the
# root mean square of trained experts: not worth it.
_STEPS = torch.tensor([1.0, 1.5, 2.0, -1.0, -1.5, -2.0])


def mxfp4_as_int4(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return MXFP4 levels as the nearest 4-bit integers, and the step that each block counts in.

    Args:
        blocks: uint8 (R…, 16), two E2M1 values a byte, low nibble first.

    Returns:
        Codes, uint8 (R…, 16), integer + 8 in the place of each level; and steps, float32 (R…), in
        halves of the block's scale. See `mxfp4_int4_scales`.
    """
    pair_to_lost, pair_to_codes = _tables()
    pairs = blocks.flatten(0, -2).view(torch.int16).int() & 0xFFFF  # (rows, 8)
    # (rows, step), exact sums
    lost = torch.nn.functional.embedding_bag(pairs, pair_to_lost, mode="sum")
    chosen = lost.argmin(-1).int()  # the first among equals
    codes = pair_to_codes.index_select(0, (chosen[:, None] * len(pair_to_lost) + pairs).flatten())
    return codes.view(torch.uint8).view_as(blocks), _STEPS[chosen].view(blocks.shape[:-1])


def mxfp4_int4_scales(steps: Tensor, scales: Tensor) -> Tensor:
    """Return the float32 scales that go with the codes of `mxfp4_as_int4`: a weight is (code − 8) ×
    scale.

    Args:
        steps: float32 (R…).
        scales: uint8 (R…), E8M0 as the checkpoint has them; 255 becomes NaN.
    """
    return steps * mxfp4_uint8_scales(scales)


def decode_int4(codes: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights: (code − 8) × scale.

    Args:
        codes: uint8 (R…, C/2), two a byte, low nibble first.
        scales: float32 (R…, C/32).
        dtype: floating dtype of the result; bfloat16 still holds what `mxfp4_as_int4` made exactly.

    Returns:
        (R…, C) of `dtype`.
    """
    # (R, C)
    integers = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2).float() - ZERO_POINT
    return (integers * scales.repeat_interleave(BLOCK, -1)).to(dtype)


@cache  # tens of milliseconds, of use to few who import this
def _tables() -> tuple[Tensor, Tensor]:
    """Return what each pair of bytes, four levels, loses at each step, and its codes there.

    By pairs, since lookups take nearly all of the time: float32 (65536, step) and int16 (step ·
    65536).
    """
    halves = 2 * torch.tensor(LEVELS)  # (16)
    integers = (halves / _STEPS[:, None]).round().clamp(-8, 7)  # (step, 16)
    lost = (integers * _STEPS[:, None] - halves).square()
    codes = (integers + ZERO_POINT).int()
    shifts = torch.tensor([0, 4, 8, 12])[:, None]
    nibbles = torch.arange(1 << 16) >> shifts & 15  # (4, 65536)
    pair_to_codes = (codes[:, nibbles] << shifts).sum(1).to(torch.int16)
    return lost[:, nibbles].sum(1).T.contiguous(), pair_to_codes.flatten()
