"""Inbox: the bounded queue where callers' threads and the engine's thread meet."""

import threading
from collections import deque
from collections.abc import Callable

from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.refusals import EngineClosedError, QueueFullError


class Inbox:
    """Entries that wait, first come first served, and how many are in the engine at all.

    Every method may be called by any thread.

    Attributes:
        submitted: entries taken.
        refused: entries refused because there were too many.
    """

    def __init__(self, slots: int, max_queue: int) -> None:
        self.submitted = self.refused = 0
        self._most, self._slots, self._max_queue = slots + max_queue, slots, max_queue
        self._waiting: deque[Entry] = deque()
        self._inside = 0  # waiting, in their prompt, or active
        self._refusal: str | None = None
        self._ending = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def refusal(self) -> str | None:
        """Why no more entries are taken; None while they are."""
        return self._refusal

    @property
    def ending(self) -> bool:
        """The engine's thread is to end."""
        return self._ending

    def put(self, entry: Entry, retry_after: Callable[[], int]) -> None:
        """Let an entry in.

        As many may be in the engine as there are slots and places in the queue together: who gets
        a free slot does not count as waiting.

        Raises:
            QueueFullError: there are as many as may be; come again after `retry_after` seconds.
            EngineClosedError: no more are taken.
        """
        with self._changed:
            if self._refusal is not None:
                raise EngineClosedError(self._refusal)
            if self._inside >= self._most:
                self.refused += 1
                seconds = retry_after()
                raise QueueFullError(
                    f"engine: found {self._slots} requests that run and {self._max_queue} that "
                    f"wait, as many as may; expected fewer: try again in {seconds} s",
                    seconds,
                )
            self.submitted += 1
            self._inside += 1
            self._waiting.append(entry)
            self._changed.notify_all()

    def take(self) -> Entry | None:
        """Take the entry that has waited longest, None if nobody waits."""
        with self._changed:
            return self._waiting.popleft() if self._waiting else None

    def put_back(self, entries: list[Entry]) -> None:
        """Let entries that were taken wait again, before all others."""
        with self._changed:
            self._waiting.extendleft(reversed(entries))

    def take_cancelled(self) -> list[Entry]:
        """Take the waiting entries that have been asked to end."""
        with self._changed:
            cancelled = [entry for entry in self._waiting if entry.ticket.cancelled]
            if cancelled:
                self._waiting = deque(
                    entry for entry in self._waiting if not entry.ticket.cancelled
                )
            return cancelled

    def take_all(self) -> list[Entry]:
        """Take every waiting entry."""
        with self._changed:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken

    def wait_for_entry(self) -> None:
        """Wait until somebody waits, or the engine's thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)

    def refuse(self, why: str) -> None:
        """Take no more entries, for a reason that is kept."""
        with self._changed:
            self._refusal = self._refusal or why

    def end(self, why: str) -> None:
        """Take no more entries, and let the engine's thread end."""
        with self._changed:
            if not self._ending:
                self._refusal, self._ending = why, True
            self._changed.notify_all()

    def wait_until_empty(self, timeout: float | None) -> bool:
        """Wait until every entry has ended, and say whether they have in time (seconds)."""
        with self._changed:
            return self._changed.wait_for(lambda: self._inside == 0, timeout)

    def leave(self, _: Entry) -> None:
        """Count an entry that has ended."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()
