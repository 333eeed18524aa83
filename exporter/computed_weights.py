"""OwnWeights: the weights of a package that `export` computes, gathered while a graph is rewritten,
then written.

Nothing is computed when a weight is added; the file is written tensor by tensor and piece by piece,
so that memory stays small however large the model is. Legend: E experts, R rows, C columns of a
matrix.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from gptoss_onnx.checkpoint.writer import (
    PlannedTensor,
    safetensors_head,
    write_safetensors,
)
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, mxfp4_as_uint8, mxfp4_by_column, mxfp4_uint8_scales
from gptoss_onnx.custom_ops.mxfp4_int4 import mxfp4_as_int4, mxfp4_int4_scales
from gptoss_onnx.exporter.external_data import ELEMENT_TYPES, byte_range, require_room
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.reference.experts_int4 import int4_names

PIECE = 1 << 21  # elements converted at a time
_ALIGNMENT = 8  # what write_safetensors gives the first tensor

Pieces = Callable[[], Iterable[Tensor]]


class OwnWeights:
    """Weights to be written into one safetensors file of the package's own, by name."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._planned: dict[str, PlannedTensor] = {}
        self._pieces: dict[str, Pieces] = {}
        self._values: dict[str, ir.Value] = {}

    def as_stored(self, name: str, value: ir.Value) -> None:
        """Take a tensor of the checkpoint byte for byte, for the initializer `value` of whatever
        type it has.
        """
        info = self._checkpoint.tensors[name]
        self._planned[name] = PlannedTensor(name, info.dtype, info.shape)
        self._pieces[name] = lambda: [self._checkpoint.load(name)]
        self._values[name] = value

    def float32(self, graph: ir.Graph, name: str) -> ir.Value:
        """Return an initializer with a tensor of the checkpoint widened to float32, which loses
        nothing.
        """
        shape = self._checkpoint.tensors[name].shape
        return self._add(
            graph, PlannedTensor(f"{name}_float32", "F32", shape), lambda: self._widened(name)
        )

    def transposed_float32(self, graph: ir.Graph, name: str) -> ir.Value:
        """Return an initializer with each matrix of (E, R, C) transposed to (E, C, R), in
        float32.
        """
        count, rows, columns = self._checkpoint.tensors[name].shape
        planned = PlannedTensor(f"{name}_transposed_float32", "F32", (count, columns, rows))
        return self._add(graph, planned, lambda: self._transposed(name))

    def mxfp4_uint8(self, graph: ir.Graph, stem: str) -> tuple[ir.Value, ir.Value]:
        """Return initializers with MXFP4 weights (E, R, C) as 8-bit integers and their float32
        scales (E, R, C/32).

        Both are exact, see `mxfp4_as_uint8`; `stem` is the tensors' name without `_blocks` and
        `_scales`.
        """
        count, rows, blocks, _ = self._checkpoint.tensors[f"{stem}_blocks"].shape
        weight = PlannedTensor(f"{stem}_uint8", "U8", (count, rows, blocks * BLOCK))
        scales = PlannedTensor(f"{stem}_uint8_scales", "F32", (count, rows, blocks))
        return (
            self._add(
                graph, weight, lambda: map(mxfp4_as_uint8, self._load_pieces(f"{stem}_blocks"))
            ),
            self._add(
                graph, scales, lambda: map(mxfp4_uint8_scales, self._load_pieces(f"{stem}_scales"))
            ),
        )

    def mxfp4_int4(self, graph: ir.Graph, stem: str) -> tuple[ir.Value, ir.Value]:
        """Return initializers with MXFP4 weights rounded to 4 bits (E, R, C/2), and float32 scales
        (E, R, C/32).

        See `mxfp4_as_int4`; `stem` as for `mxfp4_uint8`.
        """
        count, rows, blocks, width = self._checkpoint.tensors[f"{stem}_blocks"].shape
        codes, scales = int4_names(stem)
        return (
            self._add(
                graph,
                PlannedTensor(codes, "U8", (count, rows, blocks * width)),
                lambda: self._int4_codes(stem),
            ),
            self._add(
                graph,
                PlannedTensor(scales, "F32", (count, rows, blocks)),
                lambda: self._int4_scales(stem),
            ),
        )

    def mxfp4_by_column(self, graph: ir.Graph, name: str) -> ir.Value:
        """Return an initializer with MXFP4 blocks (E, R, C/32, 16) in another order, (E, C, R/2):
        `mxfp4_by_column`.
        """
        count, rows, blocks, _ = self._checkpoint.tensors[name].shape
        planned = PlannedTensor(f"{name}_by_column", "U8", (count, blocks * BLOCK, rows // 2))
        return self._add(graph, planned, lambda: map(mxfp4_by_column, self._checkpoint.load(name)))

    def write(self, path: Path, progress: Progress) -> None:
        """Write the file, and make every initializer a byte range of it; `progress` hears of the
        bytes.

        Raises:
            PackageError: there is no room for it.
            CheckpointError: a file of the checkpoint has become shorter.
        """
        # as write_safetensors does
        ordered = sorted(self._planned.values(), key=lambda tensor: -tensor.itemsize)
        head, offsets = safetensors_head(ordered, _ALIGNMENT)
        size = len(head) + sum(tensor.nbytes for tensor in ordered)
        require_room(path.parent, size, "the weights of target ort need")
        progress.begin("writing the weights of target ort", size - len(head))
        write_safetensors(path, ordered, lambda tensor: self._counted(tensor.name, progress))
        for name, value in self._values.items():
            value.const_value = byte_range(
                self._planned[name], path.name, offsets[name], value.dtype
            )

    def _add(self, graph: ir.Graph, tensor: PlannedTensor, pieces: Pieces) -> ir.Value:
        """Return the initializer of this name, a new one unless another node has asked for it
        before.
        """
        name = tensor.name
        if name not in self._values:
            element = ir.TensorType(ELEMENT_TYPES[tensor.dtype])
            value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=element)
            graph.initializers[name] = value
            self._planned[name], self._pieces[name], self._values[name] = tensor, pieces, value
        return self._values[name]

    def _counted(self, name: str, progress: Progress) -> Iterator[memoryview]:
        """Yield the bytes of a tensor piece by piece; `progress` hears of each when the next is
        asked for.
        """
        for piece in map(_bytes_of, self._pieces[name]()):
            yield piece
            progress.advance(piece.nbytes)

    def _widened(self, name: str) -> Iterator[Tensor]:
        return (piece.float() for piece in self._load_pieces(name))

    def _transposed(self, name: str) -> Iterator[Tensor]:
        return (expert.T.contiguous().float() for expert in self._checkpoint.load(name))

    def _int4_codes(self, stem: str) -> Iterator[Tensor]:
        return (mxfp4_as_int4(blocks)[0] for blocks in self._load_pieces(f"{stem}_blocks"))

    def _int4_scales(self, stem: str) -> Iterator[Tensor]:
        left = self._checkpoint.load(f"{stem}_scales").reshape(-1)
        for blocks in self._load_pieces(f"{stem}_blocks"):
            scales, left = left[: len(blocks)], left[len(blocks) :]
            yield mxfp4_int4_scales(mxfp4_as_int4(blocks)[1], scales)

    def _load_pieces(self, name: str) -> Iterator[Tensor]:
        """Yield a tensor in runs of its last axis: (…, C) as (n, C) each."""
        rows = self._checkpoint.load(name)
        rows = rows.reshape(-1, rows.shape[-1])
        yield from rows.split(max(1, PIECE // rows.shape[-1]))


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
