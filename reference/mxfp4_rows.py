"""MXFP4 experts as the matrices that they stand for, some rows at a time."""

from dataclasses import dataclass

from torch import Tensor

from gptoss_onnx.checkpoint.tensors import TORCH_DTYPES, Load, TensorInfo
from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4


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

    def rows(self, load: Load, first: int, end: int) -> Tensor:
        """Return rows [first, end), (end − first, C)."""
        blocks, scales = (
            load(info).flatten(0, 1)[first:end] for info in (self.blocks, self.scales)
        )
        return decode_mxfp4(blocks, scales, TORCH_DTYPES[self.dtype])
