"""LayerBuffers: how the key and value buffers of all layers of one cache are made and remade.

B batch, K kv heads, C slots of a layer, D head dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_buffer import BufferPair, CacheBuffer
from gptoss_onnx.runtime.cache_layout import CacheLayout


@dataclass(frozen=True)
class LayerBuffers:
    """What the buffers of a cache have in common, whatever its capacity is; see `KVCache`."""

    onnxruntime: ModuleType
    layers: tuple[CacheLayer, ...]
    dtype: str
    layout: CacheLayout
    batch: int
    reserve: int
    chunk: int
    device: str

    def slots(self, layer: CacheLayer, capacity: int) -> int:
        """Return C of one layer."""
        return self.layout.slots(layer, self.batch, capacity, self.reserve, self.chunk)

    def zeros(self, capacity: int) -> tuple[BufferPair, ...]:
        """Return new buffers; raises RuntimeUnavailable where there is no memory for them."""

        def buffer(layer: CacheLayer) -> CacheBuffer:
            # (B, K, C, D)
            shape = (self.batch, layer.kv_heads, self.slots(layer, capacity), layer.head_dim)
            return CacheBuffer.zeros(self.onnxruntime, shape, self.dtype, self.device)

        return tuple((buffer(layer), buffer(layer)) for layer in self.layers)

    def copies(
        self,
        held: Sequence[BufferPair],
        capacity: int,
        wanted: int,
        longest: int,
        wrapped: bool,
    ) -> tuple[BufferPair, ...]:
        """Return copies of the buffers of a cache of `capacity`, for a cache of `wanted` or more.

        `longest` is the length of its longest row, and `wrapped` says whether a window layer has
        lost tokens of any row. Raises RuntimeUnavailable as `zeros` does.
        """
        copies = []
        for layer, (key, value) in zip(self.layers, held, strict=True):
            # Unless a ring has wrapped, no slot from the longest row's end on is ever seen before
            # it is rewritten.
            used = self.slots(layer, capacity) if layer.window > 0 and wrapped else longest
            slots = self.slots(layer, wanted)
            copies.append((self._copied(key, slots, used), self._copied(value, slots, used)))
        return tuple(copies)

    def _copied(self, buffer: CacheBuffer, slots: int, used: int) -> CacheBuffer:
        array = buffer.copied(slots, used)
        return CacheBuffer.of(self.onnxruntime, array, self.dtype, self.device)
