"""The tensors that a checkpoint must hold, stated by the decoder itself on the meta device."""

from collections.abc import Mapping

import torch

from gptoss_onnx.checkpoint.fp8 import Block, Fp8Rows
from gptoss_onnx.checkpoint.tensors import (
    BYTES,
    FLOATS,
    FP8,
    ExpectedTensor,
    Parameter,
    TensorInfo,
)
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.quantization import FP8_SCALE

# Of experts stored one by one, those that a graph reads where they lie; more are stacked. A graph
# that packages may have is 8 MB and a million fields, and a matrix takes 200 bytes and 34 fields.
# And ONNX Runtime maps each, of which Linux allows a process 65,530.
MOST_MATRICES = 24_000
MOST_TENSORS = (
    1 << 18
)  # of experts stored one by one: a stranger must not ask for billions of names


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
        _refuse_too_many(architecture, config)
        state = meta_state(config)
        self._shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        self._names = {name: architecture.stored_name(name, names) for name in state}
        self._sources: dict[str, tuple[str, ...]] = {}
        self.expected: dict[str, ExpectedTensor] = {}
        self.owners: dict[str, str] = {}
        for name, tensor in state.items():
            shape = tuple(tensor.shape)
            sources = architecture.sources(name, shape[0], names)
            if sources != (self._names[name],):  # of one expert, the rows in equal parts, or a bias
                count, rows, *columns = shape
                shape = (rows * count // len(sources), *columns)
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

    def parameters(
        self, tensors: Mapping[str, TensorInfo], computed: Mapping[str, Parameter]
    ) -> dict[str, Parameter]:
        """Return the parameters, by the decoder's names, of tensors that are as expected.

        Those in `computed`, by the stored names, are already known.
        """
        return {
            name: computed.get(self._names[name]) or self._parameter(name, tensors)
            for name in self._shapes
        }

    def _parameter(self, name: str, tensors: Mapping[str, TensorInfo]) -> Parameter:
        stored, shape = self._names[name], self._shapes[name]
        sources = tuple(tensors[source] for source in self._sources[name])
        if name not in self._scaled:
            return Parameter(stored, sources[0].dtype, shape, sources)
        assert self._fp8_block is not None
        scales = tuple(tensors[source.name + FP8_SCALE] for source in sources)
        return Parameter(stored, "BF16", shape, sources, Fp8Rows(sources, scales, self._fp8_block))

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


def _refuse_too_many(architecture: Architecture, config: DecoderConfig) -> None:
    """Raise CheckpointError where experts that are stored one by one would be too many tensors."""
    total = matrices_of(architecture, config)
    if total > MOST_TENSORS:
        raise CheckpointError(
            f"config.json: found layers and experts that are {total} tensors, expected at most "
            f"{MOST_TENSORS}"
        )


def matrices_of(architecture: Architecture, config: DecoderConfig) -> int:
    """Return how many tensors the experts are that an architecture stores one by one."""
    each = sum(map(len, architecture.experts.values()))
    mixtures = [part.feed_forward for part in config.layers]
    return sum(
        each * part.count
        for part in mixtures
        if isinstance(part, ExpertsConfig) and part.storage == "rows"
    )


def reads_apart(part: ExpertsConfig) -> bool:
    """Say whether MoEDispatchSeparate computes what these experts do, where each is matrices of
    its own.
    """
    gated = part.activation == "swiglu" and not part.interleaved
    return gated and part.storage == "rows" and not part.bias


def meta_state(config: DecoderConfig) -> dict[str, torch.Tensor]:
    """Return the decoder's parameters without memory; raises CheckpointError if they pass 2^63."""
    try:
        with torch.device("meta"):
            return Decoder(config).state_dict()
    except RuntimeError as error:  # what PyTorch says where a size overflows
        raise CheckpointError(
            "config.json: found sizes whose product is beyond any memory, expected those of the "
            "stored tensors"
        ) from error
