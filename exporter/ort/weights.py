"""OrtWeights: what the weights of a checkpoint become for ONNX Runtime's ops.

Legend: E experts, R rows, C columns of a matrix.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, mxfp4_as_uint8, mxfp4_by_column, mxfp4_uint8_scales
from gptoss_onnx.custom_ops.mxfp4_int4 import mxfp4_as_int4, mxfp4_int4_scales
from gptoss_onnx.exporter.computed_weights import ComputedWeights, Conversion
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.experts_int4 import int4_names

_ALIGNMENT = 8  # bytes, of the first tensor


class OrtWeights:
    """All weights of a package of target ort, in one file."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._computed = ComputedWeights()

    def as_stored(self, name: str, value: ir.Value) -> None:
        """Take a tensor of the checkpoint byte for byte, for the initializer `value` of whatever
        type it has.
        """
        info = self._checkpoint.tensors[name]
        planned = PlannedTensor(name, info.dtype, info.shape)
        self._computed.give([value], self._by_rows(name, planned, lambda rows: rows))

    def float32(self, graph: ir.Graph, name: str) -> ir.Value:
        """Return an initializer with a tensor of the checkpoint widened to float32, which loses
        nothing.
        """
        planned = PlannedTensor(f"{name}_float32", "F32", self._checkpoint.tensors[name].shape)
        return self._add(graph, self._by_rows(name, planned, Tensor.float))[0]

    def transposed_float32(self, graph: ir.Graph, name: str) -> ir.Value:
        """Return an initializer with each matrix of (E, R, C) transposed to (E, C, R), in
        float32.
        """
        count, rows, columns = self._checkpoint.tensors[name].shape
        planned = PlannedTensor(f"{name}_transposed_float32", "F32", (count, columns, rows))

        def convert(first: int, end: int) -> list[Tensor]:
            return [self._load(name)[first:end].mT.float()]

        return self._add(graph, Conversion((planned,), count, rows * columns, convert))[0]

    def mxfp4_uint8(self, graph: ir.Graph, stem: str) -> tuple[ir.Value, ir.Value]:
        """Return initializers with MXFP4 weights (E, R, C) as 8-bit integers and their float32
        scales (E, R, C/32).

        Both are exact, see `mxfp4_as_uint8`; `stem` is the tensors' name without `_blocks` and
        `_scales`.
        """
        count, rows, blocks, _ = self._checkpoint.tensors[f"{stem}_blocks"].shape
        weight = PlannedTensor(f"{stem}_uint8", "U8", (count, rows, blocks * BLOCK))
        scales = PlannedTensor(f"{stem}_uint8_scales", "F32", (count, rows, blocks))
        (codes,) = self._add(graph, self._by_rows(f"{stem}_blocks", weight, mxfp4_as_uint8))
        (factors,) = self._add(graph, self._by_rows(f"{stem}_scales", scales, mxfp4_uint8_scales))
        return codes, factors

    def mxfp4_int4(self, graph: ir.Graph, stem: str) -> tuple[ir.Value, ir.Value]:
        """Return initializers with MXFP4 weights rounded to 4 bits (E, R, C/2), and float32 scales
        (E, R, C/32).

        See `mxfp4_as_int4`; `stem` as for `mxfp4_uint8`.
        """
        count, rows, blocks, width = self._checkpoint.tensors[f"{stem}_blocks"].shape
        codes_name, scales_name = int4_names(stem)
        codes = PlannedTensor(codes_name, "U8", (count, rows, blocks * width))
        scales = PlannedTensor(scales_name, "F32", (count, rows, blocks))

        def convert(first: int, end: int) -> list[Tensor]:
            rounded, steps = mxfp4_as_int4(self._rows(f"{stem}_blocks")[first:end])
            stored = self._load(f"{stem}_scales").reshape(-1)[first:end]
            return [rounded, mxfp4_int4_scales(steps, stored)]

        conversion = Conversion((codes, scales), count * rows * blocks, width, convert)
        first, second = self._add(graph, conversion)
        return first, second

    def mxfp4_by_column(self, graph: ir.Graph, name: str) -> ir.Value:
        """Return an initializer with MXFP4 blocks (E, R, C/32, 16) in another order, (E, C, R/2):
        `mxfp4_by_column`.
        """
        count, rows, blocks, width = self._checkpoint.tensors[name].shape
        planned = PlannedTensor(f"{name}_by_column", "U8", (count, blocks * BLOCK, rows // 2))

        def convert(first: int, end: int) -> list[Tensor]:
            experts = self._load(name)
            columns = (experts[row // blocks, :, row % blocks] for row in range(first, end))
            return [torch.cat([mxfp4_by_column(column.unsqueeze(1)) for column in columns])]

        return self._add(graph, Conversion((planned,), count * blocks, rows * width, convert))[0]

    def write(self, path: Path, progress: Progress) -> None:
        """Write the file, and make every initializer a byte range of it; `progress` hears of the
        bytes.

        Raises:
            PackageError: there is no room for it.
            CheckpointError: a file of the checkpoint has changed.
        """
        self._computed.write(
            path,
            what="the weights of target ort",
            doing="writing the weights of target ort",
            alignment=_ALIGNMENT,
            progress=progress,
        )

    def _by_rows(
        self, name: str, planned: PlannedTensor, convert: Callable[[Tensor], Tensor]
    ) -> Conversion:
        """Return a conversion of each run of a tensor's last axis by itself."""
        shape = self._checkpoint.tensors[name].shape

        def rows(first: int, end: int) -> list[Tensor]:
            return [convert(self._rows(name)[first:end])]

        return Conversion((planned,), prod(shape[:-1]), prod(shape[-1:]), rows)

    def _add(self, graph: ir.Graph, conversion: Conversion) -> list[ir.Value]:
        return self._computed.add(graph, conversion)

    def _load(self, name: str) -> Tensor:
        return self._checkpoint.load(name)

    def _rows(self, name: str) -> Tensor:
        """Return a tensor (…, C) as (n, C)."""
        tensor = self._load(name)
        return tensor.reshape(-1, *tensor.shape[-1:])
