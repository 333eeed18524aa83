"""Ctrl-C that is not lost, for what prints piece by piece."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

Piece = TypeVar("Piece")


def interruptible(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield the pieces until Ctrl-C, which raises KeyboardInterrupt.

    Python ignores what is raised in a destructor or in a callback. A Ctrl-C that comes in one ends
    this before the next piece.
    """
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()  # no other can set a handler
    if before is not signal.default_int_handler or not is_main:
        yield from pieces
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    try:
        signal.signal(signal.SIGINT, note)
        for piece in pieces:
            if came:
                raise KeyboardInterrupt
            yield piece
        if came:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)
