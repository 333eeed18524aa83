"""Generation: the iterator behind `Session.generate`, which prefills, samples and knows when to stop.

B rows, V vocabulary.
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.sampling import RowSampler, Sampling
from gptoss_onnx.runtime.stops import end_tokens, split_stops
from gptoss_onnx.runtime.text_stream import TextStream

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

FinishReason = Literal["stop", "length"]
Step = TypeVar("Step")

FIRST_ROOM = 256  # tokens after the prompt an own cache begins with; it doubles when they are used up


class _Row:
    """One sequence while it is generated: its sampler, its stop conditions, and what it has said."""

    def __init__(self, session: "Session", prompt: NDArray[np.int64], sampling: Sampling, index: int) -> None:
        self.sampler = RowSampler(sampling, prompt, index, session.vocab)
        ids, texts = split_stops(sampling.stop, session.tokenizer.special_tokens) if sampling.stop else ((), ())
        self.stop_tokens = frozenset(end_tokens(sampling, session.package.eos_tokens) + ids)
        self.stream = TextStream(session.tokenizer, texts) if texts else None
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None

    def take(self, logits: NDArray[np.float32]) -> int:
        token = self.sampler.choose(logits)
        self.tokens.append(token)
        if token in self.stop_tokens:
            self.finish_reason = "stop"
        elif self.stream is not None:
            self.stream.push(token)
            if self.stream.stopped:
                self.finish_reason = "stop"
        return token


class Generation(Iterator[Step], Generic[Step]):
    """Token ids as they are generated: one a step for one sequence, a list of B (None: finished) for several.

    A stop token is the last id of its row, and so is the token that completes a stop string. The last id of a
    row has not been run: a caller who keeps the cache passes it first when going on. A row that reaches the
    capacity of the caller's cache finishes with `length`.

    Attributes:
        cache: the caller's or an own one; None before the first step, and after an own one is freed.
        prefill_seconds: running the prompts, to the first logits.
        decode_seconds: all later runs of the graph and the sampling; the consumer's time between steps is not
            in it.
    """

    def __init__(
        self,
        session: "Session",
        prompts: list[NDArray[np.int64]],
        sampling: Sampling,
        max_new_tokens: int,
        cache: KVCache | None,
        several: bool,
    ) -> None:
        self._session, self._prompts, self._several = session, prompts, several
        self._max_new_tokens = max_new_tokens
        self._own = cache is None
        self._rows = [_Row(session, prompt, sampling, index) for index, prompt in enumerate(prompts)]
        self.cache = cache
        self._started = self._closed = False
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0

    @classmethod
    def of(
        cls,
        session: "Session",
        token_ids: Any,
        sampling: Sampling,
        max_new_tokens: int,
        cache: KVCache | None,
    ) -> Self:
        """Check the arguments of `Session.generate`; raises InputError."""
        several = len(token_ids) > 0 and np.ndim(token_ids[0]) > 0
        prompts = [_prompt(row, index) for index, row in enumerate(token_ids if several else [token_ids])]
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 0:
            raise InputError(f"max_new_tokens: found {max_new_tokens!r}, expected an integer, 0 or more")
        if cache is not None and cache.batch != len(prompts):
            raise InputError(f"cache: found {cache.batch} rows, expected {len(prompts)}, one a prompt")
        for index, prompt in enumerate(prompts):
            if prompt.size == 0:
                raise InputError(f"row {index}: found an empty prompt, expected at least one token")
            if prompt.min() < 0 or prompt.max() >= session.vocab:
                raise InputError(
                    f"row {index}: found token ids {prompt.min()} to {prompt.max()}, expected 0 to {session.vocab - 1}"
                )
        return cls(session, prompts, sampling, max_new_tokens, cache, several)

    @property
    def finish_reasons(self) -> tuple[FinishReason | None, ...]:
        """Why each row ended: `stop`, `length`, or None while it goes on."""
        return tuple(row.finish_reason for row in self._rows)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the only row ended; raises InputError for several sequences."""
        if self._several:
            raise InputError("finish_reason: found several sequences, expected one; use finish_reasons")
        return self._rows[0].finish_reason

    @property
    def tokens(self) -> list[list[int]]:
        """What each row has generated so far."""
        return [list(row.tokens) for row in self._rows]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Step:
        active = [row for row in self._rows if row.finish_reason is None]
        if self._closed:
            raise StopIteration
        if not active or self._max_new_tokens == 0:
            for row in active:
                row.finish_reason = "length"
            self.close()
            raise StopIteration
        begin = time.perf_counter()
        logits = self._decode() if self._started else self._prefill()
        if not self._started:
            self._started = True
            self.prefill_seconds, begin = time.perf_counter() - begin, time.perf_counter()
        step = [row.take(logits[index]) if row.finish_reason is None else None for index, row in enumerate(self._rows)]
        self._finish_full_rows()
        self.decode_seconds += time.perf_counter() - begin
        return step if self._several else step[0]  # type: ignore[return-value]  # Step is what `generate` says

    def close(self) -> None:
        """End the iteration and free an own cache; the caller's stays. Called at the end by itself."""
        self._closed = True
        if self._own and self.cache is not None:
            self.cache.close()
            self.cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prefill(self) -> NDArray[np.float32]:
        lengths = np.array([prompt.size for prompt in self._prompts])
        padded = np.zeros((lengths.size, lengths.max()), np.int64)  # (B, longest prompt)
        for row, prompt in zip(padded, self._prompts, strict=True):
            row[: prompt.size] = prompt
        if self.cache is None:
            room = min(self._max_new_tokens, FIRST_ROOM)
            self.cache = self._session.new_cache(lengths.size, int(lengths.max()) + room)
        return self._session.forward(padded, self.cache, lengths)[:, 0]  # (B, 1, V) → (B, V)

    def _decode(self) -> NDArray[np.float32]:
        cache = self.cache
        assert cache is not None
        goes_on = np.array([row.finish_reason is None for row in self._rows])
        if self._own and (cache.lengths[goes_on] == cache.capacity).any():
            most = max(prompt.size for prompt in self._prompts) + self._max_new_tokens
            cache.grow(min(2 * cache.capacity, most))
        last = np.array([[row.tokens[-1]] for row in self._rows])  # (B, 1)
        # Rows of target ort cannot part: those that have finished run their last token again, for nothing.
        new = goes_on.astype(np.int64) if cache.layout.ragged else None
        return self._session.forward(last, cache, new)[:, 0]

    def _finish_full_rows(self) -> None:
        assert self.cache is not None
        lengths = self.cache.lengths
        for index, row in enumerate(self._rows):
            full = not self._own and lengths[index] >= self.cache.capacity
            if row.finish_reason is None and (full or len(row.tokens) >= self._max_new_tokens):
                row.finish_reason = "length"


def _prompt(tokens: Any, index: int) -> NDArray[np.int64]:
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"row {index}: found {array.dtype} of shape {array.shape}, expected a sequence of token ids")
    return array.astype(np.int64)
