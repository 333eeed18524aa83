# mypy: ignore-errors
# onnxscript's `@script` rewrites these functions at import; a type checker sees Python that never
# runs.
"""Portable body of LinearPacked, in standard ops of opset 24. Legend: N tokens, K input width, M
output width, X exceptions.

A Gather turns the 12 bits of a weight into its value for a base that lies in the middle, which is
then multiplied by a power of two for the row: both are normal float32, and the product is exact.
"""

import onnx
import torch
from onnxscript import FLOAT, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION
from gptoss_onnx.custom_ops.linear_packed import LARGEST_BASE

gptoss = Opset(DOMAIN, DOMAIN_VERSION)
_BIAS = 127  # of an exponent
_MIDDLE = 56  # the base that the table is made for


def _table():
    """Return the values (4096) of 4 bits for the upper byte, then the lower byte."""
    codes, low = torch.meshgrid(torch.arange(16), torch.arange(256), indexing="ij")
    sign, c = 1 - 2 * (codes >> 3).double(), codes & 7
    exponent = 2 * (_MIDDLE + c) + (low >> 7) - _BIAS
    size = (1 + (low & 127).double() / 128) * torch.exp2(exponent.double())
    values = (sign * torch.where(c == 0, 0.0, size)).float().flatten()
    return onnx.numpy_helper.from_array(values.numpy(), "packed_values")


def _factors():
    """Return what each base (120) multiplies the table by."""
    exponents = 2 * (torch.arange(LARGEST_BASE + 1) - _MIDDLE)
    return onnx.numpy_helper.from_array(torch.exp2(exponents.float()).numpy(), "packed_factors")


_TABLE, _FACTORS = _table(), _factors()


@script(gptoss, default_opset=op)
def LinearPacked(x: FLOAT, low, high, bases, positions, values, bias: FLOAT) -> FLOAT:  # noqa: N802
    """Multiply (N, K) by the packed (M, K) transposed; the bias as in Linear."""
    blocks = op.Reshape(high, op.Constant(value_ints=[0, -1, 1, 32]))  # (M, K/64, 1, 32)
    first = op.Mod(blocks, op.Cast(op.Constant(value_int=16), to=2))
    second = op.Div(blocks, op.Cast(op.Constant(value_int=16), to=2))
    halves = op.Concat(first, second, axis=2)  # (M, K/64, 2, 32)
    codes = op.Cast(op.Reshape(halves, op.Constant(value_ints=[0, -1])), to=6)  # (M, K)
    shifted = op.Mul(codes, op.Cast(op.Constant(value_int=256), to=6))
    bits = op.Add(shifted, op.Cast(low, to=6))
    factors = op.Gather(op.Constant(value=_FACTORS), op.Cast(bases, to=6))  # (M)
    column = op.Constant(value_ints=[-1])
    planes = op.Mul(op.Gather(op.Constant(value=_TABLE), bits), op.Unsqueeze(factors, column))
    places = op.Cast(positions, to=7)
    weight = op.ScatterND(planes, places, op.Cast(values, to=1), reduction="add")
    return op.Gemm(x, weight, bias, transB=1)
