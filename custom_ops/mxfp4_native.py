"""MXFP4 encoded and decoded by the native library where there is one.

The bytes are those of the definitions in PyTorch, `mxfp4_quantize.py` and `mxfp4.py`, which do it
where there is none; the library takes a tenth of their time.
"""

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.library import library_functions
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, decode_mxfp4
from gptoss_onnx.custom_ops.mxfp4_quantize import (
    Quantized,
    empty_mxfp4,
    is_mxfp4,
    quantize_mxfp4,
)

_ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # of abi/gptoss_ops.h
_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
_MATRIX = (_POINTER, _INT, _LONG, _LONG, _INT)
_DOUBLE = ctypes.POINTER(ctypes.c_double)
_FUNCTIONS = {
    "gptoss_quantize_mxfp4": (*_MATRIX, _LONG, _POINTER, _POINTER, _DOUBLE, _DOUBLE),
    "gptoss_is_mxfp4": _MATRIX,
    "gptoss_decode_mxfp4": (_POINTER, _POINTER, _LONG, _POINTER),
}


def quantize(
    weight: Tensor, *, columns: bool = False, into: tuple[Tensor, Tensor] | None = None
) -> Quantized:
    """Return the MXFP4 form of `weight`; arguments and results are those of `quantize_mxfp4`.

    Raises RuntimeUnavailable where the native library is there and cannot be used.
    """
    library = _library()
    if library is None:
        return quantize_mxfp4(weight, columns=columns, into=into)
    weight = weight.contiguous()
    rows, groups = _shape(weight, columns)
    blocks, scales = into or empty_mxfp4(rows, groups * BLOCK)
    pitch = scales.stride(0) if groups and rows else groups
    _check_room(blocks, scales, (rows, groups), pitch, columns)
    lost, total = ctypes.c_double(), ctypes.c_double()
    library.gptoss_quantize_mxfp4(
        *_matrix(weight, rows, groups, columns),
        pitch,
        blocks.data_ptr(),
        scales.data_ptr(),
        lost,
        total,
    )
    return Quantized(blocks, scales, lost.value, total.value)


def is_exact(weight: Tensor, *, columns: bool = False) -> bool:
    """Say whether `weight` is MXFP4 by its values; arguments and errors as for `quantize`."""
    library = _library()
    if library is None:
        return is_mxfp4(weight, columns=columns)
    weight = weight.contiguous()
    rows, groups = _shape(weight, columns)
    return bool(library.gptoss_is_mxfp4(*_matrix(weight, rows, groups, columns)) == 1)


def decode(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return the numbers, float32 (R, G·32), of blocks (R, G, 16) and scales (R, G), as
    `decode_mxfp4` does; errors as for `quantize`.
    """
    library = _library()
    if library is None:
        return decode_mxfp4(blocks, scales)
    blocks, scales = blocks.contiguous(), scales.contiguous()
    assert blocks.dtype == scales.dtype == torch.uint8
    assert blocks.shape == (*scales.shape, BLOCK // 2)
    numbers = torch.empty(len(scales), scales.shape[1] * BLOCK)
    library.gptoss_decode_mxfp4(
        blocks.data_ptr(), scales.data_ptr(), scales.numel(), numbers.data_ptr()
    )
    return numbers


def _shape(weight: Tensor, columns: bool) -> tuple[int, int]:
    """Return the rows of the result, and how many blocks each has."""
    depth, rows = weight.shape if columns else reversed(weight.shape)
    assert depth % BLOCK == 0
    assert weight.device.type == "cpu"
    return rows, depth // BLOCK


def _check_room(
    blocks: Tensor, scales: Tensor, shape: tuple[int, int], pitch: int, columns: bool
) -> None:
    """The library writes what it is told to write; that it lies within the tensors is seen here."""
    for tensor, expected in ((blocks, (*shape, BLOCK // 2)), (scales, shape)):
        assert tensor.dtype == torch.uint8
        assert tensor.device.type == "cpu"
        assert tuple(tensor.shape) == expected
    whole = BLOCK // 2
    if blocks.numel():
        assert blocks.stride() == (pitch * whole, whole, 1)
        assert scales.stride() == (pitch, 1)
        assert pitch >= shape[1] if columns else pitch == shape[1]


def _matrix(weight: Tensor, rows: int, groups: int, columns: bool) -> tuple[int, ...]:
    return weight.data_ptr(), _ELEMENTS[weight.dtype], rows, groups, int(columns)


@cache
def _library() -> Any:
    """Return the library with its functions declared, or None where it was not built."""
    return library_functions(_FUNCTIONS, "MXFP4")
