"""Positions of sequences that the reference has run, with its logits there.

Legend: T positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.validation.judging.metrics import Logits
from gptoss_onnx.validation.judging.settle import RUNS, Source


@dataclass(frozen=True)
class Scored:
    """Positions at which the reference's logits are wanted.

    Row t is position `positions[t]` of the sequence that `sources[owners[t]]` runs. So many `runs`
    more are affordable, to settle near-ties.
    """

    positions: NDArray[np.int64]
    owners: NDArray[np.int64]
    sources: tuple[Source, ...]
    runs: int = RUNS

    @cached_property
    def logits(self) -> Logits:
        """The reference's logits, float32 (T, V)."""
        parts = {
            owner: self.sources[owner](()).logits[self.positions[self.owners == owner]]
            for owner in np.unique(self.owners)
        }
        if len(parts) == 1:
            return next(iter(parts.values()))
        width = next(iter(parts.values())).shape[1] if parts else 0
        logits = np.zeros((len(self.owners), width), np.float32)
        for owner, part in parts.items():
            logits[self.owners == owner] = part
        return logits

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Boolean (T): true before the first near-tie of the row's sequence."""
        firsts = [
            min((tie.position for tie in source(()).ties), default=np.iinfo(np.int64).max)
            for source in self.sources
        ]
        return np.asarray(self.positions < np.array(firsts)[self.owners])

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> "Scored":
        """Return some of the rows."""
        return replace(
            self,
            positions=self.positions[rows],
            owners=self.owners[rows],
        )

    @classmethod
    def join(cls, parts: Sequence["Scored"]) -> Self:
        """Return all rows of all parts, one after the other. What computed one part may have
        decided a tie otherwise than what computed another, even of the same sequence.
        """
        begins = np.cumsum([0, *(len(part.sources) for part in parts)])
        owners = [part.owners + begin for part, begin in zip(parts, begins, strict=False)]
        return cls(
            np.concatenate([part.positions for part in parts]),
            np.concatenate(owners),
            tuple(source for part in parts for source in part.sources),
            min(part.runs for part in parts),
        )
