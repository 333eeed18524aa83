"""Decode the blocks of GGUF: MXFP4 into Hugging Face's layout, and Q8_0 into integers and scales.

A block of ggml is 32 neighbours of a row. In MXFP4 it is a byte with the scale, then 16 bytes, of
which byte j holds value j in its low and value j + 16 in its high nibble; Hugging Face's byte j
holds values 2j and 2j + 1. In Q8_0 it is a float16 scale, then 32 signed bytes. Nothing is rounded:
nibbles change places, and a float16 times an 8-bit integer fits float32.

Legend: E experts, I expert width, H hidden size, R and C rows and columns of a matrix, B blocks of
a row, n rows of a piece.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.gguf.kinds import OLLAMA_MXFP4
from gptoss_onnx.checkpoint.tensors import Stored, TensorInfo
from gptoss_onnx.errors import CheckpointError

BLOCK = 32
MXFP4, Q8_0 = "MXFP4", "Q8_0"
MXFP4_KINDS = (MXFP4, OLLAMA_MXFP4)
E8M0_NAN = 255
_SCALE_BYTES = 2  # of Q8_0
_LOW = 0x0F0F0F0F0F0F0F0F  # the low nibbles of eight bytes


@dataclass(frozen=True)
class Mxfp4Experts:
    """The MXFP4 matrices of all experts of a layer.

    Attributes:
        parts: uint8 (E, R, B, 17) each: gate and up, whose rows alternate in Hugging Face's layout,
            or one whose rows are all.
    """

    parts: tuple[TensorInfo, ...]

    def matrix_rows(self, stored: Stored, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Return rows [first, end) of all matrices: blocks uint8 (n, B, 16), scales uint8 (n, B).

        Raises CheckpointError for a scale that is NaN.
        """
        count = len(self.parts)
        begin, last = first // count, -(-end // count)
        rows = torch.stack([_rows_of(stored, part, begin, last) for part in self.parts], dim=1)
        rows = rows.flatten(0, 1)[first - begin * count : end - begin * count]  # (n, B, 17)
        scales = rows[..., 0].contiguous()
        if scales.numel() and int(scales.max()) == E8M0_NAN:
            raise CheckpointError(
                f"{self.parts[0].name}: a NaN scale (255) in rows {first} to {end - 1}: the file "
                "is damaged"
            )
        in_order = self.parts[0].dtype == OLLAMA_MXFP4
        return (rows[..., 1:].contiguous() if in_order else neighbours(rows[..., 1:])), scales


@dataclass(frozen=True)
class Mxfp4Blocks:
    """The computation of a `_blocks` parameter, uint8 (E, R, B, 16)."""

    experts: Mxfp4Experts
    tensors: tuple[TensorInfo, ...] = ()
    loss: str | None = None

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return blocks [first, end), uint8 (n, 16)."""
        width = self.experts.parts[0].shape[2]
        begin = first // width
        blocks, _ = self.experts.matrix_rows(stored, begin, -(-end // width))
        return blocks.flatten(0, 1)[first - begin * width : end - begin * width]


@dataclass(frozen=True)
class Mxfp4Scales:
    """The computation of a `_scales` parameter, uint8 (E, R, B), from the same bytes."""

    experts: Mxfp4Experts
    tensors: tuple[TensorInfo, ...] = ()
    loss: str | None = None

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return scales of rows [first, end), uint8 (n, B)."""
        return self.experts.matrix_rows(stored, first, end)[1]


@dataclass(frozen=True)
class Q8Rows:
    """The computation of a matrix float32 (R, C) from Q8_0: nothing is lost."""

    matrix: TensorInfo
    tensors: tuple[TensorInfo, ...] = ()
    loss: str | None = None

    def codes(self, stored: Stored, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Return rows [first, end) as int8 (n, C) and their float32 scales (n, C/32).

        Raises CheckpointError for a scale that is not finite.
        """
        return q8_codes(_rows_of(stored, self.matrix, first, end), self.matrix.name)

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), float32 (n, C)."""
        return q8_values(_rows_of(stored, self.matrix, first, end), self.matrix.name)


@dataclass(frozen=True)
class Alternating:
    """The computation of biases (E, 2I) from those of gate and up, (E, I) each."""

    parts: tuple[TensorInfo, TensorInfo]
    tensors: tuple[TensorInfo, ...] = ()
    loss: str | None = None

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), (n, 2I)."""
        gate, up = (stored.load_tensor(part)[first:end] for part in self.parts)
        return torch.stack([gate, up], dim=2).flatten(1)


@dataclass(frozen=True)
class ColumnsOfExperts:
    """The computation of experts (E, C, R) from matrices (E, R, C), which Hugging Face transposes.

    Attributes:
        parts: gate and up, whose rows alternate, or down alone; floats, or Q8_0 (E, R, B, 34).
    """

    parts: tuple[TensorInfo, ...]
    tensors: tuple[TensorInfo, ...] = ()

    @property
    def loss(self) -> str | None:
        """Q8_0 times its scale has 18 bits; in float32 the experts would take four times the
        bytes.
        """
        in_q8 = any(part.dtype == Q8_0 for part in self.parts)
        return "Q8_0 experts times their scales rounded to bfloat16" if in_q8 else None

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return columns [first, end) of all matrices, one behind the other, (n, R)."""
        part = self.parts[0]
        columns = part.shape[2] * (BLOCK if part.dtype == Q8_0 else 1)
        pieces = []
        while first < end:
            expert, at = divmod(first, columns)
            count = min(columns - at, end - first)
            matrices = [self._columns(part, stored, expert, at, at + count) for part in self.parts]
            pieces.append(torch.stack(matrices, dim=1).flatten(0, 1).T)
            first += count
        return torch.cat(pieces)

    def _columns(
        self, part: TensorInfo, stored: Stored, expert: int, first: int, end: int
    ) -> Tensor:
        """Return columns [first, end) of one expert's matrix, (R, n)."""
        matrix = stored.load_tensor(part)[expert]
        if part.dtype != Q8_0:
            return matrix[:, first:end]
        begin = first // BLOCK
        values = q8_values(matrix[:, begin : -(-end // BLOCK)], part.name)
        return values[:, first - begin * BLOCK : end - begin * BLOCK].to(torch.bfloat16)


def _rows_of(stored: Stored, part: TensorInfo, first: int, end: int) -> Tensor:
    """Return rows [first, end) of all matrices of a part, (n, B, bytes of a block).

    They are read: to map a tensor for each piece would take longer than to decode it.
    """
    blocks = part.shape[-2]
    found = stored.read_tensor_rows(part, first * blocks, end * blocks)
    rows: Tensor = found.unflatten(0, (end - first, blocks))
    return rows


def neighbours(halves: Tensor) -> Tensor:
    """Return 16 bytes of which byte j holds values 2j and 2j + 1, uint8 (…, 16), of 16 bytes of
    which it holds j and j + 16.

    Eight bytes are one integer, which no operation here treats as a number.
    """
    even = _copied(halves[..., 0::2]).view(torch.int64)  # (…, 1)
    odd = _copied(halves[..., 1::2]).view(torch.int64)
    low = (even & _LOW) | ((odd & _LOW) << 4)
    high = ((even >> 4) & _LOW) | (odd & ~_LOW)
    return torch.cat([low, high], dim=-1).view(torch.uint8)


def scales_of(tensor: Tensor, dtype: str) -> Tensor:
    """Return the scales of a tensor in blocks, uint8 of MXFP4 and float16 of Q8_0; any other tensor
    as it is.
    """
    if dtype in MXFP4_KINDS:
        return tensor[..., 0]
    if dtype == Q8_0:
        return _copied(tensor[..., :_SCALE_BYTES]).view(torch.float16).squeeze(-1)
    return tensor


def _copied(part: Tensor) -> Tensor:
    """Return a copy, which begins at an address where wider numbers may lie; `contiguous` makes
    none of a single row.
    """
    return part.clone(memory_format=torch.contiguous_format)


def q8_codes(blocks: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return int8 (n, 32·B) and float32 scales (n, B) of Q8_0 blocks, uint8 (n, B, 34).

    Raises CheckpointError, which names the tensor `name`, for a scale that is not finite.
    """
    scales = scales_of(blocks, Q8_0).float()
    if not scales.isfinite().all():
        raise CheckpointError(f"{name}: a scale that is not finite: the file is damaged")
    return blocks[..., _SCALE_BYTES:].contiguous().view(torch.int8).flatten(1), scales


def q8_values(blocks: Tensor, name: str) -> Tensor:
    """Return float32 (n, 32·B) of Q8_0 blocks, uint8 (n, B, 34); raises as `q8_codes`."""
    codes, scales = q8_codes(blocks, name)
    values: Tensor = codes.float().unflatten(1, (-1, BLOCK)) * scales.unsqueeze(2)
    return values.flatten(1)
