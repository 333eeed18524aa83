"""Choose the next token of several entries from their logits.

A rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.request import TokenLogprobs


@dataclass(frozen=True)
class Choice:
    """The next token of one entry, or why there is none.

    Attributes:
        token: its id.
        logprobs: where the request wants them.
        error: one line; empty where there is a token.
    """

    token: int = -1
    logprobs: TokenLogprobs | None = None
    error: str = ""


def choose_tokens(logits: NDArray[np.float32], entries: Sequence[Entry]) -> list[Choice]:
    """Return a choice for each entry from logits (A, V), which constraints change."""
    return [_choose(row, entry) for row, entry in zip(logits, entries, strict=True)]


def _choose(logits: NDArray[np.float32], entry: Entry) -> Choice:
    constraint = entry.request.constraint
    try:
        if constraint is not None:
            constraint.mask(logits)
        token = entry.sampler.choose(logits, entry.context)
    except Exception as error:  # noqa: BLE001
        return Choice(error=str(error))
    return Choice(token)
