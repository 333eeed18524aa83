"""PyTorch definition of `ai.gptoss::LinearPacked`: a projection on bfloat16 weights that are held
in 12 bits without loss.

Trained weights of a row have few exponents. A weight is its lower byte (the last bit of the
exponent, and the mantissa) and 4 bits for its upper byte: the sign, and c, by which the upper seven
bits of the exponent exceed the row's base. c = 0 is a zero. Weights of other exponents are
exceptions: zero in the planes, and listed.

Legend: N tokens, K input width (a multiple of 64), M output width, X exceptions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.checks import (
    check_linear,
    expect_multiple,
    expect_rank,
    expect_shape,
)
from gptoss_onnx.errors import InputError

BLOCK = 64  # neighbours of a row that share 32 bytes of `high`
LARGEST_BASE = 119  # beyond, exponents would reach those of infinity
_CODES = 7  # c of 1 to 7
_BINS = 128  # upper seven bits of an exponent


@dataclass(frozen=True)
class Packed:
    """A bfloat16 weight (M, K) in the operands of LinearPacked.

    Attributes:
        low: uint8 (M, K): the lower byte of each weight.
        high: uint8 (M, K/2): 4 bits for each upper byte. Of 64 neighbours of a row, number i < 32
            is the lower half of byte i, and number 32 + i the upper half.
        bases: uint8 (M).
        positions: int32 (X, 2): rows and columns of the exceptions, ascending.
        values: bfloat16 (X).
    """

    low: Tensor
    high: Tensor
    bases: Tensor
    positions: Tensor
    values: Tensor


@torch.library.custom_op("gptoss::linear_packed", mutates_args=())
def linear_packed(
    x: Tensor,
    low: Tensor,
    high: Tensor,
    bases: Tensor,
    positions: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Return x · weightᵀ + bias, computed in the dtype of `x`.

    Args:
        x: (N, K), any floating dtype.
        low: see `Packed`, as the next four.
        high: (M, K/2).
        bases: (M), at most 119.
        positions: (X, 2).
        values: (X).
        bias: (M) or None.

    Returns:
        (N, M) in the dtype of `x`.

    Raises:
        InputError: the shapes do not fit, a base is too large, or positions are not ascending ones
            within the weight.
    """
    check_linear("LinearPacked", x, low, bias, name="low")
    expect_multiple("LinearPacked", "x", x, 1, BLOCK, "(N, K) with K a multiple of 64", least=0)
    weight = unpack(Packed(low, high, bases, positions, values))
    return torch.nn.functional.linear(
        x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    )


@linear_packed.register_fake
def _(
    x: Tensor,
    low: Tensor,
    high: Tensor,
    bases: Tensor,
    positions: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    return x.new_empty(x.shape[0], low.shape[0])


def unpack(packed: Packed) -> Tensor:
    """Return the bfloat16 weight (M, K); raises InputError as `linear_packed`."""
    _check(packed)
    rows, depth = packed.low.shape
    blocks = packed.high.view(rows, depth // BLOCK, 1, BLOCK // 2)
    codes = torch.cat((blocks & 15, blocks >> 4), dim=2).view(rows, depth).int()
    sign, c = codes >> 3, codes & 7
    upper = torch.where(c == 0, 0, packed.bases.int().unsqueeze(1) + c)
    # as signed 16 bits
    bits = (sign << 15 | upper << 8 | packed.low.int()).to(torch.int16)
    row, column = packed.positions.long().unbind(1)
    bits[row, column] |= packed.values.view(torch.int16)
    return bits.view(torch.bfloat16)


def choose_bases(weight: Tensor) -> Tensor:
    """Return the bases (M) that leave the fewest exceptions in a bfloat16 weight (M, K)."""
    uppers = _uppers(weight).long()
    rows = torch.arange(len(weight)).unsqueeze(1)
    counts = torch.bincount((rows * _BINS + uppers).flatten(), minlength=len(weight) * _BINS)
    before = torch.nn.functional.pad(counts.view(len(weight), _BINS).cumsum(1), (1, 0))
    held = before[:, 1 + _CODES :] - before[:, 1:-_CODES]  # (M, 121), of base + 1 to base + 7
    return held[:, : LARGEST_BASE + 1].argmax(1).to(torch.uint8)


def pack_planes(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return `low`, `high` and `bases` of a bfloat16 weight (M, K), and where its exceptions are
    (M, K).
    """
    bases = choose_bases(weight)
    bits = weight.view(torch.int16)
    c = _uppers(weight) - bases.to(torch.int16).unsqueeze(1)
    zero = (bits & 0x7FFF) == 0
    held = (c >= 1) & (c <= _CODES)
    codes = torch.where(held, c, 0) | torch.where(held | zero, bits >> 12 & 8, 0)
    low = torch.where(held, bits & 255, 0).to(torch.uint8)
    rows, depth = weight.shape
    halves = codes.to(torch.uint8).view(rows, depth // BLOCK, 2, BLOCK // 2)
    high = (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)
    return low, high, bases, ~(held | zero)


def list_exceptions(weight: Tensor, exceptional: Tensor) -> tuple[Tensor, Tensor]:
    """Return `positions` and `values` of the exceptions that `pack_planes` has found."""
    found = exceptional.nonzero()
    return found.to(torch.int32), weight[exceptional]


def pack(weight: Tensor) -> Packed:
    """Return a bfloat16 weight (M, K) packed; K is a multiple of 64."""
    low, high, bases, exceptional = pack_planes(weight)
    return Packed(low, high, bases, *list_exceptions(weight, exceptional))


def _uppers(weight: Tensor) -> Tensor:
    """Return the upper seven bits of each exponent, int16."""
    return weight.view(torch.int16) >> 8 & 127


def _check(packed: Packed) -> None:
    rows, depth = packed.low.shape
    count = len(packed.values)
    expect_shape("LinearPacked", "high", packed.high, (rows, depth // 2), "(M, K/2)")
    expect_shape("LinearPacked", "bases", packed.bases, (rows,), "(M)")
    expect_rank("LinearPacked", "positions", packed.positions, 2, "(X, 2)")
    expect_rank("LinearPacked", "values", packed.values, 1, "(X)")
    expect_shape("LinearPacked", "positions", packed.positions, (count, 2), "(X, 2)")
    largest = int(packed.bases.max()) if rows else 0
    if largest > LARGEST_BASE:
        raise InputError(
            f"LinearPacked: input 'bases': found {largest}, expected at most {LARGEST_BASE}"
        )
    row, column = packed.positions.long().unbind(1)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < depth)
    if not (inside.all() and ((row * depth + column).diff() > 0).all()):
        raise InputError(
            "LinearPacked: input 'positions': found other ones, expected ascending rows and "
            f"columns within a weight of ({rows}, {depth})"
        )
