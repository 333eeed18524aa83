"""Weights that no tensors of the checkpoint are: FP8, and experts stored one by one where the graph
wants them stacked.

Experts are stacked and FP8 is decoded to bfloat16, into a weight file of the package's own, some
rows at a time.
"""

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.choices import WeightMode
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
    copied in two forms.
    """
    parameters = checkpoint.parameters.values()
    computed = frozenset(entry.name for entry in parameters if entry.view is None)
    computed -= separate | quantized
    in_two_forms = mode == "copy" and (computed or quantized)
    return frozenset(checkpoint.named) - quantized if in_two_forms else computed


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
    for value in values:
        assert value.name is not None
        weights.give([value], _conversion(checkpoint, checkpoint.named[value.name]))
    file = weights.lay_out(
        ASSEMBLED,
        what="the weights that are put together",
        doing="putting weights together",
        alignment=_ALIGNMENT,
    )
    return (file,)


def _conversion(checkpoint: Checkpoint, parameter: Parameter) -> Conversion:
    planned = PlannedTensor(parameter.name, parameter.dtype, parameter.shape)

    def convert(first: int, end: int) -> list[Tensor]:
        return [checkpoint.load_rows(parameter, first, end)]

    return Conversion((planned,), parameter.rows, parameter.shape[-1], convert)
