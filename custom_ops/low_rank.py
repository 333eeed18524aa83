"""Adding a product of two small matrices (LoRA) to rows of weights: the definition in PyTorch, and
the native library, which computes it in registers.

Legend: n rows, C columns, r rank, G = C/32 blocks a row.
"""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.library import library_functions
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, decode_mxfp4

_LONG, _POINTER = ctypes.c_int64, ctypes.c_void_p
_SHAPE = (_LONG, _LONG)
_FACTORS = (_POINTER, _POINTER, _LONG, ctypes.c_float)
_FUNCTIONS = {"gptoss_add_low_rank": (_POINTER, _POINTER, *_SHAPE, *_FACTORS, _POINTER)}


def add_low_rank(
    numbers: Tensor, left: Tensor, right: Tensor, scale: float, *, scales: Tensor | None = None
) -> Tensor:
    """Return numbers + scale · left · right, bfloat16 (n, C): float32 sums, rounded once.

    Args:
        numbers: bfloat16 (n, C); or the blocks of MXFP4, uint8 (n, G, 16), with `scales`.
        left: float32 (n, r).
        right: float32 (r, C).
        scale: what the product is multiplied by.
        scales: uint8 (n, G).

    Raises RuntimeUnavailable where the native library is there and cannot be used.
    """
    library = _library()
    if library is None:
        wide = numbers.float() if scales is None else decode_mxfp4(numbers, scales)
        return torch.addmm(wide, left, right, alpha=scale).bfloat16()
    numbers, left, right = numbers.contiguous(), left.contiguous(), right.contiguous()
    scales = None if scales is None else scales.contiguous()
    (rows, rank), width = left.shape, right.shape[1]
    _check(numbers, left, right, scales)
    sums = torch.empty(rows, width, dtype=torch.bfloat16)
    status = library.gptoss_add_low_rank(
        numbers.data_ptr(),
        None if scales is None else scales.data_ptr(),
        rows,
        width,
        left.data_ptr(),
        right.data_ptr(),
        rank,
        scale,
        sums.data_ptr(),
    )
    if status:
        raise MemoryError(f"no memory for {rank} rows of a product")
    return sums


def _check(numbers: Tensor, left: Tensor, right: Tensor, scales: Tensor | None) -> None:
    """The library reads what it is told to read; that it lies within the tensors is seen here."""
    (rows, rank), width = left.shape, right.shape[1]
    assert left.dtype == right.dtype == torch.float32
    assert right.shape[0] == rank
    if scales is None:
        assert (numbers.dtype, tuple(numbers.shape)) == (torch.bfloat16, (rows, width))
    else:
        assert width % BLOCK == 0
        assert numbers.dtype == scales.dtype == torch.uint8
        assert tuple(scales.shape) == (rows, width // BLOCK)
        assert tuple(numbers.shape) == (*scales.shape, BLOCK // 2)
    given = (numbers, left, right, *(() if scales is None else (scales,)))
    assert all(tensor.device.type == "cpu" for tensor in given)


@cache
def _library() -> Any:
    return library_functions(_FUNCTIONS, "sums with adapters")
