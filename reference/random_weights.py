"""Seeded random weights with which any decoder computes something: activations stay O(1).

A tensor's values depend on the seed, its name and its shape alone, so a slice of the layers agrees
with the whole model.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gptoss_onnx.checkpoint.tensors import element_count
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops.mxfp4 import BLOCK
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig

CHUNK = 1 << 20  # elements drawn together; the values do not depend on it
E8M0_BIAS = 127
# Root mean square of the sixteen E2M1 values 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives, each as
# likely.
E2M1_RMS = math.sqrt(sum(level**2 for level in (0, 0.5, 1, 1.5, 2, 3, 4, 6)) / 8)
LOGIT_SPREAD = 3.0  # standard deviation of the logits: enough for a clear favourite
BIAS_SPREAD = 0.1
NORM_SPREAD = 0.1


@dataclass(frozen=True)
class Distribution:
    """Mean and standard deviation of a tensor's numbers."""

    mean: float
    spread: float


def random_weights(tensor: PlannedTensor, distribution: Distribution, seed: int) -> Iterator[bytes]:
    """Yield the bytes of one tensor, little-endian, in pieces of at most `CHUNK` elements."""
    digest = hashlib.sha256(f"{seed}:{tensor.name}:{tensor.shape}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    count = element_count(tensor.shape)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        if tensor.name.endswith("_blocks"):
            yield generator.integers(0, 256, size, dtype=np.uint8).tobytes()
        elif tensor.name.endswith("_scales"):
            yield _scales(tensor, generator, size).tobytes()
        else:
            values = generator.standard_normal(size, dtype=np.float32)
            scaled = values * np.float32(distribution.spread) + np.float32(distribution.mean)
            yield _encode(scaled, tensor.dtype).tobytes()


def distribution_of(parameter: str, shape: tuple[int, ...], config: DecoderConfig) -> Distribution:
    """Return what a parameter is drawn from, by its role, so that activations stay O(1).

    Args:
        parameter: the decoder's name of it.
        shape: of the stored tensor: the parameter's, or that of one of its parts.
        config: tells which axis is the input.
    """
    if parameter.endswith("bias"):
        return Distribution(0.0, BIAS_SPREAD)
    if parameter.endswith("sinks"):
        return Distribution(0.0, 1.0)
    if len(shape) == 1:
        return Distribution(1.0, NORM_SPREAD)
    if "embed_" in parameter or parameter.startswith("lm_head"):
        # The embedding may be tied to lm_head; its own size does not matter, since a norm follows.
        return Distribution(0.0, LOGIT_SPREAD / math.sqrt(shape[-1]))
    layer = config.layers[0]
    part = layer.attention if ".self_attn." in parameter else layer.feed_forward
    columns = isinstance(part, ExpertsConfig) and part.storage == "columns" and len(shape) == 3
    transposed = not isinstance(part, ExpertsConfig) and part.transposed
    return Distribution(0.0, 1 / math.sqrt(shape[-2] if columns or transposed else shape[-1]))


def _scales(
    tensor: PlannedTensor, generator: np.random.Generator, size: int
) -> npt.NDArray[np.uint8]:
    """E8M0 exponents within a factor of two of the one that gives the weights a spread of
    1/√fan_in.
    """
    fan_in = tensor.shape[-1] * BLOCK
    centre = E8M0_BIAS + round(math.log2(1 / (math.sqrt(fan_in) * E2M1_RMS)))
    # Whole random bytes: a narrower range would draw again now and then, and so depend on the size
    # of the pieces.
    return np.uint8(centre - 1) + generator.integers(0, 256, size, dtype=np.uint8) % np.uint8(3)


def _encode(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """float32 values in safetensors' `dtype`; bfloat16 rounds to nearest, ties to even."""
    if dtype == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype])
