"""The numbers in a KV cache's buffers, which numpy sees as it stores them: bfloat16 as uint16."""

from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.runtime.cache_buffer import CacheBuffer
from gptoss_onnx.runtime.kv_cache import KVCache

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def writable(buffer: CacheBuffer) -> NDArray[np.generic]:
    """Return a buffer's memory (B, K, C, D); raises RuntimeUnavailable where it is a device's."""
    if buffer.array is None:
        raise RuntimeUnavailable("cache: found its buffers on a device, expected them on the CPU")
    return buffer.array


def stored(numbers: Tensor) -> NDArray[np.generic]:
    """Return numbers of a cache's type as its buffers store them."""
    if numbers.dtype == torch.bfloat16:
        return numbers.view(torch.int16).numpy().view(np.uint16)
    return np.asarray(numbers.numpy())


def fill(cache: KVCache, number: float) -> None:
    """Write one number everywhere."""
    for buffer in chain.from_iterable(cache.buffers):
        writable(buffer)[...] = stored(torch.tensor(number, dtype=DTYPES[cache.dtype]))


def first_not_finite(cache: KVCache, before: float = 0.0) -> str | None:
    """Say where a buffer first holds NaN or infinity that is not what was there `before`; None
    without such a number.
    """
    for index, pair in enumerate(cache.buffers):
        for side, buffer in zip(("key", "value"), pair, strict=True):
            held = writable(buffer)
            bits = torch.from_numpy(held.view(np.int16) if held.dtype == np.uint16 else held)
            numbers = bits.view(DTYPES[cache.dtype])
            wrong = ~numbers.isfinite()
            if np.isnan(before):
                wrong &= ~numbers.isnan()
            if wrong.any():
                row, head, slot, _ = wrong.nonzero()[0].tolist()
                where = f"row {row}, head {head}, slot {slot}"
                return f"layer {index}: the {side} of {where} is not finite"
    return None
