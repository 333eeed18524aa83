"""How many slots each layer's KV buffer needs: the arithmetic behind the cache contract, without
any buffer.

This page is about `RingLayout`, that of target `portable`; target `ort` has `WindowLayout`, and on
older versions of ONNX Runtime `ContribLayout`.

B batch, S columns (new tokens a row, padding included), C slots of a layer's buffer, K kv heads, D
head dim.

One call writes columns past … past + S - 1 of *every* row, padding included, column p into slot p
mod C, and attends afterwards. From this follow the sizes:

Full layers must never wrap: a wrapped column would land on slot p - C, which every later query
sees. So C ≥ past + S for every row, where S counts padding. The caller's `capacity` counts tokens,
though: a row may be full (past equal to capacity, nothing new) while its neighbour in the batch
still takes tokens, and its padding must land somewhere. Hence C = capacity + spare. A single row
never has padding (the session cuts the columns at the longest row), so spare is 0 there; else a few
slots, and the session takes no more columns a call than the fullest row has slots left
(`KVCache.columns`). With spare ≥ 1 every call makes progress, so tokens fit exactly when past + new
≤ capacity.

Window layers are rings of window + reserve + chunk - 1 slots. A call that begins at p with S ≤
chunk columns overwrites position q only if q + C ≤ p + S - 1, thus q ≤ p - window - reserve: no
query of this call (at ≥ p), nor of one after rewinding to r ≥ p - reserve, sees back that far (it
sees ≥ r - window + 1). The same bound keeps stale columns out of sight, be they padding or rewound
tokens: a slot that holds column q, not yet rewritten, is taken for position q - C. A ring never
needs more slots than a full layer; where it has as many it never wraps either, by the rule above,
and then nothing is ever lost.

A window layer may keep its first m tokens (`sink_tokens`): column j < m lies in slot j for good,
and the others ring over the rest, column p ≥ m in slot m + (p - m) mod (C - m). A query sees the
kept ones beside the last window - m. Ring and window are both m slots shorter, so the same sum of
slots serves: with R = C - m, column q is overwritten only if q + R ≤ p + S - 1, thus q ≤ p -
(window - m) - reserve. A stale slot of the ring is taken for position q - R, and for none at all
where that is below m. Kept slots are overwritten by nothing but their own positions, so a row goes
back to m tokens or fewer at any time. At least one slot is left to the ring.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.arguments import integer

SPARE_SLOTS = 32
MOST = 2**31 - 1  # rows or tokens; any sum or product of a few such numbers fits int64
ELEMENT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Stretch(NamedTuple):
    """Consecutive positions of a row, `end` not included, that lie in consecutive slots."""

    slot: int
    first: int
    end: int


@dataclass(frozen=True)
class CacheLayout(ABC):
    """What a target's graph expects of the buffers, and which calls it can bear.

    What is written here holds where every row goes its own way: it refuses no call.
    Other layouts say what they refuse.

    Attributes:
        rewinds: a row can be made shorter without losing all of it.
        ragged: rows may take different numbers of tokens.
        has_starts: window layers hold a row from its `window_starts` on, which the graph is told.
    """

    rewinds: ClassVar[bool] = True
    ragged: ClassVar[bool] = True
    has_starts: ClassVar[bool] = False

    @abstractmethod
    def slots(self, layer: CacheLayer, batch: int, capacity: int, reserve: int, chunk: int) -> int:
        """Return C of one layer."""

    def columns(self, remaining: int, lengths: NDArray[np.int64], capacity: int, chunk: int) -> int:
        """Return how many of `remaining` columns the next call of the graph may write after
        `lengths` (B): no more than the chunk, and no more than the fullest row has slots left on
        full layers, where padding must fit, too.
        """
        return min(remaining, chunk, full_slots(lengths.size, capacity, chunk) - int(lengths.max()))

    def check_sizes(self, batch: int, capacity: int, reserve: int, chunk: int) -> None:
        """Refuse sizes no cache can have; raises InputError naming the first."""
        for name, value, least in (
            ("batch", batch, 1),
            ("capacity", capacity, 1),
            ("reserve", reserve, 0),
            ("chunk", chunk, 1),
        ):
            integer(f"cache {name}", value, least, MOST)

    def check_call(self, lengths: NDArray[np.int64], new_lengths: NDArray[np.int64]) -> None:
        """Refuse new tokens (B) after `lengths` (B) that the graph cannot run; raises
        InputError.
        """

    def check_rewind(self, lengths: NDArray[np.int64], wanted: NDArray[np.int64]) -> None:
        """Refuse to shorten rows of `lengths` (B) to `wanted` (B) where the graph cannot go on from
        there; raises InputError. How far a row goes back is the cache's to know.
        """

    def check_part(self, rows: int, batch: int) -> None:
        """Refuse a call of the first `rows` rows of a batch alone; raises InputError."""

    def check_moves(self, batch: int) -> None:
        """Refuse to put a row into a batch that others are in; raises InputError."""

    def first_needed(self, layer: CacheLayer, begin: int) -> int:
        """Return the first position after the kept ones that a layer must hold for calls that
        begin at `begin` or later.
        """
        if layer.window == 0:
            return 0
        return max(layer.sink_tokens, begin + 1 - (layer.window - layer.sink_tokens))

    def least_begin(self, layer: CacheLayer, first: int) -> int:
        """Return where a call may begin at the earliest if a window layer has lost the positions
        before `first` that it does not keep: the inverse of `first_needed`.
        """
        return first - 1 + (layer.window - layer.sink_tokens)

    def stretches(
        self, layer: CacheLayer, slots: int, first: int, end: int, length: int, window_start: int
    ) -> list[Stretch]:
        """Return where the positions `first` to `end` of a row lie, which the layer must hold.

        The row has `length` tokens, the first `window_start` of which window layers hold no more.
        """
        slot = first - window_start if layer.window > 0 else first
        return [Stretch(slot, first, end)] if first < end else []

    def window_starts(
        self,
        lengths: NDArray[np.int64],
        starts: NDArray[np.int64],
        columns: int,
        slots: int,
        reserve: int,
    ) -> NDArray[np.int64]:
        """Return how many first tokens of each row (B) window layers, of `slots`, are to hold no
        more while a call writes `columns` after `lengths`; `starts` are gone already. Nobody moves
        them where later tokens take the slots by themselves.
        """
        return starts

    def wraps(
        self, lengths: NDArray[np.int64], starts: NDArray[np.int64], columns: int, slots: int
    ) -> NDArray[np.bool_]:
        """Say of which rows (B) a window layer of `slots` has lost tokens after such a call: where
        a column, padding included, finds no slot that is free.
        """
        return lengths + columns > slots


@dataclass(frozen=True)
class RingLayout(CacheLayout):
    """Layout of target `portable`: window layers are rings."""

    def slots(self, layer: CacheLayer, batch: int, capacity: int, reserve: int, chunk: int) -> int:
        """Return C of one layer."""
        return layer_slots(layer, batch, capacity, reserve, chunk)

    def stretches(
        self, layer: CacheLayer, slots: int, first: int, end: int, length: int, window_start: int
    ) -> list[Stretch]:
        """Return where the positions `first` to `end` of a row lie, which the layer must hold."""
        found, kept = [], layer.sink_tokens
        while first < end:
            slot, room = first, end - first  # a full layer
            if layer.window > 0 and first < kept:
                room = kept - first
            elif layer.window > 0:
                turned = (first - kept) % (slots - kept)
                slot, room = kept + turned, slots - kept - turned
            stop = min(end, first + room)
            found.append(Stretch(slot, first, stop))
            first = stop
        return found


def full_slots(batch: int, capacity: int, chunk: int) -> int:
    """Return C of a full layer: `capacity` tokens, and room for padding where there can be any."""
    return capacity + (min(SPARE_SLOTS, chunk) if batch > 1 else 0)


def layer_slots(layer: CacheLayer, batch: int, capacity: int, reserve: int, chunk: int) -> int:
    """Return C of one layer."""
    slots = full_slots(batch, capacity, chunk)
    if layer.window == 0:
        return slots
    return max(layer.sink_tokens + 1, min(slots, layer.window + reserve + chunk - 1))


def slot_bytes(layer: CacheLayer, kv_dtype: str) -> int:
    """Return what one token of one row takes in a layer: key and value of (K, D) each.

    Raises PackageError where no cache has elements of this type.
    """
    if kv_dtype not in ELEMENT_BYTES:
        raise PackageError(
            f"manifest: kv_dtype: found {kv_dtype!r}, expected one of {', '.join(ELEMENT_BYTES)}"
        )
    return 2 * layer.kv_heads * layer.head_dim * ELEMENT_BYTES[kv_dtype]
