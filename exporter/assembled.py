"""Weights that no tensors of the checkpoint are: FP8, what an adapter changes, experts stored one
by one where the graph wants them stacked, and all of a GGUF file.

Experts are stacked, FP8 is decoded to bfloat16, adapters are added, and GGUF's blocks are put in
the order of Hugging Face's, into a weight file of the package's own, some rows at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.gguf.blocks import BLOCK, Mxfp4Blocks, Mxfp4Scales
from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.choices import WeightMode
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import LARGE_PIECE, PIECE, Conversion
from gptoss_onnx.package import ASSEMBLED
from gptoss_onnx.reference.adapters.low_rank import Adapted
from gptoss_onnx.reference.checkpoint import Checkpoint

_ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line


@dataclass(frozen=True)
class Rows:
    """Rows `first` to `end` − 1 of a parameter, which may be a matrix of it."""

    parameter: Parameter
    first: int
    end: int

    @property
    def are_computed(self) -> bool:
        """Whether they differ from what is stored; experts that no adapter names do not."""
        computed = self.parameter.computed
        if isinstance(computed, Adapted):
            return computed.changes(self.first, self.end)
        return computed is not None


def assembled_parameters(
    checkpoint: Checkpoint,
    mode: WeightMode,
    separate: frozenset[str],
    quantized: frozenset[str],
) -> frozenset[str]:
    """Return the parameters, by the graph's names, that go into the package's own weight file.

    These are the ones that are no view of the checkpoint, but for the `separate` ones, which are
    several, and for the `quantized` ones, which the graph reads from another new file. For mode
    `copy` they are all parameters if there is such a one, or a quantized one, so that no weight is
    copied in two forms; and so they are where no client could read the checkpoint's files.
    """
    parameters = checkpoint.parameters.values()
    computed = frozenset(entry.name for entry in parameters if entry.view is None)
    computed -= separate | quantized
    in_two_forms = mode == "copy" and (computed or quantized)
    everything = in_two_forms or not checkpoint.linkable
    return frozenset(checkpoint.named) - quantized if everything else computed


def assemble(
    model: ir.Model,
    checkpoint: Checkpoint,
    names: frozenset[str],
    parts: Mapping[str, Rows],
) -> tuple[ComputedFile, ...]:
    """Return the file that is to hold the weights of these names that the graph has, if any.

    `parts` has initializers that are some rows of a parameter, by name.
    """
    weights = ComputedWeights()
    values = {
        name: value
        for name, value in model.graph.initializers.items()
        if value.const_value is None and (name in parts or name in names)
    }
    if not values:
        return ()
    whole = [checkpoint.named[name] for name in values if name not in parts]
    conversions = [*_conversions(checkpoint, whole), *_of_parts(checkpoint, parts, values)]
    for conversion in conversions:
        weights.give([values[tensor.name] for tensor in conversion.tensors], conversion)
    file = weights.lay_out(
        ASSEMBLED,
        what="the weights that are put together",
        doing="putting weights together",
        alignment=_ALIGNMENT,
    )
    return (file,)


def _of_parts(
    checkpoint: Checkpoint, parts: Mapping[str, Rows], values: Mapping[str, ir.Value]
) -> Iterator[Conversion]:
    """Yield what computes the initializers that are some rows of a parameter."""
    for name, rows in parts.items():
        shape = values[name].shape
        assert shape is not None
        planned = PlannedTensor(name, rows.parameter.dtype, tuple(shape.numpy()))
        yield _conversion(checkpoint, planned, rows)


def _conversions(checkpoint: Checkpoint, parameters: Sequence[Parameter]) -> Iterator[Conversion]:
    """Yield what computes these parameters. Blocks and scales of GGUF's experts are computed
    together: they come from the same bytes, which are then read once.
    """
    blocks = {
        entry.computed.experts: entry
        for entry in parameters
        if isinstance(entry.computed, Mxfp4Blocks)
    }
    for entry in parameters:
        if isinstance(entry.computed, Mxfp4Scales):
            yield _experts(checkpoint, blocks.pop(entry.computed.experts), entry)
        elif not isinstance(entry.computed, Mxfp4Blocks):
            planned = PlannedTensor(entry.name, entry.dtype, entry.shape)
            yield _conversion(checkpoint, planned, Rows(entry, 0, entry.rows))
    assert not blocks, "blocks without scales"


def _experts(checkpoint: Checkpoint, blocks: Parameter, scales: Parameter) -> Conversion:
    planned = tuple(
        PlannedTensor(entry.name, entry.dtype, entry.shape) for entry in (blocks, scales)
    )
    assert isinstance(scales.computed, Mxfp4Scales)
    experts = scales.computed.experts

    def convert(first: int, end: int) -> Sequence[Tensor]:
        return experts.matrix_rows(checkpoint, first, end)

    return Conversion(planned, scales.rows, scales.shape[-1] * BLOCK, convert, LARGE_PIECE)


def _conversion(checkpoint: Checkpoint, planned: PlannedTensor, rows: Rows) -> Conversion:
    parameter = rows.parameter

    def convert(first: int, end: int) -> list[Tensor]:
        found = checkpoint.read_rows(parameter, rows.first + first, rows.first + end)
        # of other files than these an export reads no weight, or looks at all beforehand
        if not checkpoint.linkable and not found.isfinite().all():
            names = " and ".join(tensor.name for tensor in parameter.stored)
            raise CheckpointError(
                f"{checkpoint.folder}: {names}: found a weight that is not finite: the file is "
                "damaged, download it again"
            )
        return [found]

    piece = LARGE_PIECE if isinstance(parameter.computed, Adapted) else PIECE
    return Conversion((planned,), rows.end - rows.first, parameter.shape[-1], convert, piece)
