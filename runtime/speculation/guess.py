"""Guess: tokens that a model may say next; and what makes guesses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.sampling import RowSampler


class Drawn(NamedTuple):
    """What a token was drawn from: candidates (n), rising, and their probabilities (n)."""

    tokens: NDArray[np.integer[Any]]
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Guess:
    """The next tokens (k).

    Attributes:
        tokens: their ids.
        drawn: what each was drawn from; empty where they were not drawn but are certain guesses.
    """

    tokens: Sequence[int] = ()
    drawn: Sequence[Drawn] = ()


class Guesser(Protocol):
    """Guesses how one row goes on."""

    @property
    def explores(self) -> bool:
        """It learns what its guesses are worth from those alone that are checked."""

    @property
    def each(self) -> float | None:
        """Seconds that guessing a token takes; None while that is not known."""

    def read(self, tokens: NDArray[np.int64]) -> None:
        """Prepare for the tokens (T) of a prompt."""

    def look(self, tokens: NDArray[np.int64], most: int) -> list[float]:
        """Return, for the next tokens after `tokens` (T), `most` at most, each one's chance to be
        right when those before it are.
        """

    def guess(self, count: int, sampler: RowSampler) -> Guess:
        """Return `count` of them; `sampler` is the row's, which stays as it is."""

    def learn(self, said: list[int]) -> None:
        """Take notice of what was said after `tokens`."""

    def close(self) -> None:
        """Free what is held."""
