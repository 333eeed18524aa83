"""Logits of a large model, computed where they are asked for.

Legend: T positions, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gptoss_onnx.validation.judging.metrics import Logits


class LogitsAsAsked:
    """Logits (T, V) of a sequence: the rows that were asked for are kept. All of a few hundred
    positions of gpt-oss would take half a gigabyte and five seconds for each sequence.
    """

    def __init__(self, hidden: torch.Tensor, unembed: Callable[[torch.Tensor], Logits]) -> None:
        """Take what the last layer gave, (T, hidden), and what makes logits of some of it."""
        self._hidden, self._unembed = hidden, unembed
        self._rows: dict[int, Logits] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._hidden.nbytes + sum(row.nbytes for row in self._rows.values())

    def __getitem__(self, positions: Any, /) -> Logits:
        """Return the logits at some positions, float32 (T', V)."""
        places = np.atleast_1d(np.arange(len(self._hidden))[positions]).tolist()
        new = sorted({*places} - self._rows.keys())
        if new:
            self._rows |= dict(zip(new, self._unembed(self._hidden[new]), strict=True))
        return np.stack([self._rows[place] for place in places])
