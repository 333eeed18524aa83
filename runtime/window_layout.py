"""WindowLayout: the KV cache of target `ort` on ONNX Runtime 1.32 and later.

B batch, S columns of a call, C slots of a layer's buffer, W the widest window.

Every layer holds its tokens in order from slot 0 on: a full layer all of them, a window layer those
from position `start` on. GroupQueryAttention would evict from a window layer by itself, so many
tokens at once that the next call might not go back by two. The cache does it instead: before a call
it moves what the row still needs to slot 0, and tells the graph how many tokens are gone
(`window_starts`). The op sees a row that never fills its buffer, and evicts nothing.

What a row needs before a call at p, to go back to p − reserve later: the last W − 1 + reserve
tokens. With them and S ≤ chunk new ones the buffer is full, hence C = W + reserve + chunk − 1, as
for a ring of target `portable`. Attention reads all that a window layer holds, seen or not, so it
is moved already when it has grown by `SLACK`. Padding never gets into a buffer.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_layout import CacheLayout, full_slots

SLACK = 64  # tokens; a move is rare then, and attention reads little that nobody sees


@dataclass(frozen=True)
class WindowLayout(CacheLayout):
    """Layout of target `ort` where every row goes its own way.

    Attributes:
        window: W, 0 where all layers are full.
    """

    has_starts: ClassVar[bool] = True

    window: int

    def slots(self, layer: CacheLayer, batch: int, capacity: int, reserve: int, chunk: int) -> int:
        """Return C of one layer; the op wants a window's slots even where fewer tokens will
        come.
        """
        slots = full_slots(batch, capacity, chunk)
        if layer.window == 0:
            return slots
        return max(self.window, min(slots, self.window + reserve + chunk - 1))

    def window_starts(
        self,
        lengths: NDArray[np.int64],
        starts: NDArray[np.int64],
        columns: int,
        slots: int,
        reserve: int,
    ) -> NDArray[np.int64]:
        """Move a row's start where the call would not fit, or where it holds `SLACK` too many."""
        needed = self.window - 1 + reserve
        held = lengths - starts
        due = (held + columns > slots) | (held >= needed + SLACK)
        return np.where(due, np.maximum(starts, lengths - needed), starts)

    def wraps(
        self, lengths: NDArray[np.int64], starts: NDArray[np.int64], columns: int, slots: int
    ) -> NDArray[np.bool_]:
        """Say of which rows tokens are gone."""
        return starts > 0

    def first_needed(self, layer: CacheLayer, begin: int) -> int:
        """Return the first position that a layer must hold for calls that begin at `begin` or
        later: the same in all window layers, since they have one start.
        """
        return max(0, begin + 1 - self.window) if layer.window > 0 else 0

    def least_begin(self, layer: CacheLayer, first: int) -> int:
        """Return where a call may begin at the earliest if window layers hold nothing before
        `first`.
        """
        return first - 1 + self.window
