"""Staging: the one row in which prompts are run, chunk by chunk, before they get a slot.

V vocabulary.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.cache_rows import common_prefix
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.engine.memory import RESERVE, cache_bytes
from gptoss_onnx.runtime.engine.prefixes import Prefixes
from gptoss_onnx.runtime.row_state import RowState
from gptoss_onnx.runtime.session import Session

# A row that is shared this much further than any saved one can serve is saved where it parts.
BRANCH = 16  # tokens


class Staging(Closing):
    """A cache of one row, and the tokens that are to be in it.

    Its last prompt stays until the next one comes: a second choice of the same prompt takes row and
    logits as they are. What stays serves the prompts of its owner alone, as saved rows do.

    Attributes:
        nbytes: of the cache.
    """

    def __init__(self, session: Session, capacity: int, chunk: int, prefixes: Prefixes) -> None:
        self._session, self._prefixes, self._chunk = session, prefixes, chunk
        self._cache = session.new_cache(1, capacity, RESERVE, chunk=chunk)
        self.nbytes = self._cache.nbytes
        self._tokens = np.zeros(0, np.int64)
        self._owner = ""
        self._branch = 0
        self._logits: NDArray[np.float32] | None = None  # (V), once all tokens have been run
        self._state: RowState | None = None

    @property
    def ready(self) -> bool:
        """All tokens have been run."""
        return self._logits is not None

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits (V) after the last token; a copy, the caller's to change."""
        assert self._logits is not None
        return self._logits.copy()

    @property
    def state(self) -> RowState:
        """The row, to be loaded into a slot."""
        assert self.ready
        if self._state is None:
            self._state = self._cache.save_row(0)
        return self._state

    def holds(self, tokens: NDArray[np.int64], owner: str) -> bool:
        """Say whether exactly these tokens have been run for their owner."""
        return self.ready and self._owner == owner and np.array_equal(self._tokens, tokens)

    def begin(self, tokens: NDArray[np.int64], owner: str) -> int:
        """Take up an owner's tokens to be run, and return how many of them need not be."""
        if self.holds(tokens, owner):
            return int(tokens.size)
        self._logits = self._state = None
        found = self._prefixes.find(tokens, owner)
        own = 0
        if self._owner == owner:
            own = self._cache.reachable(0, common_prefix(self._cache.row_tokens(0), tokens[:-1]))
        self._tokens, self._owner = tokens, owner
        length = own
        if found.state is not None and found.length > own:
            self._cache.load_row(0, found.state)
            length = self._cache.reachable(0, found.length)
        self._cache.rewind(length)
        self._branch = found.shared if found.shared >= length + BRANCH else 0
        return length

    def run(self) -> int:
        """Run the next chunk, and return how many tokens it had.

        Raises what `Session.forward` raises.
        """
        begin = int(self._cache.lengths[0])
        end = min(begin + self._chunk, self._tokens.size)
        if begin < self._branch < end:
            end = self._branch
        logits = self._session.forward(self._tokens[None, begin:end], self._cache)
        if end == self._tokens.size:
            self._logits = logits[0, 0]  # (1, 1, V)
            self._keep(end, lambda: self.state)
        elif end == self._branch:
            self._keep(end, lambda: self._cache.save_row(0))
        return end - begin

    def reset(self) -> None:
        """Forget everything, whatever has failed before."""
        self._tokens, self._branch = np.zeros(0, np.int64), 0
        self._logits = self._state = None
        self._cache.reset()

    def close(self) -> None:
        """Free the cache."""
        self._logits = self._state = None
        self._cache.close()

    def _keep(self, length: int, save: Callable[[], RowState]) -> None:
        nbytes = cache_bytes(self._session, 1, length, self._chunk)
        self._prefixes.keep(self._tokens[:length], nbytes, save, self._owner)
