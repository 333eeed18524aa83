"""Weights that no tensors of the checkpoint are: FP8, experts stored one by one where the graph
wants them stacked, and all of a GGUF file.

Experts are stacked, FP8 is decoded to bfloat16, and GGUF's blocks are put in the order of Hugging
Face's, into a weight file of the package's own, some rows at a time.
"""

from collections.abc import Iterator, Sequence

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.gguf.blocks import BLOCK, Mxfp4Blocks, Mxfp4Scales
from gptoss_onnx.checkpoint.tensors import Parameter, TensorInfo, element_count
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.choices import WeightMode
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import Conversion
from gptoss_onnx.package import ASSEMBLED
from gptoss_onnx.reference.checkpoint import Checkpoint

_ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line


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
) -> tuple[ComputedFile, ...]:
    """Return the file that is to hold the weights of these names that the graph has, if any."""
    values = [
        value
        for name, value in model.graph.initializers.items()
        if value.const_value is None and name in names
    ]
    if not values:
        return ()
    weights = ComputedWeights()
    by_name = {str(value.name): value for value in values}
    for conversion in _conversions(checkpoint, [checkpoint.named[name] for name in by_name]):
        weights.give([by_name[tensor.name] for tensor in conversion.tensors], conversion)
    file = weights.lay_out(
        ASSEMBLED,
        what="the weights that are put together",
        doing="putting weights together",
        alignment=_ALIGNMENT,
    )
    return (file,)


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
            yield _conversion(checkpoint, entry)
    assert not blocks, "blocks without scales"


def _experts(checkpoint: Checkpoint, blocks: Parameter, scales: Parameter) -> Conversion:
    planned = tuple(
        PlannedTensor(entry.name, entry.dtype, entry.shape) for entry in (blocks, scales)
    )
    assert isinstance(scales.computed, Mxfp4Scales)
    experts = scales.computed.experts

    def read(part: TensorInfo, first: int, end: int) -> Tensor:
        """Read, not map: to map a tensor for each piece would take longer than to decode it."""
        width = element_count(part.shape[2:])
        content = checkpoint.read_bytes(part, first * width, end * width)
        return content.reshape(-1, *part.shape[2:])

    def convert(first: int, end: int) -> Sequence[Tensor]:
        return experts.matrix_rows(read, first, end)

    return Conversion(planned, scales.rows, scales.shape[-1] * BLOCK, convert)


def _conversion(checkpoint: Checkpoint, parameter: Parameter) -> Conversion:
    planned = PlannedTensor(parameter.name, parameter.dtype, parameter.shape)

    def convert(first: int, end: int) -> list[Tensor]:
        rows = checkpoint.load_rows(parameter, first, end)
        # of other files than these an export reads no weight, or looks at all beforehand
        if not checkpoint.linkable and not rows.isfinite().all():
            names = " and ".join(tensor.name for tensor in parameter.stored)
            raise CheckpointError(
                f"{checkpoint.folder}: {names}: found a weight that is not finite: the file is "
                "damaged, download it again"
            )
        return [rows]

    return Conversion((planned,), parameter.rows, parameter.shape[-1], convert)
