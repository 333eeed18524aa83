"""MXFP4 encoding: from numbers to blocks of 32 E2M1 levels that share one E8M0 scale.

What is MXFP4 already, as experts of gpt-oss that a fine-tune has widened to bfloat16, keeps its
values to the last bit. Of other blocks each gets the scale, of three, that loses least.

Legend: R output width, C input width (a multiple of 32), G = C/32 blocks a row. Within, blocks lie
as columns of (32, n): sums over a block and scales of it are then operations on whole rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.mxfp4 import BLOCK, BYTES_PER_BLOCK, SCALE_BIAS, SCALE_NAN

# Blocks at once: fewer make threads wait for one another between the many short operations, and
# with more the intermediate results leave the cache.
_AT_ONCE = 1 << 14
_MANTISSA, _EXPONENT = 23, 0x7F80_0000  # of float32: how many bits, and which
# Six times a larger scale is beyond float32: decoders there would give infinity.
_LARGEST_SCALE = 252
# A number plus 1.5 · 2^22 · p is rounded to multiples of p/2, ties to even; and its last bits count
# the multiples. p is the power of two at or below the number, but at least the level 1.
_ROUNDER = 1.5 * 2.0**22
_LARGEST_LEVEL = 6.0
_EXPONENT_OF_FOUR = 2  # the largest number of a block has 4 or 6 for its level
# A level in bfloat16: all but its sign, how far its one bit of mantissa is from the right, and two
# less than what is there of 1, whose code is 2. The sign, of a code, and how far that is to go.
_MAGNITUDE, _TO_LEAST_BIT, _BEFORE_ONE = 0x7FFF, 6, 2 * SCALE_BIAS - 2
_SIGN, _SIGN_TO_CODE = 8, 12


@dataclass(frozen=True)
class Quantized:
    """A matrix (R, C) in MXFP4, and how far it is from the one that was given.

    Attributes:
        blocks: uint8 (R, G, 16), two E2M1 codes a byte, low nibble first.
        scales: uint8 (R, G), E8M0; 255 where the block is not finite, which callers refuse.
        lost: sum of the squares of what was added to numbers; 0.0 if and only if all are as before.
        total: sum of the squares of all numbers.
    """

    blocks: Tensor
    scales: Tensor
    lost: float
    total: float


def quantize_mxfp4(
    weight: Tensor, *, columns: bool = False, into: tuple[Tensor, Tensor] | None = None
) -> Quantized:
    """Return the MXFP4 form of `weight`.

    The scale of a block is 2^(⌊log2 of the largest magnitude⌋ − 2), which the OCP specification
    proposes, or half or twice of it where that gives a smaller sum of squared differences. Each
    number becomes the nearest level, ties to even, numbers beyond 6 become 6, and a sign stays also
    where the level is 0. What is MXFP4 comes back as it is; its scales may be smaller, with larger
    levels.

    Args:
        weight: (R, C), or (C, R) for `columns`; float32, float16 or bfloat16. C is a multiple of
            32.
        columns: the blocks lie along the first axis, as where experts are stored (in, out).
        into: blocks and scales that are written and returned; with `columns` they may be some
            groups of wider ones. None makes them.
    """
    depth, rows = weight.shape if columns else reversed(weight.shape)
    blocks, scales = into or empty_mxfp4(rows, depth)
    lost = total = 0.0
    for lanes, words, bytes_ in _pieces(weight, columns, blocks.view(torch.int16), scales):
        piece = _quantize(_floats(lanes))
        words.copy_(piece.words.T.view(words.shape))
        bytes_.copy_(piece.scales.view(bytes_.shape))
        lost += piece.lost
        total += piece.total
    return Quantized(blocks, scales, lost, total)


def empty_mxfp4(rows: int, depth: int) -> tuple[Tensor, Tensor]:
    """Return room for blocks, uint8 (R, G, 16), and scales, uint8 (R, G), of a matrix (R, C)."""
    groups = depth // BLOCK
    blocks = torch.empty(rows, groups, BYTES_PER_BLOCK, dtype=torch.uint8)
    return blocks, torch.empty(rows, groups, dtype=torch.uint8)


def is_mxfp4(weight: Tensor, *, columns: bool = False) -> bool:
    """Say whether each block of `weight` has a scale under which all its numbers are E2M1 levels.

    Args:
        weight: as for `quantize_mxfp4`.
        columns: likewise.
    """
    pieces = _pieces(weight, columns, None, None)
    return all(_Scaled.of(_floats(lanes)).is_exact() for lanes, _, _ in pieces)


def _floats(lanes: Tensor) -> Tensor:
    """Return float32, the neighbours of a row side by side in memory."""
    return lanes.contiguous().float()


def _pieces(
    weight: Tensor, columns: bool, blocks: Tensor | None, scales: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield some blocks at a time as (32, n), with where their words and scales go: (n, 8) and (n),
    whatever axes stand for n.
    """
    nowhere = torch.empty(0)
    if columns:
        depth, rows = weight.shape
        groups = weight.view(depth // BLOCK, BLOCK, rows)
        step = max(1, _AT_ONCE // max(1, rows))
        for first in range(0, len(groups), step):
            some = slice(first, first + step)
            words = nowhere if blocks is None else blocks[:, some].transpose(0, 1)
            lanes = groups[some].transpose(0, 1).reshape(BLOCK, -1)
            yield lanes, words, nowhere if scales is None else scales[:, some].T
        return
    lanes = weight.reshape(-1, BLOCK).T
    for first in range(0, lanes.shape[1], _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        words = nowhere if blocks is None else blocks.flatten(0, 1)[some]
        yield lanes[:, some], words, nowhere if scales is None else scales.flatten()[some]


@dataclass(frozen=True)
class _Scaled:
    """Blocks times the power of two that brings their largest magnitude to 4 or more, under 8.

    Attributes:
        numbers: as given, float32 (32, n).
        bytes_: the scales, int32 (n).
        values: numbers over scales, float32 (32, n); exact where they are large enough to count.
        largest: their magnitudes' largest, (n).
    """

    numbers: Tensor
    bytes_: Tensor
    values: Tensor
    largest: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> "_Scaled":
        largest = numbers.abs().amax(0)
        exponents = (largest.view(torch.int32) >> _MANTISSA) - _EXPONENT_OF_FOUR
        bytes_ = exponents.clamp_(0, _LARGEST_SCALE)
        factors = _power(2 * SCALE_BIAS - bytes_)
        return cls(numbers, bytes_, numbers * factors, largest * factors)

    def is_exact(self) -> bool:
        """Say whether levels times scales are the numbers; NaN and infinity never are."""
        return torch.equal(self._decoded(), self.numbers)

    def tiny_losses(self, least: Tensor) -> Tensor:
        """Return the sum of squares of what rounding adds to each block, float64 (n), where float32
        takes them for zero, as `least` says; elsewhere 0.
        """
        added = (self._decoded().double() - self.numbers.double()) * (least == 0)
        return added.square_().sum(0)

    def _decoded(self) -> Tensor:
        return _nearest(self.values, 1.0) * _power(self.bytes_)


def _nearest(values: Tensor, scale: float) -> Tensor:
    """Return each value rounded to the nearest level times `scale`, a power of two."""
    rounders = (values.view(torch.int32) & _EXPONENT).view(torch.float32)
    rounders.clamp_min_(scale).mul_(_ROUNDER)
    rounded = (values + rounders).sub_(rounders)
    return rounded.clamp_(-_LARGEST_LEVEL * scale, _LARGEST_LEVEL * scale)


def _loss(values: Tensor, scale: float) -> Tensor:
    """Return the sum of squares (n) of what `_nearest` adds to each block of values (32, n)."""
    squares = _nearest(values, scale).sub_(values)
    squares *= squares
    return _halves_added(squares)


def _halves_added(squares: Tensor) -> Tensor:
    """Return the sum (n) over each block of squares (32, n), which are overwritten.

    Its order is the same on any machine, so that the same weights give the same bytes.
    """
    count = BLOCK
    while count > 1:
        count //= 2
        squares[:count] += squares[count : 2 * count]
    return squares[0]


def _power(exponents: Tensor) -> Tensor:
    """Return 2^(exponent − 127), float32, also where it is subnormal."""
    bits = torch.where(exponents > 0, exponents << _MANTISSA, 1 << (_MANTISSA - 1))
    return bits.int().view(torch.float32)


@dataclass(frozen=True)
class _Piece:
    """Words int16 (8, n) of four codes each, scales int32 (n), and the sums of `Quantized`."""

    words: Tensor
    scales: Tensor
    lost: float
    total: float


def _quantize(numbers: Tensor) -> _Piece:
    scaled = _Scaled.of(numbers)
    least = _loss(scaled.values, 1.0)
    chosen = scaled.bytes_
    if least.any():
        chosen, least = _choose(scaled, least)
    squares = _power(scaled.bytes_).double().square()
    lost = least.double() * squares
    if not least.all() and not scaled.is_exact():
        lost += scaled.tiny_losses(least)
    total = _halves_added(scaled.values.square()).double() * squares
    words = _words(numbers, chosen)
    scales = chosen.masked_fill(~scaled.largest.isfinite(), SCALE_NAN)
    return _Piece(words, scales, float(lost.sum()), float(total.sum()))


def _choose(scaled: _Scaled, least: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best scale of each block, int32 (n), and what it loses, in squared values (n).

    Where half or twice the scale cannot lose less than `least`, it is not tried. At half of it the
    largest value becomes 3, and that alone may lose more. Levels times 2 are those up to 6, which
    there are anyway, and then 8: nearest only to values above 7.
    """
    chosen, least = scaled.bytes_.clone(), least.clone()
    halved = ((scaled.largest - _LARGEST_LEVEL / 2).square() < least) & (scaled.bytes_ > 0)
    doubled = (scaled.largest > _LARGEST_LEVEL + 1) & (scaled.bytes_ < _LARGEST_SCALE)
    for step, mask in ((-1, halved), (1, doubled)):
        tried = mask.nonzero().squeeze(1)
        loss = _loss(scaled.values.index_select(1, tried), 2.0**step)
        better = loss < least[tried]  # the first among equals stays
        columns = tried[better]
        least[columns] = loss[better]
        chosen[columns] = scaled.bytes_[columns] + step
    return chosen, least


def _words(numbers: Tensor, scales: Tensor) -> Tensor:
    """Return the codes of numbers (32, n) at these scales (n), int16 (8, n) of four each.

    The signs are those of the numbers, of which a zero has one too.
    """
    levels = _nearest(numbers * _power(2 * SCALE_BIAS - scales), 1.0).copysign_(numbers)
    bits = levels.bfloat16().view(torch.int16)  # levels are exact there, and in half the bytes
    sizes = (bits & _MAGNITUDE) >> _TO_LEAST_BIT  # exponent and mantissa of a level from 1 on
    codes = torch.maximum(sizes - _BEFORE_ONE, sizes.clamp_max(1))  # 0.5 has the code 1
    codes |= (bits >> _SIGN_TO_CODE) & _SIGN
    for count in (4, 8):
        codes = codes[0::2] | (codes[1::2] << count)
    return codes
