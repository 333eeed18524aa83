"""FP8 weights (E4M3) with one scale a block: decoded to bfloat16, rows at a time.

Legend: R rows and C columns of a weight, r rows of a piece.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import Stored, TensorInfo

Block = tuple[int, int]  # rows and columns that share a scale


@dataclass(frozen=True)
class Fp8Rows:
    """The computation of a parameter from FP8 weights.

    Attributes:
        weights: float8_e4m3fn (R, C) each; their rows, one behind the other, are the parameter's.
        scales: one tensor for each weight.
        block: rows and columns that share a scale.
    """

    weights: tuple[TensorInfo, ...]
    scales: tuple[TensorInfo, ...]
    block: Block
    loss = "FP8 weights times their scales rounded to bfloat16"

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """What is read beside the weights."""
        return self.scales

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), bfloat16 (end − first, C)."""
        each = self.weights[0].shape[0]
        pieces = []
        for index in range(first // each, -(-end // each)):
            low, high = max(first - index * each, 0), min(end - index * each, each)
            weight = stored.read_tensor_rows(self.weights[index], low, high)
            scales = stored.load_tensor(self.scales[index])
            pieces.append(decode_fp8(weight, scales, self.block, low))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def decode_fp8(weight: Tensor, scales: Tensor, block: Block, first: int) -> Tensor:
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
