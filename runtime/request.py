"""Request: the checked arguments of one `Session.forward`, and its cut into calls of the graph.

B batch, S columns of the whole request, kept positions a row whose logits are wanted.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One call of the graph: its inputs, and where its logits belong in the answer.

    `rows`, `places` and `columns` are parallel: logits[rows, columns] of the call are answer[rows, places].
    """

    input_ids: Integers  # (B, columns)
    new_lengths: Integers  # (B)
    logit_positions: Integers  # (B, kept of this call), at least one
    rows: NDArray[np.intp]
    places: NDArray[np.intp]
    columns: NDArray[np.intp]


@dataclass(frozen=True)
class Request:
    """Right-padded tokens with 0 in the padding, tokens a row, and the positions whose logits are wanted.

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
        """Check the arguments of `Session.forward`; raises InputError naming what was found and expected."""
        ids = _integers("input_ids", input_ids)
        if ids.ndim != 2 or ids.shape[0] != batch:
            raise InputError(f"input_ids: found shape {ids.shape}, expected ({batch}, sequence) for this cache")
        sequence = ids.shape[1]
        lengths = np.full(batch, sequence) if new_lengths is None else _integers("new_lengths", new_lengths)
        if lengths.shape != (batch,):
            raise InputError(f"new_lengths: found shape {lengths.shape}, expected ({batch},)")
        _check_range("new_lengths", lengths, sequence + 1)
        real = np.arange(sequence) < lengths[:, None]  # (B, S)
        ids = np.where(real, ids, 0)
        _check_range("input_ids", ids, vocab)
        if logit_positions is None:
            positions = np.maximum(lengths - 1, 0)[:, None]  # (B, 1)
        else:
            positions = _integers("logit_positions", logit_positions)
            if positions.ndim != 2 or positions.shape[0] != batch:
                raise InputError(f"logit_positions: found shape {positions.shape}, expected ({batch}, kept)")
            _check_range("logit_positions", positions, sequence)
        return cls(ids, lengths, positions, positions < lengths[:, None])

    @property
    def longest(self) -> int:
        """Columns that hold a token of some row; the rest is padding and is never run."""
        return int(self.new_lengths.max())

    def step(self, begin: int, end: int) -> Step:
        """Return the call that runs columns `begin` to `end` (not included)."""
        here = self.wanted & (self.logit_positions >= begin) & (self.logit_positions < end)  # (B, kept)
        rows, places = np.nonzero(here)
        columns = (np.cumsum(here, axis=1) - 1)[rows, places]
        kept = int(here.sum(axis=1).max(initial=1))  # one at least: no runtime has to bear an empty lm_head
        positions = np.zeros((here.shape[0], max(kept, 1)), np.int64)
        positions[rows, columns] = self.logit_positions[rows, places] - begin
        new = np.clip(self.new_lengths - begin, 0, end - begin)
        return Step(self.input_ids[:, begin:end], new, positions, rows, places, columns)


def _integers(name: str, values: ArrayLike) -> Integers:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: found rows of different lengths; pad on the right and pass new_lengths") from error
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name}: found {array.dtype}, expected integers")
    return array.astype(np.int64)


def _check_range(name: str, array: Integers, end: int) -> None:
    bad = (array < 0) | (array >= end)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = ", ".join(map(str, index))
        raise InputError(f"{name}[{place}]: found {array[index]}, expected 0 to {end - 1}")
