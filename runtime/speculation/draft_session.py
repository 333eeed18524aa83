"""DraftSession: guess with a smaller model of the same vocabulary.

Where the row's tokens are drawn, the guesses are, too: from the draft model's probabilities under
the row's own settings, with random numbers of their own.

T tokens of a row, V vocabulary.
"""

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.cache_rows import common_prefix
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.sampling import RowSampler
from gptoss_onnx.runtime.speculation.guess import Drawn, Guess
from gptoss_onnx.runtime.speculation.hit_rates import HitRates
from gptoss_onnx.runtime.speculation.rejection import drawn_token

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

_EXPECTED = (0.6,)
_FIRST_ROOM = 256  # tokens beyond the first ones; the cache doubles when they are used up
_FADING = 0.125  # weight of the last measured guess


class DraftSession:
    """Guesses by running a session on a cache of its own, which is rewound where they were wrong.

    Attributes:
        each: seconds that a guess takes, as measured; None before the first.
    """

    explores = True

    def __init__(self, session: "Session", most: int) -> None:
        self._session, self._most = session, most
        self._cache: KVCache | None = None
        self._rates = HitRates(_EXPECTED)
        self._tokens = np.zeros(0, np.int64)
        self._guessed: list[int] = []
        self.each: float | None = None

    def read(self, tokens: NDArray[np.int64]) -> None:
        """Run the tokens (T) of a prompt, where the draft model takes so many."""
        if tokens.size <= self._session.manifest.longest:
            self._run(tokens)

    def look(self, tokens: NDArray[np.int64], most: int) -> list[float]:
        """Return the chances of the next tokens; none where the draft model takes no more."""
        self._tokens, self._guessed = tokens, []
        # the last guessed token is not run
        room = self._session.manifest.longest - tokens.size + 1
        return [self._rates.of(0)] * max(0, min(most, room))

    def guess(self, count: int, sampler: RowSampler) -> Guess:
        """Run the draft model `count` times."""
        drawing, tokens = sampler.guessing(), self._tokens
        drawn: list[Drawn] = []
        for place in range(count):
            begin = time.perf_counter()
            token, shares = drawn_token(drawing, self._run(tokens), tokens)
            self._guessed.append(token)
            tokens = np.append(tokens, token)
            if shares is not None:
                drawn.append(shares)
            if place > 0 or self.each is None:  # the first also runs what was said meanwhile
                self._measure(time.perf_counter() - begin)
        return Guess(tuple(self._guessed), drawn)

    def learn(self, said: list[int]) -> None:
        """Count which guesses were right."""
        for guessed, token in zip(self._guessed, said, strict=False):
            self._rates.record(0, guessed == token)
            if guessed != token:
                break

    def close(self) -> None:
        """Free the cache."""
        if self._cache is not None:
            self._cache.close()
        self._cache = None

    def _run(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Let the cache hold exactly these tokens (T), and return the logits (V) after the last."""
        cache = self._room(tokens.size)
        shared = common_prefix(cache.row_tokens(0), tokens[:-1])
        cache.rewind(cache.reachable(0, shared))
        logits = self._session.forward(tokens[None, int(cache.lengths[0]) :], cache)
        return logits.reshape(-1)  # (1, 1, V) → (V)

    def _room(self, count: int) -> KVCache:
        longest = self._session.manifest.longest
        if self._cache is None:
            capacity = min(longest, count + _FIRST_ROOM)
            # so far apart are the last call's beginning and the first wrong guess
            self._cache = self._session.new_cache(1, capacity, self._most)
        elif self._cache.capacity < count:
            self._cache.grow(min(longest, 2 * count))
        return self._cache

    def _measure(self, seconds: float) -> None:
        before = seconds if self.each is None else self.each
        self.each = before + _FADING * (seconds - before)
