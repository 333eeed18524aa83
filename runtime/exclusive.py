"""Exclusive: an object that one thread uses at a time refuses a second one at once."""

import threading
from types import TracebackType

from gptoss_onnx.errors import InputError


class Exclusive:
    """A context manager around each use of an object; entering it while another use goes on raises
    InputError.

    It never waits: two threads that share a cache by mistake would otherwise mix two texts in it,
    one call after the other. A use inside another use of the same object is refused too.
    """

    def __init__(self, what: str, remedy: str) -> None:
        self._lock = threading.Lock()
        self._what, self._remedy = what, remedy

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise InputError(
                f"{self._what}: found it in use by another call, expected one call at a time; "
                f"{self._remedy}"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
