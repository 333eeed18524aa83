"""GenerationRow: one sequence while it is generated: its sampler, its stop conditions, and what it
has said.

T tokens of the row, k guessed tokens of a call, V vocabulary.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.sampling import RowSampler, Sampling
from gptoss_onnx.runtime.speculation.guess import Guess
from gptoss_onnx.runtime.speculation.rejection import judged_token
from gptoss_onnx.runtime.text_stream import TextStream

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

FinishReason = Literal["stop", "length"]


class GenerationRow:
    """What a row says comes from its logits, several tokens a call where guesses were right, and is
    given to the caller one by one.

    Attributes:
        sampler: chooses its tokens.
        tokens: what it has said.
        given: how many of them the caller has.
        ended: why it says no more; None while it goes on.
    """

    def __init__(
        self, session: "Session", sampling: Sampling, stop_tokens: frozenset[int], index: int
    ) -> None:
        self.sampler = RowSampler(sampling, index)
        self._stop_tokens = stop_tokens
        self._stream = TextStream(session.tokenizer, sampling.stop) if sampling.stop else None
        self.tokens: list[int] = []
        self.given = 0
        self.ended: FinishReason | None = None

    @property
    def is_ahead(self) -> bool:
        """It has said more than the caller has."""
        return self.given < len(self.tokens)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended, once the caller has all of it."""
        return None if self.is_ahead else self.ended

    def take(self, logits: NDArray[np.float32], seen: NDArray[np.int64]) -> None:
        """Say the next token, from logits (V), where the row holds the tokens `seen` (T)."""
        self._say(self.sampler.choose(logits, seen))

    def follow(
        self, logits: NDArray[np.float32], tokens: NDArray[np.int64], guess: Guess
    ) -> list[int]:
        """Say what logits (k + 1, V) say for as long as it is what was guessed, and one token more;
        returns what was said.

        `tokens` (T + k) are the row's, the guessed ones last.
        """
        many = len(guess.tokens)
        held, begin = tokens.size - many, len(self.tokens)
        for place, scores in enumerate(logits):
            seen = tokens[: held + place]
            if place < many and guess.drawn:
                drawn = guess.drawn[place]
                token = judged_token(self.sampler, scores, seen, guess.tokens[place], drawn)
            else:
                token = self.sampler.choose(scores, seen)
            self._say(token)
            if self.ended is not None or (place < many and token != guess.tokens[place]):
                break
        return self.tokens[begin:]

    def give(self) -> int | None:
        """Return the next token that the caller has not; None where it has all."""
        if not self.is_ahead:
            return None
        self.given += 1
        return self.tokens[self.given - 1]

    def _say(self, token: int) -> None:
        self.tokens.append(token)
        if token in self._stop_tokens:
            self.ended = "stop"
        elif self._stream is not None:
            self._stream.push(token)
            if self._stream.stopped:
                self.ended = "stop"
