"""Mailbox: what the engine's thread has for one request, until the event loop takes it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Letter = TypeVar("Letter")
_LETTER_BYTES = 400  # of a letter's objects


def _never(_: object, __: object) -> None:
    """Join no letters."""


class Mailbox(Generic[Letter]):
    """A bounded list of letters between two threads: any thread puts, the event loop takes.

    Letters that come while the loop is busy are taken together, and wake it once. Made on the event
    loop.
    """

    def __init__(self, limit: int) -> None:
        """`limit` is the bytes of letters that may wait."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._letters: list[Letter] = []
        self._latest: dict[int, int] = {}  # of each sender, the place among the letters
        self._waiting_bytes, self._limit = 0, limit
        self._is_woken = False
        self._ready = asyncio.Event()

    def put(
        self,
        letter: Letter,
        size: int,
        sender: int = 0,
        join: Callable[[Letter, Letter], Letter | None] = _never,
    ) -> bool:
        """Leave a letter of about `size` bytes; False says that too much waits already.

        The letter is there in any case: the last one says why an answer ended. `join` may make one
        letter of the sender's latest that waits and the new one; `size` is then what it grows by.
        """
        with self._lock:
            latest = self._latest.get(sender)
            joined = None if latest is None else join(self._letters[latest], letter)
            if latest is None or joined is None:
                self._latest[sender] = len(self._letters)
                self._letters.append(letter)
                size += _LETTER_BYTES
            else:
                self._letters[latest] = joined
            self._waiting_bytes += size
            fits = self._waiting_bytes <= self._limit
            wakes, self._is_woken = not self._is_woken, True
        if wakes:
            # A loop that was closed meanwhile: nobody is there to read.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ready.set)
        return fits

    async def take(self, seconds: float) -> list[Letter]:
        """Return all letters as soon as there is one; none if none came in `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return []
        with self._lock:
            letters, self._letters = self._letters, []
            self._latest.clear()
            self._waiting_bytes, self._is_woken = 0, False
            self._ready.clear()
        return letters
