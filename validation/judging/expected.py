"""What the reference says: each sequence is run once, and all cases that need its logits share
them.

Legend: T positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.greedy import greedy
from gptoss_onnx.validation.judging.metrics import Logits
from gptoss_onnx.validation.judging.near_ties import NEAR, decided, near_ties

SMALL = 50_000_000  # parameters of a model that is run again and again
TRIES = 50


@dataclass(frozen=True)
class Scored:
    """Logits of the reference, float32 (T, V), and which of them are `decided`, boolean (T).

    A position is undecided if a router chose by a hair there or before; see `near_ties`.
    """

    logits: Logits
    decided: NDArray[np.bool_]

    def __getitem__(self, positions: slice | Sequence[int] | NDArray[Any]) -> "Scored":
        """Return some of the positions."""
        return Scored(self.logits[positions], self.decided[positions])

    @classmethod
    def join(cls, parts: Sequence["Scored"]) -> Self:
        """Return all positions of all parts, one after the other."""
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.decided for part in parts]),
        )


class Expected:
    """Logits and continuations of one reference model in float32, remembered by token sequence."""

    def __init__(self, model: Decoder, seed: int, near: float = NEAR) -> None:
        self.seed, self.near = seed, near
        self._model = model
        self._is_small = sum(map(torch.numel, model.parameters())) <= SMALL
        self._generator = torch.Generator()
        self.restart()
        self._scores: dict[tuple[int, ...], Scored] = {}

    @property
    def model(self) -> Decoder:
        """The reference itself."""
        return self._model

    def restart(self) -> None:
        """Draw the same tokens again from here on, so that what was computed serves once more."""
        self._generator.manual_seed(self.seed)

    def draw(self, count: int) -> list[int]:
        """Return `count` random token ids; every call draws new ones from the seeded sequence."""
        vocabulary = self._model.config.vocab_size
        return torch.randint(vocabulary, (count,), generator=self._generator).tolist()

    def tokens(self, count: int) -> list[int]:
        """Return `count` random token ids at which no router of a small model chooses by a hair.

        From the first such position on they are drawn again. A large model takes too long for
        that; `judge` allows for its undecided positions.
        """
        token_ids = self.draw(count)
        for _ in range(TRIES if self._is_small else 0):
            decided = int(self.score(token_ids).decided.sum())
            if decided == count:
                break
            del self._scores[tuple(token_ids)]
            token_ids[decided:] = self.draw(count - decided)
        return token_ids

    def score(self, token_ids: Sequence[int]) -> Scored:
        """Return the logits of every position."""
        key = tuple(token_ids)
        if key not in self._scores:
            with near_ties(self._model, self.near) as ties:
                logits = self._model.score(token_ids).float().numpy()
            self._scores[key] = Scored(logits, decided(ties, len(key)).numpy())
        return self._scores[key]

    def greedy(self, token_ids: Sequence[int], count: int) -> list[int]:
        """Return the reference's greedy continuation."""
        return greedy(self._model, [token_ids], count)[0]
