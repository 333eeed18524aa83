"""ComputedWeights: the weights of a package that `export` computes from the checkpoint's.

They are gathered while a graph is rewritten, and laid out in one safetensors file afterwards.
"""

from collections.abc import Sequence

import onnx_ir as ir

from gptoss_onnx.checkpoint.writer import PlannedTensor, safetensors_head
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.conversion import Conversion
from gptoss_onnx.exporter.external_data import ELEMENT_TYPES, byte_range


class ComputedWeights:
    """Conversions whose results are initializers of a graph."""

    def __init__(self) -> None:
        self._conversions: list[Conversion] = []
        self._values: dict[str, ir.Value] = {}

    def __bool__(self) -> bool:
        """Say whether there is anything to compute."""
        return bool(self._conversions)

    def add(self, graph: ir.Graph, conversion: Conversion) -> list[ir.Value]:
        """Return an initializer for each tensor; the same ones where they are asked for again."""
        if conversion.tensors[0].name not in self._values:
            values = [_initializer(graph, tensor) for tensor in conversion.tensors]
            self.give(values, conversion)
        return [self._values[tensor.name] for tensor in conversion.tensors]

    def give(self, values: Sequence[ir.Value], conversion: Conversion) -> None:
        """Give each of these initializers, of whatever element type, a tensor of the conversion."""
        self._conversions.append(conversion)
        for tensor, value in zip(conversion.tensors, values, strict=True):
            self._values[tensor.name] = value

    def lay_out(self, name: str, *, what: str, doing: str, alignment: int) -> ComputedFile:
        """Return the file that is to hold them, and make every initializer a byte range of it.

        Wider elements come first, so that every tensor is aligned to its elements.

        Args:
            name: of the file, in the package.
            what: see `ComputedFile`.
            doing: see `ComputedFile`.
            alignment: of the first tensor, in bytes.
        """
        planned = [tensor for entry in self._conversions for tensor in entry.tensors]
        planned.sort(key=lambda tensor: -tensor.itemsize)
        head, offsets = safetensors_head(planned, alignment)
        for tensor in planned:
            value = self._values[tensor.name]
            offset = offsets[tensor.name]
            value.const_value = byte_range(tensor, name, offset, value.dtype, value.shape)
        return ComputedFile(name, what, doing, head, offsets, tuple(self._conversions))


def _initializer(graph: ir.Graph, tensor: PlannedTensor) -> ir.Value:
    element = ir.TensorType(ELEMENT_TYPES[tensor.dtype])
    value = ir.Value(name=tensor.name, shape=ir.Shape(tensor.shape), type=element)
    graph.initializers[tensor.name] = value
    return value
