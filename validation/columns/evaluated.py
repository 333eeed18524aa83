"""A package's graph in another runtime, behind the session that every case drives.

Caches, requests and generation are those of `gptoss_onnx.runtime`; only the calls of the graph go
elsewhere. B batch, V vocabulary.
"""

import time

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.runtime.environment import load_onnxruntime
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.target import LOGITS, CallInputs, contract_of
from gptoss_onnx.validation.columns.served import Served


class EvaluatedGraph:
    """A graph that another process runs: what a `Session` asks of an `OpenGraph`.

    Attributes:
        deadline: of `time.monotonic`; no call begins after it.
    """

    def __init__(self, served: Served, manifest: Manifest, deadline: float) -> None:
        self._served, self._manifest, self.deadline = served, manifest, deadline

    @property
    def is_late(self) -> bool:
        """Say whether the deadline has passed."""
        return time.monotonic() >= self.deadline

    def new_cache(self, batch: int, capacity: int, reserve: int, chunk: int) -> KVCache:
        """Return an empty cache; see `Session.new_cache`."""
        manifest = self._manifest
        layout = contract_of(manifest).layout
        # ONNX Runtime holds the buffers; it runs nothing.
        return KVCache(
            load_onnxruntime(),
            manifest.cache,
            manifest.kv_dtype,
            layout,
            batch,
            capacity,
            reserve,
            chunk,
        )

    def binding(self, cache: KVCache, rows: int) -> "EvaluatedCall":
        """Return what runs the graph on the first `rows` rows of a cache.

        Raises:
            RuntimeUnavailable: the deadline has passed.
        """
        if self.is_late:
            raise RuntimeUnavailable("the time for this column is up")
        return EvaluatedCall(self._served, self._manifest, cache, rows)

    def check_weights(self) -> None:
        """Find nothing: the copy that is run is our own."""

    def close(self) -> None:
        """End the other process."""
        self._served.close()


class EvaluatedCall:
    """Rows of a cache bound to a graph elsewhere: buffers go there and come back with every
    call.
    """

    def __init__(self, served: Served, manifest: Manifest, cache: KVCache, rows: int) -> None:
        self._served, self._manifest, self._cache = served, manifest, cache
        self._rows = rows

    def run(self, call: CallInputs) -> NDArray[np.float32]:
        """Run the graph once and return its logits (B, kept, V).

        Raises:
            RuntimeUnavailable: the runtime failed, or gives something of another shape or type.
        """
        contract = contract_of(self._manifest)
        given = {name: getattr(call, name) for name in contract.call_inputs}
        pairs = list(zip(self._cache.layers, self._cache.buffers, strict=True))
        for layer, (key, value) in pairs:
            assert key.array is not None  # it is on the CPU
            assert value.array is not None
            given |= {
                layer.past_key: key.array[: self._rows],
                layer.past_value: value.array[: self._rows],
            }
        found = self._served.ask(given)
        for layer, (key, value) in pairs:
            for name, buffer in ((layer.present_key, key), (layer.present_value, value)):
                assert buffer.array is not None
                held = buffer.array[: self._rows]
                held[...] = _expected(found, name, held.shape, held.dtype)
        shape = (*call.logit_positions.shape, self._manifest.vocab_size)
        return np.ascontiguousarray(_expected(found, LOGITS, shape, np.dtype(np.float32)))


def _expected(
    found: dict[str, NDArray[np.generic]], name: str, shape: tuple[int, ...], dtype: np.dtype
) -> NDArray[np.generic]:
    """Return an output; raises RuntimeUnavailable if it is missing or another one."""
    array = found.get(name)
    if array is None or array.shape != shape or array.dtype != dtype:
        got = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise RuntimeUnavailable(f"output {name}: found {got}, expected {dtype} {shape}")
    return array
