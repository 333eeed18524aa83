"""How rows of unlike length share a call: padding on the left, as transformers pads, or on the
right, as GroupQueryAttention wants it.

B rows of the call, S columns, P cached columns, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.offered import RAGGED, REWINDING, SEVERAL
from gptoss_onnx.validation.cases.driven import NotAvailableError
from gptoss_onnx.validation.foreign.cache import Pair, Row, padded

Integers = NDArray[np.int64]

HOLES = (
    "rows with unlike numbers of new tokens after the first call would leave padding between old "
    "and new tokens, which windows count"
)
MOVED = "it takes no position_ids, without which a row cannot rest while others go on"
ONE_TOKEN = "its GroupQueryAttention takes one token a row and call after the first call of a batch"
WINDOW_RAGGED = "its GroupQueryAttention with window caches takes rows of one length alone"
WINDOW_REWIND = "the window caches of its GroupQueryAttention drop what has left the window"


@dataclass(frozen=True)
class Call:
    """One call of a graph.

    `offsets` (B) is the column of each row's first new token, `pads` (B) how many columns of
    padding there are before its first token of all. `past` and what comes back are whole arrays of
    each layer, (B, K, P, D).
    """

    input_ids: Integers  # (B, S)
    attention_mask: Integers  # (B, P + S)
    position_ids: Integers  # (B, S)
    past: tuple[Pair, ...]
    offsets: Integers  # (B)
    pads: Integers  # (B)


class Padding(Protocol):
    """A way to lay rows of unlike length into one call."""

    @property
    def missing(self) -> dict[str, str]:
        """What calls cannot be laid out, in the words of `gptoss_onnx.offered`, and why."""

    def lay(self, rows: Sequence[Row], input_ids: Integers, new_lengths: Integers) -> Call:
        """Return the call that runs right-padded `input_ids` (B, S) after what the rows hold.

        Every row has at least one new token. Raises NotAvailableError for a call that the graph
        cannot take.
        """

    def keep(self, row: Row, new: int, present: Sequence[Pair], pad: int) -> Row:
        """Return a row after a call that gave it `new` tokens and the caches `present` (K, P',
        D).
        """


@dataclass(frozen=True)
class LeftPadding:
    """Tokens end in the last column. The mask hides the padding, positions skip it.

    `positions`: the graph takes them. Without, it counts columns, and a row must stay in its own.
    """

    positions: bool

    @property
    def missing(self) -> dict[str, str]:
        """See Padding."""
        return {SEVERAL: HOLES}

    def lay(self, rows: Sequence[Row], input_ids: Integers, new_lengths: Integers) -> Call:
        """See Padding."""
        held = np.array([row.tokens for row in rows], np.int64)
        past, columns = int(held.max()), int(new_lengths.max())
        if past and (new_lengths != columns).any():
            raise NotAvailableError(HOLES)
        offsets = columns - new_lengths
        ids = np.zeros_like(input_ids[:, :columns])
        for row, offset in enumerate(offsets):
            ids[row, offset:] = input_ids[row, : columns - offset]
        pads = past - held + offsets
        moved = [row.tokens and row.pad != pad for row, pad in zip(rows, pads, strict=True)]
        if any(moved) and not self.positions:
            raise NotAvailableError(MOVED)
        hidden_past = np.arange(past) < (past - held)[:, None]  # (B, P)
        hidden_new = np.arange(columns) < offsets[:, None]  # (B, S)
        mask = (~np.concatenate([hidden_past, hidden_new], axis=1)).astype(np.int64)
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, past:]
        return Call(ids, mask, positions, _stacked(rows, left=True), offsets, pads)

    def keep(self, row: Row, new: int, present: Sequence[Pair], pad: int) -> Row:
        """See Padding: what came in last is the row's own, as far as a layer keeps it."""
        tokens = row.tokens + new
        layers = tuple((_last(key, tokens), _last(value, tokens)) for key, value in present)
        return Row(tokens, layers, row.fixed, pad)


@dataclass(frozen=True)
class RightPadding:
    """Tokens begin in the first column. The graph counts each row's tokens from the mask.

    `windows`: some layers have buffers of fixed size from which they drop tokens themselves
    (`sliding_window_cache`).
    """

    windows: bool

    @property
    def missing(self) -> dict[str, str]:
        """See Padding."""
        missing = {SEVERAL: ONE_TOKEN}
        if self.windows:
            missing |= {RAGGED: WINDOW_RAGGED, REWINDING: WINDOW_REWIND}
        return missing

    def lay(self, rows: Sequence[Row], input_ids: Integers, new_lengths: Integers) -> Call:
        """See Padding."""
        held = np.array([row.tokens for row in rows], np.int64)
        columns = int(new_lengths.max())
        if held.any() and columns > 1 and len(rows) > 1:
            raise NotAvailableError(ONE_TOKEN)
        totals = held + new_lengths
        if self.windows and (totals != totals[0]).any():
            raise NotAvailableError(WINDOW_RAGGED)
        mask = (np.arange(totals.max()) < totals[:, None]).astype(np.int64)
        positions = held[:, None] + np.arange(columns)
        past = _stacked(rows, left=False)
        none = np.zeros(len(rows), np.int64)
        return Call(input_ids[:, :columns], mask, positions, past, none, none)

    def keep(self, row: Row, new: int, present: Sequence[Pair], pad: int) -> Row:
        """See Padding: fixed buffers are the graph's own, of the others the first are the row's."""
        tokens = row.tokens + new
        layers = tuple(
            (key, value) if layer in row.fixed else (key[:, :tokens], value[:, :tokens])
            for layer, (key, value) in enumerate(present)
        )
        return Row(tokens, layers, row.fixed, pad)


def _stacked(rows: Sequence[Row], left: bool) -> tuple[Pair, ...]:
    return tuple(
        (padded([key for key, _ in layer], left), padded([value for _, value in layer], left))
        for layer in zip(*(row.layers for row in rows), strict=True)
    )


def _last(array: NDArray[np.float32], tokens: int) -> NDArray[np.float32]:
    return array[:, max(0, array.shape[1] - tokens) :]
