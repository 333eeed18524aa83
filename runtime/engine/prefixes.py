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


@dataclass(frozen=True, eq=False)
class _Saved:
    """A row, and whose it is; None is everybody's."""

    state: RowState
    owner: str | None

    def serves(self, owner: str | None) -> bool:
        """Say whether this owner's prompts may begin with it."""
        return self.owner is None or self.owner == owner


@dataclass(frozen=True)
class Found:
    """What is saved of a prompt.

    Attributes:
        state: the row to begin with, None without one.
        length: how many of its first tokens serve.
        shared: how many first tokens the prompt shares with any row that may serve it. More than
            `length` where window layers of that row have gone on too far to be cut back.
    """

    state: RowState | None
    length: int
    shared: int


class Prefixes:
    """Saved rows, least recently used first, in no more than `most_bytes`.

    A row serves for all prompts that begin like it. Where its window layers hold its last tokens
    alone, it cannot be cut back below `RowState.floor`. A row that another one can be cut back to
    is not kept twice.

    Each owner's prompts see the rows of that owner alone, and everybody's: how many tokens were
    saved, and how soon the first answer comes, would else tell one what another has asked.

    Attributes:
        nbytes: what the saved rows take.
    """

    def __init__(self, layers: Sequence[CacheLayer], most_bytes: int) -> None:
        self._kept = min((layer.sink_tokens for layer in layers if layer.window > 0), default=0)
        self._most_bytes = most_bytes
        self._saved: list[_Saved] = []
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._saved)

    def find(self, prompt: Tokens, owner: str | None = None) -> Found:
        """Return what is saved of a prompt, of which the last token is always left to be run."""
        best, length, shared = None, 0, 0
        for saved in self._saved:
            if not saved.serves(owner):
                continue
            common = common_prefix(saved.state.tokens, prompt[:-1])
            shared = max(shared, common)
            usable = self._usable(saved.state, common)
            if usable > length:
                best, length = saved, usable
        if best is None:
            return Found(None, 0, shared)
        self._touch(best)
        return Found(best.state, length, shared)

    def keep(
        self,
        tokens: Tokens,
        nbytes: int,
        save: Callable[[], RowState],
        owner: str | None = None,
    ) -> None:
        """Keep an owner's row of these tokens, of at most `nbytes`, which `save` returns.

        It is not called where the row is too large, or saved already. Where memory is short the row
        is not kept, which the log says.
        """
        if nbytes > self._most_bytes or self._covered(tokens, owner):
            return
        try:
            state = save()
        except (MemoryError, RuntimeUnavailable) as error:
            logger.warning("a row of %d tokens is not kept: %s", tokens.size, error)
            return
        self.add(state, owner)

    def add(self, state: RowState, owner: str | None = None) -> None:
        """Keep a saved row, and drop those that it covers, and the least recently used ones."""
        if state.nbytes > self._most_bytes or self._covered(state.tokens, owner):
            return
        new = _Saved(state, owner)
        for other in list(self._saved):
            if new.serves(other.owner) and self._covers(state, other.state.tokens):
                self._drop(other)
        self._saved.append(new)
        self.nbytes += state.nbytes
        while self.nbytes > self._most_bytes or len(self._saved) > MOST_STATES:
            self._drop(self._saved[0])

    def clear(self) -> None:
        """Drop all."""
        self._saved.clear()
        self.nbytes = 0

    def _usable(self, state: RowState, common: int) -> int:
        """Return to how many tokens, `common` at most, a saved row can be cut back."""
        return common if common >= state.floor else min(common, self._kept)

    def _covers(self, state: RowState, tokens: Tokens) -> bool:
        common = common_prefix(state.tokens, tokens)
        return common == tokens.size and self._usable(state, common) == common

    def _covered(self, tokens: Tokens, owner: str | None) -> bool:
        for saved in self._saved:
            if saved.serves(owner) and self._covers(saved.state, tokens):
                self._touch(saved)
                return True
        return False

    def _touch(self, saved: _Saved) -> None:
        self._saved = [*(other for other in self._saved if other is not saved), saved]

    def _drop(self, saved: _Saved) -> None:
        self._saved = [other for other in self._saved if other is not saved]
        self.nbytes -= saved.state.nbytes
