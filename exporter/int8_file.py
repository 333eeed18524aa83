"""Write 8-bit projections as one safetensors file, rows at a time, so that no more than a piece is ever in memory."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from gptoss_onnx.custom_ops.linear_int8 import BLOCK, quantize_int8
from gptoss_onnx.errors import CheckpointError, PackageError
from gptoss_onnx.reference.dense_int8 import int8_names
from gptoss_onnx.reference.layout import TensorInfo
from gptoss_onnx.reference.safetensors_writer import PlannedTensor, safetensors_head

PIECE = 1 << 18  # weights quantized together: a piece and what it becomes stay in the cache
ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line


@dataclass(frozen=True)
class Projection:
    """One matrix to be quantized: the name it gets, and where the checkpoint has it."""

    name: str
    source: TensorInfo

    @property
    def tensors(self) -> tuple[PlannedTensor, PlannedTensor]:
        """The weight and its scales."""
        rows, depth = self.source.shape
        weight, scales = int8_names(self.name)
        return PlannedTensor(weight, "I8", (rows, depth)), PlannedTensor(scales, "F32", (rows, depth // BLOCK))


def write_int8_file(path: Path, projections: Sequence[Projection]) -> dict[str, ir.ExternalTensor]:
    """Quantize `projections` into the new file `path`; returns each tensor as a byte range of it, by name.

    All scales come first, so that every tensor is aligned to its elements. The same weights give the same bytes.

    Raises:
        PackageError: there is a file of that name, or no room for one.
        CheckpointError: a weight is not finite, or its file has become shorter.
    """
    weights, scales = zip(*(projection.tensors for projection in projections), strict=True)
    planned: tuple[PlannedTensor, ...] = (*scales, *weights)
    head, offsets = safetensors_head(planned, ALIGNMENT)
    size = len(head) + sum(tensor.nbytes for tensor in planned)
    _require_room(path, size)
    try:
        file = path.open("xb", buffering=0)  # a link of that name would lead into the checkpoint
    except FileExistsError:
        raise PackageError(f"{path.name}: the checkpoint has a file of this name; rename it to use --dense int8") from None
    with file:
        file.write(head)
        file.truncate(size)
        for projection, weight, scale in zip(projections, weights, scales, strict=True):
            _quantize(projection, file.fileno(), offsets[weight.name], offsets[scale.name])
    return {tensor.name: _external(tensor, path.name, offsets[tensor.name]) for tensor in planned}


def _quantize(projection: Projection, target: int, weight_offset: int, scales_offset: int) -> None:
    source = projection.source
    rows, depth = source.shape
    step = max(1, PIECE // depth)
    row_bytes = depth * source.torch_dtype.itemsize
    buffer = torch.empty((step, depth), dtype=source.torch_dtype)
    room = memoryview(buffer.view(torch.uint8).numpy()).cast("B")
    with source.file.open("rb", buffering=0) as file:
        for row in range(0, rows, step):
            count = min(step, rows - row)
            piece = room[: count * row_bytes]
            if os.preadv(file.fileno(), [piece], source.offset + row * row_bytes) != len(piece):
                raise CheckpointError(f"{source.file}: became shorter since it was opened; export again")
            weight, scales = quantize_int8(buffer[:count])
            if not scales.isfinite().all():
                raise CheckpointError(f"{source.name}: not finite in rows {row} to {row + count - 1}: int8 cannot hold it")
            _write(target, weight, weight_offset + row * depth)
            _write(target, scales, scales_offset + row * (depth // BLOCK) * scales.itemsize)


def _write(file: int, tensor: torch.Tensor, offset: int) -> None:
    content = memoryview(tensor.contiguous().view(torch.uint8).numpy()).cast("B")
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def _external(tensor: PlannedTensor, location: str, offset: int) -> ir.ExternalTensor:
    element = ir.DataType.INT8 if tensor.dtype == "I8" else ir.DataType.FLOAT
    return ir.ExternalTensor(
        location, offset, tensor.nbytes, element, shape=ir.Shape(tensor.shape), name=tensor.name, base_dir=""
    )


def _require_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise PackageError(
            f"{path.parent.parent}: the int8 weights need {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: free some space"
        )
