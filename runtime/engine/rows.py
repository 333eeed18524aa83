"""ActiveRows: the slots, of which the first ones run; they stay compact.

A active rows, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.memory import RESERVE, cache_bytes
from gptoss_onnx.runtime.engine.prefixes import Prefixes
from gptoss_onnx.runtime.row_state import RowState
from gptoss_onnx.runtime.session import Session


class ActiveRows(Closing):
    """A cache of `slots` rows. Row i < A belongs to the i-th entry; the rows after them cost
    nothing.

    Attributes:
        entries: whose rows run, A of them.
        nbytes: of the cache.
    """

    def __init__(self, session: Session, slots: int, capacity: int, prefixes: Prefixes) -> None:
        self._session, self._slots, self._prefixes = session, slots, prefixes
        # one column a step: the rings of window layers need no room for more
        self._cache = session.new_cache(slots, capacity, RESERVE, chunk=1)
        self.nbytes = self._cache.nbytes
        self.entries: list[Entry] = []

    @property
    def free(self) -> bool:
        """There is a slot for one more."""
        return len(self.entries) < self._slots

    def add(self, entry: Entry, state: RowState) -> None:
        """Give an entry a slot, and load what it has run so far."""
        self._cache.load_row(len(self.entries), state)
        self.entries.append(entry)

    def run(self) -> NDArray[np.float32]:
        """Run the last token of every entry, and return the logits after it, (A, V).

        Raises what `Session.forward` raises.
        """
        last = np.array([[entry.generated[-1]] for entry in self.entries])  # (A, 1)
        return self._session.forward(last, self._cache, rows=len(self.entries))[:, 0]

    def drop_ended(self) -> None:
        """Free the slots of entries that have ended; the last rows move into the gaps.

        What a row holds is kept among the prefixes: the next turn of its chat begins with it.
        """
        for row in reversed(range(len(self.entries))):
            if self.entries[row].ended is None:
                continue
            self._keep(row)
            last = len(self.entries) - 1
            if row < last:
                self._cache.move_row(last, row)
                self.entries[row] = self.entries[last]
            self.entries.pop()

    def reset(self) -> list[Entry]:
        """Forget every row, whatever has failed before, and return whose they were."""
        entries, self.entries = self.entries, []
        self._cache.reset()
        return entries

    def close(self) -> None:
        """Free the cache."""
        self._cache.close()

    def _keep(self, row: int) -> None:
        if self.entries[row].ended == "error":
            return
        tokens = self._cache.row_tokens(row)
        nbytes = cache_bytes(self._session, 1, tokens.size, 1)
        owner = self.entries[row].request.owner
        self._prefixes.keep(tokens, nbytes, lambda: self._cache.save_row(row), owner)
