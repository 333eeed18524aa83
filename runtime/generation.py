"""Generation: the iterator behind `Session.generate`, which prefills, samples and knows when to
stop.

B rows, V vocabulary.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import integer, integer_array, shown
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.exclusive import Exclusive
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.sampling import RowSampler, Sampling, check_vocabulary
from gptoss_onnx.runtime.stops import split_stops, stop_token_ids
from gptoss_onnx.runtime.text_stream import TextStream

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

FinishReason = Literal["stop", "length"]
Step = TypeVar("Step")

# tokens after the prompt that a temporary cache begins with; it doubles when they are used up
FIRST_ROOM = 256


class _Row:
    """One sequence while it is generated: its sampler, its stop conditions, and what it has
    said.
    """

    def __init__(
        self, session: "Session", sampling: Sampling, stop_tokens: frozenset[int], index: int
    ) -> None:
        self.sampler = RowSampler(sampling, index)
        self.stop_tokens = stop_tokens
        self.stream = TextStream(session.tokenizer, sampling.stop) if sampling.stop else None
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None

    def take(self, logits: NDArray[np.float32], seen: NDArray[np.int64]) -> int:
        token = self.sampler.choose(logits, seen)
        self.tokens.append(token)
        if token in self.stop_tokens:
            self.finish_reason = "stop"
        elif self.stream is not None:
            self.stream.push(token)
            if self.stream.stopped:
                self.finish_reason = "stop"
        return token


class Generation(Closing, Iterator[Step], Generic[Step]):
    """Token ids as they are generated: one a step for one sequence, a list of B (None: finished)
    for several.

    A stop token is the last id of its row, and so is the token that completes a stop string. The
    last id of a row has not been run: a caller who keeps the cache passes it first when going on. A
    row that reaches the model's longest sequence, or the capacity of the caller's cache, finishes
    with `length`.

    One thread at a time: while it is in a step, another one gets InputError from `next` and
    `close`. An error in a step ends the iteration, save InputError: that was raised before anything
    ran, and once its cause is mended the step may be tried again.

    Attributes:
        cache: the caller's or a temporary one; None before the first step, and after a temporary
            one was freed.
        stop_tokens: ids that end a row.
        endless: only the limit on new tokens ends a row: there are neither stop tokens
            nor stop strings.
        prefill_seconds: running the prompts, to the first logits.
        decode_seconds: all later runs of the graph and the sampling; the consumer's time between
            steps is not in it.
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
        stop_ids, texts = (
            split_stops(sampling.stop, session.tokenizer.special_tokens)
            if sampling.stop
            else ((), ())
        )
        sampling = replace(sampling, stop=texts)
        check_vocabulary(sampling, session.vocab)
        named = stop_token_ids(session.package, sampling.stop_tokens, session.vocab)
        self.stop_tokens = named | frozenset(stop_ids)
        self.endless = not self.stop_tokens and not sampling.stop
        self._rows = [
            _Row(session, sampling, self.stop_tokens, index) for index in range(len(prompts))
        ]
        self.cache = cache
        self._use = Exclusive("generation", "let one thread iterate over it")
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
        prompts, several = _prompts(token_ids)
        most = integer("max_new_tokens", max_new_tokens, 0)
        if cache is not None and cache.batch != len(prompts):
            raise InputError(
                f"cache: found {cache.batch} rows, expected {len(prompts)}, one a prompt"
            )
        for index, prompt in enumerate(prompts):
            if prompt.size == 0:
                raise InputError(f"row {index}: found an empty prompt, expected at least one token")
            if prompt.min() < 0 or prompt.max() >= session.vocab:
                raise InputError(
                    f"row {index}: found token ids {prompt.min()} to {prompt.max()}, expected 0 to "
                    f"{session.vocab - 1}"
                )
            if prompt.size > session.manifest.longest:
                raise InputError(
                    f"row {index}: found {prompt.size} tokens, expected at most "
                    f"{session.manifest.longest}, the longest this model takes"
                )
        whole = [prompt.astype(np.int64) for prompt in prompts]
        return cls(session, whole, sampling, most, cache, several)

    @property
    def finish_reasons(self) -> tuple[FinishReason | None, ...]:
        """Why each row ended: `stop`, `length`, or None while it goes on."""
        return tuple(row.finish_reason for row in self._rows)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the only row ended; raises InputError for several sequences."""
        if self._several:
            raise InputError(
                "finish_reason: found several sequences, expected one; use finish_reasons"
            )
        return self._rows[0].finish_reason

    @property
    def tokens(self) -> list[list[int]]:
        """What each row has generated so far."""
        return [list(row.tokens) for row in self._rows]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Step:
        with self._use:
            if self._closed:
                raise StopIteration
            try:
                return self._step()
            except InputError:
                raise  # refused before anything ran: the same step may be tried again
            except BaseException:
                # what a step cut off leaves cannot be continued, see `cache` for what was run
                self._end()
                raise

    def close(self) -> None:
        """End the iteration and free a temporary cache. The end of the iteration calls it too.

        Raises InputError while another thread is in a step.
        """
        with self._use:
            self._end()

    def _step(self) -> Step:
        active = [row for row in self._rows if row.finish_reason is None]
        if not active or self._max_new_tokens == 0:
            for row in active:
                row.finish_reason = "length"
            raise StopIteration
        begin = time.perf_counter()
        logits = self._decode() if self._started else self._prefill()
        if not self._started:
            self._started = True
            self.prefill_seconds, begin = time.perf_counter() - begin, time.perf_counter()
        step = [self._take(index, logits[index]) for index in range(len(self._rows))]
        self._finish_full_rows()
        self.decode_seconds += time.perf_counter() - begin
        return step if self._several else step[0]  # type: ignore[return-value]  # Step is what `generate` says

    def _take(self, index: int, logits: NDArray[np.float32]) -> int | None:
        """Choose a row's next token from its logits (V); None when the row has finished."""
        assert self.cache is not None
        row = self._rows[index]
        if row.finish_reason is not None:
            return None
        # By now the cache holds all that the row has said: what came before, the prompt, the last
        # token.
        return row.take(logits, self.cache.row_tokens(index))

    def _end(self) -> None:
        self._closed = True
        if self._own and self.cache is not None:
            self.cache.close()
            self.cache = None

    def _prefill(self) -> NDArray[np.float32]:
        self._session.check_weights()
        lengths = np.array([prompt.size for prompt in self._prompts])
        padded = np.zeros((lengths.size, lengths.max()), np.int64)  # (B, longest prompt)
        for row, prompt in zip(padded, self._prompts, strict=True):
            row[: prompt.size] = prompt
        if self.cache is None:
            capacity = min(self._most_tokens(), int(lengths.max()) + FIRST_ROOM)
            self.cache = self._session.new_cache(lengths.size, capacity)
        return self._session.forward(padded, self.cache, lengths)[:, 0]  # (B, 1, V) → (B, V)

    def _decode(self) -> NDArray[np.float32]:
        cache = self.cache
        assert cache is not None
        goes_on = np.array([row.finish_reason is None for row in self._rows])
        if self._own and (cache.lengths[goes_on] == cache.capacity).any():
            cache.grow(min(2 * cache.capacity, self._most_tokens()))
        last = np.array([[row.tokens[-1]] for row in self._rows])  # (B, 1)
        # Rows of target ort cannot part: those that have finished run their last token again, for
        # nothing.
        new = goes_on.astype(np.int64) if cache.layout.ragged else None
        return self._session.forward(last, cache, new)[:, 0]

    def _finish_full_rows(self) -> None:
        assert self.cache is not None
        longest = self._session.manifest.longest
        most = longest if self._own else min(longest, self.cache.capacity)
        full = self.cache.lengths >= most
        for index, row in enumerate(self._rows):
            if row.finish_reason is None and (
                full[index] or len(row.tokens) >= self._max_new_tokens
            ):
                row.finish_reason = "length"

    def _most_tokens(self) -> int:
        """Return the most tokens that a row of a temporary cache can come to hold."""
        most = max(prompt.size for prompt in self._prompts) + self._max_new_tokens
        return min(most, self._session.manifest.longest)


def _prompts(token_ids: Any) -> tuple[list[NDArray[Any]], bool]:
    """Return the prompts, arrays of integers of any type, and whether they came as a list of
    several.
    """
    try:
        several = len(token_ids) > 0 and np.ndim(token_ids[0]) > 0
        rows = list(token_ids) if several else [token_ids]
    except (TypeError, ValueError, KeyError, IndexError):
        raise InputError(
            f"token_ids: found {shown(token_ids)}, expected a sequence of token ids, or a list of "
            "such sequences"
        ) from None
    return [_prompt(row, index) for index, row in enumerate(rows)], several


def _prompt(tokens: Any, index: int) -> NDArray[Any]:
    array = integer_array(f"row {index}", tokens)
    if array.ndim != 1:
        raise InputError(
            f"row {index}: found {array.dtype} of shape {array.shape}, expected a sequence of "
            "token ids"
        )
    return array
