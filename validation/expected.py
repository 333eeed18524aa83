"""What the reference says: each sequence is run once and every case that needs its logits shares
them.
"""

from collections.abc import Sequence

import numpy as np
import torch

from gptoss_onnx.reference import GptOss
from gptoss_onnx.reference.greedy import greedy
from gptoss_onnx.validation.metrics import Logits


class Expected:
    """Logits and continuations of one reference model in float32, remembered by token sequence."""

    def __init__(self, model: GptOss, seed: int) -> None:
        self.config = model.config
        self._model = model
        self._generator = torch.Generator().manual_seed(seed)
        self._scores: dict[tuple[int, ...], Logits] = {}

    def tokens(self, count: int) -> list[int]:
        """Return `count` random token ids; every call draws new ones from the seeded sequence."""
        return torch.randint(self.config.vocab_size, (count,), generator=self._generator).tolist()

    def score(self, token_ids: Sequence[int]) -> Logits:
        """Return the logits of every position, float32 (T, V)."""
        key = tuple(token_ids)
        if key not in self._scores:
            self._scores[key] = self._model.score(token_ids).float().numpy()
        return self._scores[key]

    def last(self, token_ids: Sequence[int]) -> Logits:
        """Return the logits of the last position, float32 (1, V)."""
        return np.asarray(self.score(token_ids)[-1:])

    def greedy(self, token_ids: Sequence[int], count: int) -> list[int]:
        """Return the reference's greedy continuation."""
        return greedy(self._model, [token_ids], count)[0]
