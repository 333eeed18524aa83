"""MXFP4 rounded to 4-bit integers in blocks of 32, for kernels that know no other 4-bit weights.

The 15 levels of E2M1 lie up to 6 apart from 0, in steps of ½ near it; sixteen equal steps cannot hold them all. Each
block gets the step, of a few, that loses least. Legend: R rows (any leading dims), 16 bytes a block of 32 values.
"""

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.mxfp4 import BLOCK, LEVELS, mxfp4_uint8_scales

ZERO_POINT = 8  # of the codes 0 … 15
# In halves of the block's scale, which all levels are multiples of: a step of 1 holds the levels up to 3 exactly, one
# of 2 reaches 6. Integers go down to −8 but only up to 7, so a step of −1 or −1.5 reaches further up than down. With 66
# steps from −2 to 2 the error falls from 6.2 to 6.0 % of the root mean square of trained experts: not worth it.
_STEPS = torch.tensor([1.0, 1.5, 2.0, -1.0, -1.5, -2.0])

_HALVES = 2 * torch.tensor(LEVELS)  # (16)
_INTEGERS = (_HALVES / _STEPS[:, None]).round().clamp(-8, 7)  # (step, 16)
_LOST = (_INTEGERS * _STEPS[:, None] - _HALVES).square()  # (step, 16)
_CODES = (_INTEGERS + ZERO_POINT).to(torch.uint8)

# By pairs of bytes, four levels: lookups take nearly all of the time.
_PAIRS = torch.arange(1 << 16)
_SHIFTS = (0, 4, 8, 12)
_NIBBLES = torch.stack([_PAIRS >> shift & 15 for shift in _SHIFTS])  # (4, 65536)
_PAIR_TO_LOST = _LOST[:, _NIBBLES].sum(1).T.contiguous()  # (65536, step)
_PAIR_TO_CODES = (_CODES[:, _NIBBLES].int() << torch.tensor(_SHIFTS)[:, None]).sum(1).to(torch.int16).flatten()


def mxfp4_as_int4(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return MXFP4 levels as the nearest 4-bit integers, and the step that each block counts in.

    Args:
        blocks: uint8 (R…, 16), two E2M1 values a byte, low nibble first.

    Returns:
        Codes, uint8 (R…, 16), integer + 8 in the place of each level; and steps, float32 (R…), in halves of the block's
        scale. See `mxfp4_int4_scales`.
    """
    pairs = blocks.flatten(0, -2).view(torch.int16).int() & 0xFFFF  # (rows, 8)
    lost = torch.nn.functional.embedding_bag(pairs, _PAIR_TO_LOST, mode="sum")  # (rows, step), exact sums
    chosen = lost.argmin(-1).int()  # the first among equals
    codes = _PAIR_TO_CODES.index_select(0, (chosen[:, None] * len(_PAIRS) + pairs).flatten())
    return codes.view(torch.uint8).view_as(blocks), _STEPS[chosen].view(blocks.shape[:-1])


def mxfp4_int4_scales(steps: Tensor, scales: Tensor) -> Tensor:
    """Return the float32 scales that go with the codes of `mxfp4_as_int4`: a weight is (code − 8) × scale.

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
    integers = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2).float() - ZERO_POINT  # (R, C)
    return (integers * scales.repeat_interleave(BLOCK, -1)).to(dtype)
