"""Sums with low-rank products on which the native library could differ from the definition.

`python -m support.low_rank_cases` compares them at the CPU level that GPTOSS_CPU_LEVEL says.
"""

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.custom_ops.low_rank import add_low_rank
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, BYTES_PER_BLOCK, decode_mxfp4

# Of rows, columns and ranks: around the tiles of 4 rows, 24 and 192 columns.
SHAPES = ((1, 1, 1), (3, 23, 2), (4, 24, 16), (5, 193, 3), (9, 384, 40), (6, 416, 0), (0, 32, 4))


def check(rows: int, columns: int, rank: int, seed: int) -> None:
    """Hold sums whose products are exact in float32, in whatever order, to the definition.

    Some numbers are NaN or infinite, of the base and of a factor.
    """
    generator = torch.Generator().manual_seed(seed)
    left, right = (_steps(shape, generator) for shape in ((rows, rank), (rank, columns)))
    numbers = torch.randn(rows, columns, generator=generator).bfloat16()
    for tensor in (numbers, left):
        for bad in (torch.inf, -torch.inf, torch.nan):
            tensor[torch.rand(tensor.shape, generator=generator) < 0.01] = bad
    _compare(numbers, None, left, right)
    groups = columns // BLOCK
    if groups:
        shape = (rows, groups, BYTES_PER_BLOCK)
        blocks = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        scales = torch.randint(122, 128, shape[:2], generator=generator, dtype=torch.uint8)
        scales[torch.rand(scales.shape, generator=generator) < 0.01] = 255
        _compare(blocks, scales, left, right[:, : groups * BLOCK])


def _steps(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randint(-8, 9, shape, generator=generator) / 32


def _compare(numbers: Tensor, scales: Tensor | None, left: Tensor, right: Tensor) -> None:
    found = add_low_rank(numbers, left, right, 0.75, scales=scales)
    wide = numbers.float() if scales is None else decode_mxfp4(numbers, scales)
    expected = torch.addmm(wide, left, right, alpha=0.75).bfloat16()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(0), expected.nan_to_num(0))


if __name__ == "__main__":
    for number, sizes in enumerate(SHAPES):
        check(*sizes, number)
    print(library_info().cpu_level)
