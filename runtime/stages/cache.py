"""StagedCache: the KV cache of a staged session; the buffers are in the processes of the stages."""

import itertools
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from types import ModuleType
from typing import Any, Self

from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_buffer import BufferPair
from gptoss_onnx.runtime.cache_layout import CacheLayout, slot_bytes
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.layer_buffers import LayerBuffers
from gptoss_onnx.runtime.row_state import RowState, on_host
from gptoss_onnx.runtime.stages.process import StageProcess

Arrays = tuple[NDArray[Any], ...]


class Stages:
    """The processes of a session in the order of their layers, and the numbers of its caches.

    Attributes:
        processes: one for each stage.
        layers: which layers each of them has.
    """

    def __init__(self, processes: Sequence[StageProcess]) -> None:
        self.processes = tuple(processes)
        stages = [process.stage for process in processes]
        self.layers = [slice(stage.first, stage.end) for stage in stages]
        self._numbers = itertools.count()

    def number(self) -> int:
        """Return a number that no cache has had."""
        return next(self._numbers)

    def ask(self, what: str, arrays: Arrays = (), **fields: int | None) -> list[Arrays]:
        """Let every stage do something, and return their answers; raises as `StageProcess.ask`."""
        return [process.ask(what, arrays, **fields) for process in self.processes]


class _Elsewhere(LayerBuffers):
    """Buffers of which this process has none."""

    def zeros(self, capacity: int) -> tuple[BufferPair, ...]:
        return ()

    def copies(
        self,
        held: Sequence[BufferPair],
        capacity: int,
        wanted: int,
        longest: int,
        wrapped: bool,
    ) -> tuple[BufferPair, ...]:
        return ()


class StagedCache(KVCache):
    """Rows whose keys and values lie in the stages. What a row holds and how far it goes back is
    decided here, for the layers of all stages, and the stages' caches follow.

    A rewind is for them a matter of the next message: each says how long the rows are.

    Attributes:
        stages: where the buffers are.
        number: what the stages call it.
    """

    kind = _Elsewhere

    def __init__(
        self,
        stages: Stages,
        onnxruntime: ModuleType,
        layers: Sequence[CacheLayer],
        dtype: str,
        layout: CacheLayout,
        batch: int,
        capacity: int,
        reserve: int,
        chunk: int,
    ) -> None:
        super().__init__(onnxruntime, layers, dtype, layout, batch, capacity, reserve, chunk)
        self.stages = stages
        self._take_number()
        self._ask(
            "new_cache",
            (),
            batch=self.batch,
            capacity=self.capacity,
            reserve=self.reserve,
            chunk=self.chunk,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, in all stages."""
        self.buffers  # noqa: B018 - refuses a closed cache
        row = sum(self.slots(layer) * slot_bytes(layer, self.dtype) for layer in self.layers)
        return self.batch * row

    def fork(self) -> Self:
        """Return an independent copy, as full as this one."""
        twin = super().fork()
        twin._take_number()
        self._ask("fork", (self.lengths,), twin=twin.number)
        return twin

    def save_row(self, row: int, length: int | None = None) -> RowState:
        """Return a copy of the first tokens of a row; see `KVCache.save_row`."""
        lengths = self.lengths
        state = super().save_row(row, length)
        found = self._ask("save_row", (lengths,), row=row, length=state.length)
        arrays = [array for stage in found for array in stage]
        blocks = tuple(zip(arrays[::2], arrays[1::2], strict=True))
        # no model of ours has windows of two widths: a stage loses what the whole loses
        assert all(key.shape[1] == state.held(index) for index, (key, _) in enumerate(blocks))
        return replace(state, blocks=blocks)

    def load_row(self, row: int, state: RowState) -> None:
        """Let a row hold what `state` holds; see `KVCache.load_row`."""
        lengths = self.lengths
        super().load_row(row, state)
        for process, layers in zip(self.stages.processes, self.stages.layers, strict=True):
            blocks = [on_host(block) for pair in state.blocks[layers] for block in pair]
            given = (lengths, state.tokens, *blocks)
            process.ask("load_row", given, cache=self.number, row=row, floor=state.floor)

    def move_row(self, source: int, target: int) -> None:
        """Let row `target` hold what row `source` holds; see `KVCache.move_row`."""
        lengths = self.lengths
        super().move_row(source, target)
        self._ask("move_row", (lengths,), source=source, target=target)

    def grow(self, capacity: int) -> None:
        """Reallocate for `capacity` tokens a row, keeping what is cached; see `KVCache.grow`."""
        super().grow(capacity)
        self._ask("grow", (self.lengths,), capacity=self.capacity)

    def close(self) -> None:
        """Free the buffers, in all stages that still run."""
        super().close()
        if self._forget.alive:
            self._forget()
            for process in self.stages.processes:
                with suppress(InputError, RuntimeUnavailable):  # gone, and its buffers with it
                    process.ask("drop")

    def _ask(self, what: str, arrays: Arrays, **fields: int) -> list[Arrays]:
        return self.stages.ask(what, arrays, cache=self.number, **fields)

    def _take_number(self) -> None:
        self.number = self.stages.number()
        queues = [process.dropped for process in self.stages.processes]
        self._forget = weakref.finalize(self, _drop, queues, self.number)


def _drop(queues: Sequence[deque[int]], number: int) -> None:
    """Let the stages forget a cache with the next message."""
    for queue in queues:
        queue.append(number)
