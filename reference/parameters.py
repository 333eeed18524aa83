"""The tensors that a checkpoint must hold, stated by the decoder itself on the meta device."""

from collections.abc import Mapping

import torch

from gptoss_onnx.checkpoint.tensors import (
    BYTES,
    FLOATS,
    FP8,
    Block,
    BlockScales,
    ExpectedTensor,
    Parameter,
    TensorInfo,
    element_count,
)
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import DecoderConfig
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.quantization import FP8_SCALE


class ParameterPlan:
    """Every parameter of a decoder, and the stored tensors that each is made of.

    Attributes:
        expected: the stored tensors by name, in the order of the computation.
        owners: the decoder's parameter that each of them belongs to.
    """

    def __init__(
        self,
        architecture: Architecture,
        config: DecoderConfig,
        names: StoredNames,
        fp8_block: Block | None = None,
    ) -> None:
        self._fp8_block = fp8_block
        self._scaled: set[str] = set()
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
            in_fp8 = fp8_block and any(source + FP8_SCALE in names for source in sources)
            if fp8_block and in_fp8 and len(shape) == len(fp8_block):
                self._scaled.add(name)
                dtypes = (FP8,)
                grid = tuple(-(-size // part) for size, part in zip(shape, fp8_block, strict=True))
                scales = [source + FP8_SCALE for source in sources]
                self.expected |= dict.fromkeys(scales, ExpectedTensor(grid, ("F32", "BF16")))
                self.owners |= dict.fromkeys(scales, name)
            self.expected |= dict.fromkeys(sources, ExpectedTensor(shape, dtypes))
            self.owners |= dict.fromkeys(sources, name)

    def parameters(self, tensors: Mapping[str, TensorInfo]) -> dict[str, Parameter]:
        """Return the parameters, by the decoder's names, of tensors that are as expected."""
        return {name: self._parameter(name, tensors) for name in self._shapes}

    def _parameter(self, name: str, tensors: Mapping[str, TensorInfo]) -> Parameter:
        stored, shape = self._names[name], self._shapes[name]
        sources = tuple(tensors[source] for source in self._sources[name])
        if name not in self._scaled:
            return Parameter(stored, sources[0].dtype, shape, sources)
        assert self._fp8_block is not None
        scales = tuple(tensors[source.name + FP8_SCALE] for source in sources)
        return Parameter(stored, "BF16", shape, sources, BlockScales(scales, self._fp8_block))

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
