"""StagedGraph: the graph of a model whose layers run in several processes, one after the other.

B batch, V vocabulary.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.stages.cache import StagedCache, Stages
from gptoss_onnx.runtime.stages.process import StageProcess
from gptoss_onnx.runtime.target import CallInputs, contract_of


class StagedGraph(Closing):
    """Processes in the order of their layers; a context manager that ends them.

    Threads may share it. A thread waits only for the stage that it comes to: with several at once,
    each in a cache of its own, several stages work at the same time.
    """

    def __init__(
        self, onnxruntime: ModuleType, manifest: Manifest, processes: Sequence[StageProcess]
    ) -> None:
        """Take processes that are ready; `manifest` is that of the whole model."""
        self._onnxruntime, self._manifest = onnxruntime, manifest
        self._stages = Stages(processes)

    def new_cache(self, batch: int, capacity: int, reserve: int, chunk: int) -> StagedCache:
        """Return an empty cache; see `Session.new_cache`."""
        manifest = self._manifest
        layout = contract_of(manifest).layout
        kind = (manifest.cache, manifest.kv_dtype, layout)
        sizes = (batch, capacity, reserve, chunk)
        return StagedCache(self._stages, self._onnxruntime, *kind, *sizes)

    def binding(self, cache: KVCache, rows: int) -> "StagedCall":
        """Return what runs the stages on the first rows of a cache; raises InputError for another
        session's.
        """
        if not isinstance(cache, StagedCache) or cache.stages is not self._stages:
            raise InputError(
                "cache: found one of another session, whose stages hold its buffers; make it with "
                "this session's new_cache"
            )
        cache.buffers  # noqa: B018 - refuses a closed cache
        return StagedCall(cache)

    def check_weights(self) -> None:
        """Raise PackageError if a weight file of a stage has changed."""
        self._stages.ask("check_weights")

    def close(self) -> None:
        """End the processes; calls that other threads are in raise RuntimeUnavailable."""
        for process in self._stages.processes:
            process.close()


class StagedCall:
    """The stages, bound to the first rows of one cache."""

    def __init__(self, cache: StagedCache) -> None:
        self._cache = cache

    def run(self, call: CallInputs) -> NDArray[np.float32]:
        """Run every stage on what the one before gives; returns the last one's logits (B, kept, V).

        Raises what a stage raises, and RuntimeUnavailable if its process has ended. Stages that
        ran before it go back with the next call.
        """
        cache = self._cache
        given = (cache.lengths, call.input_ids, call.new_lengths, call.logit_positions)
        result: tuple[NDArray[np.float32], ...] = ()
        for process in cache.stages.processes:
            result = process.ask("run", (*given, *result), cache=cache.number)
        return result[0]
