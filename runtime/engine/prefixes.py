"""Prefixes: rows that were saved, so that a prompt that begins like one need not be run again."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime.cache_rows import common_prefix
from gptoss_onnx.runtime.row_state import RowState

logger = logging.getLogger(__name__)

Tokens = NDArray[np.integer[Any]]

# Every prompt is compared with each of them.
MOST_STATES = 256


@dataclass(frozen=True)
class Found:
    """What is saved of a prompt.

    Attributes:
        state: the row to begin with, None without one.
        length: how many of its first tokens serve.
        shared: how many first tokens the prompt shares with any saved row. More than `length`
            where window layers of that row have gone on too far to be cut back.
    """

    state: RowState | None
    length: int
    shared: int


class Prefixes:
    """Saved rows, least recently used first, in no more than `most_bytes`.

    A row serves for all prompts that begin like it. Where its window layers hold its last tokens
    alone, it cannot be cut back below `RowState.floor`. A row that another one can be cut back to
    is not kept twice.

    Attributes:
        nbytes: what the saved rows take.
    """

    def __init__(self, layers: Sequence[CacheLayer], most_bytes: int) -> None:
        self._kept = min((layer.sink_tokens for layer in layers if layer.window > 0), default=0)
        self._most_bytes = most_bytes
        self._states: list[RowState] = []
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def find(self, prompt: Tokens) -> Found:
        """Return what is saved of a prompt, of which the last token is always left to be run."""
        best, length, shared = None, 0, 0
        for state in self._states:
            common = common_prefix(state.tokens, prompt[:-1])
            shared = max(shared, common)
            usable = self._usable(state, common)
            if usable > length:
                best, length = state, usable
        if best is not None:
            self._touch(best)
        return Found(best, length, shared)

    def keep(self, tokens: Tokens, nbytes: int, save: Callable[[], RowState]) -> None:
        """Keep the row of these tokens, of at most `nbytes`, which `save` returns.

        It is not called where the row is too large, or saved already. Where memory is short the row
        is not kept, which the log says.
        """
        if nbytes > self._most_bytes or self._covered(tokens):
            return
        try:
            state = save()
        except (MemoryError, RuntimeUnavailable) as error:
            logger.warning("a row of %d tokens is not kept: %s", tokens.size, error)
            return
        self.add(state)

    def add(self, state: RowState) -> None:
        """Keep a saved row, and drop those that it covers, and the least recently used ones."""
        if state.nbytes > self._most_bytes or self._covered(state.tokens):
            return
        for other in list(self._states):
            if self._covers(state, other.tokens):
                self._drop(other)
        self._states.append(state)
        self.nbytes += state.nbytes
        while self.nbytes > self._most_bytes or len(self._states) > MOST_STATES:
            self._drop(self._states[0])

    def clear(self) -> None:
        """Drop all."""
        self._states.clear()
        self.nbytes = 0

    def _usable(self, state: RowState, common: int) -> int:
        """Return to how many tokens, `common` at most, a saved row can be cut back."""
        return common if common >= state.floor else min(common, self._kept)

    def _covers(self, state: RowState, tokens: Tokens) -> bool:
        common = common_prefix(state.tokens, tokens)
        return common == tokens.size and self._usable(state, common) == common

    def _covered(self, tokens: Tokens) -> bool:
        for state in self._states:
            if self._covers(state, tokens):
                self._touch(state)
                return True
        return False

    def _touch(self, state: RowState) -> None:
        self._states = [*(other for other in self._states if other is not state), state]

    def _drop(self, state: RowState) -> None:
        self._states = [other for other in self._states if other is not state]
        self.nbytes -= state.nbytes
