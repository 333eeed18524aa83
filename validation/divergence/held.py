"""What a session's cache holds, as the reference's cache: position p in slot p mod C.

B batch, K kv heads, C slots, D head dim.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.reference.layers import KeyValue
from gptoss_onnx.runtime.cache_buffer import CacheBuffer
from gptoss_onnx.runtime.cache_layout import RingLayout
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.window_layout import WindowLayout


def held_by(cache: KVCache) -> list[KeyValue]:
    """Return copies of a cache's buffers (B, K, C, D), each layer's with as many slots as it has.

    Raises RuntimeUnavailable where they lie on a device.
    """
    return [
        (_turned(cache, layer, key), _turned(cache, layer, value))
        for layer, (key, value) in zip(cache.layers, cache.buffers, strict=True)
    ]


def _turned(cache: KVCache, layer: CacheLayer, buffer: CacheBuffer) -> Tensor:
    if buffer.array is None:
        raise RuntimeUnavailable("cache: found its buffers on a device, expected them on the CPU")
    held = torch.from_numpy(buffer.array.copy())
    if cache.dtype == "bfloat16":
        held = held.view(torch.bfloat16)
    if layer.window == 0 or isinstance(cache.layout, RingLayout):
        return held
    starts = _first_positions(cache, held.shape[2])
    rows = zip(held, starts, strict=True)
    return torch.stack([row.roll(int(start) % held.shape[2], dims=1) for row, start in rows])


def _first_positions(cache: KVCache, slots: int) -> NDArray[np.int64]:
    """Return which position lies in slot 0 of the window layers of target ort, (B)."""
    if isinstance(cache.layout, WindowLayout):
        return cache.window_starts
    return np.maximum(cache.lengths - slots, 0)
