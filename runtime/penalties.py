"""Penalties: logits with logit bias, and with the penalties on what a row holds and has said.

V vocabulary. The order is vLLM's: bias, repetition penalty (Hugging Face's formula), then the
frequency and presence penalties (OpenAI's: logit − count · frequency − (count > 0) · presence).
"""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError

_LARGEST = np.finfo(np.float64).max


class Penalties:
    """The bias and the penalties of one row, and how often it has generated each token."""

    def __init__(
        self, bias: Mapping[int, float], repetition: float, frequency: float, presence: float
    ) -> None:
        self._biased = np.array(list(bias), np.int64)
        self._bias = np.array(list(bias.values()), np.float64)
        self._repetition, self._frequency, self._presence = repetition, frequency, presence
        self._counts: Counter[int] = Counter()

    def copy(self) -> Self:
        """Return the same, with counts of their own."""
        twin = copy.copy(self)
        twin._counts = self._counts.copy()
        return twin

    def count(self, token: int) -> None:
        """Record that a token was generated."""
        self._counts[token] += 1

    def apply(
        self, logits: NDArray[np.float32], seen: NDArray[np.integer[Any]] | None
    ) -> NDArray[Any]:
        """Return logits (V) with bias and penalties, in float64; as they are where nothing changes.

        `seen` are the tokens that the row holds. Raises InputError where they are missing, and for
        a bias on a token beyond the vocabulary.
        """
        scores: NDArray[Any] = logits
        if self._biased.size:
            if self._biased.max() >= logits.size:
                raise InputError(
                    f"logit_bias: found {self._biased.max()}, expected 0 to {logits.size - 1}"
                )
            scores = logits.astype(np.float64)
            scores[self._biased] += self._bias
        if self._repetition != 1:
            if seen is None:
                raise InputError("seen: found None, expected the row's tokens to penalize")
            scores = penalize(scores, seen, self._repetition)
        if self._counts and (self._frequency != 0 or self._presence != 0):
            scores = scores.astype(np.float64)
            tokens = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
            scores[tokens] -= counts * self._frequency + self._presence
        return scores


def penalize(logits: NDArray[Any], seen: NDArray[np.integer[Any]], penalty: float) -> NDArray[Any]:
    """Return logits (V) with the repetition penalty on the tokens `seen`, in float64; without a
    penalty, as they are.

    A score that leaves the range of float64 becomes its largest or least number, so that none is
    infinite.
    """
    if penalty == 1 or seen.size == 0:
        return logits
    found = logits[seen].astype(np.float64)
    with np.errstate(over="ignore"):
        changed = np.where(found < 0, found * penalty, found / penalty)
    scores = logits.astype(np.float64)
    scores[seen] = np.where(np.isfinite(found), np.clip(changed, -_LARGEST, _LARGEST), found)
    return scores
