"""OrtWeights: what the weights of a checkpoint become for ONNX Runtime's ops.

Legend: E experts, R rows, C columns of a matrix.
"""

from collections.abc import Callable
from math import prod

import onnx_ir as ir
import torch
from torch import Tensor

from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, mxfp4_as_uint8, mxfp4_by_column, mxfp4_uint8_scales
from gptoss_onnx.custom_ops.mxfp4_int4 import mxfp4_as_int4, mxfp4_int4_scales
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import Conversion
from gptoss_onnx.exporter.external_data import byte_range
from gptoss_onnx.exporter.weights import Placement
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.experts_int4 import int4_names

_ALIGNMENT = 8  # bytes, of the first tensor


class OrtWeights:
    """All weights of a package of target ort, in one file.

    Attributes:
        computed: those that are no tensors of the checkpoint as they are.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.computed = ComputedWeights()
        self._stored: dict[str, ir.Value] = {}
        self._chunks: dict[str, ir.Value] = {}

    def as_stored(self, name: str, value: ir.Value | None) -> None:
        """Take a parameter byte for byte, for the initializer `value` of whatever type it has, or
        for `chunks` alone.
        """
        parameter = self._checkpoint.named[name]
        planned = PlannedTensor(name, parameter.dtype, parameter.shape)
        self._stored[name] = ir.Value(name=name) if value is None else value
        conversion = self._by_rows(name, planned, lambda rows: rows)
        self.computed.give([self._stored[name]], conversion)

    def chunks(self, graph: ir.Graph, value: ir.Value, size: int) -> ir.Value:
        """Return an initializer (M/R, R, K), the bytes of the parameter `value` (M, K) in chunks of
        R = `size` rows.

        It is no copy, and has no bytes before `attach_chunks`.
        """
        parameter = _name(value)
        if parameter not in self._chunks:
            rows, columns = self._checkpoint.named[parameter].shape
            shape = ir.Shape([rows // size, size, columns])
            name = f"{parameter}.chunks"
            self._chunks[parameter] = ir.Value(name=name, shape=shape, type=value.type)
            graph.initializers[name] = self._chunks[parameter]
        return self._chunks[parameter]

    @property
    def chunked(self) -> frozenset[str]:
        """The parameters that have `chunks`."""
        return frozenset(self._chunks)

    def attach_chunks(self, placement: Placement | None) -> None:
        """Make every one of `chunks` a byte range: of the file that was laid out, where it has the
        parameter, otherwise of the checkpoint's in `placement`.
        """
        for name, chunks in self._chunks.items():
            if name in self._stored:
                whole = self._stored[name].const_value
                assert isinstance(whole, ir.ExternalTensor)
                assert whole.offset is not None
                location, offset = str(whole.location), whole.offset
            else:
                view = self._checkpoint.named[name].view
                assert view is not None
                assert placement is not None
                location, offset = placement.locations[view.file], view.offset
            parameter = self._checkpoint.named[name]
            planned = PlannedTensor(name, parameter.dtype, parameter.shape)
            chunks.const_value = byte_range(planned, location, offset, shape=chunks.shape)

    def float32(self, graph: ir.Graph, value: ir.Value) -> ir.Value:
        """Return an initializer with the parameter `value` widened to float32, which loses nothing;
        itself, where it is that already.
        """
        name = _name(value)
        parameter = self._checkpoint.named[name]
        if parameter.dtype == "F32":
            return value
        planned = PlannedTensor(f"{name}_float32", "F32", parameter.shape)
        return self._add(graph, self._by_rows(name, planned, Tensor.float))[0]

    def interleaved_float32(self, graph: ir.Graph, value: ir.Value) -> ir.Value:
        """Return an initializer with the parameter `value` (E, 2R, C) in float32, the rows of its
        first half at even places and those of its second at odd ones.
        """
        name = _name(value)
        parameter = self._checkpoint.named[name]
        count, rows, columns = parameter.shape
        half = rows // 2
        planned = PlannedTensor(f"{name}_interleaved_float32", "F32", parameter.shape)

        def convert(first: int, end: int) -> list[Tensor]:
            """Return some of the E·R pairs of rows, which may belong to several experts."""
            pieces = []
            while first < end:
                expert, at = divmod(first, half)
                many = min(half - at, end - first)
                begin = expert * rows + at
                halves = [self._rows(name, row, row + many) for row in (begin, begin + half)]
                pieces.append(torch.stack(halves, dim=1).float())
                first += many
            return [torch.cat(pieces)]

        return self._add(graph, Conversion((planned,), count * half, 2 * columns, convert))[0]

    def transposed_float32(self, graph: ir.Graph, value: ir.Value) -> ir.Value:
        """Return an initializer with each matrix of the parameter `value` (E, R, C) transposed to
        (E, C, R), in float32.
        """
        name = _name(value)
        count, rows, columns = self._checkpoint.named[name].shape
        planned = PlannedTensor(f"{name}_transposed_float32", "F32", (count, columns, rows))

        def convert(first: int, end: int) -> list[Tensor]:
            experts = self._rows(name, first * rows, end * rows)
            return [experts.reshape(-1, rows, columns).mT.float()]

        return self._add(graph, Conversion((planned,), count, rows * columns, convert))[0]

    def mxfp4_uint8(self, graph: ir.Graph, stem: str) -> tuple[ir.Value, ir.Value]:
        """Return initializers with MXFP4 weights (E, R, C) as 8-bit integers and their float32
        scales (E, R, C/32).

        Both are exact, see `mxfp4_as_uint8`; `stem` is the tensors' name without `_blocks` and
        `_scales`.
        """
        count, rows, blocks, _ = self._checkpoint.named[f"{stem}_blocks"].shape
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
        count, rows, blocks, width = self._checkpoint.named[f"{stem}_blocks"].shape
        codes_name, scales_name = int4_names(stem)
        codes = PlannedTensor(codes_name, "U8", (count, rows, blocks * width))
        scales = PlannedTensor(scales_name, "F32", (count, rows, blocks))

        def convert(first: int, end: int) -> list[Tensor]:
            rounded, steps = mxfp4_as_int4(self._rows(f"{stem}_blocks", first, end))
            begin = first // blocks  # a row of scales has that many
            stored = self._rows(f"{stem}_scales", begin, -(-end // blocks)).flatten()
            stored = stored[first - begin * blocks : end - begin * blocks]
            return [rounded, mxfp4_int4_scales(steps, stored)]

        conversion = Conversion((codes, scales), count * rows * blocks, width, convert)
        first, second = self._add(graph, conversion)
        return first, second

    def mxfp4_by_column(self, graph: ir.Graph, name: str) -> ir.Value:
        """Return an initializer with MXFP4 blocks (E, R, C/32, 16) in another order, (E, C, R/2):
        `mxfp4_by_column`.
        """
        count, rows, blocks, width = self._checkpoint.named[name].shape
        planned = PlannedTensor(f"{name}_by_column", "U8", (count, blocks * BLOCK, rows // 2))

        def convert(first: int, end: int) -> list[Tensor]:
            pieces = []
            while first < end:
                expert, at = divmod(first, blocks)
                last = min(blocks, at + end - first)
                each = rows * blocks
                matrix = self._rows(name, expert * each, (expert + 1) * each)
                columns = matrix.reshape(rows, blocks, width)[:, at:last].split(1, dim=1)
                pieces += [mxfp4_by_column(column) for column in columns]
                first += last - at
            return [torch.cat(pieces)]

        return self._add(graph, Conversion((planned,), count * blocks, rows * width, convert))[0]

    def lay_out(self, name: str) -> tuple[ComputedFile, ...]:
        """Return the file of this name that is to hold them, if there are any, and make every
        initializer a byte range of it.
        """
        if not self.computed:
            return ()
        file = self.computed.lay_out(
            name,
            what="the weights of target ort",
            doing="writing the weights of target ort",
            alignment=_ALIGNMENT,
        )
        return (file,)

    def _by_rows(
        self, name: str, planned: PlannedTensor, convert: Callable[[Tensor], Tensor]
    ) -> Conversion:
        """Return a conversion of each row of a parameter by itself."""
        parameter = self._checkpoint.named[name]

        def rows(first: int, end: int) -> list[Tensor]:
            return [convert(self._rows(name, first, end))]

        return Conversion((planned,), parameter.rows, prod(parameter.shape[-1:]), rows)

    def _add(self, graph: ir.Graph, conversion: Conversion) -> list[ir.Value]:
        return self.computed.add(graph, conversion)

    def _rows(self, name: str, first: int, end: int) -> Tensor:
        """Return some rows of a parameter (…, C) as (n, C)."""
        return self._checkpoint.load_rows(self._checkpoint.named[name], first, end)


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name
