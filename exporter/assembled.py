"""Weights that no tensors of the checkpoint are: FP8, what an adapter changes, and experts stored
one by one where the graph wants them stacked.

Experts are stacked, FP8 is decoded to bfloat16, and adapters are added, into a weight file of the
package's own, some rows at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.low_rank import Adapted
from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.choices import WeightMode
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import Conversion
from gptoss_onnx.package import ASSEMBLED
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
    checkpoint: Checkpoint, mode: WeightMode, separate: frozenset[str]
) -> frozenset[str]:
    """Return the parameters, by the graph's names, that go into the package's own weight file.

    These are the ones that are no view of the checkpoint, but for the `separate` ones, which are
    several. For mode `copy` they are all parameters if there is such a one, so that no weight is
    copied in two forms.
    """
    parameters = checkpoint.parameters.values()
    computed = frozenset(entry.name for entry in parameters if entry.view is None) - separate
    return frozenset(checkpoint.named) if computed and mode == "copy" else computed


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
    for name, value in model.graph.initializers.items():
        if value.const_value is None and name in parts:
            weights.give([value], _conversion(checkpoint, name, parts[name], value))
        elif value.const_value is None and name in names:
            whole = checkpoint.named[name]
            weights.give([value], _conversion(checkpoint, name, Rows(whole, 0, whole.rows), value))
    if not weights:
        return ()
    file = weights.lay_out(
        ASSEMBLED,
        what="the weights that are put together",
        doing="putting weights together",
        alignment=_ALIGNMENT,
    )
    return (file,)


def _conversion(checkpoint: Checkpoint, name: str, rows: Rows, value: ir.Value) -> Conversion:
    parameter = rows.parameter
    assert value.shape is not None
    planned = PlannedTensor(name, parameter.dtype, tuple(value.shape.numpy()))

    def convert(first: int, end: int) -> list[Tensor]:
        return [checkpoint.load_rows(parameter, rows.first + first, rows.first + end)]

    return Conversion((planned,), rows.end - rows.first, parameter.shape[-1], convert)
