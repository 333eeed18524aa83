"""Copy what a row of a cache holds to a state, from a state, or to another row.

A state holds, of each layer, the positions that calls after its tokens see: of full layers all, of
window layers the kept first ones and those from `first` on, see `RowState.first`. Another cache's
rings have other sizes; there the same positions get other slots, and what does not fit is lost. How
far the row can be rewound follows from what was not.

K kv heads, D head dim, n tokens of a row.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import integer
from gptoss_onnx.runtime.cache_rows import CacheRows, RowMarks
from gptoss_onnx.runtime.row_memory import BlockMemory, Piece, block_of, copy_slots, write_block
from gptoss_onnx.runtime.row_state import RowState

if TYPE_CHECKING:
    from gptoss_onnx.runtime.kv_cache import KVCache


def saved_row(cache: "KVCache", rows: CacheRows, row: int, length: int | None) -> RowState:
    """Return the state of the first `length` tokens of a row; see `KVCache.save_row`."""
    _check_sound(cache, rows)
    held = int(rows.lengths[row])
    end = held if length is None else integer("length", length, 0, held)
    if not cache.layout.rewinds and end != held:
        raise InputError(
            f"length: found {end}, but target ort cannot rewind a row of {held} tokens; save all"
        )
    rows.check_cut(row, end, cache.kept, cache.reserve, "save the first tokens up to")
    tokens, floor = rows.tokens(row)[:end].copy(), _floor(cache, rows, row, end)
    state = RowState.without_blocks(tokens, floor, cache.layers, cache.dtype, cache.layout)
    memory = BlockMemory(state.elements, cache.dtype)
    blocks, window_start = [], int(rows.window_starts[row])
    for index, (key, value) in enumerate(cache.buffers):
        pieces = list(_pieces(cache, state, index, state.first(index), held, window_start))
        size = state.held(index)
        keys = block_of(key, row, size, pieces, memory)
        blocks.append((keys, block_of(value, row, size, pieces, memory)))
    return replace(state, blocks=tuple(blocks))


def load_row(cache: "KVCache", rows: CacheRows, row: int, state: RowState) -> None:
    """Let a row hold what a state holds; see `KVCache.load_row`."""
    _check_sound(cache, rows)
    cache.layout.check_moves(cache.batch)
    if not isinstance(state, RowState):
        raise InputError(f"state: found {type(state).__name__}, expected a RowState of save_row")
    state.check_fits(cache.layers, cache.dtype, cache.layout)
    if state.length > cache.capacity:
        raise InputError(
            f"row {row}: the state's {state.length} tokens exceed the cache capacity of "
            f"{cache.capacity}; make the cache larger, or grow it"
        )
    firsts = [_first_that_fits(cache, state, index) for index in range(len(state.layers))]
    marks = _marks(cache, state, firsts)
    rows.empty(row)  # until all is there: whoever interrupts it leaves no half of a text
    for index, pair in enumerate(cache.buffers):
        start = marks.window_start
        pieces = list(_pieces(cache, state, index, firsts[index], state.length, start))
        for buffer, block in zip(pair, state.blocks[index], strict=True):
            write_block(buffer, row, block, pieces)
    rows.fill(row, state.tokens, marks)


def copy_row(cache: "KVCache", rows: CacheRows, source: int, target: int) -> None:
    """Let `target` hold what `source` holds, and empty `source`; see `KVCache.move_row`."""
    _check_sound(cache, rows)
    cache.layout.check_moves(cache.batch)
    if source == target:
        raise InputError(f"target: found {target}, the source itself, expected another row")
    tokens, marks = rows.tokens(source), rows.marks(source)
    rows.empty(target)
    # a staged cache has no buffers here
    for layer, pair in zip(cache.layers, cache.buffers, strict=False):
        # as in `LayerBuffers.copies`
        used = cache.slots(layer) if layer.window > 0 and marks.wrapped else tokens.size
        for buffer in pair:
            copy_slots(buffer, source, target, used)
    rows.fill(target, tokens, marks)
    rows.empty(source)


def _floor(cache: "KVCache", rows: CacheRows, row: int, end: int) -> int:
    """Return the least length to which the first `end` tokens of a row are to be rewound: any where
    nothing is lost, else the reserve says.
    """
    if not cache.layout.rewinds:
        return end
    if end <= cache.kept or not rows.wrapped[row]:
        return 0
    return max(int(rows.limit(cache.reserve)[row]), end - cache.reserve)


def _pieces(
    cache: "KVCache", state: RowState, index: int, first: int, length: int, window_start: int
) -> Iterator[Piece]:
    """Yield where a layer and a state of it hold the kept positions and those from `first` on.

    The row has `length` tokens, and window layers none before `window_start`.
    """
    layer, kept = cache.layers[index], state.kept(index)
    slots = cache.slots(layer)
    for begin, end in ((0, kept), (first, state.length)):
        found = cache.layout.stretches(layer, slots, begin, end, length, window_start)
        for slot, position, stop in found:
            place = position if position < kept else kept + position - state.first(index)
            yield Piece(place, slot, stop - position)


def _first_that_fits(cache: "KVCache", state: RowState, index: int) -> int:
    """Return the first position after the kept ones that a layer of this cache takes of a state."""
    layer = cache.layers[index]
    if layer.window == 0:
        return 0
    ring = cache.slots(layer) - layer.sink_tokens
    return max(state.first(index), state.length - ring)


def _marks(cache: "KVCache", state: RowState, firsts: list[int]) -> RowMarks:
    """Return the marks of a row whose layers hold a state from `firsts` on."""
    lost = [
        (layer, first)
        for layer, first in zip(cache.layers, firsts, strict=True)
        if layer.window > 0 and first > layer.sink_tokens
    ]
    if not lost:
        return RowMarks(start=0, wrapped=False, window_start=0)
    limit = max(cache.layout.least_begin(layer, first) for layer, first in lost)
    window_start = max(first for _, first in lost) if cache.layout.has_starts else 0
    return RowMarks(limit + cache.reserve, wrapped=True, window_start=window_start)


def _check_sound(cache: "KVCache", rows: CacheRows) -> None:
    cache.buffers  # noqa: B018 - refuses a closed cache
    rows.check_sound()
