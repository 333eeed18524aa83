"""MXFP4 experts as the matrices that they stand for, some rows at a time."""

from dataclasses import dataclass

from torch import Tensor

from gptoss_onnx.checkpoint.tensors import TORCH_DTYPES, Stored, TensorInfo
from gptoss_onnx.custom_ops.mxfp4_native import decode


@dataclass(frozen=True)
class Mxfp4Rows:
    """The computation of (E, R, C) from MXFP4; every value is one that bfloat16 has.

    Attributes:
        blocks: uint8 (E, R, C/32, 16).
        scales: uint8 (E, R, C/32).
        dtype: of the result, in safetensors' spelling: BF16, or F32 for those who go on computing.
    """

    blocks: TensorInfo
    scales: TensorInfo
    dtype: str
    loss = None

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """What is read beside the blocks."""
        return (self.scales,)

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), (end − first, C)."""
        return decode(*self.stored_rows(stored, first, end)).to(TORCH_DTYPES[self.dtype])

    def stored_rows(self, stored: Stored, first: int, end: int) -> tuple[Tensor, Tensor]:
        """Return the blocks (end − first, C/32, 16) and scales (end − first, C/32) of rows."""
        groups = self.scales.shape[-1]
        blocks = stored.read_tensor_rows(self.blocks, first * groups, end * groups)
        scales = stored.read_tensor_rows(self.scales, first, end)
        return blocks.unflatten(0, scales.shape), scales
