"""BodyRoom: what the bodies of all requests that are being read may take together."""

from collections.abc import Iterator
from contextlib import contextmanager

from gptoss_onnx.serving.errors import unavailable


class BodyRoom:
    """Counts the bytes of bodies from their arrival until they are read; used on the event loop.

    Attributes:
        taken: bytes of all bodies so far.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.taken = 0

    @contextmanager
    def body(self) -> Iterator["Body"]:
        """Count one body as it comes, and give its room back at the end."""
        body = Body(self)
        try:
            yield body
        finally:
            self.taken -= body.nbytes

    def take(self, nbytes: int) -> None:
        """Count some more bytes; raises ApiError (503) where there is no room for them."""
        if self.taken + nbytes > self._most_bytes:
            raise unavailable(
                f"the server is reading {self.taken} bytes of requests, and takes "
                f"{self._most_bytes} at a time"
            )
        self.taken += nbytes


class Body:
    """One body; `nbytes` have come so far."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self.nbytes = 0

    def add(self, nbytes: int) -> None:
        """Count what has come; raises ApiError as `BodyRoom.take`."""
        self._room.take(nbytes)
        self.nbytes += nbytes
