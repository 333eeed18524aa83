"""A model that knows nothing: random logits through a constraint, and a growing wish to end."""

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.runtime.engine.request import Constraint

MOST_TOKENS = 1_500
_GROWTH = 0.02  # of the wish to end, a token; logits have a standard deviation of 1
_CLOSERS = '"}]'  # what a part of a JSON text ends with


class RandomModel:
    """Says what a constraint allows, at random.

    Args:
        tokenizer: of the model.
        vocab: V of its logits.
        wishes: further tokens that it wishes to say, id to strength: those that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, wishes: dict[int, float]) -> None:
        self._vocab = vocab
        self._wish = np.zeros(vocab, dtype=np.float32)
        for token in tokenizer.text_tokens:
            first = tokenizer.decode([token]).strip()[:1]
            self._wish[token] = bool(first) and first in _CLOSERS
        for token, strength in wishes.items():
            self._wish[token] = strength

    def say(self, constraint: Constraint | None, seed: int, stops: set[int]) -> list[int]:
        """Return an answer up to its first stop token; it must come within `MOST_TOKENS`."""
        rng = np.random.default_rng(seed)
        said: list[int] = []
        while not said or said[-1] not in stops:
            assert len(said) < MOST_TOKENS, "the answer does not end"
            logits: NDArray[np.float32] = rng.standard_normal(self._vocab, dtype=np.float32)
            logits += self._wish * np.float32(_GROWTH * len(said))
            if constraint is not None:
                constraint.mask(logits)
            token = int(logits.argmax())
            assert np.isfinite(logits[token]), "no token is allowed"
            if constraint is not None:
                constraint.accept(token)
            said.append(token)
        return said
