"""StagedCache: the KV cache of a staged session; the buffers are in the processes of the stages."""

import itertools
import weakref
from collections import deque
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_buffer import CacheBuffer
from gptoss_onnx.runtime.cache_layout import CacheLayout, slot_bytes
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.stages.process import StageProcess


class Stages:
    """The processes of a session in the order of their layers, and the numbers of its caches."""

    def __init__(self, processes: Sequence[StageProcess]) -> None:
        self.processes = tuple(processes)
        self._numbers = itertools.count()

    def number(self) -> int:
        """Return a number that no cache has had."""
        return next(self._numbers)

    def ask(self, what: str, arrays: Sequence[NDArray[Any]] = (), **fields: int | None) -> None:
        """Let every stage do something; raises as `StageProcess.ask`."""
        for process in self.processes:
            process.ask(what, arrays, **fields)

    @property
    def dropped(self) -> tuple[deque[int], ...]:
        """Where each process hears of caches that nobody has any more."""
        return tuple(process.dropped for process in self.processes)


class StagedCache(KVCache):
    """Rows whose keys and values lie in the stages. What it holds and how far it goes back is
    decided here, for the layers of all stages, and the stages' caches follow.

    Attributes:
        stages: where the buffers are.
        number: what the stages call it.
    """

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
        self._hold(stages.number())
        stages.ask(
            "new_cache",
            cache=self.number,
            batch=self.batch,
            capacity=self.capacity,
            reserve=self.reserve,
            chunk=self.chunk,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, in all stages."""
        rows = (self.slots(layer) * slot_bytes(layer, self.dtype) for layer in self.layers)
        return self.batch * sum(rows)

    def fork(self) -> Self:
        """Return an independent copy, as full as this one."""
        twin = super().fork()
        twin._hold(self.stages.number())
        self.stages.ask("fork", (self.lengths,), cache=self.number, twin=twin.number)
        return twin

    def grow(self, capacity: int) -> None:
        """Reallocate for `capacity` tokens a row, keeping what is cached; see `KVCache.grow`."""
        super().grow(capacity)
        self.stages.ask("grow", (self.lengths,), cache=self.number, capacity=self.capacity)

    def close(self) -> None:
        """Free the buffers, in all stages that still run."""
        super().close()
        if self._dropping():
            for process in self.stages.processes:
                try:
                    process.ask("drop")
                except (InputError, RuntimeUnavailable):  # gone, and its buffers with it
                    continue

    def mark_failed(self) -> None:
        """Record that a call was cut off; some stages may have run it."""
        super().mark_failed()
        if not self.layout.rewinds:
            self._damage = "a call was cut off, which some stages had run"

    def _hold(self, number: int) -> None:
        self.number = number
        self._drop_number = weakref.finalize(self, _drop, self.stages.dropped, number)

    def _dropping(self) -> bool:
        """Tell the stages to forget the cache with the next message; false if they know."""
        known = not self._drop_number.alive
        self._drop_number()
        return not known

    def _drop(self, starts: NDArray[np.int64]) -> None:
        self._rows.window_starts = starts

    def _zeros(self) -> tuple[tuple[CacheBuffer, CacheBuffer], ...]:
        return ()

    def _copies(self, capacity: int) -> tuple[tuple[CacheBuffer, CacheBuffer], ...]:
        return ()


def _drop(queues: Sequence[deque[int]], number: int) -> None:
    for queue in queues:
        queue.append(number)
