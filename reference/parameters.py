"""The tensors that a checkpoint must hold, stated by the decoder itself on the meta device."""

from collections.abc import Mapping

import torch

from gptoss_onnx.checkpoint.tensors import (
    BYTES,
    FLOATS,
    ExpectedTensor,
    Parameter,
    TensorInfo,
    element_count,
)
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import DecoderConfig
from gptoss_onnx.reference.decoder import Decoder


class ParameterPlan:
    """Every parameter of a decoder, and the stored tensors that each is made of.

    Attributes:
        expected: the stored tensors by name, in the order of the computation.
        owners: the decoder's parameter that each of them belongs to.
    """

    def __init__(
        self, architecture: Architecture, config: DecoderConfig, names: StoredNames
    ) -> None:
        with torch.device("meta"):
            state = Decoder(config).state_dict()
        self._shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        self._names = {name: architecture.stored_name(name, names) for name in state}
        self._sources: dict[str, tuple[str, ...]] = {}
        self.expected: dict[str, ExpectedTensor] = {}
        self.owners: dict[str, str] = {}
        for name, tensor in state.items():
            shape = tuple(tensor.shape)
            sources = architecture.sources(name, shape[0], names)
            if len(sources) > 1:  # of (E, rows, columns), the rows of one expert in equal parts
                count, rows, columns = shape
                shape = (rows * count // len(sources), columns)
            dtypes = BYTES if tensor.dtype == torch.uint8 else FLOATS
            self._sources[name] = sources
            self.expected |= dict.fromkeys(sources, ExpectedTensor(shape, dtypes))
            self.owners |= dict.fromkeys(sources, name)

    def parameters(self, tensors: Mapping[str, TensorInfo]) -> dict[str, Parameter]:
        """Return the parameters, by the decoder's names, of tensors that are as expected."""
        return {name: self._parameter(name, tensors) for name in self._shapes}

    def _parameter(self, name: str, tensors: Mapping[str, TensorInfo]) -> Parameter:
        sources = tuple(tensors[source] for source in self._sources[name])
        return Parameter(self._names[name], sources[0].dtype, self._shapes[name], sources)

    def unlike(self, tensors: Mapping[str, TensorInfo]) -> list[str]:
        """Return a line for each parameter whose tensors are of several dtypes."""
        lines = []
        for name, sources in self._sources.items():
            dtypes = sorted({tensors[source].dtype for source in sources if source in tensors})
            if len(dtypes) > 1:
                lines.append(
                    f"{self._names[name]}: found {' and '.join(dtypes)}, expected one dtype"
                )
        return lines


def parameter_count(config: DecoderConfig) -> int:
    """Return how many numbers a decoder has; a byte of MXFP4 is two, and scales do not count."""
    with torch.device("meta"):
        state = Decoder(config).state_dict()
    total = 0
    for name, tensor in state.items():
        if not name.endswith("_scales"):
            per_element = 2 if name.endswith("_blocks") else 1
            total += per_element * element_count(tuple(tensor.shape))
    return total
