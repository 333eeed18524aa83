"""Seeded random weights with which a gpt-oss of any shape computes something: activations stay
O(1).

A tensor's values depend on the seed, its name and its shape alone, so a slice of the layers agrees
with the whole model.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gptoss_onnx.checkpoint.tensors import element_count
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.reference.config import MXFP4_BLOCK

CHUNK = 1 << 20  # elements drawn together; the values do not depend on it
E8M0_BIAS = 127
# Root mean square of the sixteen E2M1 values 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives, each as
# likely.
E2M1_RMS = math.sqrt(sum(level**2 for level in (0, 0.5, 1, 1.5, 2, 3, 4, 6)) / 8)
LOGIT_SPREAD = 3.0  # standard deviation of the logits: enough for a clear favourite
BIAS_SPREAD = 0.1
NORM_SPREAD = 0.1


def random_weights(tensor: PlannedTensor, seed: int) -> Iterator[bytes]:
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
            mean, spread = _distribution(tensor)
            values = generator.standard_normal(size, dtype=np.float32) * np.float32(
                spread
            ) + np.float32(mean)
            yield _encode(values, tensor.dtype).tobytes()


def _distribution(tensor: PlannedTensor) -> tuple[float, float]:
    """Mean and standard deviation of a float tensor, by its role."""
    name, shape = tensor.name, tensor.shape
    if name.endswith("norm.weight"):
        return 1.0, NORM_SPREAD
    if name.endswith("bias"):
        return 0.0, BIAS_SPREAD
    if name.endswith("sinks"):
        return 0.0, 1.0
    if name in ("lm_head.weight", "model.embed_tokens.weight"):
        # The embedding may be tied to lm_head; its own size is of no consequence, since a norm
        # follows.
        return 0.0, LOGIT_SPREAD / math.sqrt(shape[-1])
    # dense experts are (E, in, out), projections (out, in)
    fan_in = shape[1] if len(shape) == 3 else shape[-1]
    return 0.0, 1 / math.sqrt(fan_in)


def _scales(
    tensor: PlannedTensor, generator: np.random.Generator, size: int
) -> npt.NDArray[np.uint8]:
    """E8M0 exponents within a factor of two of the one that gives the weights a spread of
    1/√fan_in.
    """
    fan_in = tensor.shape[-1] * MXFP4_BLOCK
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
