"""Generation: the iterator behind `Session.generate`, which prefills, samples and knows when to
stop.

B rows, V vocabulary.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import integer
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.exclusive import Exclusive
from gptoss_onnx.runtime.generation_row import FinishReason, GenerationRow
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.prompt_rows import prompt_rows
from gptoss_onnx.runtime.sampling import Sampling, check_vocabulary
from gptoss_onnx.runtime.speculation.speculation import Speculated, Speculation
from gptoss_onnx.runtime.stops import split_stops, stop_token_ids

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

Step = TypeVar("Step")

# tokens after the prompt that a temporary cache begins with; it doubles when they are used up
FIRST_ROOM = 256


class Generation(Closing, Iterator[Step], Generic[Step]):
    """Token ids as they are generated: one a step for one sequence, a list of B (None: finished)
    for several.

    A stop token is the last id of its row, and so is the token that completes a stop string. The
    last id of a row has not been run: a caller who keeps the cache passes it first when going on. A
    row that reaches the model's longest sequence, or the capacity of the caller's cache, finishes
    with `length`.

    With speculation the cache may hold tokens that are certain but not given yet: `close` and the
    end of the iteration take them back.

    One thread at a time: while it is in a step, another one gets InputError from `next` and
    `close`. An error in a step ends the iteration, save InputError: that was raised before anything
    ran, and once its cause is mended the step may be tried again.

    Attributes:
        cache: the caller's or a temporary one; None before the first step, and after a temporary
            one was freed.
        stop_tokens: ids that end a row.
        speculated: what came of guessing, and how many calls decoding took; None without it.
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
        speculation: Speculation | None,
        own_speculation: bool,
    ) -> None:
        self._session, self._prompts, self._several = session, prompts, several
        self._speculation, self._own_speculation = speculation, own_speculation
        self.speculated = None if speculation is None else Speculated()
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
            GenerationRow(session, sampling, self.stop_tokens, index)
            for index in range(len(prompts))
        ]
        self.cache = cache
        self._first = 0  # tokens in the cache before the row's first own one, with speculation
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
        speculate: "int | Speculation" = 0,
        draft: "Session | None" = None,
    ) -> Self:
        """Check the arguments of `Session.generate`; raises InputError."""
        prompts, several = prompt_rows(token_ids, session.vocab, session.manifest.longest)
        most = integer("max_new_tokens", max_new_tokens, 0)
        if cache is not None and cache.batch != len(prompts):
            raise InputError(
                f"cache: found {cache.batch} rows, expected {len(prompts)}, one a prompt"
            )
        speculation = Speculation.of(session, speculate, draft)
        if speculation is not None and several:
            raise InputError("speculate: found several sequences, expected one")
        is_own = speculation is not speculate
        return cls(session, prompts, sampling, most, cache, several, speculation, is_own)

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
        return [row.tokens[: row.given] for row in self._rows]

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
        if any(row.is_ahead for row in self._rows):
            return self._give()
        active = [row for row in self._rows if row.ended is None]
        if not active or self._max_new_tokens == 0:
            for row in active:
                row.ended = "length"
            raise StopIteration
        begin = time.perf_counter()
        if self._started and self._speculation is not None:
            self._speculate(self._speculation)
        else:
            logits = self._decode() if self._started else self._prefill()
            if not self._started:
                self._started = True
                self.prefill_seconds, begin = time.perf_counter() - begin, time.perf_counter()
            self._take(logits)
        self._finish_full_rows()
        self.decode_seconds += time.perf_counter() - begin
        return self._give()

    def _give(self) -> Step:
        step = [row.give() for row in self._rows]
        return step if self._several else step[0]  # type: ignore[return-value]  # Step is what `generate` says

    def _take(self, logits: NDArray[np.float32]) -> None:
        """Let each row that goes on say its next token, from logits (B, V)."""
        assert self.cache is not None
        for index, row in enumerate(self._rows):
            if row.ended is None:
                # By now the cache holds all that the row has said: what came before, the prompt,
                # the last token.
                row.take(logits[index], self.cache.row_tokens(index))

    def _end(self) -> None:
        self._closed = True
        if self._own_speculation and self._speculation is not None:
            self._speculation.close()
        if self.cache is None:
            return
        if self._own:
            self.cache.close()
            self.cache = None
        elif self._speculation is not None and self._started:
            held = self._first + max(self._rows[0].given - 1, 0)
            if self.cache.lengths[0] > held:
                self.cache.rewind(held)

    def _prefill(self) -> NDArray[np.float32]:
        self._session.check_weights()
        lengths = np.array([prompt.size for prompt in self._prompts])
        padded = np.zeros((lengths.size, lengths.max()), np.int64)  # (B, longest prompt)
        for row, prompt in zip(padded, self._prompts, strict=True):
            row[: prompt.size] = prompt
        if self.cache is None:
            capacity = min(self._most_tokens(), int(lengths.max()) + FIRST_ROOM)
            self.cache = self._session.new_cache(lengths.size, capacity)
        logits = self._session.forward(padded, self.cache, lengths)[:, 0]  # (B, 1, V) → (B, V)
        if self._speculation is not None:
            self._first = int(self.cache.lengths[0])
            self._speculation.read(self.cache)
        return logits

    def _decode(self) -> NDArray[np.float32]:
        cache = self.cache
        assert cache is not None
        goes_on = np.array([row.ended is None for row in self._rows])
        self._make_room(cache, int(cache.lengths[goes_on].max()) + 1)
        last = np.array([[row.tokens[-1]] for row in self._rows])  # (B, 1)
        # Rows of target ort cannot part: those that have finished run their last token again, for
        # nothing.
        new = goes_on.astype(np.int64) if cache.layout.ragged else None
        return self._session.forward(last, cache, new)[:, 0]

    def _speculate(self, speculation: Speculation) -> None:
        """Let the only row say one token or more."""
        cache, row = self.cache, self._rows[0]
        assert cache is not None
        assert self.speculated is not None
        held = int(cache.lengths[0])
        most = min(self._max_new_tokens - len(row.tokens), self._most_held(cache) - held)
        self._make_room(cache, held + min(most, speculation.most + 1))
        found = speculation.advance(row, cache, most)
        sums = (one + other for one, other in zip(self.speculated, found, strict=True))
        self.speculated = Speculated(*sums)

    def _make_room(self, cache: KVCache, count: int) -> None:
        """Let a temporary cache take rows of `count` tokens."""
        if self._own and count > cache.capacity:
            cache.grow(min(max(2 * cache.capacity, count), self._most_tokens()))

    def _finish_full_rows(self) -> None:
        assert self.cache is not None
        full = self.cache.lengths >= self._most_held(self.cache)
        for index, row in enumerate(self._rows):
            if row.ended is None and (full[index] or len(row.tokens) >= self._max_new_tokens):
                row.ended = "length"

    def _most_held(self, cache: KVCache) -> int:
        """Return the most tokens that a row can have in the cache."""
        longest = self._session.manifest.longest
        return longest if self._own else min(longest, cache.capacity)

    def _most_tokens(self) -> int:
        """Return the most tokens that a row of a temporary cache can come to hold."""
        most = max(prompt.size for prompt in self._prompts) + self._max_new_tokens
        return min(most, self._session.manifest.longest)
