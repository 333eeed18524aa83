"""A session that keeps the calls of a case, so that they can be run again and looked at.

B batch.
"""

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.choices import Activations, Provider
from gptoss_onnx.package import Package
from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.open_graph import OpenGraph
from gptoss_onnx.runtime.request import Request
from gptoss_onnx.runtime.target import RunningKernels

MOST_TOKENS = 4_000_000  # that a recording keeps, padding included: 32 MB
MOST_CALLS = 20_000
MOST_HELD = 1 << 30  # bytes of caches that held something before a case used them


@dataclass(frozen=True)
class FirstUse:
    """A cache as it was when it was used first: what `new_cache` was asked for, and a copy of it
    where it held something already, as the copy of another cache does.
    """

    batch: int
    capacity: int
    reserve: int
    chunk: int
    held: KVCache | None


@dataclass(frozen=True)
class RecordedCall:
    """One `forward`: the number of its cache, how many tokens its rows (B) held and may hold, the
    arguments, and how many calls of the graph it takes.
    """

    cache: int
    lengths: NDArray[np.int64]
    capacity: int
    request: Request
    graph_calls: int


@dataclass
class Recording:
    """The calls of one case in order; `complete` is False where there were more than are kept."""

    caches: list[FirstUse] = field(default_factory=list)
    calls: list[RecordedCall] = field(default_factory=list)
    tokens: int = 0
    complete: bool = True

    def add(self, call: RecordedCall) -> None:
        """Keep a call, if there is room for it and was for all before it."""
        self.tokens += call.request.input_ids.size
        self.complete &= self.tokens <= MOST_TOKENS and len(self.calls) < MOST_CALLS
        if self.complete:
            self.calls.append(call)

    @property
    def graph_calls(self) -> int:
        """How many calls of the graph all of them take."""
        return sum(call.graph_calls for call in self.calls)


class RecordedSession(Session):
    """A session that keeps what `forward` was asked for since the last `forget`, in `recording`.

    `score` and `generate` go through `forward` as well.
    """

    def __init__(
        self,
        graph: OpenGraph,
        package: Package,
        kernels: RunningKernels,
        activations: Activations,
        provider: Provider,
    ) -> None:
        super().__init__(graph, package, kernels, activations, provider)
        self.forget()

    def forget(self) -> None:
        """Begin another recording, which knows of no cache."""
        self.recording = Recording()
        self._numbers: WeakKeyDictionary[KVCache, int] = WeakKeyDictionary()
        self._held = 0  # bytes

    def forward(
        self,
        input_ids: ArrayLike,
        cache: KVCache,
        new_lengths: ArrayLike | None = None,
        logit_positions: ArrayLike | None = None,
        rows: int | None = None,
    ) -> NDArray[np.float32]:
        """Run `Session.forward` and keep its arguments, those of a call that fails, too.

        A call of some rows of a cache is not kept: no case makes one.
        """
        if rows is not None:
            self.recording.complete = False
        elif isinstance(cache, KVCache):  # anything else is refused below
            request = Request.parse(
                input_ids, new_lengths, logit_positions, cache.batch, self.vocab
            )
            self._keep(cache, request)
        return super().forward(input_ids, cache, new_lengths, logit_positions, rows)

    def _keep(self, cache: KVCache, request: Request) -> None:
        if cache not in self._numbers:
            self._numbers[cache] = len(self.recording.caches)
            self.recording.caches.append(self._first_use(cache))
        self.recording.add(
            RecordedCall(
                self._numbers[cache],
                cache.lengths,
                cache.capacity,
                request,
                _graph_calls(cache, request),
            )
        )

    def _first_use(self, cache: KVCache) -> FirstUse:
        held = None
        if cache.lengths.any():
            self._held += cache.nbytes
            if self._held > MOST_HELD:
                self.recording.complete = False
            else:
                held = cache.fork()
        return FirstUse(cache.batch, cache.capacity, cache.reserve, cache.chunk, held)


def _graph_calls(cache: KVCache, request: Request) -> int:
    """Return in how many calls the cache will cut a request."""
    count = done = 0
    while done < request.longest:
        lengths = cache.lengths + np.minimum(done, request.new_lengths)
        done += max(
            1,
            cache.layout.columns(request.longest - done, lengths, cache.capacity, cache.chunk),
        )
        count += 1
    return count
