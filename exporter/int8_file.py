"""Write 8-bit projections as one safetensors file, rows at a time, so that no more than a piece is
ever in memory.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.checkpoint.writer import PlannedTensor, safetensors_head
from gptoss_onnx.custom_ops.linear_int8 import BLOCK, quantize_int8
from gptoss_onnx.errors import CheckpointError, PackageError
from gptoss_onnx.exporter.external_data import byte_range, require_room
from gptoss_onnx.files import open_regular
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.dense_int8 import int8_names

PIECE = 1 << 18  # weights quantized together: a piece and what it becomes stay in the cache
SPAN_ROWS = 1024  # rows that one thread takes at a time
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
        return PlannedTensor(weight, "I8", (rows, depth)), PlannedTensor(
            scales, "F32", (rows, depth // BLOCK)
        )


def write_int8_file(
    path: Path, projections: Sequence[Projection], progress: Progress
) -> dict[str, ir.ExternalTensor]:
    """Quantize `projections` into the new file `path`; returns each tensor as a byte range of it,
    by name.

    All scales come first, so that every tensor is aligned to its elements. The same weights give
    the same bytes. `progress` hears how many bytes of the checkpoint are converted.

    Raises:
        PackageError: there is a file of that name, or no room for one.
        CheckpointError: a weight is not finite, or its file has become shorter.
    """
    weights, scales = zip(*(projection.tensors for projection in projections), strict=True)
    planned: tuple[PlannedTensor, ...] = (*scales, *weights)
    head, offsets = safetensors_head(planned, ALIGNMENT)
    size = len(head) + sum(tensor.nbytes for tensor in planned)
    require_room(path.parent, size, "the int8 weights need")
    progress.begin(
        "quantizing the dense weights to int8",
        sum(projection.source.nbytes for projection in projections),
    )
    try:
        file = path.open("xb", buffering=0)  # a link of that name would lead into the checkpoint
    except FileExistsError:
        raise PackageError(
            f"{path.name}: the checkpoint has a file of this name; rename it to use --dense int8"
        ) from None
    with file:
        file.write(head)
        file.truncate(size)
        spans = (
            _Span(
                projection.source, first, file.fileno(), offsets[weight.name], offsets[scale.name]
            )
            for projection, weight, scale in zip(projections, weights, scales, strict=True)
            for first in range(0, projection.source.shape[0], SPAN_ROWS)
        )
        _quantize_all(spans, progress)
    return {tensor.name: byte_range(tensor, path.name, offsets[tensor.name]) for tensor in planned}


@dataclass(frozen=True)
class _Span:
    """Some rows of one matrix: where they are read, and where the matrix and its scales are
    written.
    """

    source: TensorInfo
    first: int
    target: int
    weight_offset: int
    scales_offset: int


def _quantize_all(spans: Iterable[_Span], progress: Progress) -> None:
    """Quantize all spans, one to a thread: better than threads within an operation, which would not
    overlap files.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    executor = ThreadPoolExecutor(threads)
    try:
        for count in executor.map(_quantize, spans):
            progress.advance(count)
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _quantize(span: _Span) -> int:
    """Quantize some rows; returns how many bytes they have in the checkpoint."""
    source = span.source
    rows, depth = source.shape
    step = max(1, PIECE // depth)
    end = min(span.first + SPAN_ROWS, rows)
    row_bytes = depth * source.torch_dtype.itemsize
    buffer = torch.empty((step, depth), dtype=source.torch_dtype)
    room = buffer.view(torch.uint8).numpy().data.cast("B")
    with open_regular(source.file, CheckpointError) as file:
        for row in range(span.first, end, step):
            count = min(step, end - row)
            piece = room[: count * row_bytes]
            if os.preadv(file.fileno(), [piece], source.offset + row * row_bytes) != len(piece):
                raise CheckpointError(
                    f"{source.file}: became shorter since it was opened; export again"
                )
            weight, scales = quantize_int8(buffer[:count])
            if not scales.isfinite().all():
                raise CheckpointError(
                    f"{source.name}: not finite in rows {row} to {row + count - 1}: int8 cannot "
                    "hold it"
                )
            _write(span.target, weight, span.weight_offset + row * depth)
            _write(
                span.target, scales, span.scales_offset + row * (depth // BLOCK) * scales.itemsize
            )
    return (end - span.first) * row_bytes


def _write(file: int, tensor: torch.Tensor, offset: int) -> None:
    content = tensor.contiguous().view(torch.uint8).numpy().data.cast("B")
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
