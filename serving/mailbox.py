"""Mailbox: what the engine's thread has for one request, until the event loop takes it."""

import asyncio
import contextlib
import threading
from typing import Generic, TypeVar

Letter = TypeVar("Letter")


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
        self._waiting_bytes, self._limit = 0, limit
        self._is_woken = False
        self._ready = asyncio.Event()

    def put(self, letter: Letter, size: int) -> bool:
        """Leave a letter of about `size` bytes; False says that too much waits already.

        The letter is there in any case: the last one says why an answer ended.
        """
        with self._lock:
            self._letters.append(letter)
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
            self._waiting_bytes, self._is_woken = 0, False
            self._ready.clear()
        return letters
