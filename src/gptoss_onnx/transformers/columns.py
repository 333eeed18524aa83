"""Columns: tokens as transformers pads them, turned into the rows that a package takes.

transformers pads on the left, and a mask says which columns hold a token. A package takes rows that
are padded on the right, and how many tokens each has. Both give a token the same position: how many
tokens stand before it in its row.

B batch, S columns of a call, kept columns whose logits are wanted.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """The tokens of one call, in the words of `Session.forward`.

    Attributes:
        input_ids: right-padded, (B, S).
        new_lengths: tokens of each row, (B).
        logit_positions: where the wanted columns went, (B, kept). A column without a token points
            into its row's padding, whose logits are zero.
    """

    input_ids: Integers
    new_lengths: Integers
    logit_positions: Integers

    @classmethod
    def of(cls, input_ids: Integers, real: Mask, kept: Integers) -> Self:
        """Take ids (B, S), whether each is a token (B, S), and the columns that are wanted."""
        order = np.argsort(~real, axis=1, kind="stable")  # tokens first, in their order
        places = np.cumsum(real, axis=1) - 1
        last = real.shape[1] - 1  # in the padding of every row that has a column without a token
        return cls(
            np.take_along_axis(input_ids, order, axis=1),
            real.sum(axis=1),
            np.where(real, places, last)[:, kept],
        )
