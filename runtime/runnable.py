"""What a session asks of the graph behind it: `OpenGraph` is one in ONNX Runtime, `validate` has
others.

B batch, V vocabulary.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.target import CallInputs


class RunnableCall(Protocol):
    """A graph bound to the first rows of one cache."""

    def run(self, call: CallInputs) -> NDArray[np.float32]:
        """Run the graph once, update the cache's buffers, and return fresh logits (B, kept, V).

        Raises RuntimeUnavailable when it fails.
        """


class RunnableGraph(Protocol):
    """A graph that serves many caches."""

    def new_cache(self, batch: int, capacity: int, reserve: int, chunk: int) -> KVCache:
        """Return an empty cache; see `Session.new_cache`."""

    def binding(self, cache: KVCache, rows: int) -> RunnableCall:
        """Return what runs the graph on the first `rows` rows of a cache, which must be in use by
        the caller.
        """

    def check_weights(self) -> None:
        """Raise PackageError if a weight file has changed since the graph was opened."""

    def close(self) -> None:
        """Refuse further calls and free the weights."""
