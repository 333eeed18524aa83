"""Request: the checked arguments of one `Session.forward`, and its cut into calls of the graph.

B batch, S columns of the whole request, kept positions a row whose logits are wanted.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import check_range, integer_array

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class GraphCall:
    """One call of the graph: its inputs, and where its logits belong in the answer.

    `rows`, `places` and `taken` are parallel: logits[rows, taken] of the call are answer[rows,
    places].
    """

    input_ids: Integers  # (B, columns)
    new_lengths: Integers  # (B)
    logit_positions: Integers  # (B, kept of this call), at least one
    rows: NDArray[np.intp]
    places: NDArray[np.intp]
    taken: NDArray[np.intp]


@dataclass(frozen=True)
class Request:
    """Right-padded tokens with 0 in the padding, tokens a row, and the positions whose logits are
    wanted.

    `wanted` is false where a position lies in a row's padding: its logits are zero in the answer.
    """

    input_ids: Integers  # (B, S)
    new_lengths: Integers  # (B)
    logit_positions: Integers  # (B, kept)
    wanted: NDArray[np.bool_]  # (B, kept)

    @classmethod
    def parse(
        cls,
        input_ids: ArrayLike,
        new_lengths: ArrayLike | None,
        logit_positions: ArrayLike | None,
        batch: int,
        vocab: int,
    ) -> Self:
        """Check the arguments of `Session.forward`; raises InputError naming what was found and
        expected.
        """
        ids = integer_array("input_ids", input_ids)
        if ids.ndim != 2 or ids.shape[0] != batch:
            raise InputError(
                f"input_ids: found shape {ids.shape}, expected ({batch}, sequence) for this cache"
            )
        sequence = ids.shape[1]
        lengths = np.full(batch, sequence)
        if new_lengths is not None:
            given = integer_array("new_lengths", new_lengths)
            if given.shape != (batch,):
                raise InputError(f"new_lengths: found shape {given.shape}, expected ({batch},)")
            lengths = check_range("new_lengths", given, sequence + 1)
        real = np.arange(sequence) < lengths[:, None]  # (B, S)
        ids = check_range("input_ids", np.where(real, ids, 0), vocab)
        if logit_positions is None:
            positions = np.maximum(lengths - 1, 0)[:, None]  # (B, 1)
        else:
            wanted = integer_array("logit_positions", logit_positions)
            if wanted.ndim != 2 or wanted.shape[0] != batch:
                raise InputError(
                    f"logit_positions: found shape {wanted.shape}, expected ({batch}, kept)"
                )
            positions = check_range("logit_positions", wanted, sequence)
        return cls(ids, lengths, positions, positions < lengths[:, None])

    @property
    def longest(self) -> int:
        """Columns that hold a token of some row; the rest is padding and is never run."""
        return int(self.new_lengths.max())

    def call(self, begin: int, end: int) -> GraphCall:
        """Return the call that runs columns `begin` to `end` (not included)."""
        # (B, kept)
        here = self.wanted & (self.logit_positions >= begin) & (self.logit_positions < end)
        rows, places = np.nonzero(here)
        taken = (np.cumsum(here, axis=1) - 1)[rows, places]
        # at least one: some runtimes fail on an empty lm_head
        kept = int(here.sum(axis=1).max(initial=1))
        positions = np.zeros((here.shape[0], max(kept, 1)), np.int64)
        positions[rows, taken] = self.logit_positions[rows, places] - begin
        new = np.clip(self.new_lengths - begin, 0, end - begin)
        return GraphCall(self.input_ids[:, begin:end], new, positions, rows, places, taken)
