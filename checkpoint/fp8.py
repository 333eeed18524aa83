"""FP8 weights (E4M3) with one scale a block: decoded to bfloat16, rows at a time.

Legend: R rows and C columns of a weight, r rows of a piece.
"""

import torch
from torch import Tensor


def decode_fp8(weight: Tensor, scales: Tensor, block: tuple[int, int], first: int) -> Tensor:
    """Return bfloat16 (r, C): value · scale in float32, rounded once to the nearest.

    Args:
        weight: float8_e4m3fn (r, C), rows of the weight from `first` on.
        scales: float32 or bfloat16 (⌈R/rows⌉, ⌈C/columns⌉), of the whole weight.
        block: rows and columns that share a scale.
        first: the first row.
    """
    rows, columns = block
    chosen = scales.float()[torch.arange(first, first + len(weight)) // rows]  # (r, ⌈C/columns⌉)
    spread = chosen.repeat_interleave(columns, dim=1)[:, : weight.shape[1]]  # (r, C)
    return (weight.float() * spread).to(torch.bfloat16)
