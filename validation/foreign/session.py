"""ForeignSession: another program's export, driven as our own sessions are.

B batch, S columns, V vocabulary, T tokens of one sequence.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import PackageError
from gptoss_onnx.offered import BATCHES, RAGGED, SEVERAL
from gptoss_onnx.reference import DecoderConfig
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.kv_cache import PREFILL_CHUNK
from gptoss_onnx.runtime.request import Request
from gptoss_onnx.runtime.sampling import RowSampler, Sampling
from gptoss_onnx.validation.cases.driven import Capabilities, NotAvailableError
from gptoss_onnx.validation.foreign.cache import ForeignCache, Row
from gptoss_onnx.validation.foreign.export import ForeignExport
from gptoss_onnx.validation.foreign.interface import MASK, POSITIONS
from gptoss_onnx.validation.foreign.open_graph import OpenForeignGraph
from gptoss_onnx.validation.foreign.padding import LeftPadding, Padding, RightPadding

LAST_ALONE = "its graph gives the logits of the last position alone"
NO_MASK = "it takes no attention_mask, which could hide padding"


class ForeignSession(Closing):
    """An export in ONNX Runtime on the CPU; satisfies `Driven`.

    Rows that take no token are left out of a call, since no such graph knows them. A row alone is
    run in calls of at most the cache's chunk; rows together in one call.

    Attributes:
        export: what was recognised.
        vocab: V.
        capabilities: what it cannot do, and why.
        kv_dtype: element type of its caches.
    """

    def __init__(
        self,
        export: ForeignExport,
        first: OpenForeignGraph,
        later: OpenForeignGraph,
        config: DecoderConfig,
    ) -> None:
        self.export, self.vocab = export, config.vocab_size
        self.kv_dtype = later.interface.kv_dtype
        self._first, self._later, self._longest = first, later, config.longest
        places = all(POSITIONS in graph.interface.call_inputs for graph in (first, later))
        self._padding: Padding = (
            RightPadding(windows=bool(later.windows)) if later.pads_right else LeftPadding(places)
        )
        self._empty = _empty_row(later, config)
        self.capabilities = Capabilities(self._missing())

    @classmethod
    def open(cls, export: ForeignExport, config: DecoderConfig, threads: int | None = None) -> Self:
        """Open an export; `config` is that of the checkpoint it is held to.

        Raises PackageError, ParityError and RuntimeUnavailable as `OpenForeignGraph.load`.
        """
        first = OpenForeignGraph.load(export.first, config, threads)
        same = export.later is export.first
        later = first if same else OpenForeignGraph.load(export.later, config, threads)
        if any(names.past is None for names in later.interface.caches):
            raise PackageError(
                f"{export.later.path}: takes no past_key_values, expected a graph that goes on "
                "after cached tokens"
            )
        return cls(export, first, later, config)

    def new_cache(
        self, batch: int, capacity: int, reserve: int = 0, *, chunk: int = PREFILL_CHUNK
    ) -> ForeignCache:
        """Return an empty cache; caches of full layers grow, so `reserve` changes nothing."""
        return ForeignCache(self._empty, batch, capacity, chunk)

    def forward(
        self,
        input_ids: ArrayLike,
        cache: ForeignCache,
        new_lengths: ArrayLike | None = None,
        logit_positions: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Run new tokens, right-padded (B, S), after what `cache` holds; return float32 (B, kept,
        V).

        Raises:
            InputError: an argument is out of range, or a row has no room.
            NotAvailableError: the graph cannot take such a call.
            RuntimeUnavailable: ONNX Runtime failed.
            PackageError: the graph gives logits of another shape.
        """
        request = Request.parse(input_ids, new_lengths, logit_positions, cache.batch, self.vocab)
        cache.check_room(request.new_lengths, self._longest)
        answer = np.zeros((*request.wanted.shape, self.vocab), np.float32)
        active = np.flatnonzero(request.new_lengths)
        begin = 0
        while begin < request.longest:
            end = begin + self._columns(cache, active, request.longest - begin)
            rows = [cache.rows[row] for row in active]
            new = np.clip(request.new_lengths[active] - begin, 0, end - begin)
            ids = request.input_ids[active, begin:end]
            graph = self._later if any(row.tokens for row in rows) else self._first
            call = self._padding.lay(rows, ids, new)
            logits, present = graph.run(call)
            for place, row in enumerate(active):
                pairs = [(key[place], value[place]) for key, value in present]
                pad = int(call.pads[place])
                cache.rows[row] = self._padding.keep(rows[place], int(new[place]), pairs, pad)
                self._take(
                    answer[row], request, int(row), begin, end, logits[place], call.offsets[place]
                )
            begin = end
        return answer

    def score(
        self,
        token_ids: Sequence[int] | NDArray[Any],
        chunk: int | None = None,
        positions: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits of every position of one sequence, or of some, float32 (kept, V),
        `chunk` tokens a call.
        """
        tokens = np.asarray(token_ids)
        columns = PREFILL_CHUNK if chunk is None else chunk
        fixed = self._later.interface.columns
        if fixed not in (None, columns) and tokens.size > columns:
            raise NotAvailableError(f"it takes {fixed} tokens a call after others, not {columns}")
        with self.new_cache(1, tokens.size, chunk=columns) as cache:
            wanted = np.arange(tokens.size) if positions is None else np.asarray(positions)
            logits = self.forward(tokens[None], cache, logit_positions=wanted[None])
        return logits.reshape(-1, self.vocab)  # (1, kept, V)

    def generate(
        self,
        token_ids: Sequence[int],
        sampling: Sampling | None = None,
        *,
        max_new_tokens: int = 256,
    ) -> Iterator[int]:
        """Yield `max_new_tokens` tokens that continue a sequence; nothing ends it before."""
        sampler = RowSampler(sampling or Sampling(), 0)
        seen = list(token_ids)
        with self.new_cache(1, len(seen) + max_new_tokens) as cache:
            new = seen[:]
            for _ in range(max_new_tokens):
                logits = self.forward([new], cache)[0, 0]
                token = sampler.choose(logits, np.array(seen))
                seen.append(token)
                new = [token]
                yield token

    def close(self) -> None:
        """Free the weights; the session cannot be used any more."""
        del self._first, self._later

    def _columns(self, cache: ForeignCache, active: NDArray[np.intp], remaining: int) -> int:
        """Return how many columns the next call takes."""
        if active.size > 1:
            return remaining
        row = cache.rows[active[0]]
        fixed = (self._later if row.tokens else self._first).interface.columns
        return min(remaining, cache.chunk if fixed is None else fixed)

    def _take(
        self,
        answer: NDArray[np.float32],  # (kept, V)
        request: Request,
        row: int,
        begin: int,
        end: int,
        logits: NDArray[np.float32],  # (S, V), or (1, V)
        offset: int,
    ) -> None:
        """Copy a row's wanted logits of the columns `begin` to `end` into the answer."""
        positions = request.logit_positions[row]
        here = request.wanted[row] & (positions >= begin) & (positions < end)
        columns = positions[here] - begin + offset
        width = end - begin
        if logits.shape == (1, self.vocab) and width > 1:
            if (columns != width - 1).any():
                raise NotAvailableError(LAST_ALONE)
            columns = np.zeros_like(columns)
        elif logits.shape != (width, self.vocab):
            raise PackageError(
                f"{self.export.first.path.name}: gave logits of shape {logits.shape} for {width} "
                f"tokens, expected ({width}, {self.vocab})"
            )
        answer[here] = logits[columns]

    def _missing(self) -> dict[str, str]:
        missing = self._padding.missing
        interfaces = [graph.interface for graph in (self._first, self._later)]
        if any(MASK not in interface.call_inputs for interface in interfaces):
            missing[RAGGED] = NO_MASK
        fixed = next((face.batch for face in interfaces if face.batch is not None), None)
        if fixed is not None:
            reason = f"its graph takes calls of {fixed} rows alone"
            missing |= dict.fromkeys((BATCHES, RAGGED, SEVERAL), reason)
        return missing


def _empty_row(graph: OpenForeignGraph, config: DecoderConfig) -> Row:
    """Return a row that holds nothing: no columns of growing caches, zeros of fixed ones."""
    windows, dtype = graph.windows, graph.interface.kv_dtype
    layers = []
    for index, layer in enumerate(config.layers):
        attention = layer.attention
        shape = (attention.kv_heads, windows.get(index, 0), attention.head_dim)
        layers.append((np.zeros(shape, dtype), np.zeros(shape, dtype)))
    return Row(0, tuple(layers), frozenset(windows))
