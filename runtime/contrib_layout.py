"""ContribLayout: the KV cache of target `ort` for ONNX Runtime 1.28, as com.microsoft's
GroupQueryAttention keeps it.

B batch, C slots of a layer's buffer.

Full layers hold the token at position p in slot p, C ≥ all tokens. Window layers hold their last
positions in order from slot 0 on and evict by themselves, for any C ≥ window and calls of any
length; C = window is what every execution provider takes. The op knows one length a call for all
rows with several new tokens, and takes those after earlier ones only in a batch of one. What a
window layer has evicted does not come back, so nothing is rewound but to the beginning.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_layout import CacheLayout, Stretch


@dataclass(frozen=True)
class ContribLayout(CacheLayout):
    """Layout of target `ort`: all rows of a batch have the same length at any time.

    Attributes:
        instead: what export offers that.
    """

    rewinds: ClassVar[bool] = False
    ragged: ClassVar[bool] = False

    instead: str

    def slots(self, layer: CacheLayer, batch: int, capacity: int, reserve: int, chunk: int) -> int:
        """Return C of one layer; a window layer needs its window even where fewer tokens will
        come.
        """
        return layer.window or capacity

    def columns(self, remaining: int, lengths: NDArray[np.int64], capacity: int, chunk: int) -> int:
        """Return all of a batch, which cannot be split, and of a single row no more than the
        chunk.
        """
        return remaining if lengths.size > 1 else min(remaining, chunk)

    def check_sizes(self, batch: int, capacity: int, reserve: int, chunk: int) -> None:
        """Refuse sizes no cache can have, and a reserve."""
        super().check_sizes(batch, capacity, reserve, chunk)
        if reserve:
            raise InputError(
                f"cache reserve: found {reserve}, but target ort cannot rewind; {self.instead}"
            )

    def check_call(self, lengths: NDArray[np.int64], new_lengths: NDArray[np.int64]) -> None:
        """Refuse rows of unlike length, and several tokens a row after the first call of a
        batch.
        """
        if (new_lengths != new_lengths[0]).any():
            raise InputError(
                f"new_lengths: found {new_lengths.tolist()}, but target ort takes one number for "
                "all rows; "
                f"{self.instead}, or give each row a cache of its own"
            )
        if lengths.size > 1 and lengths[0] > 0 and new_lengths[0] > 1:
            raise InputError(
                f"input_ids: found {new_lengths[0]} new tokens a row after {lengths[0]}, but "
                "target ort takes one a "
                f"row and call after the first call of a batch; {self.instead}, or give each row a "
                "cache of its own"
            )

    def check_rewind(self, lengths: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
        """Refuse anything but to forget everything, or nothing."""
        if not ((wanted == lengths).all() or (wanted == 0).all()):
            raise InputError(
                f"rewind lengths: found {wanted.tolist()} for rows of {lengths.tolist()} tokens, "
                "but target ort "
                f"rewinds only to 0, all rows together; {self.instead}"
            )

    def check_part(self, rows: int, batch: int) -> None:
        """Refuse to run some rows of a batch, which would part their lengths from the others'."""
        if rows != batch:
            raise InputError(
                f"rows: found {rows} of {batch}, but target ort runs all rows together; "
                f"{self.instead}, or give each row a cache of its own"
            )

    def check_moves(self, batch: int) -> None:
        """Refuse to put a row into a batch of several, whose lengths must stay equal."""
        if batch > 1:
            raise InputError(
                f"cache: found {batch} rows, but target ort keeps them at one length, so a row is "
                f"loaded only into a cache of one; {self.instead}"
            )

    def first_needed(self, layer: CacheLayer, begin: int) -> int:
        """Return the first position that a window layer holds: it is full once it has filled up."""
        return max(0, begin - layer.window) if layer.window > 0 else 0

    def stretches(
        self, layer: CacheLayer, slots: int, first: int, end: int, length: int, window_start: int
    ) -> list[Stretch]:
        """Return where the positions `first` to `end` of a row lie, which the layer must hold."""
        return super().stretches(layer, slots, first, end, length, max(0, length - slots))
