"""What the rows of a batch hold, as a graph of growing caches gave it back.

B batch, P cached tokens, K kv heads, D head dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import row_integers
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.validation.cases.driven import NotAvailableError

Pair = tuple[NDArray[Any], NDArray[Any]]  # key and value of one layer, (K, P, D) each


@dataclass(frozen=True)
class Row:
    """One row: how many tokens it holds, and what the graph gave of each layer.

    A window layer may hold fewer than all tokens: its last ones. `fixed` layers are buffers of
    another order, which only the graph can read. `pad` is how many columns of padding came before
    the row's first token.
    """

    tokens: int
    layers: tuple[Pair, ...]
    fixed: frozenset[int]
    pad: int = 0

    def cut(self, tokens: int) -> "Row":
        """Return the row with its first tokens alone; raises NotAvailableError where a window layer
        has dropped what the row would need.
        """
        lost = [
            layer
            for layer, (key, _) in enumerate(self.layers)
            if layer in self.fixed or key.shape[1] < self.tokens
        ]
        if lost:
            raise NotAvailableError(
                f"the cache of layer {lost[0]} drops what has left its window, so that a row "
                "cannot go back"
            )
        layers = tuple((key[:, :tokens], value[:, :tokens]) for key, value in self.layers)
        return replace(self, tokens=tokens, layers=layers)


class ForeignCache(Closing):
    """The rows of a batch; a context manager that frees them.

    Attributes:
        capacity: tokens that a row may hold. The graph knows no such limit; callers ask for one.
        chunk: most tokens of one call for a row alone.
        rows: what each row holds.
    """

    def __init__(self, empty: Row, batch: int, capacity: int, chunk: int) -> None:
        self.capacity, self.chunk = capacity, chunk
        self._empty = empty
        self.rows: list[Row] = [empty] * batch

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (B)."""
        return np.array([row.tokens for row in self.rows], np.int64)

    @property
    def batch(self) -> int:
        """B."""
        return len(self.rows)

    def rewind(self, lengths: ArrayLike) -> None:
        """Forget each row's tokens from position `lengths` on.

        Raises InputError for more tokens than a row holds, and NotAvailableError where the graph's
        own caches cannot go back; nothing is changed then.
        """
        wanted = row_integers(lengths, "rewind lengths", self.batch)
        if (wanted < 0).any() or (wanted > self.lengths).any():
            raise InputError(
                f"rewind lengths: found {wanted.tolist()}, expected 0 to {self.lengths.tolist()}"
            )
        self.rows = [
            self._shortened(row, int(length)) for row, length in zip(self.rows, wanted, strict=True)
        ]

    def reset(self) -> None:
        """Forget everything."""
        self.rewind(0)

    def fork(self) -> "ForeignCache":
        """Return an independent cache that holds the same."""
        twin = ForeignCache(self._empty, self.batch, self.capacity, self.chunk)
        twin.rows = list(self.rows)
        return twin

    def close(self) -> None:
        """Free what the rows hold."""
        self.rows = []

    def check_room(self, new_lengths: NDArray[np.int64], longest: int) -> None:
        """Refuse more new tokens (B) than a row has room for; raises InputError."""
        totals = self.lengths + new_lengths
        most = min(self.capacity, longest)
        if (totals > most).any():
            row = int(np.argmax(totals > most))
            raise InputError(
                f"row {row}: found {totals[row]} tokens, expected at most {most}, the capacity of "
                "the cache or the longest sequence of the model"
            )

    def _shortened(self, row: Row, tokens: int) -> Row:
        if tokens == row.tokens:
            return row
        return row.cut(tokens) if tokens else self._empty


def padded(arrays: Sequence[NDArray[Any]], left: bool) -> NDArray[Any]:
    """Stack arrays (K, P of each, D) as (B, K, longest P, D), with zeros on one side."""
    if len(arrays) == 1:
        return arrays[0][None]
    kv_heads, _, head_dim = arrays[0].shape
    longest = max(array.shape[1] for array in arrays)
    whole = np.zeros((len(arrays), kv_heads, longest, head_dim), arrays[0].dtype)
    for row, array in zip(whole, arrays, strict=True):
        count = array.shape[1]
        begin = longest - count if left else 0
        row[:, begin : begin + count] = array
    return whole
